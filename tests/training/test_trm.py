"""A Tiny Recursive Model through training, resuming and evaluating; published checkpoints of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from hrm.checkpoint import build_for, load_checkpoint, save_checkpoint
from hrm.data import PuzzleDataset, PuzzleDatasetConfig
from hrm.data.format import read_metadata
from hrm.errors import UserError
from hrm.evaluation import evaluate
from hrm.inference import Solver
from hrm.ranks import Ranks
from hrm.training.config import load_pretrain_config
from tests.keys.test_trm_keys import TINY_TRM
from tests.keys.training import Run, run

ALONE, CPU = Ranks(0, 1, 0), torch.device("cpu")
PUBLISHED = "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1"
KEYS = (*TINY_TRM, "global_batch_size=25", "epochs=2", "lr=1e-2")
MIXING = {"attention": (), "mlp_t": ("arch.mlp_t=true", "arch.pos_encodings=none")}


def trained(data: Path, folder: Path, *keys: str) -> Run:
    average = ("ema=true", "ema_decay=0.8", "ema_warm_up=false", "ema_buffers=false")
    return run(data, folder, *average, *keys, base=KEYS)


def assert_same(ours: Run, theirs: Run, step: int, tolerance: float = 0.0) -> None:
    for kind in ("model", "ema"):
        for name, tensor in theirs.weights(step, kind).items():
            found = ours.weights(step, kind)[name]
            torch.testing.assert_close(found, tensor, rtol=0, atol=tolerance, msg=f"{kind} {name}")


@pytest.mark.parametrize("mixing", MIXING.values(), ids=MIXING)
def test_a_run_is_resumed_bit_for_bit_and_micro_batches_are_the_whole(data_4x4, tmp_path, mixing):
    whole = trained(data_4x4, tmp_path / "whole", *mixing)
    assert whole.steps == list(range(1, 9))
    table = "model.inner.puzzle_emb.weights"
    assert whole.weights(8)[table].abs().max() > 0.1
    assert torch.equal(whole.weights(8, "ema")[table], whole.weights(8)[table])
    start = whole.file(3, "")
    resumed = trained(data_4x4, tmp_path / "resumed", *mixing, f"resume={start}")
    assert_same(resumed, whole, 8)
    assert resumed.lines[-1] == whole.lines[-1]
    small = trained(data_4x4, tmp_path / "small", *mixing, "micro_batch_size=5", "epochs=1")
    assert_same(small, whole, 1, tolerance=1e-5)


def test_positions_that_are_ignored_are_said(data_4x4, tmp_path, capsys):
    said = "arch.pos_encodings=rope: ignored with arch.mlp_t"
    for name, mixing in MIXING.items():
        trained(data_4x4, tmp_path / name, *mixing)
        assert said not in capsys.readouterr().out
    trained(data_4x4, tmp_path / "rope", "arch.mlp_t=true", "arch.pos_encodings=rope")
    assert capsys.readouterr().out.count(said) == 1


# -- published checkpoints -----------------------------------------------------------------------


def saved(data: Path, folder: Path, *keys: str) -> tuple[Path, dict[str, Tensor]]:
    """Our checkpoint of a model whose start states are exact in bfloat16, and its weights."""
    config = load_pretrain_config([f"data_path={data}", "run_name=x", *KEYS, *keys])
    metadata = read_metadata(data / "train")
    torch.manual_seed(0)
    state = build_for(config, metadata).state_dict()
    for name in ("H_init", "L_init"):
        state[f"model.inner.{name}"] = state[f"model.inner.{name}"].bfloat16().float()
    state["model.inner.puzzle_emb.weights"].normal_()
    state["model.inner.q_head.weight"].normal_()
    state["model.inner.q_head.bias"].zero_()
    return save_checkpoint(folder, 7, config, metadata, state), state


def published(folder: Path, data: Path, state: dict[str, Tensor], **arch: Any) -> Path:
    """The same as the original writes it: a pickled file and its configuration."""
    folder.mkdir()
    state = {
        f"_orig_mod.{name}": t.bfloat16() if name.endswith("_init") else t
        for name, t in state.items()
    }
    torch.save(state, folder / "step_7")
    given = {"hidden_size": 16, "num_heads": 2, "H_layers": 0, "L_layers": 1, "expansion": 1}
    given |= {"H_cycles": 2, "L_cycles": 2, "halt_max_steps": 4, "halt_exploration_prob": 0.1}
    given |= {"name": PUBLISHED, "pos_encodings": "rope", "forward_dtype": "float32"}
    given |= {"loss": {"loss_type": "stablemax_cross_entropy", "name": "losses@ACTLossHead"}}
    given |= {"puzzle_emb_ndim": 16, "puzzle_emb_len": 2, "mlp_t": False, "no_ACT_continue": True}
    given |= {"causal": False, "batch_size": 768, "vocab_size": 5, "rms_norm_eps": 1e-5}
    values = {"arch": given | arch, "data_paths": [str(data)], "data_paths_test": []}
    values |= {"evaluators": [{"name": "arc@ARC"}], "global_batch_size": 16, "epochs": 100000}
    values |= {"ema": True, "ema_rate": 0.999, "freeze_weights": False, "load_checkpoint": None}
    values |= {"lr": 1e-4, "puzzle_emb_lr": 0.01, "min_eval_interval": 0, "seed": 0}
    (folder / "all_config.yaml").write_text(yaml.safe_dump(values))
    return folder / "step_7"


def results(path: Path, data: Path) -> tuple[dict[str, float], list[tuple]]:
    """Metrics on the test split, and what the solver says of three of its puzzles."""
    checkpoint = load_checkpoint(path)
    config = PuzzleDatasetConfig(
        seed=0,
        dataset_path=data,
        global_batch_size=16,
        test_set_mode=True,
        epochs_per_iter=1,
        rank=0,
        num_replicas=1,
    )
    evaluated = evaluate(checkpoint.model, PuzzleDataset(config, "test"), CPU, ALONE, "max_steps")
    solver = Solver.from_checkpoint(path, device="cpu")
    solved = solver.solve(["1" + "." * 15, "." * 16], halting="max_steps")
    return evaluated.named(), [(s.answer, s.steps, s.halt_probability) for s in solved]


@pytest.mark.parametrize("mixing", MIXING)
def test_a_published_checkpoint_is_evaluated_and_solves_like_ours(data_4x4, tmp_path, mixing):
    ours, state = saved(data_4x4, tmp_path / "ours", *MIXING[mixing])
    arch = {"mlp_t": mixing == "mlp_t", "pos_encodings": "none" if mixing == "mlp_t" else "rope"}
    theirs = published(tmp_path / "theirs", data_4x4, state, **arch)
    assert results(theirs, data_4x4) == results(ours, data_4x4)
    assert load_checkpoint(theirs).config.arch.name == PUBLISHED
    assert load_checkpoint(theirs).config.arch.q_continue is False


def test_a_published_checkpoint_is_exported_and_goes_everywhere_then(data_4x4, tmp_path, call):
    _, state = saved(data_4x4, tmp_path / "ours")
    theirs = published(tmp_path / "theirs", tmp_path / "absent", state, pos_encodings="rope")
    mine = str(tmp_path / "mine")
    assert call("export", str(theirs), "--output-dir", mine)[0] == 2
    words = "--output-dir", mine, "--data-path", str(data_4x4)
    code, _, err = call("export", str(theirs), *words)
    assert (code, err) == (0, "")
    given = {"puzzles": ["1" + "." * 15], "steps": 2}
    [ours], [solved] = (
        Solver.from_checkpoint(path, "cpu", data_path=data).solve(**given)
        for path, data in ((theirs, data_4x4), (mine, None))
    )
    assert solved.answer == ours.answer


@pytest.mark.parametrize(
    "change, words",
    [
        ({"arch": {"pos_encodings": "alibi"}}, ["arch.pos_encodings", "alibi", "none"]),
        ({"arch": {"puzzle_emb_len": 1, "puzzle_emb_ndim": 17}}, ["puzzle_emb_len 1", "17"]),
        ({"arch": {"rope_theta": 500}}, ["rope_theta 500", "10000"]),
        ({"arch": {"colour": "red"}}, ["arch.colour: unknown key"]),
        ({"data_paths": ["a", "b"]}, ["data_paths"]),
        ({"arch": {"mlp_t": True}}, ["tensor", "mlp_t"]),
    ],
    ids=str,
)
def test_what_is_not_known_here_is_refused_in_one_line(data_4x4, tmp_path, change, words):
    _, state = saved(data_4x4, tmp_path / "ours")
    path = published(tmp_path / "theirs", data_4x4, state, **change.pop("arch", {}))
    config = path.parent / "all_config.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | change))
    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_an_mlp_over_positions_refuses_data_of_another_length(data_4x4, tmp_path):
    _, state = saved(data_4x4, tmp_path / "ours", *MIXING["mlp_t"])
    path = published(tmp_path / "theirs", data_4x4, state, mlp_t=True, pos_encodings="none")
    other = tmp_path / "longer" / "train"
    other.mkdir(parents=True)
    metadata = read_metadata(data_4x4 / "train").model_copy(
        update={"seq_len": 36, "grid_shape": (6, 6), "box_shape": (2, 3)}
    )
    (other / "dataset.json").write_text(metadata.model_dump_json())
    with pytest.raises(UserError, match="mlp_t.* 18 positions.* 38; name the data set"):
        load_checkpoint(path, data_path=other.parent)
