"""A step as one CUDA graph, which the host starts with one call.

Small models are limited by the host, which launches a thousand kernels a step. `compute_step` can
be captured, since it waits for nothing and leaves what outlives it where it is in memory.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from hrm.errors import UserError, one_line
from hrm.progress import say
from hrm.ranks import Ranks
from hrm.training.config import PretrainConfig
from hrm.training.state import TrainState, begin_step, compute_step, forget_gradients

Batch = dict[str, Tensor]
WARM_UP_STEPS = 3  # in which blocks are compiled and optimizers make their averages


def stepper(
    state: TrainState, config: PretrainConfig, ranks: Ranks, device: torch.device
) -> Callable[[Batch], None]:
    """Takes training steps, one for each batch, and adds their metrics to the state's.

    Good until a checkpoint is put into the state.
    """

    def compute(batch: Batch) -> None:
        state.sums.add(compute_step(state, batch, config, ranks))

    run = compute
    if can_capture(config, ranks, device):
        run = CapturedStep(
            compute, partial(forget_gradients, state.model), config.cuda_graph == "true"
        )

    def step(batch: Batch) -> None:
        begin_step(state, config)
        run(batch)

    return step


def can_capture(config: PretrainConfig, ranks: Ranks, device: torch.device) -> bool:
    """Whether steps are to be captured.

    Raises:
        UserError: `cuda_graph=true` where they cannot be.
    """
    reason = f"the device is {device.type}" if device.type != "cuda" else ""
    if ranks.size > 1:
        reason = "what ranks send each other is not captured"
    if reason and config.cuda_graph == "true":
        raise UserError(f"cuda_graph=true: {reason}; use cuda_graph=auto")
    return not reason and config.cuda_graph != "false"


class CapturedStep:
    """Calls `compute` for the first batches, captures it then, and replays it from there on.

    Args:
        compute: changes tensors that stay in place, and nothing else.
        forget: drops what a capture that failed has left: gradients that nobody computed.
        is_wanted: where it cannot be captured, raise `UserError` instead of calling it on.
    """

    def __init__(
        self, compute: Callable[[Batch], None], forget: Callable[[], None], is_wanted: bool
    ):
        self._compute, self._forget, self._is_wanted = compute, forget, is_wanted
        self._stream = torch.cuda.Stream()
        self._done = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Batch = {}  # where the graph reads

    def __call__(self, batch: Batch) -> None:
        if self._done == WARM_UP_STEPS:
            self._capture(batch)
        self._done += 1
        if self._graph is None:
            self._beside(batch)
            return
        for name, held in self._batch.items():
            held.copy_(batch[name])
        self._graph.replay()

    def _beside(self, batch: Batch) -> None:
        """On the stream that is captured, whose order autograd keeps."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._compute(batch)
        torch.cuda.current_stream().wait_stream(self._stream)

    def _capture(self, batch: Batch) -> None:
        graph = torch.cuda.CUDAGraph()
        self._batch = {name: tensor.clone() for name, tensor in batch.items()}
        try:
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._compute(self._batch)
        except RuntimeError as error:
            reason = f"the step cannot be captured ({one_line(error)})"
            if self._is_wanted:
                raise UserError(f"cuda_graph=true: {reason}; use cuda_graph=auto") from None
            say(f"cuda_graph: {reason}; going on without")
            self._forget()
            self._batch = {}
            return
        self._graph = graph
