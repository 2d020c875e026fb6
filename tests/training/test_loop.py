"""The training job as a user runs it: outputs, checkpoints, evaluation, mistakes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from hrm.checkpoint import find_checkpoint, load_checkpoint
from hrm.checkpoint.manifest import write_manifest
from hrm.cli import evaluate as command
from hrm.cli.evaluate import EvaluateConfig
from hrm.cli.main import main
from hrm.data import PuzzleDataset, PuzzleDatasetConfig
from hrm.data.format import read_metadata
from hrm.evaluation import evaluate
from hrm.inference.solver import Solver
from hrm.ranks import Ranks
from hrm.training import loop
from hrm.training.config import load_pretrain_config
from hrm.training.sizing import for_device
from tests.conftest import ROOT, SMALL_MODEL
from tests.watching import LONG, started, wait_for

TRAIN_NAMES = {
    *("lm_loss", "q_halt_loss", "q_continue_loss", "accuracy", "exact_accuracy"),
    *("q_halt_accuracy", "q_halt", "q_continue", "steps", "lr", "count"),
    *("first_step_accuracy", "first_step_exact_accuracy"),
}
EVAL_NAMES = {n for n in TRAIN_NAMES - {"q_continue_loss", "lr"} if "first_step" not in n}
SHORT = ("global_batch_size=32", "epochs=4", "eval_interval=2", *SMALL_MODEL)
EVAL_SHORT = ("device=cpu",)


def read_metrics(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def assert_one_error_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line, line


@pytest.fixture(scope="module")
def trained(data_4x4, tmp_path_factory) -> Path:
    """A finished run with running averages and a checkpoint at every evaluation."""
    folder = tmp_path_factory.mktemp("trained")
    command = [sys.executable, str(ROOT / "pretrain.py"), f"data_path={data_4x4}", *SHORT]
    command += ["run_name=first", "ema=true", "checkpoint_every_eval=true"]
    env = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "eval exact accuracy" in result.stdout + result.stderr
    return folder / "checkpoints" / data_4x4.name / "first"


def test_logged_names_and_steps(trained):
    lines = read_metrics(trained)
    train = [line for line in lines if "train/lm_loss" in line]
    assert [line["step"] for line in train] == list(range(1, len(train) + 1))
    assert set.union(*map(set, train)) == {"step", *(f"train/{name}" for name in TRAIN_NAMES)}
    evaluations = [line for line in lines if "eval/lm_loss" in line]
    assert len(evaluations) == 2
    for line in evaluations:
        assert set(line) == {"step", *(f"eval/{name}" for name in EVAL_NAMES)}
        assert line["eval/count"] == 40
    assert train[0]["train/lr"] == pytest.approx(1e-3 / 5)


def test_checkpoint_suffices_by_itself(trained, tmp_path):
    steps = sorted(trained.glob("step_*"), key=lambda path: int(path.name[5:]))
    assert len(steps) == 2 and not list(trained.glob(".*"))
    moved = tmp_path / "elsewhere"
    steps[-1].rename(moved)
    try:
        checkpoint = load_checkpoint(moved)
        assert torch.equal(
            checkpoint.model.state_dict()["model.inner.lm_head.weight"],
            load_file(moved / "ema.safetensors")["model.inner.lm_head.weight"],
        )
        assert (moved / "source" / "hrm.py").is_file()
        assert yaml.safe_load((moved / "all_config.yaml").read_text())["run_name"] == "first"
    finally:
        moved.rename(steps[-1])


def test_evaluate_repeats_the_last_evaluation(trained, run_script):
    result = run_script("evaluate.py", f"checkpoint={trained}", *EVAL_SHORT)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == read_metrics(trained)[-1]


def test_evaluate_saves_outputs_and_learned_halting(trained, call_script):
    keys = "eval_save_outputs=[inputs,labels,predictions,logits,steps]"
    arguments = (f"checkpoint={trained}", "halting=learned", keys, *EVAL_SHORT)
    result = call_script("evaluate.py", *arguments)
    assert result.returncode == 0, result.stderr
    outputs = load_file(find_checkpoint(trained) / "predictions.safetensors")
    assert outputs["logits"].shape == (40, 16, 5)
    metrics = json.loads(result.stdout)
    exact = (outputs["predictions"] == outputs["labels"]).all(-1).float().mean().item()
    assert metrics["eval/exact_accuracy"] == pytest.approx(exact)
    assert metrics["eval/steps"] == pytest.approx(outputs["steps"].float().mean().item())


@pytest.mark.parametrize("halting", ["max_steps", "learned"])
def test_evaluation_does_not_depend_on_batch_size(trained, data_4x4, halting):
    model = load_checkpoint(trained).model.eval()
    results = []
    for batch_size in (40, 7, 64):
        config = PuzzleDatasetConfig(
            seed=0,
            dataset_path=data_4x4,
            global_batch_size=batch_size,
            test_set_mode=True,
            epochs_per_iter=1,
            rank=0,
            num_replicas=1,
        )
        dataset = PuzzleDataset(config, split="test")
        result = evaluate(model, dataset, torch.device("cpu"), Ranks(0, 1, 0), halting)
        results.append(result.overall)
    for other in results[1:]:
        assert other == pytest.approx(results[0], rel=1e-5)


def test_every_evaluation_asks_for_the_probability_that_is_configured(
    data_4x4, tmp_path, monkeypatch
):
    asked = []

    def spy(*arguments, halt_probability, **more):
        asked.append(halt_probability)
        return evaluate(*arguments, halt_probability=halt_probability, **more)

    monkeypatch.setattr(loop, "evaluate", spy)
    monkeypatch.setattr("hrm.evaluation.evaluate", spy)
    run_dir = tmp_path / "run"
    more = ["compile=false", "eval_halt_probability=0.75", f"checkpoint_path={run_dir}"]
    config = load_pretrain_config([f"data_path={data_4x4}", "run_name=x", *SHORT, *more])
    loop.train(config, Ranks(0, 1, 0), torch.device("cpu"))
    assert asked == [0.75, 0.75]
    assert Solver.from_checkpoint(run_dir, "cpu").halt_probability == 0.75
    for given, expected in ((), 0.75), (("halting=learned", "halt_probability=0.25"), 0.25):
        monkeypatch.setattr(sys, "argv", ["hrm", "evaluate", str(run_dir), *given])
        main()
        assert asked.pop() == expected


def test_an_evaluation_takes_as_many_puzzles_at_a_time_as_a_step(data_4x4, tmp_path, monkeypatch):
    sizes, overall = [], []

    def spy(model, test_set, *others, **more):
        sizes.append({len(batch["inputs"]) for _, batch, _ in test_set})
        result = evaluate(model, test_set, *others, **more)
        overall.append(result.overall)
        return result

    monkeypatch.setattr(loop, "evaluate", spy)
    for rows in 8, 32:
        keys = [f"data_path={data_4x4}", "run_name=x", *SHORT, "compile=false", "eval_limit=20"]
        keys += [f"micro_batch_size={rows}", f"checkpoint_path={tmp_path / str(rows)}"]
        loop.train(load_pretrain_config(keys), Ranks(0, 1, 0), torch.device("cpu"))
    assert sizes == [{8}, {8}, {32}, {32}], "a sample of the puzzles, then all"
    for few, many in zip(overall[:2], overall[2:], strict=True):
        assert few == pytest.approx(many, rel=1e-4)


@pytest.mark.parametrize(
    "given, rows, expected",
    [
        ({}, 39, "false"),
        ({}, 100_000, "auto"),
        ({"halting": "learned"}, 100_000, "false"),
        ({"compile": "true"}, 1, "true"),
        ({"compile": "false"}, 100_000, "false"),
    ],
    ids=str,
)
def test_evaluation_compiles_where_there_is_enough_to_do(trained, given, rows, expected):
    config = EvaluateConfig(checkpoint=trained, **given)
    size = SimpleNamespace(examples=rows)
    assert command.compile_mode(config, load_checkpoint(trained), size) == expected


def test_evaluate_on_two_ranks(trained, run_script):
    arguments = (f"checkpoint={trained}", *EVAL_SHORT)
    result = run_script("evaluate.py", *arguments, ranks=2, torchrun=True)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == pytest.approx(read_metrics(trained)[-1], rel=1e-5)


def test_originals_single_file_checkpoint(trained, data_4x4, tmp_path, call_script):
    """`torch.save` of a compiled model's state dict, with the original's `all_config.yaml`."""
    (last,) = [
        p for p in trained.glob("step_*") if p.name == f"step_{read_metrics(trained)[-1]['step']}"
    ]
    state = load_file(last / "model.safetensors")
    torch.save({f"_orig_mod.{name}": t for name, t in state.items()}, tmp_path / last.name)
    config = yaml.safe_load((last / "all_config.yaml").read_text())
    names = ("data_path", "global_batch_size", "epochs", "lr", "lr_min_ratio", "lr_warmup_steps")
    original = {name: config[name] for name in names}
    arch_names = ("halt_exploration_prob", "halt_max_steps", "H_cycles", "L_cycles", "H_layers")
    arch_names += ("L_layers", "hidden_size", "num_heads", "expansion", "puzzle_emb_ndim")
    arch_names += ("pos_encodings", "forward_dtype")
    original["arch"] = {name: config["arch"][name] for name in arch_names} | {
        "name": "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1",
        "loss": {"name": "losses@ACTLossHead", "loss_type": "stablemax_cross_entropy"},
    }
    original |= {
        "eval_save_outputs": [],
        "run_name": "HierarchicalReasoningModel_ACTV1 loose-caracara",
    }
    (tmp_path / "all_config.yaml").write_text(yaml.safe_dump(original))
    result = call_script("evaluate.py", f"checkpoint={tmp_path / last.name}", *EVAL_SHORT)
    assert result.returncode == 0, result.stderr
    ours = call_script("evaluate.py", f"checkpoint={last}", "weights=raw", *EVAL_SHORT)
    assert result.stdout == ours.stdout


def test_size_mismatch_names_tensor_and_shapes(trained, tmp_path, call_script):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", find_checkpoint(trained), copy], check=True)
    config = yaml.safe_load((copy / "all_config.yaml").read_text())
    config["arch"]["hidden_size"] = config["arch"]["puzzle_emb_ndim"] = 32
    (copy / "all_config.yaml").write_text(yaml.safe_dump(config))
    write_manifest(copy)
    result = call_script("evaluate.py", f"checkpoint={copy}", *EVAL_SHORT)
    assert_one_error_line(result, "model.inner.", "64", "32")


def test_same_seed_same_run_and_existing_run_is_kept(trained, data_4x4, call_script, tmp_path):
    again = (f"data_path={data_4x4}", *SHORT, "ema=true", f"checkpoint_path={tmp_path / 'again'}")
    result = call_script("pretrain.py", *again, "run_name=first")
    assert result.returncode == 0, result.stderr
    assert read_metrics(tmp_path / "again") == read_metrics(trained)
    result = call_script("pretrain.py", *again, "run_name=first")
    assert_one_error_line(result, "again", "overwrite=true")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["lrr=1"], ["lrr", "did you mean lr?"]),
        (["arch.hidden_sise=64"], ["arch.hidden_sise", "arch.hidden_size"]),
        (["arch.mlp_t=true"], ["arch.mlp_t", "only another architecture has it"]),
        (["+arch.loss.foo=1"], ["arch.loss.foo", "unknown key"]),
        (["lr=fast"], ["lr", "fast"]),
        (["lr=-1"], ["lr", "greater than or equal to 0"]),
        (["beta1=1"], ["beta1", "less than 1"]),
        (["epochs=5"], ["epochs=5", "eval_interval=2"]),
        (["arch=none_such"], ["arch=none_such: not found", "hrm_v1"]),
        (["arch.num_heads=7"], ["hidden_size 64", "num_heads 7"]),
        (["arch.loss.loss_type=huber"], ["arch.loss.loss_type", "stablemax_cross_entropy"]),
        (["arch.name=os.system"], ["arch.name", "os.system"]),
        (["micro_batch_size=5"], ["micro_batch_size=5", "32"]),
        (["global_batch_size=100000"], ["global_batch_size=100000"]),
        (["data_path=nowhere"], ["nowhere", "dataset.json"]),
        (["run_name=../../etc"], ["run_name"]),
        (["--config-name=none"], ["none"]),
        (["lr"], ["lr"]),
        (["lr=true"], ["lr=true", "number"]),
        (["keep_checkpoints=true"], ["keep_checkpoints=true", "number"]),
        (["checkpoint_interval=0"], ["checkpoint_interval", "10min"]),
        (["arch.halt_max_steps=true"], ["halt_max_steps=true", "number"]),
        (["--epochs=3"], ["--epochs"]),
        (["checkpoint_path=/dev/null"], ["/dev/null"]),
        (["device=cuda"], ["device=cuda"]),
    ],
)
def test_mistakes(data_4x4, call_script, tmp_path, arguments, words):
    if arguments == ["device=cuda"] and torch.cuda.is_available():
        pytest.skip("has CUDA")
    result = call_script("pretrain.py", f"data_path={data_4x4}", *SHORT, *arguments)
    assert_one_error_line(result, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], ["checkpoint", "required"]),
        (["checkpoint=nowhere"], ["nowhere"]),
        (["checkpoint=.", "haltin=learned"], ["haltin", "halting"]),
        (["checkpoint"], ["checkpoint"]),
        (["checkpoint=.", "."], ["key=value"]),
        (["checkpoint=.", "halt_probability=0.9"], ["halt_probability", "halting=learned"]),
    ],
)
def test_evaluate_mistakes(call_script, arguments, words):
    assert_one_error_line(call_script("evaluate.py", *arguments), *words)


@pytest.mark.parametrize(
    "script, arguments, words",
    [("pretrain.py", ["lrr=1"], ["lrr"]), ("evaluate.py", ["checkpoint=nowhere"], ["nowhere"])],
)
def test_a_mistake_ends_the_process_by_one_line(run_script, script, arguments, words):
    assert_one_error_line(run_script(script, *arguments), *words)


def test_evaluate_on_other_data(trained, tmp_path, call_script):
    from hrm.tasks.sudoku.builder import BuildOptions, build

    build(BuildOptions(output_dir=tmp_path / "6x6", generate=(2, 3), num_train=5, num_test=5))
    arguments = (f"checkpoint={trained}", f"data_path={tmp_path / '6x6'}", *EVAL_SHORT)
    result = call_script("evaluate.py", *arguments)
    assert_one_error_line(result, "6x6", "seq_len is 36", "16")


def test_switches_train_and_load_back(data_4x4, tmp_path, call_script):
    switches = ("pos_encodings=grid", "qk_norm=true", "q_continue=false", "puzzle_emb_mode=add")
    more = [f"arch.{switch}" for switch in (*switches, "backprop=last_cycle")]
    more += ["epochs=2", "run_name=x", "arch.forward_dtype=bfloat16"]
    result = call_script("pretrain.py", f"data_path={data_4x4}", *SHORT, *more)
    assert result.returncode == 0, result.stderr
    run_dir = tmp_path / "checkpoints/sudoku-4x4/x"
    result = call_script("evaluate.py", f"checkpoint={run_dir}", *EVAL_SHORT)
    assert json.loads(result.stdout) == read_metrics(run_dir)[-1]


@pytest.mark.parametrize("capability, dtype", [("AVX2", "float32"), ("AVX512", "bfloat16")])
def test_dtype_that_suits_the_cpu(monkeypatch, data_4x4, capability, dtype):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    config = load_pretrain_config([], "quickstart_4x4")
    assert config.arch.forward_dtype == "auto"
    metadata = read_metadata(data_4x4 / "train")
    assert for_device(config, torch.device("cpu"), metadata, 1, 0).arch.forward_dtype == dtype


def test_without_test_split(data_4x4, tmp_path, call_script):
    data = tmp_path / "train-only"
    subprocess.run(["cp", "-r", data_4x4, data], check=True)
    subprocess.run(["rm", "-r", data / "test"], check=True)
    result = call_script("pretrain.py", f"data_path={data}", *SHORT, "run_name=x")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("evaluation is skipped") == 1
    assert list((tmp_path / "checkpoints/train-only/x").glob("step_*"))


def test_more_identifiers_in_test_than_in_train_are_refused(data_4x4, tmp_path, call_script):
    data = shutil.copytree(data_4x4, tmp_path / "data")
    metadata = json.loads((data / "test" / "dataset.json").read_text())
    metadata["num_puzzle_identifiers"] += 1
    for key in ("sha256", "metadata_sha256"):
        metadata.pop(key)
    (data / "test" / "dataset.json").write_text(json.dumps(metadata))
    result = call_script("pretrain.py", f"data_path={data}", *SMALL_MODEL)
    assert result.returncode == 2 and "more than the" in result.stderr
    assert result.stderr.count("\n") == 1


def test_several_sets_are_reported_apart(data_4x4, tmp_path, call_script):
    data = tmp_path / "two-sets"
    subprocess.run(["cp", "-r", data_4x4, data], check=True)
    for path in (data / "test").glob("test__*.npy"):
        np.save(path.with_name(path.name.replace("test__", "other__")), np.load(path))
    metadata = json.loads((data / "test/dataset.json").read_text())
    metadata |= {"sets": ["test", "other"], "total_groups": 2 * metadata["total_groups"]}
    del metadata["sha256"], metadata["metadata_sha256"]
    (data / "test/dataset.json").write_text(json.dumps(metadata))
    result = call_script("pretrain.py", f"data_path={data}", *SHORT, "run_name=x")
    assert result.returncode == 0, result.stderr
    last = read_metrics(tmp_path / "checkpoints/two-sets/x")[-1]
    assert last["eval/count"] == 80
    for name in EVAL_NAMES - {"count"}:
        assert last[f"eval/test/{name}"] == last[f"eval/other/{name}"]
        assert last[f"eval/{name}"] == pytest.approx(last[f"eval/test/{name}"])


def test_wandb_failure_never_stops_training(data_4x4, tmp_path, monkeypatch, call_script):
    def init(**options):
        assert options["mode"] == "offline"
        raise ConnectionError("no route")

    wandb = SimpleNamespace(__spec__=ModuleSpec("wandb", None), Settings=dict, init=init)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    result = call_script(
        "pretrain.py", f"data_path={data_4x4}", *SHORT, "logger=wandb", "run_name=x"
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("wandb stopped (no route); training goes on without it") == 1
    assert len(read_metrics(tmp_path / "checkpoints/sudoku-4x4/x")) > 4


def test_ctrl_c_saves_a_checkpoint(data_4x4, tmp_path):
    run_dir = tmp_path / "run"
    command = [sys.executable, str(ROOT / "pretrain.py"), f"data_path={data_4x4}", *SHORT]
    command += ["epochs=200000", "eval_interval=null", f"checkpoint_path={run_dir}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    metrics = run_dir / "metrics.jsonl"
    with started(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE) as process:
        wait_for(lambda: metrics.is_file() and metrics.read_bytes().count(b"\n") >= 3)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=LONG)
    assert process.returncode == 128 + signal.SIGINT and "Traceback" not in stderr
    (saved,) = run_dir.glob("step_*")
    assert read_metrics(run_dir)[-1]["step"] == int(saved.name[5:])
    assert load_checkpoint(saved).step == int(saved.name[5:])


def test_checkpoint_that_cannot_be_written(data_4x4, tmp_path):
    """No file may grow beyond 64 KiB here: like a full disk, for weights and not for metrics."""
    run_dir = tmp_path / "run"
    arguments = " ".join((f"data_path={data_4x4}", *SHORT, f"checkpoint_path={run_dir}"))
    command = (
        f"ulimit -f 64; OMP_NUM_THREADS=1 exec {sys.executable} {ROOT / 'pretrain.py'} {arguments}"
    )
    command += " checkpoint_every_eval=true run_name=x"
    result = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    assert (result.stdout + result.stderr).count("could not be written") == 3
    assert "training goes on" in result.stdout + result.stderr
    names = {"all_config.yaml", "metrics.jsonl", "source", "timings.jsonl"}
    assert {p.name for p in run_dir.iterdir()} == names


def test_readable_by_others(trained):
    for path in find_checkpoint(trained).iterdir():
        assert path.stat().st_mode & 0o044 == 0o044, path
