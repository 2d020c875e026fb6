"""What is shown of answers in training."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from hrm.data.format import IGNORE_LABEL_ID
from hrm.models.act import Carry
from hrm.ranks import Ranks
from hrm.training.config import load_pretrain_config
from hrm.training.hints import with_hints
from hrm.training.splits import open_split
from hrm.training.state import TrainState, train_step
from tests.conftest import SMALL_MODEL

ROWS, CELLS, BLANK = 512, 40, 0


def made(seed: int = 0) -> tuple[dict[str, torch.Tensor], Carry]:
    """Puzzles with a quarter of their cells given and an eighth of them without an answer."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(1, 10, (ROWS, CELLS), generator=random, dtype=torch.int32)
    given = torch.rand(ROWS, CELLS, generator=random) < 0.25
    labels[torch.rand(ROWS, CELLS, generator=random) < 0.125] = IGNORE_LABEL_ID
    inputs = torch.where(given & (labels != IGNORE_LABEL_ID), labels, BLANK)
    batch = {
        "inputs": inputs,
        "labels": labels,
        "puzzle_identifiers": torch.arange(ROWS, dtype=torch.int32),
    }
    rows = torch.arange(ROWS)
    blank = torch.zeros(ROWS, dtype=torch.int64)
    return batch, Carry({}, blank.int(), blank.bool(), rows, blank + 7, {})


@given(rate=st.floats(0, 1), most=st.floats(0, 1), seed=st.integers(0, 2**40))
def test_hints_are_true_and_nothing_else_changes(rate, most, seed):
    batch, carry = made()
    hinted = with_hints(batch, carry, rate, most, seed)
    changed = hinted["inputs"] != batch["inputs"]
    assert (hinted["inputs"][changed] == batch["labels"][changed]).all()
    assert (batch["inputs"][changed] == BLANK).all()
    assert (batch["labels"][changed] != IGNORE_LABEL_ID).all()
    for name in ("labels", "puzzle_identifiers"):
        assert torch.equal(hinted[name], batch[name])
    assert hinted["inputs"].dtype == batch["inputs"].dtype


def test_shares_are_those_that_were_asked_for():
    batch, carry = made()
    hinted = with_hints(batch, carry, rate=0.6, most=0.8, seed=0)
    blanks = (batch["inputs"] == BLANK) & (batch["labels"] != IGNORE_LABEL_ID)
    shown = (hinted["inputs"] != batch["inputs"]).sum(1) / blanks.sum(1)
    got_some = shown > 0
    assert abs(got_some.float().mean() - 0.6) < 0.08
    assert abs(shown[got_some].mean() - 0.4) < 0.05
    assert shown.max() > 0.7 and (shown < 0.1)[got_some].any()


def test_each_puzzle_gets_its_own_whatever_stands_beside_it():
    batch, carry = made()
    whole = with_hints(batch, carry, 0.6, 0.8, seed=3)["inputs"]
    part = slice(100, 132)
    alone = with_hints(
        {name: tensor[part] for name, tensor in batch.items()}, carry.select(part), 0.6, 0.8, seed=3
    )["inputs"]
    assert torch.equal(alone, whole[part])
    other = with_hints(batch, carry, 0.6, 0.8, seed=4)["inputs"]
    carry.tick += 1
    later = with_hints(batch, carry, 0.6, 0.8, seed=3)["inputs"]
    assert not torch.equal(other, whole) and not torch.equal(later, whole)


def test_a_run_of_another_seed_gives_other_hints(data_4x4):
    alone = Ranks(0, 1, 0)
    keys = [f"data_path={data_4x4}", "global_batch_size=16", "hint_rate=1", *SMALL_MODEL]
    train_set = open_split(load_pretrain_config(keys), alone, "train")
    batch = train_set.batch(0, 0)[1]

    def taken(seed: int) -> torch.Tensor:
        config = load_pretrain_config([*keys, f"seed={seed}"])
        state = TrainState.create(config, train_set.metadata, torch.device("cpu"), alone)
        train_step(state, batch, config, alone)
        return state.carries[0].current_data["inputs"]

    assert torch.equal(taken(0), taken(0)) and not torch.equal(taken(0), taken(1))
    assert all((taken(seed) != batch["inputs"]).any() for seed in (0, 1))
