"""Every key of a training run acts, but for those of the optimizers and of the architecture."""

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hrm.data import PuzzleDataset, PuzzleDatasetConfig
from hrm.errors import TrainingDiverged, UserError
from hrm.models.losses import ACTLossHead
from hrm.optim.groups import OptimConfig
from hrm.ranks import Ranks
from hrm.training import graph
from hrm.training.config import PretrainConfig, load_pretrain_config
from hrm.training.loggers import TensorBoardLogger
from hrm.training.splits import open_split
from hrm.training.state import TrainState
from tests.tasks.arc.making import plain_result

from .commands import command, done
from .registry import Registry
from .spies import compiled_modules, rows_per_pass
from .training import BATCH, PUZZLES, TABLE, TEST_PUZZLES, TINY, run

acts = Registry()
STILL = ("lr=0", "puzzle_emb_lr=0")
HALTS_AT_ONCE = ("arch.q_continue=false", *STILL)  # where q_halt begins at 5


@pytest.fixture
def eager(monkeypatch) -> None:
    """Fresh models are sure to be right, so that they want to halt after the first step."""
    monkeypatch.setattr("hrm.models.recurrence.Q_HEAD_BIAS", 5.0)


# ---- model and data ----


@acts("arch")
def test_the_architecture_is_the_one_that_is_named(data, tmp_path, plain):
    made = run(data, tmp_path / "run", "arch=quickstart", "epochs=1")
    bias = "model.inner.H_level.layers.0.self_attn.bias.weight"
    assert bias in made.weights(2) and bias not in plain.weights(2)


@acts("data_path")
def test_the_data_are_those_that_are_named(other_data, tmp_path, plain):
    made = run(other_data, tmp_path / "run")
    assert made.steps == [1, 2] and plain.steps == [1, 2, 3, 4]
    assert len(made.weights(1)[TABLE]) == 16 and len(plain.weights(1)[TABLE]) == PUZZLES
    assert made.logged("eval/count") == [5]


@acts("global_batch_size")
def test_a_smaller_batch_makes_more_steps(data, tmp_path):
    made = run(data, tmp_path / "run", "global_batch_size=8")
    assert made.steps == list(range(1, 9))
    assert len(made.kept(1, "carry/")["steps"]) == 8


@acts("seed")
def test_weights_begin_as_the_seed_says(data, tmp_path, frozen):
    other = run(data, tmp_path / "other", "seed=1", "epochs=1", *STILL)
    same = run(data, tmp_path / "same", "seed=0", "epochs=1", *STILL)
    for name, weight in frozen.weights(1).items():
        assert torch.equal(same.weights(1)[name], weight)
        if weight.std() > 0:
            assert not torch.equal(other.weights(1)[name], weight), name


@acts("seed")
@pytest.mark.parametrize("seed", [0, 1])
def test_data_come_in_the_order_of_the_seed(data, tmp_path, seed):
    made = run(data, tmp_path / "run", f"seed={seed}", "epochs=1", "arch.halt_max_steps=1")
    expected = PuzzleDataset(
        PuzzleDatasetConfig(
            seed=seed,
            dataset_path=data,
            global_batch_size=BATCH,
            test_set_mode=False,
            epochs_per_iter=1,
            rank=0,
            num_replicas=1,
        )
    )
    for step in (1, 2):
        assert torch.equal(
            made.kept(step, "carry/current_data/")["inputs"],
            expected.batch(0, step - 1)[1]["inputs"],
        )


@acts("seed")
@pytest.mark.parametrize("drawn, probability, most", [("whether", 0.5, 2), ("how long", 1, 4)])
def test_exploration_is_drawn_from_the_seed(data, tmp_path, eager, drawn, probability, most):
    """Every sequence wants to halt, whatever its data: only exploration keeps it from that.

    With two steps at most, the minimum that is drawn can only be 2.
    """
    explores = (f"arch.halt_exploration_prob={probability}", f"arch.halt_max_steps={most}")
    halted = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        made = run(data, tmp_path / name, f"seed={seed}", *explores, *HALTS_AT_ONCE)
        halted[name] = torch.stack([made.kept(step, "carry/")["halted"] for step in range(1, 5)])
    assert torch.equal(halted["first"], halted["again"])
    assert not torch.equal(halted["first"], halted["other"])


@acts("puzzle_emb_dropout")
def test_as_many_rows_as_configured_lose_their_identity(data, tmp_path, plain):
    every = run(data, tmp_path / "every", "puzzle_emb_dropout=1")
    assert every.weights(4)[TABLE].count_nonzero() == 0
    assert (every.kept(1, "carry/current_data/")["puzzle_identifiers"] == -1).all()
    half = run(data, tmp_path / "half", "puzzle_emb_dropout=0.5", "epochs=1")
    lost = half.kept(1, "carry/current_data/")["puzzle_identifiers"] == -1
    assert 0.1 < lost.float().mean() < 0.9
    assert (plain.kept(1, "carry/current_data/")["puzzle_identifiers"] >= 0).all()
    assert (plain.weights(4)[TABLE] != 0).any(1).sum() >= BATCH


@acts("micro_batch_size")
@pytest.mark.parametrize("given, rows", [("4", 4), ("null", BATCH), ("auto", 2)])
def test_a_step_has_as_many_passes_as_micro_batches(data, tmp_path, monkeypatch, given, rows):
    monkeypatch.setattr("hrm.device.CPU_STATE", 2 * 17 * 16)  # of two sequences
    seen = rows_per_pass(monkeypatch)
    keys = (f"micro_batch_size={given}", "epochs=1", "arch.q_continue=false")
    run(data, tmp_path / "run", *keys)
    assert seen[: BATCH // rows] == [rows] * (BATCH // rows)


def shown_at_first(made):
    """Of each puzzle's answer, what stands in the question that it is trained with."""
    held = made.kept(1, "carry/current_data/")
    return (held["inputs"] == held["labels"]).float().mean(1)


@acts("hint_rate")
def test_as_many_puzzles_as_configured_show_some_of_their_answer(data, tmp_path, plain):
    every = shown_at_first(run(data, tmp_path / "every", "hint_rate=1", "hint_most=1", "epochs=1"))
    half = shown_at_first(run(data, tmp_path / "half", "hint_rate=0.5", "epochs=1"))
    bare = shown_at_first(plain)
    assert (every > bare).float().mean() > 0.8
    assert 0.1 < (half > bare).float().mean() < 0.9


@acts("hint_most")
def test_no_more_of_an_answer_is_shown_than_configured(data, tmp_path, plain):
    keys = ("hint_rate=1", "epochs=1")
    none = shown_at_first(run(data, tmp_path / "none", "hint_most=0", *keys))
    most = shown_at_first(run(data, tmp_path / "most", "hint_most=1", *keys))
    assert torch.equal(none, shown_at_first(plain))
    assert most.max() > 0.8


# ---- how long, and what ends a run ----


@acts("stagger")
def test_the_rows_of_a_batch_are_of_all_ages(data, tmp_path, plain):
    rows = torch.arange(BATCH)
    made = run(data, tmp_path / "run", "stagger=true", "epochs=3", "micro_batch_size=8")
    for step in range(1, 7):
        age = (rows + step - 1) % 4 + 1  # of at most 4; row 3 is at its last step in the first
        assert torch.equal(made.kept(step, "carry/")["steps"].long(), age)
    assert made.logged("train/count") == [4] * 6 and made.logged("train/steps") == [4] * 6
    assert plain.kept(2, "carry/")["steps"].tolist() == [2] * BATCH
    assert plain.logged("train/count") == [0, 0, 0, BATCH]


@acts("epochs")
def test_a_run_has_as_many_epochs_as_configured(data, tmp_path):
    assert run(data, tmp_path / "run", "epochs=3").steps[-1] == 3 * PUZZLES // BATCH


@acts("eval_interval")
def test_evaluations_come_at_their_interval(data, tmp_path, plain):
    made = run(data, tmp_path / "run", "epochs=4", "eval_interval=2")
    assert [line["step"] for line in made.lines if "eval/count" in line] == [4, 8]
    assert [line["step"] for line in plain.lines if "eval/count" in line] == [4]


@acts("eval_limit")
def test_a_sample_is_evaluated_until_the_last_time(data, tmp_path):
    made = run(data, tmp_path / "run", "eval_interval=1", "eval_limit=5")
    assert made.logged("eval/count") == [5, TEST_PUZZLES]


@acts("eval_limit")
def test_a_sample_of_votes_is_refused(voted, tmp_path):
    with pytest.raises(UserError, match="eval_limit=5: all versions of a task vote here"):
        run(voted.path, tmp_path / "run", "eval_limit=5")
    assert not (tmp_path / "run").exists()


@acts("early_stop")
def test_a_run_ends_after_evaluations_that_are_no_better(data, tmp_path):
    made = run(data, tmp_path / "run", "epochs=6", "eval_interval=1", "early_stop=2", *STILL)
    assert made.steps[-1] == 6  # the first evaluation, at step 2, stays the best
    longer = run(data, tmp_path / "longer", "epochs=6", "eval_interval=1", *STILL)
    assert longer.steps[-1] == 12


@acts("max_skipped_steps")
@pytest.mark.parametrize("most", [1, 3])
def test_a_run_ends_after_so_many_unsound_steps(data, tmp_path, monkeypatch, most):
    original = ACTLossHead.sequence_losses

    def spoiled(head, outputs, labels):
        losses = original(head, outputs, labels)
        return losses | {"lm_loss": losses["lm_loss"] * torch.nan}

    monkeypatch.setattr(ACTLossHead, "sequence_losses", spoiled)
    with pytest.raises(TrainingDiverged, match=f"{most} steps in a row were not finite"):
        run(data, tmp_path / "run", f"max_skipped_steps={most}", "checkpoint_interval=null")
    assert (tmp_path / "run/metrics.jsonl").read_text().count("\n") == most


# ---- evaluation ----


@acts("eval_halting")
@pytest.mark.parametrize("halting, steps", [("learned", 1), ("max_steps", 4)])
def test_evaluation_halts_as_configured(data, tmp_path, eager, halting, steps):
    made = run(data, tmp_path / "run", f"eval_halting={halting}", "epochs=1", *HALTS_AT_ONCE)
    assert made.logged("eval/steps") == [steps]


@acts("eval_halting")
def test_the_last_evaluation_may_take_all_steps(data, tmp_path, eager):
    keys = ("eval_halting=learned_until_end", "epochs=2", "eval_interval=1")
    assert run(data, tmp_path / "run", *keys, *HALTS_AT_ONCE).logged("eval/steps") == [1, 4]


@acts("eval_halt_probability")
@pytest.mark.parametrize("probability, steps", [(0.99, 1), (0.999, 4)])
def test_evaluation_asks_for_that_probability(data, tmp_path, eager, probability, steps):
    """sigmoid(5) is 0.9933."""
    keys = ("eval_halting=learned", f"eval_halt_probability={probability}", "epochs=1")
    assert run(data, tmp_path / "run", *keys, *HALTS_AT_ONCE).logged("eval/steps") == [steps]


@acts("eval_max_steps")
@pytest.mark.parametrize("halting, steps", [("learned", 7), ("max_steps", 4)])
def test_learned_halting_may_take_more_steps(data, tmp_path, eager, halting, steps):
    """It halts nowhere before, since sigmoid(5) is less than it asks for."""
    keys = ("eval_halt_probability=0.999", f"eval_halting={halting}", "eval_max_steps=7")
    made = run(data, tmp_path / "run", *keys, "epochs=1", *HALTS_AT_ONCE)
    assert made.logged("eval/steps") == [steps]


@acts("eval_save_outputs")
def test_outputs_of_an_evaluation_are_saved_by_name(data, tmp_path, plain):
    made = run(data, tmp_path / "run", "eval_save_outputs=[predictions,steps]")
    saved = load_file(made.file(4, "predictions.safetensors"))
    assert {name: tuple(t.shape) for name, t in saved.items()} == {
        "predictions": (12, 16),
        "steps": (12,),
    }
    assert not plain.file(4, "predictions.safetensors").exists()


@acts("aggregated_voting")
def test_votes_add_up_where_asked(data, voted, tmp_path, capsys):
    """What a run submits is what its saved predictions vote for: the last ones, or all."""
    names = ("inputs", "puzzle_identifiers", "predictions", "q_halt_logits")
    keys = ("global_batch_size=4", "eval_interval=1", "arch.halt_max_steps=1", "arch.L_cycles=1")
    keys = (*keys, f"eval_save_outputs=[{','.join(names)}]", "lr=1e-3")
    for asked in ("false", "true"):
        made = run(voted.path, tmp_path / asked, *keys, f"aggregated_voting={asked}")
        batches = []
        for step in (2, 4):
            outputs = load_file(made.file(step, "predictions.safetensors"))
            renamed = zip((*names[:2], "preds", names[3]), names, strict=True)
            batches.append({name: outputs[saved].numpy() for name, saved in renamed})
        submissions = [plain_result(voted, of)[1] for of in (batches[1:], batches)]
        assert submissions[0] != submissions[1]
        written = made.file(4, "evaluator_ARC_step_4/submission.json").read_text()
        assert json.loads(written) == submissions[asked == "true"]
    capsys.readouterr()
    more = ("resume=auto", "epochs=3", "aggregated_voting=true")
    run(voted.path, tmp_path / "true", *keys, *more)
    assert "aggregated_voting: checkpoints hold no votes; counting" in capsys.readouterr().out
    with pytest.raises(UserError, match="aggregated_voting=true: nothing is voted on in"):
        run(data, tmp_path / "sudoku", "aggregated_voting=true")
    assert not (tmp_path / "sudoku").exists()


# ---- checkpoints ----


@acts("checkpoint_interval")
@pytest.mark.parametrize(
    "interval, steps",
    [("1", [1, 2, 3, 4]), ("3", [3, 4]), ("null", [4]), ("1000min", [4])]
    + [("0.000001min", [1, 2, 3, 4])],
)
def test_checkpoints_come_at_their_interval(data, tmp_path, interval, steps):
    assert run(data, tmp_path / "run", f"checkpoint_interval={interval}").steps == steps


@acts("keep_checkpoints", "checkpoint_every_eval")
@pytest.mark.parametrize(
    "keys, steps",
    [
        (("keep_checkpoints=1",), [2, 8]),  # the best, and the last
        (("keep_checkpoints=2",), [2, 7, 8]),
        (("keep_checkpoints=null",), list(range(1, 9))),
        (("keep_checkpoints=1", "checkpoint_every_eval=true"), [2, 4, 6, 8]),
    ],
)
def test_as_many_checkpoints_are_kept_as_configured(data, tmp_path, keys, steps):
    made = run(data, tmp_path / "run", "epochs=4", "eval_interval=1", *STILL, *keys)
    assert made.steps == steps


@acts("resume")
def test_a_run_is_resumed_where_it_stands(data, tmp_path, capsys):
    first = run(data, tmp_path / "run", "run_name=run", "epochs=2", "eval_interval=1")
    longer = ("run_name=run", "epochs=4", "eval_interval=1")
    with pytest.raises(UserError, match="exists"):
        run(data, tmp_path / "run", *longer)
    written = first.file(4, "model.safetensors").stat().st_mtime_ns
    made = run(data, tmp_path / "run", *longer, "resume=auto")
    assert made.steps == list(range(1, 9))
    assert first.file(4, "model.safetensors").stat().st_mtime_ns == written
    branch = run(data, tmp_path / "branch", *longer, f"resume={first.file(2, '')}")
    assert branch.steps == list(range(2, 9))
    assert f"going on from {first.file(2, '')}".rstrip("/") in capsys.readouterr().out


@acts("load_checkpoint")
def test_a_run_begins_with_the_weights_that_are_named(data, other_data, tmp_path, hub):
    first = run(data, tmp_path / "first", "ema=true", "seed=1")
    last = first.steps[-1]
    begin = ("lr=0", "puzzle_emb_lr=0", "weight_decay=0", "puzzle_emb_weight_decay=0")
    begin += (f"load_checkpoint={tmp_path / 'first'}", "run_name=second")
    second = run(data, tmp_path / "second", *begin)
    averaged = first.weights(last, "ema")
    assert all(second.weights(last)[name].equal(averaged[name]) for name in averaged)
    again = run(
        data,
        tmp_path / "second",
        *begin[:-2],
        "load_checkpoint=gone",
        "resume=auto",
        "run_name=second",
    )
    assert again.steps == second.steps
    with pytest.raises(UserError, match="load_checkpoint=.*has shape"):
        run(data, tmp_path / "third", *begin, "arch.hidden_size=64")
    assert not (tmp_path / "third").exists()
    with pytest.raises(UserError, match="exclude each other"):
        run(data, tmp_path / "third", *begin, f"resume={first.file(last, '')}")


def test_a_puzzle_embedding_of_other_data_becomes_its_mean(data, tmp_path):
    from hrm.checkpoint import build_for, initial_weights, load_checkpoint

    first = run(data, tmp_path / "first")
    checkpoint = load_checkpoint(first.path)
    table = "model.inner.puzzle_emb.weights"
    own = initial_weights(first.path, checkpoint.model)[table]
    more = checkpoint.metadata.model_copy(update={"num_puzzle_identifiers": len(own) + 3})
    weights = initial_weights(first.path, build_for(checkpoint.config, more))[table]
    assert weights.shape == (len(own) + 3, own.shape[1])
    assert torch.allclose(weights, own.mean(0).expand_as(weights))


# ---- names, and what is said ----


@acts("project_name", "run_name", "checkpoint_path")
def test_the_folder_is_where_the_names_say(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for keys, folder in (
        (("run_name=mine",), "checkpoints/small-4x4/mine"),
        (("run_name=mine", "project_name=ours"), "checkpoints/ours/mine"),
        (("run_name=mine", "checkpoint_path=a/place"), "a/place"),
    ):
        done("train", f"data_path={data}", *TINY, "epochs=1", *keys)
        assert Path(folder, "step_2/model.safetensors").is_file()
    done("train", f"data_path={data}", *TINY, "epochs=1", "project_name=dated")
    [dated] = Path("checkpoints/dated").iterdir()
    assert dated.name.startswith("hrm_act_v1-20")


@acts("overwrite")
def test_an_earlier_run_is_replaced_only_where_asked(data, tmp_path):
    first = run(data, tmp_path / "run", "epochs=2")
    with pytest.raises(UserError, match="overwrite=true"):
        run(data, tmp_path / "run", "epochs=1")
    assert first.steps == [1, 2, 3, 4]
    assert run(data, tmp_path / "run", "epochs=1", "overwrite=true").steps == [1, 2]


@acts("logger")
def test_weights_and_biases_hear_what_is_logged(data, tmp_path, monkeypatch, plain):
    package = tmp_path / "packages" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "heard, started = [], []\n"
        "class Settings:\n    def __init__(self, **more): pass\n"
        "class Run:\n"
        "    id = 'run-1'\n"
        "    def log_code(self, folder): pass\n"
        "    def log(self, metrics, step): heard.append({'step': step, **metrics})\n"
        "    def finish(self): heard.append('end')\n"
        "def init(**more):\n    started.append(more)\n    return Run()\n"
    )
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    made = run(data, tmp_path / "run", "logger=wandb", "project_name=ours", "run_name=mine")
    wandb = sys.modules.pop("wandb")
    assert wandb.heard == [*made.lines, "end"] and len(made.lines) == 5
    assert [(s["project"], s["name"]) for s in wandb.started] == [("ours", "mine")]
    wandb.started.clear()
    run(data, tmp_path / "quiet", "logger=none", "epochs=1")
    assert "wandb" not in sys.modules


def scalars(folder):
    """What TensorBoard shows of a run: {name: [(step, value)]}."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


@acts("logger")
def test_tensorboard_has_what_is_logged_and_each_step_once(data, tmp_path, plain):
    keys = ("logger=tensorboard", "eval_interval=1")
    assert run(data, tmp_path / "run", *keys, "epochs=1").steps[-1] == 2
    made = run(data, tmp_path / "run", *keys, "epochs=2", "resume=auto")
    shown = scalars(tmp_path / "run/tensorboard")
    names = {name for line in made.lines for name in line} - {"step"}
    assert shown.keys() == names
    for name, found in shown.items():
        logged = [(line["step"], line[name]) for line in made.lines if name in line]
        assert found == [(step, pytest.approx(value)) for step, value in logged]
    assert not (plain.path / "tensorboard").exists()


def test_what_a_killed_run_logged_after_its_checkpoint_is_forgotten_by_tensorboard(tmp_path):
    for begun_after, last, value in ((0, 5, 1.0), (3, 4, 2.0)):
        logger = TensorBoardLogger(tmp_path, begun_after)
        for step in range(begun_after + 1, last + 1):
            logger.log({"loss": value}, step)
        logger.close()
    assert scalars(tmp_path) == {"loss": [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0)]}


def test_tensorboard_that_fails_does_not_end_a_run(data, tmp_path, capsys, monkeypatch):
    def full(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", full)
    made = run(data, tmp_path / "run", "logger=tensorboard", "epochs=1")
    assert made.steps[-1] == 2
    said = capsys.readouterr().err
    assert said.count("tensorboard stopped (no space); training goes on without it") == 1


@acts("log_interval")
def test_lines_come_at_their_interval(data, tmp_path, plain):
    made = run(data, tmp_path / "run", "log_interval=3")
    assert [line["step"] for line in made.lines if "train/lr" in line] == [3, 4]
    assert [line["step"] for line in plain.lines if "train/lr" in line] == [1, 2, 3, 4]
    assert made.logged("train/lm_loss")[0] != plain.logged("train/lm_loss")[2]


@acts("progress")
@pytest.mark.parametrize("shown", [True, False])
def test_progress_is_shown_where_asked(data, tmp_path, monkeypatch, capsys, shown):
    monkeypatch.setattr("hrm.progress.SHORT_SECONDS", 0)
    run(data, tmp_path / "run", "epochs=1", f"progress={str(shown).lower()}")
    assert ("100% step 2/2, loss " in capsys.readouterr().err) == shown


# ---- where it runs ----


@acts("device")
def test_training_runs_on_the_named_device(data, tmp_path, monkeypatch, no_accelerator):
    keys = (f"data_path={data}", *TINY, "epochs=1", f"checkpoint_path={tmp_path / 'run'}")
    for name in ("cuda", "mps"):
        code, _, err = command("train", *keys, f"device={name}")
        assert code == 2 and f"device={name}: not available" in err
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    seen: list[torch.device] = []
    monkeypatch.setattr("hrm.training.loop.train", lambda c, r, d: seen.append(d) or Path("run"))
    for name in ("cpu", "mps", "auto"):
        done("train", *keys, f"device={name}")
    assert [device.type for device in seen] == ["cpu", "mps", "mps"]


@acts("compile")
@pytest.mark.parametrize(
    "given, has_compiler, shortest, count",
    [
        ("true", False, 1e12, 2),
        ("auto", True, 1, 2),
        ("auto", True, 1e12, 0),
        ("auto", False, 1, 0),
    ],
)
def test_blocks_are_compiled(data, tmp_path, monkeypatch, given, has_compiler, shortest, count):
    """One block in each module; every call of it is a compiled one; not where it does not pay."""
    monkeypatch.setattr("hrm.device.has_compiler", lambda device: has_compiler)
    monkeypatch.setattr("hrm.training.sizing.SHORT_RUN", shortest)
    compiled = compiled_modules(monkeypatch)
    run(data, tmp_path / "run", f"compile={given}", "epochs=1")
    assert len(compiled) == count and all(calls > 8 for calls in compiled.values())


@acts("compile")
def test_nothing_is_compiled_where_it_is_switched_off(data, tmp_path, monkeypatch):
    monkeypatch.setattr("hrm.device.has_compiler", lambda device: True)
    compiled = compiled_modules(monkeypatch)
    run(data, tmp_path / "run", "compile=false", "epochs=1")
    assert compiled == {}


@acts("cuda_graph")
@pytest.mark.parametrize(
    "given, kind, size, count",
    [
        ("auto", "cuda", 1, 3),
        ("false", "cuda", 1, 0),
        ("auto", "cuda", 2, 0),
        ("auto", "cpu", 1, 0),
    ],
)
def test_steps_are_captured_where_they_can_be(data, monkeypatch, given, kind, size, count):
    """What is captured takes every batch; nothing here has a graph, so it is called instead."""
    taken: list[Any] = []

    def called(compute: Any, forget: Any, is_wanted: bool) -> Any:
        for weight in state.model.parameters():
            weight.grad = torch.ones_like(weight)
        forget()
        assert all(weight.grad is None for weight in state.model.parameters())
        return lambda batch: (taken.append(batch), compute(batch))

    monkeypatch.setattr(graph, "CapturedStep", called)
    config = load_pretrain_config([f"data_path={data}", *TINY, f"cuda_graph={given}"])
    ranks, train_set = Ranks(0, size, 0), open_split(config, Ranks(0, 1, 0), "train")
    state = TrainState.create(config, train_set.metadata, torch.device("cpu"), Ranks(0, 1, 0))
    monkeypatch.setattr(graph, "compute_step", lambda *_: {"count": torch.ones(())})
    step = graph.stepper(state, config, ranks, torch.device(kind))
    for number in range(3):
        step(train_set.batch(0, number)[1])
    assert len(taken) == count and state.step == 3
    assert state.sums.totals() == {"count": 3}


@acts("cuda_graph")
def test_a_graph_that_cannot_be_is_refused_before_anything_is_written(data, tmp_path):
    keys = *TINY, f"data_path={data}", f"checkpoint_path={tmp_path / 'run'}", "cuda_graph=true"
    code, out, err = command("train", *keys)
    assert code == 2 and "cuda_graph=true: the device is cpu; use cuda_graph=auto" in err
    assert len(err.splitlines()) == 1 and not (tmp_path / "run").exists()
    config = load_pretrain_config([f"data_path={data}", *TINY, "cuda_graph=true"])
    with pytest.raises(UserError, match="what ranks send each other is not captured"):
        graph.can_capture(config, Ranks(0, 2, 0), torch.device("cuda"))
    assert graph.can_capture(config, Ranks(0, 1, 0), torch.device("cuda"))


@acts("deterministic")
@pytest.mark.parametrize("asked", [True, False])
def test_operations_are_deterministic_where_asked(data, tmp_path, monkeypatch, asked):
    """Seen where the loss is computed, in every pass; nothing of it is left behind."""
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "benchmark", True)
    seen: set[tuple[bool, bool, bool]] = set()
    original = ACTLossHead.sequence_losses

    def settings() -> tuple[bool, bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark

    def look(*arguments):
        seen.add(settings())
        return original(*arguments)

    monkeypatch.setattr(ACTLossHead, "sequence_losses", look)
    run(data, tmp_path / "run", f"deterministic={str(asked).lower()}", "epochs=1")
    assert seen == {(True, True, False) if asked else (False, False, True)}
    assert settings() == (False, False, True)


@acts("rank_timeout")
def test_ranks_are_given_up_after_their_time(data, tmp_path, monkeypatch):
    asked: list[int] = []
    within = Ranks.answering_within

    def spy(self, seconds):
        asked.append(seconds)
        return within(self, seconds)

    monkeypatch.setattr(Ranks, "answering_within", spy)
    keys = (f"data_path={data}", *TINY, f"checkpoint_path={tmp_path / 'run'}", "epochs=1")
    done("train", *keys, "rank_timeout=77")
    assert asked == [77]

    groups: list[timedelta] = []
    monkeypatch.setattr("torch.distributed.new_group", lambda timeout, **_: groups.append(timeout))
    monkeypatch.setattr("torch.distributed.all_gather_object", lambda *_: None)
    with within(Ranks(0, 2, 0), 77):
        pass
    assert groups == [timedelta(seconds=77)] * 2  # messages, and those of threads


def test_the_recipe_is_the_one_that_is_named(data, tmp_path):
    small = ("arch.hidden_size=16", "arch.num_heads=2", "global_batch_size=16", "epochs=1")
    rest = ("eval_interval=null", "checkpoint_interval=null", "compile=false", "progress=false")
    words = (f"data_path={data}", f"checkpoint_path={tmp_path / 'run'}", "run_name=run")
    done("train", "--config-name", "quickstart_4x4", *words, *small, *rest)
    weights = load_file(tmp_path / "run/step_2/model.safetensors")
    assert "model.inner.L_level.layers.0.self_attn.bias.weight" in weights


def test_every_key_has_a_test():
    acts.check(PretrainConfig.model_fields.keys() - OptimConfig.model_fields.keys())
