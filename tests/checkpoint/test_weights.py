"""Weights by name from state dicts and files, ours and the original's; nothing is executed."""

import os
import pickle
import random

import pytest
import torch
from safetensors.torch import save_file

import hrm
from hrm.checkpoint import initial_weights, load_checkpoint, read_weights
from hrm.checkpoint.manifest import Damaged
from hrm.errors import UserError
from tests.conftest import saved_run
from tests.mutations import flipped

ARCH = {
    "seq_len": 4,
    "vocab_size": 5,
    "num_puzzle_identifiers": 3,
    "hidden_size": 8,
    "num_heads": 2,
    "expansion": 1,
    "H_layers": 1,
    "L_layers": 1,
    "H_cycles": 1,
    "L_cycles": 1,
    "halt_max_steps": 2,
    "halt_exploration_prob": 0.1,
    "pos_encodings": "rope",
    "puzzle_emb_ndim": 8,
}
LOSS = {"loss_type": "softmax_cross_entropy"}
TABLE = "model.inner.puzzle_emb.weights"


def build() -> torch.nn.Module:
    model = hrm.build_model(ARCH, LOSS)
    model.state_dict()[TABLE].normal_()
    return model


def assert_same(a: torch.nn.Module, b: torch.nn.Module) -> None:
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name,
        lambda name: f"_orig_mod.{name}",
        lambda name: name.replace("inner.", "inner._orig_mod."),
        lambda name: f"_orig_mod.{name}".replace("layers.0.", "layers.0._orig_mod."),
    ],
)
def test_prefixes_of_compiled_models_anywhere(rename):
    source, model = build(), build()
    hrm.load_weights(model, {rename(n): t.clone() for n, t in source.state_dict().items()})
    assert_same(model, source)


@pytest.mark.parametrize("form", ["safetensors", "torch", "torch_legacy", "torch_without_suffix"])
def test_files(form, tmp_path):
    source, model = build(), build()
    path = tmp_path / {"safetensors": "w.safetensors", "torch_without_suffix": "step_7"}.get(
        form, "w.pt"
    )
    if form == "safetensors":
        save_file(source.state_dict(), path)
    else:
        state = {f"_orig_mod.{n}": t for n, t in source.state_dict().items()}
        torch.save(state, path, _use_new_zipfile_serialization=form != "torch_legacy")
    hrm.load_weights(model, path if form != "torch" else str(path))
    assert_same(model, source)


def test_bfloat16_tensors_become_float32():
    source, model = build(), build()
    state = {n: t.bfloat16() for n, t in source.state_dict().items()}
    hrm.load_weights(model, state)
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, state[name].float())


def test_missing_unknown_and_misshapen_tensors_are_named_and_change_nothing():
    model = build()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    fresh = build().state_dict()

    missing = {n: t for n, t in fresh.items() if n != "model.inner.lm_head.weight"}
    with pytest.raises(UserError, match=r"model\.inner\.lm_head\.weight is missing \(1 in all\)"):
        hrm.load_weights(model, missing)
    with pytest.raises(UserError, match=r"tensor model\.extra is unknown \(1 in all\)"):
        hrm.load_weights(model, fresh | {"model.extra": torch.zeros(1)})
    with pytest.raises(UserError) as caught:
        hrm.load_weights(model, fresh | {TABLE: torch.zeros(1000, 8)}, source="step_7")
    for part in ("step_7", TABLE, "[1000, 8]", "[3, 8]"):
        assert part in str(caught.value)
    with pytest.raises(UserError, match=TABLE):  # broadcastable is not good enough
        hrm.load_weights(model, fresh | {TABLE: torch.zeros(1, 8)})

    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


class Malicious:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("form", ["pickle", "torch", "torch_legacy"])
def test_code_in_a_pickle_is_refused_and_not_run(form, tmp_path):
    proof, path = tmp_path / "executed", tmp_path / "weights.pt"
    payload = {"model.inner.H_init": Malicious(proof)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(payload, protocol=2))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(UserError, match="never run") as caught:
        hrm.load_weights(build(), path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not proof.exists()
    pickle.loads(pickle.dumps(payload))  # the payload works: plain unpickling runs it
    assert proof.exists()


@pytest.mark.parametrize("form", ["safetensors", "torch", "torch_legacy"])
def test_damaged_files_end_in_one_line(form, tmp_path):
    tensors = {"a.b": torch.randn(8, 4), "c": torch.ones(3)}
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=form == "torch")
    whole = path.read_bytes()
    draw = random.Random(0)

    def damaged() -> bytes:
        changed = bytearray(whole)
        for _ in range(3):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        return bytes(changed)

    lengths = range(0, len(whole) - 1, max(1, len(whole) // 40))
    for number, content in enumerate(
        [
            *(whole[:n] for n in lengths),
            *(damaged() for _ in range(150)),
            b"version https://git-lfs",
        ]
    ):
        path.write_bytes(content)
        try:
            read_weights(path)
            assert len(content) == len(whole)  # only flipped bytes may go unnoticed
        except UserError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error), number


@pytest.mark.parametrize("content", [[torch.ones(2)], {"step": 3}, {1: torch.ones(2)}, 7], ids=str)
def test_files_that_hold_something_else(content, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(UserError, match="does not hold a state dict"):
        hrm.load_weights(build(), tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_file_that_is_not_there(name, tmp_path):
    with pytest.raises(UserError, match=f"{name}: not found"):
        hrm.load_weights(build(), tmp_path / name)
    with pytest.raises(UserError, match="cannot be read as weights"):
        hrm.load_weights(build(), tmp_path)  # a folder


def test_a_damaged_checkpoint_is_nothing_to_begin_with(data_4x4, tmp_path):
    run_dir = saved_run(data_4x4, tmp_path / "run")
    model, file = load_checkpoint(run_dir).model, run_dir / "step_7/model.safetensors"
    assert initial_weights(run_dir, model).keys() == model.state_dict().keys()
    whole = file.read_bytes()
    file.write_bytes(flipped(whole, len(whole) - 1, 0))
    with pytest.raises(Damaged, match=r"model\.safetensors: damaged.*name another checkpoint"):
        initial_weights(run_dir, model)
