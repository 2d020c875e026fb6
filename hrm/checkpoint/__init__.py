"""Checkpoints: the one owner of what a run leaves on disk."""

from hrm.checkpoint.config import RunConfig, load_config, save_config
from hrm.checkpoint.export import export_checkpoint
from hrm.checkpoint.finding import find_checkpoint, shipped_models
from hrm.checkpoint.folder import (
    Checkpoint,
    build_for,
    initial_weights,
    load_checkpoint,
    save_artefacts,
    save_checkpoint,
    save_predictions,
)
from hrm.checkpoint.layout import saved_steps, step_dir
from hrm.checkpoint.weights import load_weights, read_rows, read_weights

__all__ = [
    "Checkpoint",
    "RunConfig",
    "build_for",
    "export_checkpoint",
    "find_checkpoint",
    "initial_weights",
    "load_checkpoint",
    "load_config",
    "load_weights",
    "read_rows",
    "read_weights",
    "save_artefacts",
    "save_checkpoint",
    "save_config",
    "save_predictions",
    "saved_steps",
    "shipped_models",
    "step_dir",
]
