"""The originals' configurations: what they say in keys of their own, in ours."""

from collections.abc import Mapping
from typing import Any

# Of the data set or of the run; where a model is configured without them, they are dropped.
DATA_KEYS = frozenset(("batch_size", "seq_len", "vocab_size", "num_puzzle_identifiers"))
# Keys that have one value here; another would be another model.
FIXED: dict[str, Any] = {"causal": False, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}
IGNORED = {"trm": frozenset(("H_layers",))}  # by core; the original has no use for them


def in_our_keys(core: str, arch: Mapping[str, Any]) -> dict[str, Any]:
    """An original's architecture; keys that are ours already stay as they are.

    Raises:
        ValueError: a key has a value that is not computed here.
    """
    ours = {key: value for key, value in arch.items() if key not in IGNORED.get(core, ())}
    for key, only in FIXED.items():
        if (given := ours.pop(key, only)) != only:
            raise ValueError(f"{key} {given!r}: only {only} is known here")
    if (given := ours.pop("no_ACT_continue", None)) is not None:
        if not isinstance(given, bool):
            raise ValueError(f"no_ACT_continue {given!r}: must be true or false")
        ours["q_continue"] = not given
    return ours
