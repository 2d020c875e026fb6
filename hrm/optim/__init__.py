"""Optimizers: AdamATan2, Muon, sparse sign-SGD for the puzzle embedding; the running average."""

from hrm.optim.adam_atan2 import AdamATan2
from hrm.optim.ema import EMA
from hrm.optim.groups import build_optimizers
from hrm.optim.muon import Muon
from hrm.optim.sparse_sign_sgd import SparseSignSGD

__all__ = ["EMA", "AdamATan2", "Muon", "SparseSignSGD", "build_optimizers"]
