"""Addresses that tell what there is: checkpoints, data sets and their examples, training runs."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Query

from hrm.attempts import Attempt
from hrm.checkpoint import saved_steps
from hrm.tasks import task_of
from hrm.web import schemas
from hrm.web.catalogue import Catalogue, Facts
from hrm.web.guard import Refused

Id = Annotated[str, Query(max_length=schemas.LONGEST_ID)]
Index = Annotated[int, Query(ge=0, le=schemas.LARGEST_NUMBER)]


class Listing:
    """Reads the catalogue; no model is needed."""

    def __init__(self, catalogue: Catalogue):
        self._catalogue = catalogue
        self.router = APIRouter(prefix="/api")
        for address in (self.checkpoints, self.datasets, self.example, self.runs, self.metrics):
            self.router.get(f"/{address.__name__}")(address)
        self.router.post("/read")(self.read)

    def checkpoints(self) -> schemas.Checkpoints:
        known = self._catalogue.checkpoints()
        infos = [
            schemas.CheckpointInfo.of(
                facts.task,
                id=name,
                max_steps=facts.config.steps_at_most("learned"),
                guess_steps=_steps_of_a_guess(facts),
                data_path_id=self._catalogue.data_of(name, facts),
                step=facts.step,
                earlier_of=_newest_of_run(name, known),
            )
            for name, facts in known.items()
        ]
        return schemas.Checkpoints(checkpoints=infos, default=self._catalogue.default_id)

    def datasets(self) -> schemas.Datasets:
        infos = []
        for name, folders in self._catalogue.datasets().items():
            sizes = {split: self._catalogue.size_of(folder) for split, folder in folders.items()}
            known = {split: size for split, size in sizes.items() if size is not None}
            if known:
                task = task_of(next(iter(known.values())).metadata)
                splits = {
                    split: schemas.SplitInfo(
                        examples=size.examples, groups=size.metadata.total_groups
                    )
                    for split, size in known.items()
                }
                infos.append(schemas.DatasetInfo.of(task, id=name, splits=splits))
        return schemas.Datasets(datasets=infos)

    def example(self, data: Id, split: Id, index: Index = 0) -> schemas.Example:
        opened = self._catalogue.split(data, split)
        grid = task_of(opened.metadata).grid
        try:
            found, group = opened.example(index), opened.group(index)
        except IndexError as error:
            raise Refused(404, str(error)) from None
        return schemas.Example(
            index=index,
            examples=len(opened),
            puzzle=grid.text(found.inputs),
            answer=grid.text(grid.whole(found.labels)),
            identifier=found.identifier,
            group=group.number,
            first=group.first,
            last=group.last,
        )

    def read(self, asked: schemas.ReadRequest) -> schemas.ReadPuzzle:
        """One character per cell of a puzzle's text, or why it is none."""
        task = self._catalogue.checkpoint(asked.checkpoint).task
        return schemas.ReadPuzzle.of(asked.text, task)

    def runs(self) -> schemas.Runs:
        infos = [
            schemas.RunInfo(id=name, steps_done=max(saved_steps(path.parent), default=None))
            for name, path in self._catalogue.runs().items()
        ]
        return schemas.Runs(runs=infos)

    def metrics(self, run: Id, after: Index = 0, file: Id | None = None) -> schemas.Metrics:
        """Lines of `metrics.jsonl` after a byte of a file that an earlier answer named."""
        records, end, found, reset = self._catalogue.metrics(run, after, file)
        return schemas.Metrics(records=records, next=end, file=found, reset=reset)


def _newest_of_run(name: str, known: Mapping[str, Facts]) -> str | None:
    """Id of the newest checkpoint of the run that `name` is an earlier one of."""
    run = name.rpartition("/")[0]
    is_of_it = run in known and known[name].path.parent == known[run].path.parent
    return run if is_of_it else None


def _steps_of_a_guess(facts: Facts) -> int:
    trained = facts.config.arch.halt_max_steps
    guess = Attempt(is_guess=True)
    return guess.steps_at_most(trained, trained) if facts.task.takes_guesses else 0
