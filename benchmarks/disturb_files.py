"""What may happen to the files of a run: no room, no writing, damage; for `faults.py`."""

import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from disturbed_run import Lost, Missed, Process, Run, Surroundings, damage_of, read

from hrm.checkpoint import saved_steps, step_dir

DISK_BYTES = 40_000_000  # room for some twenty checkpoints
LARGEST_FILE = 64  # KiB, where no tmpfs can be mounted
PAGE = os.sysconf("SC_PAGE_SIZE")  # by which a tmpfs gives room
LONGEST_LINE = 400  # bytes of metrics, about
REFUSED = "metrics.jsonl: No space left on device; training goes on"
UNWRITTEN = "could not be written"
READ_ONLY = "Read-only file system"

DAMAGED = "damaged checkpoints, all of which were named"
PARTS = "lines of metrics of which the disk took a part"
IN_SAVES = "checkpoints in whose write the file system became read-only"


def fill_disk(run: Run, rng: random.Random) -> None:
    """Full for a while, then free again: the run goes on, unless it is at its end meanwhile."""
    _, free = _fill(run, rng)
    _outlast(run, rng, UNWRITTEN, free)


def fill_disk_and_kill(run: Run, rng: random.Random) -> None:
    process, free = _fill(run, rng)
    time.sleep(rng.uniform(0, 2))
    process.kill()
    if rng.random() < 0.3:
        code = run.start().end(0, 2)  # what can it do on a full disk: tell, in one line
        if code == 2 and "error: " not in run.text():
            raise Lost("exit code 2 without an error line")
    free()


def fill_disk_in_line(run: Run, rng: random.Random) -> None:
    """Full when a line of metrics needs more room than is left of the file's last page."""
    process = run.begin(rng)
    run.wait(lambda: 0 < -_size(run.metrics) % PAGE < LONGEST_LINE)
    filler, free = _filler(run)

    def is_refused() -> bool:
        _write_all(filler)  # what a checkpoint that failed gives back
        return REFUSED in run.text()

    if process.wait(is_refused):
        run.notes[PARTS] += _size(run.metrics) % PAGE > 0
        if not process.wait(lambda: read(run.metrics).endswith(b"\n")):
            raise Lost("a part of a line stays")
        _outlast(run, rng, UNWRITTEN, free)
    else:
        _outlast(run, rng, UNWRITTEN, free)
        raise Missed


def make_read_only(run: Run, rng: random.Random) -> None:
    """For a while, as a file system does that has met an error; then it can be written again."""
    early = rng.random() < 0.2
    run.begin(rng, early=early)
    if not early and rng.random() < 0.6:
        run.wait_for_save()
    run.wait(lambda: _remount(run.folder, "ro"), 0)  # refused while a file is open for writing
    try:
        with suppress(OSError):
            (run.folder / "probe").touch()
            raise Lost("it can still be written")
        run.notes[IN_SAVES] += run.is_saving()
        _outlast(run, rng, READ_ONLY, lambda: _must_remount(run.folder, "rw"))
    finally:
        _must_remount(run.folder, "rw")
    if run.text().count(f"metrics.jsonl: {READ_ONLY}; training goes on") > 1:
        raise Lost("the warning was said more than once")


def _outlast(run: Run, rng: random.Random, message: str, restore: Callable[[], None]) -> None:
    """Restore what the process lacks, perhaps after it has said so, and let it go on to the end."""
    process = run.process
    assert process is not None
    if rng.random() < 0.7:
        process.wait(lambda: message in process.text(), 0.02)
    time.sleep(rng.uniform(0, 1))
    restore()
    code = process.end(0, 2)
    if code == 0:
        run.check_end()
    elif message not in process.text():
        raise Lost(f"exit code 2, and not for {message!r}")


def _fill(run: Run, rng: random.Random) -> tuple[Process, Callable[[], None]]:
    """Begin; make the disk full; what frees it again."""
    if not os.path.ismount(run.folder):
        return run.begin(rng, Surroundings(largest_file=LARGEST_FILE)), lambda: None
    process = run.begin(rng)
    _, free = _filler(run)
    return process, free


def _filler(run: Run) -> tuple[Path, Callable[[], None]]:
    """A file that takes all the room; what deletes it."""
    sound = [s for s in saved_steps(run.run_dir) if not damage_of(step_dir(run.run_dir, s))]
    filler = run.folder / "filler"
    _write_all(filler)

    def free() -> None:
        steps = saved_steps(run.run_dir)
        if sound and not any(not damage_of(step_dir(run.run_dir, s)) for s in steps):
            raise Lost("no sound checkpoint is left")
        filler.unlink(missing_ok=True)

    return filler, free


def _write_all(filler: Path) -> None:
    with suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(2**16))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def damage(run: Run, rng: random.Random) -> None:
    """A flipped bit, or a missing end, in any file of the newest checkpoint, or of two."""
    steps = saved_steps(run.run_dir)
    steps = [s for s in steps if f"step_{s}" not in run.damaged][-rng.choice((1, 1, 2)) :]
    if not steps:
        raise Missed
    run.outputs = run.outputs if run.damaged else []
    for checkpoint in (step_dir(run.run_dir, step) for step in steps):
        while True:
            path = rng.choice([p for p in sorted(checkpoint.rglob("*")) if p.is_file()])
            whole = path.read_bytes()
            position = rng.randrange(len(whole))
            flipped = bytes([whole[position] ^ 1 << rng.randrange(8)])
            cut = rng.random() < 0.3
            path.write_bytes(whole[:position] + (b"" if cut else flipped + whole[position + 1 :]))
            if path.name != "manifest.json" or damage_of(checkpoint):
                break  # else only its last line break is gone
            path.write_bytes(whole)
        run.damaged.append(checkpoint.name)
        run.notes[DAMAGED] += 1


def tear(run: Run, rng: random.Random) -> None:
    """The last line of metrics stands there in part, and wrong."""
    newest = max(saved_steps(run.run_dir), default=0)
    lines = read(run.metrics).splitlines(keepends=True)
    if not lines:
        raise Missed
    last = lines.pop()
    if run.step() <= newest:  # what stands before a checkpoint is on the disk
        lines.append(last)
    torn = bytearray(last[: rng.randrange(1, len(last) - 1)])
    if rng.random() < 0.5:
        torn[rng.randrange(len(torn))] ^= 1 << rng.randrange(8)
    run.metrics.write_bytes(b"".join([*lines, torn]))


@cache
def can_mount() -> bool:
    """Whether this process may mount file systems."""
    folder = Path(tempfile.mkdtemp(prefix="hrm-mount-"))
    is_mounted = mount(folder)
    if is_mounted:
        unmount(folder)
    folder.rmdir()
    return is_mounted


def mount(folder: Path) -> bool:
    """Put a small tmpfs there, if that is allowed."""
    return _call_mount("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder))


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _remount(folder: Path, mode: str) -> bool:
    return _call_mount("-o", f"remount,{mode}", str(folder))


def _must_remount(folder: Path, mode: str) -> None:
    if not _remount(folder, mode):
        raise RuntimeError(f"{folder}: cannot be remounted {mode}")


def _call_mount(*arguments: str) -> bool:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0
    except OSError:
        return False
