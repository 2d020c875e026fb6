"""Blocks of code in our documentation, run as they are typed.

A block that no test can run says so in a line before it: `<!-- not run: the reason -->`.
"""

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SMALL = (
    "arch.hidden_size=32 arch.num_heads=2 arch.L_layers=1 arch.halt_max_steps=2 "
    "arch.H_cycles=1 arch.L_cycles=1 arch.forward_dtype=float32 compile=false device=cpu "
    "epochs=2 eval_interval=1"
)
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$"
    r"(?:\s+prints\s+```text\n(?P<printed>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
END_OK = {"hrm solve": (0, 1)}  # 1: the model has learned nothing


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    language: str
    code: str
    reason: str | None  # why it is not run
    printed: str | None  # what the page says that it prints


def all_blocks(text: str) -> list[Block]:
    """The blocks of a page, in their order."""
    names = ("language", "code", "reason", "printed")
    return [Block(*match.group(*names)) for match in BLOCK.finditer(text)]


def blocks(text: str, language: str) -> list[str]:
    """The blocks of one language that can be run."""
    found = all_blocks(text)
    return [b.code for b in found if b.language == language and b.reason is None]


def commands(block: str) -> Iterator[str]:
    """The commands of a block: continued lines joined, comments and blank lines left out."""
    for line in block.replace("\\\n", " ").split("\n"):
        if text := re.sub(r"(^|\s)#.*", "", line).strip():
            yield re.sub(r"\s+", " ", text)


def changed(command: str, changes: Mapping[str, str]) -> str:
    """A command on what we have, where a reader has more."""
    for pattern, replacement in changes.items():
        command = re.sub(pattern, replacement, command)
    return command


def run_line(
    command: str, folder: Path, environment: dict[str, str], call: Callable, call_script: Callable
) -> None:
    """In this process where a line is a command of ours alone, in a shell otherwise.

    `folder` is where the process stands.
    """
    program, *words = shlex.split(command)
    alone = not {">", ">>", "|", "&&"} & set(words)
    if program == "hrm" and alone:
        code, _, told = call(*words)
    elif program == "python" and alone:
        done = call_script(*words, folder=folder)
        code, told = done.returncode, done.stderr
    else:
        done = subprocess.run(
            command,
            shell=True,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        code, told = done.returncode, done.stderr
    accepted = next((c for start, c in END_OK.items() if command.startswith(start)), (0,))
    assert code in accepted, f"{command}\n{told}"
    assert "Traceback" not in told
