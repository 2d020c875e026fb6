"""One ACT step as a graph: other runtimes compute what the model does."""

import importlib.util
import json
from copy import deepcopy

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from hrm import pretrained
from hrm.checkpoint import Checkpoint, build_for, load_checkpoint, shipped_models
from hrm.checkpoint.step_graph import (
    FACTS_FILE,
    as_onnx,
    facts,
    trace_step,
    write_onnx,
    write_program,
)
from hrm.data.format import read_metadata
from hrm.errors import UserError
from hrm.training.config import load_pretrain_config

from ..exporting import PUZZLE

SMALL = ("hidden_size=32", "num_heads=2", "L_layers=1", "halt_max_steps=4", "H_cycles=1")
CORES = {
    "trm": (
        *("trm", "L_cycles=1", "puzzle_emb_ndim=40", "puzzle_emb_len=2", "q_continue=true"),
        "forward_dtype=bfloat16",
    ),
    "trm_mlp": ("trm_mlp", "L_cycles=2", "H_cycles=2", "puzzle_emb_ndim=0"),
    "symbols": ("symbol_equivariant", "L_cycles=2", "forward_dtype=bfloat16"),
}
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=CORES)
def case(request, data_4x4):
    """A checkpoint of random weights, its traced step, that in ONNX, and what to tell of it."""
    arch, *keys = CORES[request.param]
    small = [key for key in SMALL if arch != "symbol_equivariant" or "num_heads" not in key]
    words = [f"arch={arch}", *(f"arch.{key}" for key in (*small, *keys)), f"data_path={data_4x4}"]
    torch.manual_seed(0)
    config, metadata = load_pretrain_config(words), read_metadata(data_4x4 / "train")
    model = build_for(config, metadata).eval()
    core = model.model.inner
    torch.nn.init.normal_(core.q_head.weight, std=0.1)
    torch.nn.init.zeros_(core.q_head.bias)
    if getattr(core, "puzzle_emb", None) is not None:
        torch.nn.init.normal_(core.puzzle_emb.weights)
    checkpoint = Checkpoint(data_4x4, None, model, config, metadata)
    if arch == "symbol_equivariant":  # maxima do not lie about zero, where halting is decided
        values = [q_halt for _, _, q_halt, *_ in expected(checkpoint, batch_of(checkpoint, 3), 4)]
        torch.nn.init.constant_(core.q_head.bias, -torch.cat(values).median().item())
    program, known = trace_step(checkpoint), facts(checkpoint)
    return checkpoint, program, as_onnx(program, known["states"]), known


def expected(checkpoint, batch, steps):
    """What the ACT wrapper computes, step after step; sequence 1 begins again before step 3."""
    act = checkpoint.in_dtype("float32").model.model.eval()
    carry = act.initial_carry(batch)
    for number in range(steps):
        carry.halted[:] = number == 0
        carry.halted[1] |= number == 2
        begins = carry.halted.clone()
        with torch.no_grad():
            carry, out = act(carry, batch)
        wants = act.wants_to_halt(out["q_halt_logits"], out["q_continue_logits"])
        yield begins, out["logits"], out["q_halt_logits"], wants, carry.states


def batch_of(checkpoint, rows):
    metadata = checkpoint.metadata
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(metadata.vocab_size, (rows, metadata.seq_len), generator=generator)
    identifiers = torch.tensor([-1, 5, 3])[:rows]
    return {"inputs": tokens.int(), "puzzle_identifiers": identifiers.int()}


def assert_steps_agree(checkpoint, step, solved=None):
    """`step(feed)` gives logits, q_halt, wants_to_halt and the new states, as tensors.

    Each step begins with torch's states: rounding grows from step to step on tokens at random.
    """
    batch, wants = batch_of(checkpoint, 3), []
    if solved is not None:  # a trained model never wants to halt on tokens at random
        batch["inputs"][0] = solved
    states = checkpoint.in_dtype("float32").model.model.inner.blank_states(3, torch.device("cpu"))
    for begins, logits, q_halt, wants_to_halt, after in expected(checkpoint, batch, 4):
        found = step(batch["inputs"], begins, states, batch["puzzle_identifiers"])
        assert (found[0] - logits).abs().max() < TOLERANCE
        assert (found[1] - q_halt).abs().max() < TOLERANCE
        assert found[2].equal(wants_to_halt)
        new = dict(zip(states, found[3:], strict=True))
        assert all((new[name] - after[name]).abs().max() < TOLERANCE for name in after)
        states = {name: after[name].clone() for name in states}
        wants += wants_to_halt.tolist()
    assert len(set(wants)) == 2


def session_step(path):
    session = onnxruntime.InferenceSession(path)
    known = {value.name for value in session.get_inputs()}

    def step(tokens, begins, states, identifiers):
        feed = {"tokens": tokens, "begins": begins, **states, "puzzle_identifiers": identifiers}
        found = session.run(None, {n: t.numpy() for n, t in feed.items() if n in known})
        return [torch.from_numpy(values) for values in found]

    return step


def test_onnxruntime_computes_what_torch_does(case, tmp_path):
    checkpoint, _, model, known = case
    write_onnx(deepcopy(model), known, tmp_path / "new/model.onnx")
    onnx.checker.check_model(tmp_path / "new/model.onnx", full_check=True)
    assert_steps_agree(checkpoint, session_step(tmp_path / "new/model.onnx"))
    shapes = {v.name: (v.type, v.shape) for v in session_values(tmp_path / "new/model.onnx")}
    state = known["states"]["z_H"]
    assert shapes["tokens"] == ("tensor(int32)", ["batch", 16])
    assert shapes["begins"] == ("tensor(bool)", ["batch"])
    assert shapes["logits"] == ("tensor(float)", ["batch", 16, 5])
    assert shapes["q_halt"] == ("tensor(float)", ["batch"])
    assert shapes["wants_to_halt"] == ("tensor(bool)", ["batch"])
    for name in ("z_H", "z_L", "next_z_H", "next_z_L"):
        assert shapes[name] == ("tensor(float)", ["batch", *state])
    has_rows = getattr(checkpoint.model.model.inner, "puzzle_emb", None) is not None
    assert ("puzzle_identifiers" in shapes) == has_rows


def session_values(path):
    session = onnxruntime.InferenceSession(path)
    return [*session.get_inputs(), *session.get_outputs()]


def test_onnxruntime_computes_what_the_model_of_the_package_does(exported):
    checkpoint = load_checkpoint(shipped_models()["sudoku-9x9"])
    [solution] = pretrained("sudoku-9x9", "cpu").solve([PUZZLE])
    step = session_step(exported.folder / "model.onnx")
    assert_steps_agree(checkpoint, step, torch.from_numpy(solution.tokens))


@pytest.mark.parametrize("case", ["trm"], indirect=True)
def test_an_exported_program_computes_what_the_model_does(case, tmp_path):
    checkpoint, program, _, known = case
    write_program(program, known, tmp_path / "model.pt2")
    files = {FACTS_FILE: ""}
    module = torch.export.load(tmp_path / "model.pt2", extra_files=files).module()
    assert json.loads(files[FACTS_FILE])["symbols"] == ".1234"

    def step(tokens, begins, states, identifiers):
        more = {"puzzle_identifiers": identifiers}
        *found, new = module(tokens=tokens, begins=begins, states=states, **more)
        return [*found, *new.values()]

    assert_steps_agree(checkpoint, step)


@pytest.mark.parametrize("case", ["trm_mlp"], indirect=True)
def test_int8_is_small_and_near(case, tmp_path):
    checkpoint, _, model, known = case
    for dtype in ("float32", "int8"):
        write_onnx(deepcopy(model), known, tmp_path / dtype, dtype)
    plain, small = (onnx.load(tmp_path / dtype) for dtype in ("float32", "int8"))
    assert (tmp_path / "int8").stat().st_size < 0.4 * (tmp_path / "float32").stat().st_size
    assert TensorProto.INT8 in {tensor.data_type for tensor in small.graph.initializer}
    assert TensorProto.INT8 not in {tensor.data_type for tensor in plain.graph.initializer}
    batch = batch_of(checkpoint, 3)
    zeros = checkpoint.model.model.inner.blank_states(3, torch.device("cpu"))
    zeros = {name: state.float() for name, state in zeros.items()}
    arguments = batch["inputs"], torch.ones(3, dtype=torch.bool), zeros, batch["puzzle_identifiers"]
    exact, near = (session_step(tmp_path / dtype)(*arguments) for dtype in ("float32", "int8"))
    assert 0 < (exact[0] - near[0]).abs().max() < 0.1 * exact[0].abs().max()


def test_facts_are_all_that_a_consumer_needs(case, tmp_path):
    checkpoint, _, _, known = case
    write_onnx(onnx.ModelProto(), known, tmp_path / "model.onnx")
    stored = {p.key: json.loads(p.value) for p in onnx.load(tmp_path / "model.onnx").metadata_props}
    shape = [*checkpoint.model.model.inner.blank_states(1, "cpu")["z_H"].shape[1:]]
    assert stored["states"] == {"z_H": shape, "z_L": shape} and shape[-1] == 32
    assert (stored["task"], stored["symbols"]) == ("sudoku", ".1234")
    assert (stored["grid_shape"], stored["box_shape"]) == ([4, 4], [2, 2])
    assert (stored["halt_max_steps"], stored["max_steps"]) == (4, 4)
    assert stored["halt_probability"] == checkpoint.config.eval_halt_probability
    assert stored["unseen_identifier"] == checkpoint.metadata.unseen_identifier


@pytest.mark.parametrize("case", ["trm_mlp"], indirect=True)
def test_what_cannot_be_written_leaves_what_was_there(case, tmp_path):
    _, program, model, known = case
    (tmp_path / "file").write_text("mine")
    for write, what in ((write_onnx, deepcopy(model)), (write_program, program)):
        with pytest.raises(UserError, match="file/model: could not be written"):
            write(what, known, tmp_path / "file/model")
        with pytest.raises(UserError, match="could not be written"):
            write(what, known, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_a_missing_package_is_named_with_its_extra(missing, tmp_path, call, monkeypatch):
    found = importlib.util.find_spec
    hidden = lambda name, *more: None if name == missing else found(name, *more)  # noqa: E731
    monkeypatch.setattr("hrm.checkpoint.step_graph.find_spec", hidden)
    code, _, err = call("export", "sudoku-4x4", "--onnx", str(tmp_path / "model.onnx"))
    assert (code, err) == (
        2,
        f"error: ONNX needs {missing}; install it by: pip install 'recursive-reasoning[onnx]'\n",
    )
    assert not list(tmp_path.iterdir())
