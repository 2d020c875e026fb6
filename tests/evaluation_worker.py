"""Evaluates the data of `test_evaluation.py` on the ranks that torchrun starts; saves the outcome.

python evaluation_worker.py DATA OUTPUT.pt GLOBAL_BATCH_SIZE …
"""

import sys
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

import torch

from hrm import evaluation
from hrm.evaluation import evaluate
from hrm.ranks import Ranks
from tests.test_evaluation import CPU, KEYS, ThirdsAreValid, make_model, open_data, plan_of
from tests.watching import rows_of_steps


def outcome(data: Path, batch_size: int, halting: str, ranks: Ranks) -> dict:
    model, dataset = make_model(), open_data(data, batch_size, ranks)
    calls = rows_of_steps(model.model)
    result = evaluate(model, dataset, CPU, ranks, halting, KEYS)
    act_steps = len(calls)

    asked = 0

    def must_stop() -> bool:
        """Rank 1 is told so when it asks for the second time."""
        nonlocal asked
        asked += 1
        return bool(ranks.maximum(int(ranks.rank == 1 and asked == 2))[0])

    assert (
        evaluate(model, open_data(data, batch_size, ranks), CPU, ranks, halting, (), must_stop)
        is None
    )
    more = {"max_steps": 9, "plan": plan_of("valid")}
    with patch.object(evaluation, "task_of", ThirdsAreValid):
        again = open_data(data, batch_size, ranks)
        tried = evaluate(model, again, CPU, ranks, halting, ("predictions", "steps"), **more)
    gathered = ranks.gather_rows(torch.tensor([[act_steps, asked]]))
    return {
        "result": asdict(result),
        "tried": asdict(tried),
        "act_steps": gathered[:, 0].tolist(),
        "asked_until_stop": gathered[:, 1].tolist(),
    }


def main() -> None:
    data, output, batch_sizes = Path(sys.argv[1]), sys.argv[2], map(int, sys.argv[3:])
    torch.set_num_threads(1)
    ranks = Ranks.from_environment()
    with ranks.connected():
        outcomes = {
            size: {h: outcome(data, size, h, ranks) for h in ("max_steps", "learned")}
            for size in batch_sizes
        }
        if ranks.is_first:
            torch.save(outcomes, output)


if __name__ == "__main__":
    main()
