"""Weights: read without executing anything, compared with a model, written."""

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hrm.errors import UserError, one_line

COMPILE_PREFIX = "_orig_mod."
OVER_POSITIONS = "mlp_t.gate_up_proj.weight"  # of as many columns as a sequence has positions


def load_weights(
    model: nn.Module, weights: Mapping[str, Tensor] | str | Path, source: str = "weights"
) -> None:
    """Load weights by name, with or without `_orig_mod.`, in place.

    Args:
        weights: a state dict, a `.safetensors` file, or a file that `torch.save` wrote (read
            with `weights_only=True`, so nothing in it is executed).
        source: what to call a state dict in an error.

    Raises:
        UserError: the file cannot be read; a tensor is missing, unknown or of another shape.
    """
    if not isinstance(weights, Mapping):
        source, weights = str(weights), read_weights(Path(weights))
    state = without_prefix(weights)
    check_weights(model, state, source)
    model.load_state_dict(state)


def check_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Compare names, shapes and kinds with what the model expects; it may be on the meta device.

    Raises:
        UserError: a tensor is missing, unknown, or of another shape or kind.
    """
    expected = model.state_dict()
    if missing := sorted(expected.keys() - state.keys()):
        raise UserError(f"{source}: tensor {missing[0]} is missing ({len(missing)} in all)")
    if unknown := sorted(state.keys() - expected.keys()):
        raise UserError(f"{source}: tensor {unknown[0]} is unknown ({len(unknown)} in all)")
    for name, tensor in expected.items():
        if name.endswith(OVER_POSITIONS) and state[name].shape[1:] != tensor.shape[1:]:
            raise UserError(
                f"{source}: the MLP over positions (arch.mlp_t) is of {state[name].shape[-1]} "
                f"positions, and the data set needs {tensor.shape[-1]}; name the data set that the "
                "model was trained on"
            )
        if state[name].shape != tensor.shape:
            raise UserError(
                f"{source}: tensor {name} has shape {list(state[name].shape)}, the model "
                f"expects {list(tensor.shape)}; check arch and data set against the checkpoint"
            )
        if state[name].is_floating_point() != tensor.is_floating_point():
            raise UserError(f"{source}: tensor {name} holds {state[name].dtype}, not real numbers")


def without_prefix(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A compiled model's names as the model's own."""
    return {name.replace(COMPILE_PREFIX, ""): tensor for name, tensor in weights.items()}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a `.safetensors` or `torch.save` file without executing anything."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: not found") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: cannot be read as weights (damaged, or it holds more than tensors; "
            "code in it is never run)"
        ) from None
    except Exception as error:  # damaged bytes raise almost anything out of the readers
        raise UserError(
            f"{path}: cannot be read as weights ({one_line(error, named=True)})"
        ) from None
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise UserError(f"{path}: does not hold a state dict (name -> tensor)")
    if not all(_holds_its_values(tensor) for tensor in state.values()):
        raise UserError(f"{path}: a tensor in it is larger than its values")
    return dict(state)


def read_share(
    path: Path, is_split: Callable[[str], bool], rows: range, length: int
) -> dict[str, Tensor]:
    """Read a `.safetensors` file, of some tensors only `rows` of all `length`.

    Raises:
        UserError: the file cannot be read, or such a tensor has another length.
    """
    tensors = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                if not is_split(name):
                    tensors[name] = file.get_tensor(name)
                    continue
                split = file.get_slice(name)
                if split.get_shape()[:1] != [length]:
                    raise ValueError(f"{name} is {split.get_shape()}, not of {length} rows")
                tensors[name] = split[rows.start : rows.stop]
    except Exception as error:  # damaged bytes raise almost anything out of the reader
        raise UserError(f"{path}: cannot be read ({one_line(error, named=True)})") from None
    return tensors


def read_rows(path: Path, names: Sequence[str], count: int) -> Iterator[dict[str, Tensor]]:
    """Some tensors of a `.safetensors` file, `count` rows of each at a time.

    Raises:
        UserError: the file cannot be read, or lacks one of them.
    """
    try:
        with safe_open(path, framework="pt") as file:
            missing = set(names) - set(file.keys())
            if not missing:
                slices = {name: file.get_slice(name) for name in names}
                for start in range(0, slices[names[0]].get_shape()[0], count):
                    yield {name: rows[start : start + count] for name, rows in slices.items()}
    except Exception as error:  # damaged bytes raise almost anything out of the reader
        raise UserError(f"{path}: cannot be read ({one_line(error, named=True)})") from None
    if missing:
        raise UserError(
            f"{path}: holds no {min(missing)}; evaluate with eval_save_outputs={','.join(names)}"
        )


def _holds_its_values(tensor: Tensor) -> bool:
    """Whether it takes as much memory as its shape says: neither sparse nor one value repeated."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return False
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a `.safetensors` file, readable by everyone.

    Raises:
        OSError: it cannot be written.
    """
    try:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path)
    except SafetensorError as error:
        raise OSError(str(error)) from None
    path.chmod(0o644)
