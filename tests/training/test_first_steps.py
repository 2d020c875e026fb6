"""Accuracy at first steps: of what no update has seen since it was drawn."""

import pytest
import torch

from hrm.metrics import MetricSums
from hrm.ranks import Ranks
from hrm.training.config import load_pretrain_config
from hrm.training.splits import open_split
from hrm.training.state import TrainState, train_step
from tests.conftest import SMALL_MODEL

ALONE, CPU = Ranks(0, 1, 0), torch.device("cpu")
STAYS = ("arch.q_continue=false", "arch.loss.q_halt_weight=0")  # nothing halts before its last step
KEYS = ("global_batch_size=16", "epochs=4", "eval_interval=4", "lr_warmup_steps=0", "lr=1e-2")


def answers(state: TrainState, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the weights of now answer after one ACT step, [B, T]."""
    head = state.model.eval()
    with torch.no_grad():
        *_, out, _ = head(carry=head.initial_carry(batch), batch=batch, return_keys=["logits"])
    head.train()
    return out["logits"].argmax(-1)


@pytest.mark.parametrize("micro", [16, 4])
@pytest.mark.parametrize("stagger", [False, True])
def test_they_are_what_the_weights_before_the_update_answer(data_4x4, stagger, micro):
    """Without `stagger` all rows begin together, every fourth step."""
    given = [*SMALL_MODEL, *KEYS, *STAYS, f"stagger={stagger}", f"micro_batch_size={micro}"]
    config = load_pretrain_config([f"data_path={data_4x4}", *given])
    train_set = open_split(config, ALONE, "train")
    state, row = TrainState.create(config, train_set.metadata, CPU, ALONE), torch.arange(16)
    for number in range(9):
        batch = train_set.batch(0, number)[1]
        batch["labels"][3] = -100  # a row without labels counts nowhere
        begins = (row + number) % 4 == 0 if stagger else torch.tensor([number % 4 == 0] * 16)
        counted = begins & (row != 3)
        right = (answers(state, batch) == batch["labels"])[counted]
        metrics = train_step(state, batch, config, ALONE)
        assert metrics["first_step_count"] == counted.sum()
        torch.testing.assert_close(metrics["first_step_accuracy"], right.float().mean(-1).sum())
        assert metrics["first_step_exact_accuracy"] == right.all(-1).sum()


def test_they_are_divided_by_their_own_count():
    sums = MetricSums()
    given = {"count": 0, "accuracy": 0, "first_step_count": 4, "first_step_accuracy": 3}
    sums.add({name: torch.tensor(float(value)) for name, value in given.items()})
    sums.add({name: torch.tensor(2.0) for name in given})
    assert sums.reduce(ALONE) == {"count": 2, "accuracy": 1, "first_step_accuracy": 5 / 6}
    sums.add({name: torch.tensor(0.0) for name in given})
    assert sums.reduce(ALONE) == {"count": 0}
