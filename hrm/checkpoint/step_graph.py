"""One ACT step of a model as a file that other programs run: ONNX, or PyTorch's exported program.

The graph is `OneStep` in float32, for any batch. Its ONNX file has opset 18 and these tensors:

    in   tokens [B, T] int32, begins [B] bool, z_H and z_L [B, S, D] float32, and
         puzzle_identifiers [B] int32 where the model has a puzzle embedding
    out  logits [B, T, V] float32, q_halt [B] float32, wants_to_halt [B] bool,
         next_z_H and next_z_L [B, S, D] float32

and `facts` as metadata. Shapes: B batch, T tokens, S positions, D hidden size, V vocabulary.
"""

import json
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

import hrm
from hrm.checkpoint.folder import Checkpoint
from hrm.config import GraphDtype
from hrm.errors import UserError, install_command
from hrm.files import atomic_write
from hrm.models.one_step import OneStep

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

OPSET = 18
FACTS_FILE = "facts.json"  # in PyTorch's exported program
FEWEST_QUANTIZED = 1024  # weights of a matrix; smaller ones stay as they are
QUIET = ("torch.onnx", "torch.export", "onnxscript")


def facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a user of the graph needs to know of model and data set, as plain values.

    Returns:
        `task`, `symbols` (one for each token, or None), `grid_shape`, `box_shape`, `seq_len`,
        `vocab_size`, `pad_id` and `unseen_identifier` of the data set; `states`: name -> shape
        without the batch; `halt_max_steps` of training; with learned halting `max_steps` at most,
        and at least `halt_probability`, which sigmoid(q_halt) must reach; `hrm`: the version.
    """
    metadata, config = checkpoint.metadata, checkpoint.config
    act = checkpoint.model.model
    blank = act.inner.blank_states(1, torch.device("cpu"))
    return {
        "task": metadata.task,
        "symbols": metadata.symbols,
        "grid_shape": metadata.inferred_grid_shape(),
        "box_shape": metadata.inferred_box_shape(),
        "seq_len": metadata.seq_len,
        "vocab_size": metadata.vocab_size,
        "pad_id": metadata.pad_id,
        "unseen_identifier": metadata.unseen_identifier,
        "states": {name: list(state.shape[1:]) for name, state in blank.items()},
        "halt_max_steps": act.config.halt_max_steps,
        "max_steps": config.steps_at_most("learned"),
        "halt_probability": config.eval_halt_probability,
        "hrm": hrm.__version__,
    }


def trace_step(checkpoint: Checkpoint) -> torch.export.ExportedProgram:
    """One ACT step in float32 as a graph for any batch; takes seconds.

    Called as `OneStep` is, with `states` as a dictionary.
    """
    act = checkpoint.in_dtype("float32").model.model.eval()
    core, rows = act.inner, 2  # a batch of one would be taken for a constant
    batch, device = torch.export.Dim("batch"), torch.device("cpu")
    example: dict[str, Any] = {
        "tokens": torch.zeros(rows, act.config.seq_len, dtype=torch.int32),
        "begins": torch.ones(rows, dtype=torch.bool),
        "states": core.blank_states(rows, device),
    }
    identifiers = torch.zeros(rows, dtype=torch.int32)
    if core.look_up(identifiers) is not None:
        example["puzzle_identifiers"] = identifiers
    sizes = {
        name: {0: batch} if isinstance(value, Tensor) else dict.fromkeys(value, {0: batch})
        for name, value in example.items()
    }
    with torch.no_grad(), _quiet():
        return torch.export.export(OneStep(act), (), example, dynamic_shapes=sizes)


def write_program(program: torch.export.ExportedProgram, known: dict[str, Any], path: Path) -> None:
    """Write a traced step for `torch.export.load`, with `facts` as its extra file `facts.json`.

    Raises:
        UserError: it cannot be written; what was there stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            with temporary.open("wb") as file:
                torch.export.save(program, file, extra_files={FACTS_FILE: json.dumps(known)})
    except OSError as error:
        raise UserError(f"torch_export={path}: could not be written ({error})") from None


def write_onnx(
    model: "ModelProto", known: dict[str, Any], path: Path, dtype: GraphDtype = "float32"
) -> None:
    """Write an ONNX file.

    Args:
        model: as `as_onnx` makes it; is changed.
        known: as `facts` gives it: every value becomes metadata of the model, as JSON.
        dtype: of the stored weights; int8: of the matrices, with a scale for each row or column,
            and float32 once they are read.

    Raises:
        UserError: it cannot be written; what was there stays.
    """
    if dtype == "int8":
        quantize(model)
    for name, value in known.items():
        model.metadata_props.add(key=name, value=json.dumps(value))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_bytes(model.SerializeToString())
    except OSError as error:
        raise UserError(f"onnx={path}: could not be written ({error})") from None


def check_onnx() -> None:
    """
    Raises:
        UserError: a package that ONNX needs is missing.
    """
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise UserError(f"ONNX needs {package}; install it by: {install_command('onnx')}")


def as_onnx(program: torch.export.ExportedProgram, states: Iterable[str]) -> "ModelProto":
    """A traced step in ONNX, with the names that stand above; takes seconds.

    Args:
        states: their names, as `facts` has them.

    Raises:
        UserError: as `check_onnx`.
    """
    check_onnx()
    import onnx_ir.passes.common as passes

    inputs = ["tokens", "begins", *states]
    if len(program.graph_signature.user_inputs) > len(inputs):
        inputs.append("puzzle_identifiers")
    with _quiet():
        made = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=inputs,
            output_names=["logits", "q_halt", "wants_to_halt", *(f"next_{s}" for s in states)],
        )
    assert made is not None
    passes.DeduplicateInitializersPass()(made.model)
    model: ModelProto = made.model_proto
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for text in (*model.graph.node, *model.graph.input, *model.graph.output):
        del text.metadata_props[:]
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    return model


def quantize(model: "ModelProto") -> None:
    """Store the matrices of matrix products as int8, in place; DequantizeLinear reads them.

    Symmetric, with a scale for each row or column, whichever rounds less.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    turned = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Transpose"}
    factors = {node.input[1] for node in graph.node if node.op_type == "MatMul"}
    factors = {turned.get(name, name) for name in factors}
    added: list[NodeProto] = []
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        if tensor.name not in factors or values.ndim != 2 or values.size < FEWEST_QUANTIZED:
            continue
        numbers, scale, axis = min((_rounded(values, axis) for axis in (0, 1)), key=_error(values))
        name = tensor.name
        graph.initializer.remove(tensor)
        parts = {f"{name}_int8": numbers, f"{name}_scale": scale.squeeze()}
        graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in parts.items())
        added.append(helper.make_node("DequantizeLinear", [*parts], [name], axis=axis))
    for place, node in enumerate(added):
        graph.node.insert(place, node)


Rounded = tuple[np.ndarray, np.ndarray, int]


def _rounded(values: np.ndarray, axis: int) -> Rounded:
    """int8 numbers, and their scale for each place along `axis`."""
    largest = np.abs(values).max(axis=1 - axis, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(values / scale).astype(np.int8), scale, axis


def _error(values: np.ndarray) -> Any:
    return lambda rounded: float(np.square(rounded[0] * rounded[1] - values).sum())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch's exporters say to their own developers."""
    loggers = [logging.getLogger(name) for name in QUIET]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
