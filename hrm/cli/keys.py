"""Writes docs/configuration.md from the schemas: `python -m hrm.cli.keys > docs/configuration.md`.

The only module here that imports torch, since it asks every package for its schema.
"""

from pathlib import Path
from types import NoneType
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hrm.cli import build, check, evaluate, export, models, push, report, serve, solve, sweep
from hrm.cli.options import SchemaCommand, choices, is_list, kinds
from hrm.config import flag, schemas_in
from hrm.training.config import PretrainConfig

OPENING = """
# Configuration

<!-- Written by `python -m hrm.cli.keys > docs/configuration.md`: change the schemas instead. -->

How a value travels from the command line to where it acts:

1. `hrm train` composes a **recipe**, `hrm/recipes/<--config-name>.yaml`: it begins with the
   schema's defaults, takes an architecture from `hrm/recipes/arch/<arch>.yaml`, and sets its own
   keys.
2. **Hydra overrides** of the command line change it: `lr=1e-4`, `arch.L_cycles=8`, or
   `arch=hrm_walkthrough` for another architecture. Other commands have no recipe;
   `--halting learned` and `halting=learned` are the same there. Paths and names are taken as they
   are typed (`run_name=1e-4` is a name, not a number), but for `~`, the home folder, and `null`.
3. A **schema** checks names, types and ranges once. Each package owns the schema of what it reads.
   A mistake is one line and exit code 2, before any work.
4. The result is a **frozen object**, handed to the code that reads it; nothing changes it later.
5. It is saved as **`all_config.yaml`** in the run's folder and in each checkpoint, which is all
   that evaluating and solving need.

`null` stands for no value. Environment variables that count: `OMP_NUM_THREADS` (threads of a
process on a CPU), `HF_HOME`, `HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` (the Hugging Face Hub),
`WANDB_MODE`, `NO_COLOR`, `XDG_CACHE_HOME` (what can be made again), `TORCHINDUCTOR_CACHE_DIR`,
`NUMBA_CACHE_DIR`, `npm_config_registry` (`hrm export --page`), `HRM_CUDNN_ATTENTION` and others of
[several GPUs](distributed_training.md#settings-worth-knowing).

Keys that only one core has, or that differ between cores, begin their
meaning with the names of the cores, such as (`trm`).
"""
TRAIN = (
    "Input: the data set, or `data_path=…`. `--config-name` names the recipe, which gives what is "
    "*required* here: `arch.*` by its architecture, and as `data_path` the folder that the "
    "published commands build. With the quickstarts' recipes always name a data set."
)
SWEEP = (
    "Input and keys are those of `hrm train`; those with several values are swept "
    "([training flow](training_flow.md#many-runs-at-once))."
)
Row = tuple[str, ...]  # key, value, default, meaning
BOUNDS = {Ge: ("≥", "ge"), Gt: (">", "gt"), Le: ("≤", "le"), Lt: ("<", "lt")}
NAMES = {bool: "true, false", int: "whole number", float: "number", Path: "path", str: "text"}
COMMANDS: dict[str, SchemaCommand[Any]] = {
    "hrm evaluate": evaluate.command,
    "hrm solve": solve.command,
    "hrm serve": serve.command,
    "hrm report": report.command,
    "hrm export": export.command,
    "hrm push": push.command,
    "hrm models": models.command,
    "hrm check": check.command,
}


def page() -> str:
    """The whole page."""
    parts = [OPENING.strip(), "## hrm train", TRAIN, table(rows(PretrainConfig))]
    flags = {key: flag(key) for key in sweep.SweepOptions.model_fields}
    parts += ["## hrm sweep", SWEEP, table(rows(sweep.SweepOptions, flags=flags))]
    builders = {f"hrm build {name}": build.find(name) for name in build.BUILDERS}
    for name, command in (builders | COMMANDS).items():
        inputs = [key for key in (*command.places, command.rest) if key]
        given = f"Inputs: {' and '.join(f'`{key}`' for key in inputs)}. " if inputs else ""
        parts += [f"## {name}", f"{given}Flags may be written as `key=value`, too."]
        flags = {key: "" if key in inputs else flag(key) for key in command.schema.model_fields}
        parts.append(table(rows(command.schema, flags=flags)))
    return "\n\n".join(parts) + "\n"


def table(lines: list[Row]) -> str:
    """Rows as a Markdown table."""
    head = ("key", "value", "default", "meaning")
    shown = (head, ("---",) * len(head), *lines)
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in r)} |" for r in shown)


def rows(
    schema: type[BaseModel], prefix: str = "", flags: dict[str, str] | None = None
) -> list[Row]:
    """Key, value, default and meaning of every field, dotted within inner schemas.

    Where a name decides between schemas, rows that are not the same in all of them begin their
    meaning with those names.
    """
    found: list[Row] = []
    for key, field in schema.model_fields.items():
        inner = schemas_in(field)
        if inner:
            by_name = {name: rows(one, f"{prefix}{key}.") for name, one in inner.items()}
            found += _merged(by_name)
            continue
        assert field.description, f"{schema.__name__}.{key} has no description"
        name = (flags or {}).get(key) or prefix + key
        found.append((f"`{name}`", value_of(field), default_of(field), field.description))
    return found


def _merged(by_name: dict[str, list[Row]]) -> list[Row]:
    """The rows of several schemas, in the order in which they come first."""
    keys = dict.fromkeys(row[0] for known in by_name.values() for row in known)
    found: list[Row] = []
    for key in keys:
        of = {name: row for name, known in by_name.items() for row in known if row[0] == key}
        if len(of) == len(by_name) and len(set(of.values())) == 1:
            found.append(next(iter(of.values())))
        else:
            for row in dict.fromkeys(of.values()):
                names = ", ".join(f"`{name}`" for name in of if of[name] == row)
                found.append((*row[:-1], f"({names}) {row[-1]}"))
    return found


def value_of(field: FieldInfo) -> str:
    """What may be given, e.g. "whole number > 0 or null"."""
    extra = field.json_schema_extra
    words = [f"`{word}`" for word in choices(field.annotation)]
    if isinstance(extra, dict) and "metavar" in extra:
        words = [f"`{extra['metavar']}`"]
    elif is_list(field):
        words = ["any of " + ", ".join(words)] if words else ["any number"]
    else:
        words += [name for kind, name in NAMES.items() if kind in kinds(field.annotation)]
    bounds = ", ".join(_bounds(field.metadata + _inner_metadata(field.annotation)))
    null = " or `null`" if NoneType in kinds(field.annotation) else ""
    return f"{', '.join(words)}{' ' + bounds if bounds and words != ['any number'] else ''}{null}"


def default_of(field: FieldInfo) -> str:
    """The default as it would be typed."""
    if field.is_required():
        return "required"
    value = field.get_default()
    typed = "null" if value is None else "[]" if value == () else str(value)
    return f"`{typed.lower() if isinstance(value, bool) else typed}`"


def _bounds(metadata: list[Any]) -> list[str]:
    found = []
    for item in metadata:
        for part in [item, *getattr(item, "metadata", ())]:
            if type(part) in BOUNDS:
                sign, name = BOUNDS[type(part)]
                limit = getattr(part, name)
                found.append(f"{sign} {'2^63' if limit == 2**63 else limit}")
    return found


def _inner_metadata(annotation: Any) -> list[Any]:
    """Metadata of `Annotated` parts, such as those of `PositiveInt | None`."""
    found = list(getattr(annotation, "__metadata__", ()))
    for part in getattr(annotation, "__args__", ()):
        found += _inner_metadata(part)
    return found


if __name__ == "__main__":
    print(page(), end="")
