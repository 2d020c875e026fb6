"""`hrm build grids`: what is written, and what is refused."""

import json
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm.data.format import read_metadata, read_split
from hrm.data.puzzle_dataset import PuzzleDataset, PuzzleDatasetConfig
from hrm.errors import UserError
from hrm.tasks import task_of
from hrm.tasks.csv_rows import LONGEST_LINE
from hrm.tasks.grids.builder import BuildOptions, build
from hrm.tasks.grids.canvas import NUMBER_SYMBOLS

Build = Callable[..., Path]
PAIR = {"input": [[0, 1], [2, 0]], "output": [[1, 0], [0, 2]]}


@pytest.fixture
def built(tmp_path: Path) -> Build:
    def run(lines: Sequence[Any], **options: Any) -> Path:
        source, number = tmp_path / "lines.jsonl", len(list(tmp_path.iterdir()))
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        source.write_text("\n".join(texts) + "\n")
        folder = tmp_path / f"data-{number}"
        build(BuildOptions(**({"source": (source,), "output_dir": folder} | options)))
        return folder

    return run


def examples_of(folder: Path, split: str) -> list[tuple[str, str]]:
    """Every example as the loader gives it in testing, in characters."""
    config = PuzzleDatasetConfig(
        seed=0,
        dataset_path=folder,
        global_batch_size=2,
        test_set_mode=True,
        epochs_per_iter=1,
        rank=0,
        num_replicas=1,
    )
    dataset = PuzzleDataset(config, split)
    grid = task_of(dataset.metadata).grid
    found = []
    for _, batch, count in dataset:
        for row in range(count):
            pair = (batch[name][row].numpy() for name in ("inputs", "labels"))
            found.append(tuple(map(grid.text, pair)))
    return found


def shown(rows: Sequence[Sequence[int | str]], shape: tuple[int, int], pad: str) -> str:
    """A grid in a canvas, written apart from the builder."""
    height, width = len(rows), len(rows[0])
    lines = []
    for row in range(shape[0]):
        line = ""
        for column in range(shape[1]):
            if row < height and column < width:
                cell = rows[row][column]
                line += NUMBER_SYMBOLS[cell] if isinstance(cell, int) else cell
            elif (row == height and column < width) or (column == width and row < height):
                line += "¦"
            else:
                line += pad
        lines.append(line)
    return "".join(lines)


def grids(cells: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    sides = st.tuples(st.integers(1, 4), st.integers(1, 4))

    def of_size(size: tuple[int, int]) -> st.SearchStrategy[Any]:
        row = st.lists(cells, min_size=size[1], max_size=size[1])
        return st.lists(row, min_size=size[0], max_size=size[0])

    return sides.flatmap(of_size)


def examples(cells: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    name = st.none() | st.sampled_from(["a", "b", "ü", 3])
    return st.fixed_dictionaries(
        {"input": grids(cells), "output": grids(cells)},
        optional={"puzzle": name, "group": name, "split": st.sampled_from(["train", "test"])},
    )


CHARACTERS = st.characters(exclude_categories=["C", "Z", "M"], exclude_characters="¦").filter(
    str.isprintable
)
KINDS = st.sampled_from([st.integers(0, 12), st.integers(0, 253), CHARACTERS])


@given(
    KINDS.flatmap(lambda cells: st.lists(examples(cells), min_size=1, max_size=8)), st.booleans()
)
def test_what_was_written_is_what_the_loader_reads(tmp_path_factory, lines, as_text):
    """All grids, of any size and kind, through the file, the builder and the loader."""
    folder = tmp_path_factory.mktemp("grids")
    if all(line.get("split") == "test" for line in lines):
        lines[0]["split"] = "train"
    cells = {
        cell for line in lines for key in ("input", "output") for row in line[key] for cell in row
    }
    texts = []
    for line in lines:
        if as_text and isinstance(line["input"][0][0], str):
            line = line | {key: ["".join(row) for row in line[key]] for key in ("input", "output")}
        texts.append(json.dumps(line, ensure_ascii=as_text))
    (folder / "x.jsonl").write_text("\n".join(texts))
    output = folder / "data"
    build(BuildOptions(source=(folder / "x.jsonl",), output_dir=output, allow_leakage=True))

    sizes = {(len(g), len(g[0])) for line in lines for g in (line["input"], line["output"])}
    shape = max(rows for rows, _ in sizes), max(columns for _, columns in sizes)
    metadata = read_metadata(output / "train")
    assert (metadata.task, metadata.grid_shape) == ("grids", shape)
    own = "".join(sorted(c for c in cells if isinstance(c, str)))
    own = own or NUMBER_SYMBOLS[: max(cells) + 1]
    pad = "¤" if "_" in own else "_"
    assert metadata.symbols == pad + "¦" * (sizes != {shape}) + own
    for split in ("train", "test"):
        wanted = Counter(
            tuple(shown(line[key], shape, pad) for key in ("input", "output"))
            for line in lines
            if line.get("split", "train") == split
        )
        if wanted:
            assert Counter(examples_of(output, split)) == wanted


def test_names_become_puzzles_and_groups_in_any_order(built: Build):
    lines = [PAIR | {"input": [[n, 1], [2, 0]]} for n in range(7)]
    names = [("p", "g"), ("q", None), ("p", "g"), (None, "g"), (None, None), ("q", None), (5, None)]
    for line, (puzzle, group) in zip(lines, names, strict=True):
        line |= {"puzzle": puzzle, "group": group}
    folder = built([*lines, PAIR | {"input": [[9, 9], [9, 9]], "puzzle": "q", "split": "test"}])
    _, sets = read_split(folder / "train")
    arrays = sets["all"]
    assert (arrays.inputs[:, 0] - 1).tolist() == [0, 2, 3, 1, 5, 4, 6]
    assert arrays.puzzle_indices.tolist() == [0, 2, 3, 5, 6, 7]
    assert arrays.group_indices.tolist() == [0, 2, 3, 4, 5]
    assert json.loads((folder / "identifiers.json").read_text()) == ["p", "q", "5"]
    assert arrays.puzzle_identifiers.tolist() == [0, -1, 1, -1, 2]
    assert read_split(folder / "test")[1]["all"].puzzle_identifiers.tolist() == [1]


def test_folders_and_test_files(tmp_path):
    for name, first in (("train", 0), ("test", 5)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(PAIR | {"input": [[first, 0], [0, 0]]}))
    for number, source in enumerate(
        ([tmp_path], [tmp_path / f"{n}.jsonl" for n in ("test", "train")])
    ):
        folder = tmp_path / str(number)
        summary = build(BuildOptions(source=tuple(source), output_dir=folder))
        assert summary.examples == (1, 1)
        assert read_split(folder / "test")[1]["all"].inputs[0, 0] == 6


def test_versions_stand_in_the_group_of_their_example(built: Build, tmp_path):
    hook = tmp_path / "hook.py"
    hook.write_text(
        "import numpy as np\n"
        "def augment(question, answer, rng):\n"
        "    add = int(rng.integers(1, 9))\n"
        "    assert question.dtype == np.int64 and question.shape == (2, 2)\n"
        "    question += add\n"
        "    return question.tolist(), np.vstack([answer, answer]) + add\n"
    )
    lines = [PAIR | {"puzzle": name} for name in ("p", "q", "p")] + [PAIR, PAIR | {"split": "test"}]
    options = {"augment": str(hook), "num_aug": 2, "allow_leakage": True}
    folder = built(lines, **options)
    metadata, sets = read_split(folder / "train")
    arrays = sets["all"]
    assert metadata.grid_shape == (4, 2) and len(read_split(folder / "test")[1]["all"].inputs) == 1
    assert arrays.puzzle_indices.tolist() == [0, 2, 4, 6, 7, 8, 9, 10, 11, 12]
    assert arrays.group_indices.tolist() == [0, 3, 6, 9]
    assert json.loads((folder / "identifiers.json").read_text()) == [
        *("p", "p|||1", "p|||2", "q", "q|||1", "q|||2"),
    ]
    assert arrays.puzzle_identifiers.tolist() == [0, 1, 2, 3, 4, 5, -1, -1, -1]
    first = (arrays.inputs[:, 0] - 2).tolist()
    assert first[:2] == [0, 0] and first[2] == first[3] > 0 and first[4] == first[5] > 0
    assert len(set(first)) > 3  # other draws for other puzzles and versions
    other = read_split(built(lines, **options, seed=1) / "train")[1]["all"]
    assert not np.array_equal(other.inputs, arrays.inputs)


CELLS = '{"input": [[0]], "output": [[0]]'
WRONG = [
    ("{", "no JSON (expecting property name"),
    ("[1, 2]", "is a list, expected one example"),
    ('"x"', "expected one example"),
    ("[" * 5000, "nested too deeply"),
    ('{"input": ' + "[" * 5000 + "}", "nested too deeply"),
    ('{"input": [[' + "9" * 5000 + "]]}", "cannot be read"),
    (CELLS + ', "outptu": 1}', "unknown key 'outptu'"),
    (CELLS + ', "input": [[1]]}', "a key stands twice"),
    (CELLS + ', "split": "val"}', "split is 'val', expected train or test"),
    (CELLS + ', "puzzle": ["a"]}', "puzzle is a list, expected a name"),
    (CELLS + ', "group": true}', "group is true, expected a name"),
    ('{"input": [[0]]}', "output is missing"),
    ('{"input": 3, "output": [[0]]}', "input is 3, expected a list of rows"),
    ('{"input": "ab", "output": [[0]]}', "input is 'ab', expected a list of rows"),
    ('{"input": [], "output": [[0]]}', "input has no rows"),
    ('{"input": [[]], "output": [[0]]}', "input has no cells"),
    ('{"input": [""], "output": [[0]]}', "input has no cells"),
    ('{"input": [1, 2], "output": [[0]]}', "input row 1 is 1, expected a list or text"),
    ('{"input": [[1, 2], [3]], "output": [[0]]}', "input row 2 has 1 cells, row 1 has 2"),
    ('{"input": [[1], ["a"]], "output": [[0]]}', "input mixes numbers and characters"),
    ('{"input": [[1], "a"], "output": [[0]]}', "input mixes numbers and characters"),
    ('{"input": [[true]], "output": [[0]]}', "input holds true, expected whole numbers"),
    ('{"input": [[1.5]], "output": [[0]]}', "input holds 1.5, expected whole numbers"),
    ('{"input": [[NaN]], "output": [[0]]}', "input holds nan, expected"),
    ('{"input": [[null]], "output": [[0]]}', "input holds null, expected"),
    ('{"input": [[[1]]], "output": [[0]]}', "input holds a list, expected"),
    ('{"input": [[-1]], "output": [[0]]}', "input holds -1, expected numbers from 0 on"),
    ('{"input": [[255]], "output": [[0]]}', "input holds 255; numbers go from 0 to 254"),
    ('{"input": [[' + "9" * 30 + ']], "output": [[0]]}', "input holds a huge number; numbers go"),
    ('{"input": [["ab"]], "output": [["a"]]}', "input holds 'ab', expected one character a cell"),
    ('{"input": [["", "ab"]], "output": [["a"]]}', "input holds '', expected one character"),
    ('{"input": ["a\\n"], "output": ["a"]}', "input holds '\\n', which cannot be printed"),
    ('{"input": ["\\ud800"], "output": ["a"]}', "which cannot be printed"),
    ('{"input": ["¦"], "output": ["a"]}', "marks where a grid ends"),
    ('{"input": [[0]], "output": ["a"]}', "input has numbers, but output has characters"),
    ('{"input": ["a"], "output": ["a"]}', "has characters, but "),
    ("x" * LONGEST_LINE, f"longer than {LONGEST_LINE - 1:,} characters"),
]


@pytest.mark.parametrize("line, reason", WRONG, ids=range(len(WRONG)))
def test_a_wrong_line_is_named_and_leaves_nothing(built: Build, tmp_path, line, reason):
    with pytest.raises(UserError) as refused:
        built([PAIR, "", line], output_dir=tmp_path / "deep" / "data")
    message = str(refused.value)
    assert reason in message and f"{tmp_path / 'lines.jsonl'}:3: " in message
    assert len(message) < 600
    assert [path.name for path in tmp_path.iterdir()] == ["lines.jsonl"]


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode), st.integers(0, 60))
def test_damaged_lines_end_in_one_line(tmp_path_factory, noise, place):
    """A good file with bytes written over it is built or refused, and never fails otherwise."""
    folder = tmp_path_factory.mktemp("fuzz")
    good = (json.dumps(PAIR | {"puzzle": "p"}) + "\n").encode() * 2
    (folder / "x.jsonl").write_bytes(good[:place] + noise + good[place + len(noise) :])
    try:
        build(BuildOptions(source=(folder / "x.jsonl",), output_dir=folder / "data"))
    except UserError as error:
        assert "x.jsonl" in str(error) and str(error).isprintable()
        assert [path.name for path in folder.iterdir()] == ["x.jsonl"]


def test_sources_that_are_no_files(built: Build, tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        built([PAIR], source=(tmp_path / "gone",))
    with pytest.raises(UserError, match="no such file or folder"):
        built([PAIR], source=(Path("x" * 300),))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no train.jsonl and no test.jsonl"):
        built([PAIR], source=(tmp_path / "empty",))
    for lines, reason in (([], "no example"), ([PAIR | {"split": "test"}], "only 1 test example")):
        with pytest.raises(UserError, match=f"{reason}.*must be training examples"):
            built(lines)
    inside = tmp_path / "out"
    inside.mkdir()
    (inside / "x.jsonl").write_text(json.dumps(PAIR))
    (inside / "identifiers.json").write_text("[]")
    with pytest.raises(UserError, match="holds .*x.jsonl"):
        built([], source=(inside / "x.jsonl",), output_dir=inside, overwrite=True)


def test_canvases_and_alphabets_have_their_limits(built: Build):
    wide, tall = {"input": [[0] * 5000], "output": [[0]]}, {"input": [[0]] * 9, "output": [[0]]}
    with pytest.raises(UserError, match=r"has 9 rows \(.*:2\), the widest 5000 columns \(.*:1\)"):
        built([wide, tall])
    numbers = [list(range(255))]
    assert read_metadata(built([{"input": numbers, "output": numbers}]) / "train").vocab_size == 256
    with pytest.raises(UserError, match="255 symbols are one too many where grids differ"):
        built([{"input": numbers, "output": [[0]]}])
    letters = [[chr(0x4E00 + n) for n in range(256)]]
    with pytest.raises(UserError, match=r"lines.jsonl:1: more than 255 different characters"):
        built([{"input": letters, "output": letters}])


def test_leakage_is_counted(built: Build):
    others = [{"input": [[n, n], [n, n]], "output": [[0, 0], [0, 0]]} for n in range(3)]
    tests = [
        line | {"split": "test"}
        for line in (PAIR, others[0], {"input": [[9, 9]] * 2, "output": PAIR["output"]})
    ]
    with pytest.raises(UserError, match=r"2 of 3 test inputs are in training, too \(.*:5, .*:6\)"):
        built([PAIR, *others, *tests])
    assert (
        len(
            read_split(built([PAIR, *others, *tests], allow_leakage=True) / "test")[1]["all"].inputs
        )
        == 3
    )


def test_versions_that_are_test_inputs_leak(built: Build, tmp_path):
    code = "@dataclass\nclass Turn:\n    times: int = 1\ndef turn(a, b, rng): return a.T, b.T\n"
    head = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    (tmp_path / "hook.py").write_text(head + code)
    turned = PAIR | {"input": np.transpose(PAIR["input"]).tolist(), "split": "test"}
    built([PAIR, turned])
    with pytest.raises(UserError, match="1 of 1 test input is in training"):
        built([PAIR, turned], augment=f"{tmp_path / 'hook.py'}:turn", num_aug=1)


HOOKS = [
    ("def augment(a, b, rng): return a", "must return two grids"),
    ("def augment(a, b, rng): return a, b * 0.5", "the output that it returns holds 0.5"),
    ("def augment(a, b, rng): return a, b - 5", "the output that it returns holds -"),
    ("def augment(a, b, rng): return a[:0], b", "the input that it returns has no rows"),
    ("def augment(a, b, rng): return ['x'], b", "has characters, expected numbers"),
    ("def augment(a, b, rng):\n    return a, b[9]", "IndexError: index 9 is out of bounds"),
    ("def augment(a, b): return a, b", "TypeError: augment() takes 2 positional"),
    ("def other(a, b, rng): return a, b", "has no function 'augment'"),
    ("augment = 3", "has no function 'augment'"),
    ("import nowhere_at_all", "cannot be imported: ModuleNotFoundError"),
    ("def augment(:", "cannot be imported: SyntaxError"),
    ("raise SystemExit(3)", "cannot be imported: SystemExit"),
]


@pytest.mark.parametrize("code, reason", HOOKS, ids=range(len(HOOKS)))
def test_a_hook_that_fails_is_named(built: Build, tmp_path, code, reason):
    (tmp_path / "hook.py").write_text(code)
    with pytest.raises(UserError) as refused:
        built([PAIR], augment=str(tmp_path / "hook.py"), num_aug=1)
    message = str(refused.value)
    assert reason in message and "--augment" in message and "hook.py" in message


def test_a_hook_of_characters(built: Build, tmp_path):
    (tmp_path / "hook.py").write_text(
        "import numpy as np\n"
        "def augment(a, b, rng):\n"
        "    return np.where(a == 'x', 'y', a), ['z' * b.shape[1]]\n"
    )
    folder = built(
        [{"input": ["xo"], "output": ["xx"]}], augment=str(tmp_path / "hook.py"), num_aug=1
    )
    assert examples_of(folder, "train") == [("xo", "xx"), ("yo", "zz")]


def test_a_hook_may_return_lists_of_what_it_was_given(built: Build, tmp_path):
    (tmp_path / "hook.py").write_text(
        "def augment(a, b, rng):\n    return [list(row) for row in a[::-1]], list(b[::-1])\n"
    )
    name = str(tmp_path / "hook.py")
    numbers = built([{"input": [[1], [2]], "output": [[3], [4]]}], augment=name, num_aug=1)
    assert examples_of(numbers, "train")[1] == ("21", "43")
    letters = built([{"input": ["a", "b"], "output": ["c", "d"]}], augment=name, num_aug=1)
    assert examples_of(letters, "train")[1] == ("ba", "dc")


def test_a_hook_in_the_folder_that_is_replaced_stays(built: Build, tmp_path):
    folder = built([PAIR])
    hook = folder / "hook.py"
    hook.write_text("def augment(a, b, rng): return a, b")
    options = {"source": (tmp_path / "x.jsonl",), "output_dir": folder, "overwrite": True}
    (tmp_path / "x.jsonl").write_text(json.dumps(PAIR))
    with pytest.raises(UserError, match="holds --augment"):
        build(BuildOptions(augment=str(hook), num_aug=1, **options))
    assert hook.exists()


def test_a_hook_that_is_nowhere(built: Build, tmp_path):
    for name, reason in (
        (str(tmp_path / "gone.py"), "no such file"),
        ("gone_module:f", "imported"),
    ):
        with pytest.raises(UserError, match=reason):
            built([PAIR], augment=name, num_aug=1)


def test_equal_inputs_are_drawn_into_one_split(built: Build):
    lines = [PAIR | {"input": [[n % 10, n // 10 % 10], [0, 0]]} for n in range(300)]
    random.Random(0).shuffle(lines)
    folder = built(lines, test_share=0.3)  # would be refused for leakage otherwise
    count = len(read_split(folder / "test")[1]["all"].inputs)
    assert count % 3 == 0 and 45 < count < 135
    groups = [line | {"group": n // 3} for n, line in enumerate(lines)]
    folder = built(groups, test_share=0.3, allow_leakage=True)
    _, sets = read_split(folder / "test")
    assert set(np.diff(sets["all"].group_indices)) == {3}


def test_memory_does_not_grow_with_the_file(tmp_path):
    """A megabyte of grids costs as little as their numbers do."""
    row = json.dumps([7] * 40)
    grid = f"[{', '.join([row] * 40)}]"
    with (tmp_path / "x.jsonl").open("w") as file:
        for _ in range(1500):
            file.write(f'{{"input": {grid}, "output": {grid}}}\n')
    tracemalloc.start()
    build(BuildOptions(source=(tmp_path / "x.jsonl",), output_dir=tmp_path / "data"))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4e6  # of 4.8 MB of tokens in 15 MB of text
