"""What lies in the two folders that the page may show: checkpoints, runs, data sets.

Clients name things by an id, a path relative to its folder, which is only ever compared with what a
scan has found; no path is made from what a client sends.
"""

import math
import os
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Generic, TypeVar

from hrm.checkpoint import RunConfig, load_config, saved_steps, step_dir
from hrm.checkpoint.layout import CONFIG_FILE, folder_of, step_of
from hrm.data.arrays import open_array
from hrm.data.format import (
    METADATA_FILE,
    TEST_SPLIT,
    DatasetMetadata,
    array_path,
    has_split,
    read_metadata,
)
from hrm.data.split import Split
from hrm.errors import UserError
from hrm.records import METRICS_FILE, parse_record
from hrm.tasks import Task, task_of
from hrm.web.guard import Refused

SCAN_SECONDS = 1.0
DEEPEST = 3  # folders between a root and what is found in it
MOST_FOLDERS = 5000
LARGEST_CHUNK = 1 << 20  # bytes of metrics in one answer
LARGEST_VOCABULARY = 1 << 16  # symbols of all tokens are sent
SPLIT_CACHE, FACTS_CACHE = 4, MOST_FOLDERS

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """The last `size` values, each made once; for any thread."""

    def __init__(self, size: int) -> None:
        self._size, self._lock = size, Lock()
        self._values: OrderedDict[Any, Value] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Value]) -> Value:
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
                while len(self._values) > self._size:
                    self._values.popitem(last=False)
            self._values.move_to_end(key)
            return self._values[key]


class Scan(Generic[Value]):
    """What a look at the folders finds; one look at a time, for any thread."""

    def __init__(self, look: Callable[[], Value]) -> None:
        self._look, self._lock = look, Lock()
        self._found: Value | None = None
        self._ended, self._took = -math.inf, 0.0  # of the last look, in seconds

    def get(self) -> Value:
        """What was found at most `SCAN_SECONDS` ago; waits for a look where it is older."""
        with self._lock:
            if self._found is None or self._age > SCAN_SECONDS:
                started = time.monotonic()
                self._found = self._look()
                self._ended = time.monotonic()
                self._took = self._ended - started
            return self._found

    def last(self) -> Value | None:
        """What the last look has found, without waiting; None where that is long ago.

        Another look begins beside where it is as old as `SCAN_SECONDS`, so that those who ask
        all the time never wait.
        """
        age = self._age
        if age > 2 * (SCAN_SECONDS + self._took):
            return None
        if age > SCAN_SECONDS and not self._lock.locked():
            Thread(target=self.get, name="scan", daemon=True).start()
        return self._found

    @property
    def _age(self) -> float:
        return time.monotonic() - self._ended


@dataclass(frozen=True)
class Facts:
    """What a checkpoint says of itself, without its weights."""

    path: Path
    step: int | None
    config: RunConfig
    metadata: DatasetMetadata

    @cached_property
    def task(self) -> Task:
        """Of its puzzles."""
        return task_of(self.metadata)


@dataclass(frozen=True)
class SplitSize:
    """What a split says of itself, without a look at its tokens."""

    metadata: DatasetMetadata
    examples: int


class Catalogue:
    """What a scan finds, at most `SCAN_SECONDS` old, so that new runs and data sets show.

    Args:
        default: a checkpoint that is listed even if it lies outside of the root.
        others: further checkpoints, by id; what lies under the root comes before them.
    """

    def __init__(
        self,
        checkpoints_root: Path,
        data_root: Path,
        default: Path | None = None,
        others: Mapping[str, Path] | None = None,
    ):
        self._checkpoints_root, self._data_root = checkpoints_root, data_root
        self._default, self._others = default, others or {}
        self._checkpoints = Scan(self._scan_checkpoints)
        self._datasets, self._runs = Scan(self._scan_datasets), Scan(self._scan_runs)
        self._facts: Cache[Facts | None] = Cache(FACTS_CACHE)
        self._sizes: Cache[SplitSize | None] = Cache(FACTS_CACHE)
        self._splits: Cache[Split] = Cache(SPLIT_CACHE)

    @property
    def default_id(self) -> str | None:
        """Id of the default checkpoint."""
        if self._default is None:
            return None
        if named := [name for name, path in self._others.items() if path == self._default]:
            return named[0]
        folder = self._default.resolve()
        if saved_steps(folder) == [] and saved_steps(folder.parent):
            run = folder.parent
            if run / folder.name == step_dir(run, saved_steps(run)[-1]):
                folder = run
        root = self._checkpoints_root.resolve()
        inside = folder.is_relative_to(root) and folder != root
        return folder.relative_to(root).as_posix() if inside else folder.name

    def checkpoints(self) -> dict[str, Facts]:
        """Readable checkpoints by id: the newest of each run, then its earlier ones."""
        return self._checkpoints.get()

    def _scan_checkpoints(self) -> dict[str, Facts]:
        found = {}
        for name, folder in _folders(self._checkpoints_root):
            newest_first = (step_dir(folder, step) for step in reversed(_steps_in(folder)))
            own = [p for p in newest_first if _holds_no_way_out(p, self._checkpoints_root)]
            for path in own:
                found[name if path == own[0] else f"{name}/{path.name}"] = path
        found |= {name: path for name, path in self._others.items() if name not in found}
        if self._default is not None:
            steps = saved_steps(self._default)
            path = step_dir(self._default, steps[-1]) if steps else self._default
            found[str(self.default_id)] = path
        facts = {name: self._facts_of(path) for name, path in found.items()}
        return {name: known for name, known in facts.items() if known is not None}

    def checkpoint(self, name: str) -> Facts:
        """Raises `Refused` where there is no such checkpoint."""
        return _found("checkpoint", name, self.checkpoints())

    def known_checkpoint(self, name: str) -> Facts | None:
        """A checkpoint that the last scan has found, without waiting for another one."""
        return (self._checkpoints.last() or {}).get(name)

    def datasets(self) -> dict[str, dict[str, Path]]:
        """Folders of splits by data set and split; examples beside a checkpoint have its id."""
        return self._datasets.get()

    def data_of(self, name: str, facts: Facts) -> str | None:
        """Id of a checkpoint's data: those of its training, else the examples beside it."""
        trained = self.dataset_id(facts.config.data_path)
        own = self.datasets().get(name, {}).get(TEST_SPLIT)
        return trained or (name if own == folder_of(facts.path) / TEST_SPLIT else None)

    def _scan_datasets(self) -> dict[str, dict[str, Path]]:
        found: dict[str, dict[str, Path]] = {}
        for name, folder in _folders(self._data_root):
            splits = {
                path.parent.name: path.parent
                for path in sorted(folder.glob(f"*/{METADATA_FILE}"))
                if _is_shown(path.parent.name) and _holds_no_way_out(path.parent, self._data_root)
            }
            if splits:
                found[name] = splits
        for name, facts in self.checkpoints().items():
            folder, root = folder_of(facts.path), self._checkpoints_root
            examples = folder / TEST_SPLIT
            inside = _is_inside(folder, root)
            if has_split(folder, TEST_SPLIT) and (not inside or _holds_no_way_out(examples, root)):
                found.setdefault(name, {TEST_SPLIT: examples})
        return found

    def size_of(self, folder: Path) -> SplitSize | None:
        """Of a split's folder; None where it is damaged."""

        def read() -> SplitSize | None:
            try:
                metadata = _shown_metadata(folder)
                paths = [array_path(folder, name, "inputs") for name in metadata.sets]
                rows = [len(open_array(path)) for path in paths]
            except (UserError, TypeError):  # TypeError: an array without rows
                return None
            return SplitSize(metadata, sum(rows))

        try:
            return self._sizes.get((folder, (folder / METADATA_FILE).stat().st_mtime_ns), read)
        except OSError:
            return None

    def dataset_id(self, data_path: Path) -> str | None:
        """Id of the data set in a folder, None where it is not listed."""
        try:
            name = data_path.resolve().relative_to(self._data_root.resolve()).as_posix()
        except (OSError, ValueError, RuntimeError):  # outside of the root, or no path at all
            return None
        return name if name in self.datasets() else None

    def folder_of(self, dataset: str) -> Path:
        """Raises `Refused` where there is no such data set."""
        return next(iter(_found("data set", dataset, self.datasets()).values())).parent

    def split(self, dataset: str, split: str) -> Split:
        """Open a split; damaged ones and unknown ids are refused.

        Raises:
            Refused: there is none of that name, or it is damaged.
        """
        folder = _found("split", split, _found("data set", dataset, self.datasets()))

        def read() -> Split:
            _shown_metadata(folder)
            return Split.open(folder)

        try:
            changed = (folder / METADATA_FILE).stat().st_mtime_ns
            return self._splits.get((folder, changed), read)
        except (UserError, OSError):
            message = f"split {split!r} of {dataset!r} cannot be read; it may be damaged"
            raise Refused(422, message) from None

    def runs(self) -> dict[str, Path]:
        """Files of metrics by run."""
        return self._runs.get()

    def _scan_runs(self) -> dict[str, Path]:
        files = {name: folder / METRICS_FILE for name, folder in _folders(self._checkpoints_root)}
        return {
            name: path
            for name, path in files.items()
            if os.path.isfile(path) and _is_inside(path, self._checkpoints_root)
        }

    def metrics(
        self, run: str, after: int, file: str | None = None
    ) -> tuple[list[dict[str, float | None]], int, str, bool]:
        """Whole lines of a run's metrics after a byte, at most `LARGEST_CHUNK` of them.

        Lines that are no metrics are left out; numbers that are not finite are None.

        Args:
            file: which file `after` is of, as it was returned.

        Returns:
            The lines, the byte after the last of them, what tells the file from another in its
            place, and whether it is another one or shorter than `after`, so that its lines are
            given from the start.

        Raises:
            Refused: there is no such run.
        """
        try:
            with open(_found("run", run, self.runs()), "rb") as lines:
                first = lines.readline(LARGEST_CHUNK)
                found = f"{zlib.crc32(first):x}" if first.endswith(b"\n") else ""
                reset = lines.seek(0, 2) < after or (bool(file) and file != found)
                start = lines.seek(0 if reset else after)
                chunk = lines.read(LARGEST_CHUNK)
        except OSError:
            raise Refused(404, f"the metrics of run {run!r} cannot be read") from None
        end = chunk.rfind(b"\n") + 1
        if end == 0 and len(chunk) == LARGEST_CHUNK:
            end = len(chunk)  # no line is as long as that
        records = [record for line in chunk[:end].splitlines() if (record := _metrics_of(line))]
        return records, start + end, found, reset

    def _facts_of(self, path: Path) -> Facts | None:
        folder = folder_of(path)
        try:
            changed = (folder / CONFIG_FILE).stat().st_mtime_ns
        except OSError:
            return None

        def read() -> Facts | None:
            try:
                config = load_config(folder / CONFIG_FILE, RunConfig)
                metadata = _shown_metadata(folder)
            except UserError:
                return None
            return Facts(path, step_of(path), config, metadata)

        return self._facts.get((path, changed), read)


def _steps_in(folder: Path) -> list[int]:
    """As `saved_steps`; none in a folder that may not be read."""
    try:
        return saved_steps(folder)
    except OSError:
        return []


def _found(what: str, name: str, known: dict[str, Value]) -> Value:
    if name not in known:
        raise Refused(404, f"there is no {what} of that name; reload the list")
    return known[name]


def _folders(root: Path) -> Iterator[tuple[str, Path]]:
    """Folders under a root by their id, sorted; links that lead out of it are left out."""
    level, seen = [root], 0
    for _ in range(DEEPEST):
        inner = []
        for folder in level:
            try:
                children = sorted(child for child in folder.iterdir() if child.is_dir())
            except OSError:
                continue
            inner += [c for c in children if _is_shown(c.name) and _is_inside(c, root)]
        seen += len(inner)
        if seen > MOST_FOLDERS:
            return
        for folder in inner:
            yield folder.relative_to(root).as_posix(), folder
        level = inner


def _shown_metadata(folder: Path) -> DatasetMetadata:
    """Raises `UserError` where the metadata are damaged, or too large to be sent."""
    metadata = read_metadata(folder)
    if metadata.vocab_size > LARGEST_VOCABULARY:
        raise UserError(f"{folder}: vocab_size={metadata.vocab_size} is too large to be shown")
    return metadata


def _is_shown(name: str) -> bool:
    """Whether a folder is not hidden, and its name can be sent."""
    return name[0] != "." and name.isprintable()


def _is_inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())


def _holds_no_way_out(folder: Path, root: Path) -> bool:
    """Whether a folder and all its files lie under a root when links are followed."""
    try:
        return all(_is_inside(path, root) for path in (folder, *folder.iterdir()))
    except OSError:  # it has just been deleted
        return False


def _metrics_of(line: bytes) -> dict[str, float | None] | None:
    numbers = parse_record(line)
    if numbers is None:
        return None
    return {
        name: value if math.isfinite(value) else None
        for name, value in numbers.items()
        if name.isprintable()
    }
