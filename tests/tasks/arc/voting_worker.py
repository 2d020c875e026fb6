"""Lets predictions vote on the ranks that are started; rank 0 saves the outcome of each round.

python voting_worker.py PREDICTIONS.npz DATA OUTPUT.json AGGREGATED

Keys of the predictions: `<round>/<number>/<name>`, and `rank` among the names.
"""

import json
import sys
from pathlib import Path

import numpy as np

from hrm.ranks import Ranks
from hrm.tasks.arc import Evaluator


def main() -> None:
    predictions, data, output = np.load(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    evaluator = Evaluator(data, aggregated_voting=sys.argv[4] == "True")
    places = {tuple(map(int, key.split("/")[:2])) for key in predictions}
    ranks = Ranks.from_environment()
    outcomes = []
    with ranks.connected():
        for number in range(1 + max(of for of, _ in places)):
            for of, place in sorted(places):
                if of == number and predictions[f"{of}/{place}/rank"] == ranks.rank:
                    start = f"{of}/{place}/"
                    names = [key for key in predictions if key.startswith(start)]
                    evaluator.add({key.removeprefix(start): predictions[key] for key in names})
            metrics, files = evaluator.reduce(ranks)
            assert ranks.agree(lambda found=metrics: found) == metrics
            if ranks.is_first:
                [(name, text)] = files.items()
                assert name == "ARC/submission.json"
                outcomes.append({"metrics": metrics, "submission": json.loads(text)})
            else:
                assert files == {}
    if ranks.is_first:
        output.write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main()
