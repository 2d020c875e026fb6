"""Optimizers: AdamATan2 for parameters, sparse sign-SGD for the puzzle embedding."""

from hrm.optim.adam_atan2 import AdamATan2
from hrm.optim.groups import build_optimizers
from hrm.optim.sparse_sign_sgd import SparseSignSGD

__all__ = ["AdamATan2", "SparseSignSGD", "build_optimizers"]
