"""Damage that can be repeated: what happens to files on disks, in transfers and in wrong hands."""

from collections.abc import Callable, Sequence

import numpy as np

from hrm.errors import UserError

Rng = np.random.Generator

NASTY_VALUES = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**400,
    -1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "../../etc/passwd",
    "a\nb\0c\x1b[2J",
    "\ud800",
    "${oc.env:HOME}",
    "7" * 5000,
    [],
    {},
    [1, [2, [3]]],
    {"_target_": "os.system"},
)


def flip_bit(data: bytes, rng: Rng) -> bytes:
    position = int(rng.integers(len(data)))
    return flipped(data, position, int(rng.integers(8)))


def flipped(data: bytes, position: int, bit: int) -> bytes:
    return data[:position] + bytes([data[position] ^ (1 << bit)]) + data[position + 1 :]


def truncate(data: bytes, rng: Rng) -> bytes:
    return data[: rng.integers(len(data))]


def append(data: bytes, rng: Rng) -> bytes:
    return data + rng.bytes(int(rng.integers(1, 64)))


def zero_block(data: bytes, rng: Rng) -> bytes:
    start, stop = _block(data, rng)
    return data[:start] + bytes(stop - start) + data[stop:]


def noise_block(data: bytes, rng: Rng) -> bytes:
    start, stop = _block(data, rng)
    return data[:start] + rng.bytes(stop - start) + data[stop:]


def delete_block(data: bytes, rng: Rng) -> bytes:
    start, stop = _block(data, rng)
    return data[:start] + data[stop:]


def repeat_block(data: bytes, rng: Rng) -> bytes:
    start, stop = _block(data, rng)
    return data[:stop] + data[start:]


def insert_byte(data: bytes, rng: Rng) -> bytes:
    position = int(rng.integers(len(data) + 1))
    return data[:position] + rng.bytes(1) + data[position:]


BYTE_MUTATIONS: tuple[Callable[[bytes, Rng], bytes], ...] = (
    flip_bit,
    truncate,
    append,
    zero_block,
    noise_block,
    delete_block,
    repeat_block,
    insert_byte,
)


def _block(data: bytes, rng: Rng) -> tuple[int, int]:
    start = int(rng.integers(len(data)))
    return start, min(len(data), start + int(rng.integers(1, 33)))


def pick(rng: Rng, options: Sequence):
    """`rng.choice` without numpy's conversions."""
    return options[rng.integers(len(options))]


def assert_one_line(error: UserError, *words: str) -> None:
    message = str(error)
    assert message.isprintable() and len(message) < 6000, message[:500]
    for word in words:
        assert word in message, message
