"""Optimizers: AdamATan2, sparse sign-SGD for the puzzle embedding; the running average."""

from hrm.optim.adam_atan2 import AdamATan2
from hrm.optim.ema import EMA
from hrm.optim.groups import build_optimizers
from hrm.optim.sparse_sign_sgd import SparseSignSGD

__all__ = ["EMA", "AdamATan2", "SparseSignSGD", "build_optimizers"]
