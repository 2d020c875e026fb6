"""Captured steps without a GPU: what a graph that is none computes, and from which memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch

from hrm.errors import UserError
from hrm.training.graph import WARM_UP_STEPS, Batch, CapturedStep


class Stream:
    def wait_stream(self, other: "Stream") -> None:
        pass


class Graph:
    """Computes again what was computed while it was captured."""

    def __init__(self) -> None:
        self.replays = 0
        self.again: Callable[[], None] = lambda: None

    def replay(self) -> None:
        self.replays += 1
        self.again()


class Computed:
    """What was computed: sums of batches, and in which memory they lay."""

    def __init__(self) -> None:
        self.sums: list[float] = []
        self.places: list[int] = []
        self.captured: Graph | None = None  # which captures at present

    def __call__(self, batch: Batch) -> None:
        if self.captured is not None:
            self.captured.again = lambda: self(batch)
            return
        self.sums.append(sum(float(tensor.sum()) for tensor in batch.values()))
        self.places.append(batch["inputs"].data_ptr())


@pytest.fixture
def computed(monkeypatch) -> Computed:
    """As on a machine with a GPU."""
    found = Computed()

    @contextmanager
    def capture(graph: Graph, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        found.captured = graph
        yield
        found.captured = None

    for name, fake in (
        ("Stream", Stream),
        ("CUDAGraph", Graph),
        ("current_stream", Stream),
        ("stream", nullcontext),
        ("graph", capture),
    ):
        monkeypatch.setattr(torch.cuda, name, fake)
    return found


def batches(count: int) -> list[Batch]:
    return [
        {"inputs": torch.full((2,), n), "labels": torch.full((2,), 10 * n)} for n in range(count)
    ]


def test_every_batch_is_computed_once(computed):
    step, given = CapturedStep(computed, pytest.fail, True), batches(WARM_UP_STEPS + 4)
    for batch in given:
        step(batch)
    assert computed.sums == [22.0 * n for n in range(len(given))]
    assert step._graph.replays == 4


def test_the_graph_reads_where_it_was_captured(computed):
    """The first batches are computed where they lie, the others in memory that nobody else has."""
    step, given = CapturedStep(computed, pytest.fail, True), batches(WARM_UP_STEPS + 4)
    for batch in given:
        step(batch)
    own = [batch["inputs"].data_ptr() for batch in given]
    assert computed.places[:WARM_UP_STEPS] == own[:WARM_UP_STEPS]
    [held] = set(computed.places[WARM_UP_STEPS:])
    assert held not in own
    assert [batch["inputs"].tolist() for batch in given] == [[n, n] for n in range(len(given))]


@pytest.mark.parametrize("is_wanted", [False, True])
def test_steps_that_cannot_be_captured_are_computed_or_refused(
    computed, monkeypatch, capsys, is_wanted
):
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    forgotten: list[int] = []
    step = CapturedStep(computed, lambda: forgotten.append(len(computed.sums)), is_wanted)
    given = batches(WARM_UP_STEPS + 3)
    for batch in given[:WARM_UP_STEPS]:
        step(batch)
    if is_wanted:
        with pytest.raises(UserError, match="cuda_graph=true: .* cannot be captured .*=auto"):
            step(given[WARM_UP_STEPS])
        return
    for batch in given[WARM_UP_STEPS:]:
        step(batch)
    assert forgotten == [WARM_UP_STEPS], "once, before the step is computed"
    assert computed.sums == [22.0 * n for n in range(len(given))]
    assert capsys.readouterr().out.count("going on without") == 1
