"""`hrm sweep`: several values of some keys, and a run for every combination."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import click
from pydantic import Field

from hrm.cli.described import SETTINGS, Described
from hrm.cli.launch import next_command
from hrm.cli.options import option_of
from hrm.cli.train import overrides_of, words_and_recipe
from hrm.config import Config, PositiveInt, flag, validate
from hrm.errors import UserError, write_output
from hrm.files import write_texts
from hrm.machine import memory, usable_cores

if TYPE_CHECKING:
    from hrm.report.settings import Measured
    from hrm.training.sweep import Sweep, SweptRun

HELP = """
hrm sweep data/sudoku-4x4 --config-name quickstart_4x4 lr=1e-3,3e-4 seed=0,1,2
hrm sweep data/sudoku-4x4 seed='range(0,5)' --dry-run   # only lists the runs

Train with every combination of several values, each in a process of hrm train
with a folder of its own, and compare the settings: mean and spread over seeds.
The same command goes on where it was stopped. Lists of values are written as
Hydra does: a=1,2 a='range(0,5)' a='choice(x,y)'. run_name names the sweep.
"""
TABLE_FILE, CSV_FILE, REPORT_FILE = "sweep.md", "sweep.csv", "report.html"
SOME_FAILED = 1  # exit code
TERMINAL = 80  # columns
PROCESS_BYTES = 6e8  # of Python with torch, beside what a step needs


class SweepOptions(Config):
    """What is asked of a sweep besides the keys of its runs."""

    jobs: PositiveInt | None = Field(
        None, description="runs at a time; if not given, as many as cores, memory or GPUs allow"
    )
    dry_run: bool = Field(False, description="list the runs and what is done of them")


class SweepCommand(Described):
    """Words are those of `hrm train`."""

    usage = "[DATA] key=value,value … [key=value …]"

    def invoke(self, ctx: click.Context) -> None:
        params = dict(ctx.params)
        words, recipe = params.pop("words"), params.pop("config_name")
        given = {key: value for key, value in params.items() if value is not None}
        written = {key: f"{flag(key)} {value}" for key, value in given.items()}
        options = validate(SweepOptions, given, ctx.command_path, written)
        run(words, recipe, options, ctx.command_path)


command = SweepCommand(
    "sweep",
    help=HELP,
    context_settings=SETTINGS,
    params=[
        *words_and_recipe(),
        *(option_of(key, field) for key, field in SweepOptions.model_fields.items()),
    ],
)


def run(words: Sequence[str], recipe: str, options: SweepOptions, typed: str) -> None:
    """Train what is not trained yet, and compare."""
    if "WORLD_SIZE" in os.environ:
        raise UserError(f"{typed}: starts processes of its own; start it without torchrun")
    from hrm.training.config import PretrainConfig
    from hrm.training.run_folder import used_alone
    from hrm.training.sweep import plan, refuse_other_sweep
    from hrm.training.sweep_jobs import run_all

    sweep = plan(overrides_of(words, PretrainConfig.model_fields, typed), recipe)
    refuse_other_sweep(sweep)
    environments = places(sweep, options.jobs)
    if options.dry_run:
        return write_output(listing(sweep, len(environments)))
    several = {axis.text for axis in sweep.axes}
    shared = ["train", *(word for word in words if word not in several), "--config-name", recipe]

    def words_of(run: "SweptRun") -> list[str]:
        own = (f"run_name={run.name}", f"checkpoint_path={run.folder}", "resume=auto")
        return [*shared, *run.overrides, *own]

    try:
        sweep.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{sweep.folder}: cannot be written ({error.strerror})") from None
    with used_alone(sweep.folder, "works on this sweep"):
        stopped_by = run_all(sweep.runs, words_of, environments, tell)
        finished = sum(run.is_finished for run in sweep.runs)
        if stopped_by:
            print(
                f"stopped: {finished} of {len(sweep.runs)} runs are finished, the others are saved "
                f"in {sweep.folder}; the same command goes on",
                file=sys.stderr,
            )
            sys.exit(128 + stopped_by)
        compare(sweep)
    if finished < len(sweep.runs):
        sys.exit(SOME_FAILED)


def tell(run: "SweptRun") -> None:
    """How a run has ended, above the bar."""
    from hrm.progress import say

    say(line_of(run, 0), sys.stderr)


def line_of(run: "SweptRun", width: int) -> str:
    """A run's name, in so many columns, what is done of it, and what it has reached."""
    exact = run.evaluation.get("eval/exact_accuracy") if run.is_finished else None
    reached = "" if exact is None else f", exact accuracy {exact:.1%}"
    line = f"{run.name:{width}}  {state_of(run)}{reached}"
    return line if len(line) <= TERMINAL else f"{line[: TERMINAL - 1]}…"


def state_of(run: "SweptRun") -> str:
    """What is done of a run."""
    from hrm.training.sweep_jobs import reason_of

    if run.is_finished:
        return "finished"
    if run.outcome is None:
        return "not begun"
    place = f"at step {run.saved_step} of {run.steps}"
    return f"failed {place}: {reason_of(run)}" if run.has_failed else f"stopped {place}"


def places(sweep: "Sweep", jobs: int | None) -> list[dict[str, str]]:
    """What is different in the environments of processes that run at the same time."""
    import torch

    from hrm.device import pick_device

    config = sweep.runs[0].config
    left = max(1, sum(not run.is_finished for run in sweep.runs))
    if pick_device(config.device).type != "cpu":
        known = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = known.split(",") if known else list(map(str, range(torch.cuda.device_count())))
        count = min(left, jobs or max(1, len(gpus)))
        return [{"CUDA_VISIBLE_DEVICES": gpus[n % len(gpus)]} if gpus else {} for n in range(count)]
    cores, threads = usable_cores(), asked_threads()
    count = min(left, jobs or fitting(sweep, cores // (threads or 1)))
    return [{"OMP_NUM_THREADS": str(threads or max(1, cores // count))}] * count


def asked_threads() -> int | None:
    """What `OMP_NUM_THREADS` asks for: a number, or one for each level of nesting ("4,2")."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else None


def fitting(sweep: "Sweep", most: int) -> int:
    """So many runs at a time as this machine's memory holds, but at least one."""
    import torch

    from hrm.training.sizing import SHARE, for_device, memory_need

    config = for_device(sweep.runs[0].config, torch.device("cpu"), sweep.metadata, 1, 0)
    rows, micro = config.global_batch_size, config.local_micro_batch_size(ranks=1)
    need = memory_need(config, sweep.metadata, linear_attention=True).of(rows, micro)
    if not memory():  # nobody knows
        return max(1, most)
    return max(1, min(most, int(SHARE * memory() / (need + PROCESS_BYTES))))


def listing(sweep: "Sweep", count: int) -> str:
    """The runs, and what is done of each."""
    width = max(len(run.name) for run in sweep.runs)
    lines = [line_of(run, width) for run in sweep.runs]
    at_once = "one at a time" if count == 1 else f"{count} at a time"
    return "\n".join([*lines, "", f"{len(lines)} runs in {sweep.folder}, {at_once}\n"])


def compare(sweep: "Sweep") -> None:
    """Write the table and the report, and print the table."""
    from hrm.report import settings
    from hrm.training.sweep import LOG_FILE

    runs = [measured(run) for run in sweep.runs]
    ranked = settings.ranked(runs)
    texts = {
        TABLE_FILE: settings.as_markdown(f"Sweep {sweep.folder.name}", ranked),
        CSV_FILE: settings.as_csv(runs),
        REPORT_FILE: report(sweep, settings.as_html(ranked)),
    }
    write_texts(sweep.folder, texts)
    lines = [settings.as_text(ranked), "", *wrap(settings.RANKED_BY, TERMINAL)]
    for run in sweep.runs:
        if not run.is_finished:
            lines += [line_of(run, 0), f"  see {run.folder / LOG_FILE}"]
    lines.append(f"{', '.join(texts)}: in {sweep.folder}")
    if best := settings.best_run(ranked):
        lines.append(f"next: {next_command('report', Path(best.folder))}")
    write_output("\n".join([*lines, ""]))


def measured(run: "SweptRun") -> "Measured":
    """What a comparison needs of a run."""
    from hrm.report.settings import Measured

    return Measured(
        run.name,
        run.setting,
        run.values,
        state_of(run),
        run.is_finished,
        run.evaluation,
        None if run.outcome is None else run.outcome.seconds,
        str(run.folder),
    )


def report(sweep: "Sweep", comparison: str) -> str:
    """The page about all runs that have metrics."""
    from hrm.report.config import ReportConfig
    from hrm.report.page import page
    from hrm.report.runs import read_runs

    folders = tuple(run.folder for run in sweep.runs if run.has_metrics)
    config = ReportConfig.model_construct(runs=folders, data=None, device="cpu", curves_only=True)
    return page(read_runs(config), [("Settings", comparison)])
