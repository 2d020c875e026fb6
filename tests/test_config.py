"""Public names: what people have in their notes stays."""

import subprocess
import sys
from operator import attrgetter
from pathlib import Path

import pytest
import torch

from hrm.cli.evaluate import EvaluateConfig
from hrm.config import RECIPES
from hrm.device import has_compiler
from hrm.errors import UserError
from hrm.models.registry import CORES
from hrm.training.config import PretrainConfig, load_pretrain_config

PRETRAIN_KEYS = """aggregated_voting
arch data_path global_batch_size micro_batch_size epochs eval_interval seed lr
lr_min_ratio lr_warmup_steps weight_decay beta1 beta2 puzzle_emb_lr puzzle_emb_weight_decay
puzzle_emb_dropout ema ema_decay ema_warm_up ema_buffers grad_clip max_skipped_steps
eval_halting eval_limit eval_halt_probability eval_max_steps eval_save_outputs early_stop
checkpoint_interval checkpoint_every_eval keep_checkpoints resume load_checkpoint
project_name run_name checkpoint_path overwrite logger log_interval progress device compile
cuda_graph deterministic rank_timeout stagger hint_rate hint_most optimizer muon_lr
muon_weight_decay muon_momentum"""
ARCH_KEYS = """hidden_size L_layers expansion H_cycles L_cycles halt_max_steps
halt_exploration_prob forward_dtype backprop q_continue name loss"""
ATTENTION_KEYS = "num_heads pos_encodings puzzle_emb_ndim qk_norm attention_bias"
CORE_KEYS = {
    "hrm_act_v1": f"{ATTENTION_KEYS} H_layers puzzle_emb_mode",
    "trm": f"{ATTENTION_KEYS} mlp_t puzzle_emb_len",
    "symbol_equivariant": "message_size first_symbol",
}
EVALUATE_KEYS = """checkpoint data_path split halting halt_probability global_batch_size weights
allow_leakage eval_save_outputs device compile steps restarts noise rollouts guesses select seed
predictions artefacts_dir"""


def test_keys_are_frozen():
    assert sorted(PretrainConfig.model_fields) == sorted(PRETRAIN_KEYS.split())
    assert CORES.keys() == CORE_KEYS.keys()
    for core, keys in CORE_KEYS.items():
        expected = sorted(f"{ARCH_KEYS} {keys}".split())
        assert sorted(CORES[core].schema.model_fields) == expected
    assert sorted(EvaluateConfig.model_fields) == sorted(EVALUATE_KEYS.split())


def test_defaults_are_the_walkthroughs():
    config = load_pretrain_config([])
    expected = {"global_batch_size": 384, "epochs": 20000, "lr": 7e-5, "lr_min_ratio": 0.1}
    expected |= {"lr_warmup_steps": 100, "weight_decay": 1.0, "beta1": 0.9, "beta2": 0.95}
    expected |= {"eval_interval": 2000, "puzzle_emb_dropout": 0.1, "puzzle_emb_lr": 7e-5}
    assert {key: getattr(config, key) for key in expected} == expected


def test_all_recipes_compose():
    for arch in (RECIPES / "arch").glob("*.yaml"):
        load_pretrain_config([f"arch={arch.stem}"])
    for recipe in RECIPES.glob("*.yaml"):
        load_pretrain_config([], recipe.stem)


@pytest.mark.parametrize(
    "recipe, published",
    [
        ("trm_sudoku", {"arch.L_cycles": 6, "arch.mlp_t": False, "arch.pos_encodings": "rope"}),
        ("trm_sudoku_mlp", {"arch.L_cycles": 6, "arch.mlp_t": True, "arch.pos_encodings": "none"}),
        ("trm_maze", {"arch.L_cycles": 4, "data_path": Path("data/maze-30x30-hard-1k")}),
        ("trm_arc1", {"arch.L_cycles": 4, "data_path": Path("data/arc1concept-aug-1000")}),
        ("trm_arc2", {"arch.L_cycles": 4, "data_path": Path("data/arc2concept-aug-1000")}),
    ],
)
def test_recipes_of_trm_are_as_published(recipe, published):
    """What the README's command gives, and the original's defaults for the rest."""
    config = load_pretrain_config([], recipe)
    arch = {"H_cycles": 3, "L_layers": 2, "hidden_size": 512, "num_heads": 8, "expansion": 4}
    arch |= {"halt_max_steps": 16, "halt_exploration_prob": 0.1, "puzzle_emb_ndim": 512}
    arch |= {"puzzle_emb_len": 16, "forward_dtype": "bfloat16", "q_continue": False}
    arch |= {"loss.loss_type": "stablemax_cross_entropy", "loss.q_halt_weight": 0.5}
    expected = {f"arch.{key}": value for key, value in arch.items()}
    expected |= {"global_batch_size": 768, "lr": 1e-4, "lr_min_ratio": 1, "lr_warmup_steps": 2000}
    expected |= {"beta1": 0.9, "beta2": 0.95, "seed": 0, "ema": True, "ema_decay": 0.999}
    expected |= {"ema_warm_up": False, "ema_buffers": False, "puzzle_emb_dropout": 0}
    if "arc" in recipe:
        expected |= {"epochs": 100000, "eval_interval": 10000, "weight_decay": 0.1}
        expected |= {"puzzle_emb_lr": 1e-2, "puzzle_emb_weight_decay": 0.1}
    else:
        expected |= {"epochs": 50000, "eval_interval": 5000, "weight_decay": 1}
        expected |= {"puzzle_emb_lr": 1e-4, "puzzle_emb_weight_decay": 1}
    found = {key: attrgetter(key)(config) for key in {**expected, **published}}
    assert found == expected | published


def test_submodules_are_found_from_the_package_alone():
    code = "import hrm; hrm.optim.build_optimizers; hrm.data.PuzzleDataset; hrm.build_model"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_builder_needs_no_torch():
    code = "import sys, hrm.tasks.sudoku.builder; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_looking_for_a_compiler_works_for_every_device():
    for name in ("cpu", "cuda", "mps"):
        assert has_compiler(torch.device(name)) in (True, False)


@pytest.mark.parametrize(
    "overrides, name, words",
    [
        (["arch=tmr"], "cfg_pretrain", ["arch=tmr: not found; choose one of", "hrm_v1", ", trm,"]),
        ([], "quickstart", ["--config-name=quickstart: not found", "quickstart_4x4"]),
    ],
)
def test_a_recipe_that_is_not_there_names_those_that_are(overrides, name, words):
    with pytest.raises(UserError) as caught:
        load_pretrain_config(overrides, name)
    for word in words:
        assert word in str(caught.value)
    assert "_schema" not in str(caught.value)
