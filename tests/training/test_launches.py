"""A step never makes the host wait for the device, and stays where it is in memory.

On the meta device, which has shapes and no values, whatever would wait raises.
"""

import pytest
import torch
from torch import Tensor

from benchmarks.counting import META, counted
from hrm import rollout
from hrm.data.format import DatasetMetadata, read_metadata
from hrm.ranks import Ranks
from hrm.rollout import Noise, Slots
from hrm.training.config import PretrainConfig, load_pretrain_config
from hrm.training.splits import open_split
from hrm.training.state import TrainState, train_step
from tests.conftest import SMALL_MODEL

ALONE = Ranks(0, 1, 0)
CPU = torch.device("cpu")
KINDS = {
    "published": (),
    "trm": ("arch=trm", "ema=true", "ema_warm_up=false", "ema_buffers=false"),
    "trm_mlp": ("arch=trm_mlp",),
    "symbols": ("arch=symbol_equivariant", "optimizer=muon"),
    "everything": (
        "arch=quickstart",
        "arch.puzzle_emb_ndim=32",
        "optimizer=muon",
        "stagger=true",
        "hint_rate=0.5",
        "ema=true",
        "grad_clip=1.0",
        "micro_batch_size=8",
    ),
}


def configured(data, kind: str) -> tuple[PretrainConfig, DatasetMetadata]:
    left_out = {"trm": "H_layers", "trm_mlp": "H_layers", "symbols": "H_layers num_heads"}
    absent = left_out.get(kind, "").split()
    small = [key for key in SMALL_MODEL if not any(name in key for name in absent)]
    shared = f"data_path={data}", "global_batch_size=16", "micro_batch_size=null", *small
    return load_pretrain_config([*shared, *KINDS[kind]]), read_metadata(data / "train")


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_asks_the_device_nothing(data_4x4, kind):
    config, metadata = configured(data_4x4, kind)
    state = TrainState.create(config, metadata, META, ALONE)
    batch = state.model.model.blank_batch(16, META)
    work = counted(lambda: state.sums.add(train_step(state, batch, config, ALONE)))
    assert work.launches > 100 and work.bytes > 10**6


@pytest.mark.parametrize("operation", [Tensor.item, Tensor.nonzero, lambda t: t[t > 0], bool])
def test_asking_would_be_noticed(operation):
    one = torch.ones((), device=META)
    with pytest.raises((RuntimeError, NotImplementedError)):
        operation(one)


@pytest.mark.parametrize("kind", KINDS)
def test_what_outlives_a_step_stays_in_its_place(data_4x4, kind):
    config, metadata = configured(data_4x4, kind)
    state = TrainState.create(config, metadata, CPU, ALONE)
    batches = [batch for _, batch, _ in open_split(config, ALONE, "train")][:4]
    places = []
    for batch in batches:
        state.sums.add(train_step(state, batch, config, ALONE))
        kept = [*state.model.state_dict().values(), *state.sums.totals().values()]
        kept += [t for o in state.optimizers for s in o.state.values() for t in s.values()]
        kept += [t for carry in state.carries for t in carry.named().values()]
        kept += state.stability.tensors().values()
        kept += [] if state.ema is None else state.ema.shadow.values()
        places.append([tensor.data_ptr() for tensor in kept])
    assert len(places) == 4 and places[0] == places[1] == places[2] == places[3]
    before = state.sums.totals()
    state.sums.reduce(ALONE)
    assert all(state.sums.totals()[name] is total for name, total in before.items())


@pytest.mark.parametrize(("halting", "waits"), [("learned", 1), ("max_steps", 0)])
def test_a_rollout_asks_once_a_step_at_most(data_4x4, monkeypatch, halting, waits):
    config, metadata = configured(data_4x4, "published")
    model = TrainState.create(config, metadata, META, ALONE).model.eval()
    asked: list[Tensor] = []

    def answered(tensor: Tensor) -> Tensor:
        asked.append(tensor)
        return torch.zeros(tensor.shape, dtype=tensor.dtype)

    monkeypatch.setattr(rollout, "to_host", answered)
    slots = Slots(model)
    slots.admit(torch.arange(8), model.model.blank_batch(8, META), 4, halting, None, Noise.none(8))
    with torch.no_grad():
        for step in range(1, 5):
            taken = slots.step()
            assert len(asked) == waits * min(step, 3)  # the last step needs no answer
    assert taken.halting.all() and not slots.running.any()
