import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hrm.data.format import (
    ARRAY_NAMES,
    DatasetMetadata,
    PuzzleArrays,
    has_split,
    read_metadata,
    read_split,
    write_arrays,
    write_metadata,
)
from hrm.errors import UserError

METADATA = {
    "pad_id": 0,
    "ignore_label_id": 0,
    "blank_identifier_id": -1,
    "vocab_size": 5,
    "seq_len": 4,
    "num_puzzle_identifiers": 3,
    "total_groups": 3,
    "mean_puzzle_examples": 6 / 5,
    "sets": ["all"],
}


def write_split(
    split_dir: Path, metadata: dict[str, object] | None = None, **changes: object
) -> Path:
    """Six examples, five puzzles, three groups; then `changes` to arrays or metadata."""
    split_dir.mkdir(parents=True)
    tokens = np.arange(24).reshape(6, 4) % 5
    arrays = {
        "inputs": tokens.astype(np.uint8),
        "labels": tokens.astype(np.uint8),
        "puzzle_identifiers": np.array([0, 0, 1, 2, -1], np.int32),
        "puzzle_indices": np.array([0, 1, 2, 4, 5, 6], np.int32),
        "group_indices": np.array([0, 2, 4, 5], np.int32),
    }
    for name, value in (arrays | changes).items():
        np.save(split_dir / f"all__{name}.npy", value)
    (split_dir / "dataset.json").write_text(json.dumps(METADATA | (metadata or {})))
    return split_dir


def error_of(split_dir: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_split(split_dir)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_what_is_written_is_read(tmp_path):
    arrays = PuzzleArrays(
        inputs=np.ones((2, 4), np.uint8),
        labels=np.ones((2, 4), np.uint8),
        puzzle_identifiers=np.array([0, 1], np.int32),
        puzzle_indices=np.array([0, 1, 2], np.int32),
        group_indices=np.array([0, 2], np.int32),
    )
    metadata = DatasetMetadata.model_validate(
        METADATA | {"total_groups": 1, "grid_shape": [2, 2], "symbols": ".1234", "task": "sudoku"}
    )
    write_metadata(tmp_path, metadata)
    write_arrays(tmp_path, "all", arrays)
    read, sets = read_split(tmp_path)
    assert read == metadata
    for name in ARRAY_NAMES:
        array = getattr(arrays, name)
        assert getattr(sets["all"], name).dtype == array.dtype
        np.testing.assert_array_equal(getattr(sets["all"], name), array)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64", "uint64", ">i4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_integer_dtype_and_order_is_read(tmp_path, dtype, order):
    tokens = np.asarray(np.arange(24).reshape(6, 4) % 5, dtype=dtype, order=order)
    indices = np.array([0, 1, 2, 4, 5, 6], dtype)
    split_dir = write_split(tmp_path / "train", inputs=tokens, puzzle_indices=indices)
    arrays = read_split(split_dir)[1]["all"]
    np.testing.assert_array_equal(arrays.inputs, tokens)
    assert arrays.inputs.flags.c_contiguous and arrays.inputs.dtype.isnative
    assert arrays.puzzle_indices.dtype in (np.int32, np.int64)


def test_labels_may_hold_what_is_ignored(tmp_path):
    labels = np.full((6, 4), 1)
    labels[0], labels[1] = -100, 255
    read_split(write_split(tmp_path / "train", {"ignore_label_id": 255}, labels=labels))


def test_an_empty_set_is_read(tmp_path):
    empty = np.zeros((0, 4), np.uint8)
    split_dir = write_split(
        tmp_path / "test",
        {"total_groups": 0},
        inputs=empty,
        labels=empty,
        puzzle_identifiers=np.zeros(0, np.int32),
        puzzle_indices=np.zeros(1, np.int32),
        group_indices=np.zeros(1, np.int32),
    )
    assert read_split(split_dir)[1]["all"].inputs.shape == (0, 4)


def test_has_split(tmp_path):
    write_split(tmp_path / "train")
    assert has_split(tmp_path, "train") and has_split(str(tmp_path), "train")
    assert not has_split(tmp_path, "test")


TOKENS = np.arange(24).reshape(6, 4) % 5


def changed(array: np.ndarray, index: object, value: int) -> np.ndarray:
    result = array.astype(np.int64)
    result[index] = value
    return result


@pytest.mark.parametrize(
    "name, array, words",
    [
        ("inputs", changed(TOKENS, (5, 2), 5), "token 5 in row 5 is not in 0..vocab_size-1=4"),
        ("labels", changed(TOKENS, (3, 0), 9), "token 9 in row 3"),
        ("inputs", changed(TOKENS, (2, 1), -1), "token -1 in row 2"),
        ("inputs", changed(TOKENS, (2, 1), -100), "token -100 in row 2"),
        ("labels", changed(TOKENS, (2, 1), -1), "token -1 in row 2"),
        ("inputs", TOKENS.astype(np.float32), "float32, expected integers"),
        ("labels", TOKENS > 2, "bool, expected integers"),
        ("inputs", TOKENS.astype(object), "truncated or damaged"),
        ("inputs", TOKENS[:, :3], "seq_len=4"),
        ("inputs", TOKENS.reshape(-1), "seq_len=4"),
        ("inputs", np.array(3), "seq_len=4"),
        ("labels", TOKENS[:5], "5 rows, but inputs has 6"),
        ("puzzle_indices", np.array([0, 1, 2, 4, 5, 7]), "0 to 7, expected 0 to 6"),
        ("puzzle_indices", np.array([1, 2, 3, 4, 5, 6]), "1 to 6, expected 0 to 6"),
        ("puzzle_indices", np.array([0, 3, 2, 4, 5, 6]), "3 at position 1 is followed by 2"),
        ("puzzle_indices", np.array([0, 2, 2, 4, 5, 6]), "strictly increasing"),
        ("puzzle_indices", np.array([0, 3, 2, 4, 5, 6], np.uint64), "strictly increasing"),
        ("puzzle_indices", np.zeros((2, 2), np.int32), "one dimension"),
        ("puzzle_indices", np.zeros(0, np.int32), "one dimension"),
        ("group_indices", np.array([0, 2, 4]), "0 to 4, expected 0 to 5"),
        ("group_indices", np.array([0, 4, 2, 5]), "4 at position 1 is followed by 2"),
        ("group_indices", np.array([0, 2, 5]), "total_groups=3"),
        ("puzzle_identifiers", np.array([0, 0, 1, 2]), "puzzles=5"),
        ("puzzle_identifiers", np.array([0, 0, 1, 2, 3]), "identifier 3 is not below"),
        ("puzzle_identifiers", np.array([0, 0, 1, 2, -(2**40)]), "too small"),
    ],
)
def test_a_wrong_array_is_named(tmp_path, name, array, words):
    message = error_of(write_split(tmp_path / "train", **{name: array}))
    assert words in message
    assert (f"all__{name}.npy" in message) or "total_groups" in words


def header(shape: str) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin1")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:5],
        lambda data: data[:60],
        lambda data: data[:-1],
        lambda data: b"PK\x03\x04" + data,
        lambda data: b"not an array",
        lambda data: bytes(range(256)),
        lambda data: data[:10] + b"\xff" * 118 + data[128:],
        lambda data: data[:10] + b"(" * 118 + data[128:],
        lambda data: data[:10] + b"'''" + data[13:],
        lambda data: data[:6] + b"\x09\x09" + data[8:],
        lambda data: header("(7, 4)") + bytes(24),
        lambda data: header("(-1, 4)") + bytes(24),
        lambda data: header("(10**9,)") + bytes(24),
        lambda data: header("(99999999999999999999, 4)") + bytes(24),
        lambda data: header("6") + bytes(24),
    ],
)
def test_a_damaged_file_is_named(tmp_path, damage: Callable[[bytes], bytes]):
    split_dir = write_split(tmp_path / "train")
    path = split_dir / "all__inputs.npy"
    path.write_bytes(damage(path.read_bytes()))
    message = error_of(split_dir)
    assert str(path) in message and "truncated or damaged" in message


def test_a_pickled_array_is_not_opened(tmp_path):
    split_dir = write_split(tmp_path / "train")
    np.save(split_dir / "all__inputs.npy", np.array([{"a": 1}]), allow_pickle=True)
    assert "all__inputs.npy" in error_of(split_dir)


@pytest.mark.parametrize("name", ["inputs", "group_indices"])
def test_a_missing_file_is_named(tmp_path, name):
    split_dir = write_split(tmp_path / "train")
    (split_dir / f"all__{name}.npy").unlink()
    assert f"all__{name}.npy: not found" in error_of(split_dir)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"vocab_size": 0}, "key vocab_size"),
        ({"vocab_size": "many"}, "key vocab_size"),
        ({"vocab_size": 2**40}, "key vocab_size"),
        ({"seq_len": None}, "key seq_len"),
        ({"pad_id": 5}, "key pad_id: 5 is not below vocab_size=5"),
        ({"pad_id": -1}, "key pad_id"),
        ({"ignore_label_id": "none"}, "key ignore_label_id"),
        ({"blank_identifier_id": 3}, "not below num_puzzle_identifiers=3"),
        ({"total_groups": 4}, "total_groups=4, but the group_indices of its sets hold 3"),
        ({"mean_puzzle_examples": float("nan")}, "key mean_puzzle_examples"),
        ({"sets": "all"}, "key sets"),
        ({"sets": []}, "key sets"),
        ({"sets": ["all", "all"]}, "named twice"),
        ({"sets": ["../all"]}, "'../all' is not a file name"),
        ({"sets": ["a/b"]}, "not a file name"),
        ({"sets": ["a\\b"]}, "not a file name"),
        ({"sets": ["a\0b"]}, "not a file name"),
        ({"sets": [".."]}, "not a file name"),
        ({"sets": [""]}, "not a file name"),
        ({"sets": ["other"]}, "other__inputs.npy: not found"),
        ({"grid_shape": [2]}, "key grid_shape"),
        ({"sets": ["a\nb"]}, "not a file name"),
        ({"sets": ["\ud800"]}, "key sets"),
        ({"sets": ["x" * 100_000]}, "not a file name"),
        ({"grid_shape": [2, 3]}, "key grid_shape: 2x3 is not seq_len=4"),
        ({"symbols": "\x1b[2J"}, "key symbols: holds characters"),
        ({"ignore_label_id": 2**40}, "key ignore_label_id"),
        ({"mean_puzzle_examples": 1e300}, "key mean_puzzle_examples"),
    ],
)
def test_wrong_metadata_is_named(tmp_path, changes, words):
    assert words in error_of(write_split(tmp_path / "train", changes))


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b'{"pad_id": 0}']
)
def test_damaged_metadata_is_named(tmp_path, text):
    split_dir = write_split(tmp_path / "train")
    (split_dir / "dataset.json").write_bytes(text)
    assert "dataset.json" in error_of(split_dir)


def test_a_missing_data_set_says_how_to_build_one(tmp_path):
    with pytest.raises(UserError, match="hrm build sudoku --generate 2x2"):
        read_metadata(tmp_path / "nothing" / "train")


@pytest.mark.parametrize(
    "symbols, vocab_size, first",
    [
        (".123456789", 10, 1),
        ("_.123456789", 11, 2),
        ("123456789", 9, 0),
        (None, 11, 2),
        (None, 10, 1),
        (None, 12, None),  # shown as 0-9A…
        ("# So*", 5, None),
        (".1x3456789", 10, None),
        (".2345", 5, None),
        ("#123", 4, None),
    ],
)
def test_digits_are_found_by_their_symbols(symbols, vocab_size, first):
    changes = {"symbols": symbols, "vocab_size": vocab_size, "seq_len": 81, "pad_id": 0}
    assert DatasetMetadata.model_validate(METADATA | changes).first_digit == first


def test_grid_and_box_are_inferred_where_there_is_one_answer():
    def shapes(**changes: object):
        metadata = DatasetMetadata.model_validate(METADATA | changes)
        return metadata.inferred_grid_shape(), metadata.inferred_box_shape()

    assert shapes(seq_len=81) == ((9, 9), (3, 3))
    assert shapes(seq_len=36) == ((6, 6), None)
    assert shapes(seq_len=36, box_shape=[2, 3]) == ((6, 6), (2, 3))
    assert shapes(seq_len=81, grid_shape=[9, 9]) == ((9, 9), None)
    assert shapes(seq_len=900) == ((30, 30), None)
    assert shapes(seq_len=12) == (None, None)
    assert shapes(seq_len=12, grid_shape=[3, 4]) == ((3, 4), None)


def test_the_check_at_start_is_fast(tmp_path):
    rows = 300_000
    tokens = np.ones((rows, 81), np.uint8)
    split_dir = write_split(
        tmp_path / "train",
        {"seq_len": 81, "total_groups": 1},
        inputs=tokens,
        labels=tokens,
        puzzle_identifiers=np.zeros(rows, np.int32),
        puzzle_indices=np.arange(rows + 1, dtype=np.int32),
        group_indices=np.array([0, rows], np.int32),
    )
    begin = time.process_time()
    read_split(split_dir)
    assert time.process_time() - begin < 1
