"""Public names: what people have in their notes stays."""

import subprocess
import sys

import torch

from hrm.cli.evaluate import EvaluateConfig
from hrm.device import _has_compiler
from hrm.models.registry import ArchConfig
from hrm.training.config import PretrainConfig, load_pretrain_config

PRETRAIN_KEYS = """arch data_path global_batch_size micro_batch_size epochs eval_interval seed lr
lr_min_ratio lr_warmup_steps weight_decay beta1 beta2 puzzle_emb_lr puzzle_emb_weight_decay
puzzle_emb_dropout ema ema_decay grad_clip max_skipped_steps eval_halting eval_halt_probability
eval_save_outputs early_stop checkpoint_interval checkpoint_every_eval keep_checkpoints resume
project_name run_name checkpoint_path overwrite logger log_interval progress device compile
deterministic rank_timeout"""
ARCH_KEYS = """hidden_size num_heads H_layers L_layers expansion H_cycles L_cycles halt_max_steps
halt_exploration_prob pos_encodings puzzle_emb_ndim forward_dtype backprop q_continue qk_norm
attention_bias puzzle_emb_mode name loss"""
EVALUATE_KEYS = """checkpoint data_path split halting halt_probability global_batch_size weights
allow_leakage eval_save_outputs device compile"""


def test_keys_are_frozen():
    assert sorted(PretrainConfig.model_fields) == sorted(PRETRAIN_KEYS.split())
    assert sorted(ArchConfig.model_fields) == sorted(ARCH_KEYS.split())
    assert sorted(EvaluateConfig.model_fields) == sorted(EVALUATE_KEYS.split())


def test_defaults_are_the_walkthroughs():
    config = load_pretrain_config([])
    expected = {"global_batch_size": 384, "epochs": 20000, "lr": 7e-5, "lr_min_ratio": 0.1}
    expected |= {"lr_warmup_steps": 100, "weight_decay": 1.0, "beta1": 0.9, "beta2": 0.95}
    expected |= {"eval_interval": 2000, "puzzle_emb_dropout": 0.1, "puzzle_emb_lr": 7e-5}
    assert {key: getattr(config, key) for key in expected} == expected


def test_all_recipes_compose():
    for arch in ("hrm_v1", "hrm_walkthrough", "quickstart"):
        load_pretrain_config([f"arch={arch}"])
    for size in ("4x4", "6x6", "9x9"):
        load_pretrain_config([], f"quickstart_{size}")


def test_submodules_are_found_from_the_package_alone():
    code = "import hrm; hrm.optim.build_optimizers; hrm.data.PuzzleDataset; hrm.build_model"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_builder_needs_no_torch():
    code = "import sys, hrm.tasks.sudoku.builder; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_looking_for_a_compiler_works_for_every_device():
    for name in ("cpu", "cuda", "mps"):
        assert _has_compiler(torch.device(name)) in (True, False)
