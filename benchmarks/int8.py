"""What int8 weights cost: a model of the package as ONNX in float32 and int8, on random Sudokus.

    python benchmarks/int8.py --model sudoku-9x9 --givens 36 --count 200

Both files are run by onnxruntime, one puzzle after the other, with learned halting, on one thread.
"""

import argparse
import json
import tempfile
import time
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime

from hrm.checkpoint import load_checkpoint, shipped_models
from hrm.checkpoint.step_graph import as_onnx, facts, trace_step, write_onnx
from hrm.config import GraphDtype
from hrm.tasks.sudoku.generator import generate_split


def solve(session: Any, known: dict[str, Any], tokens: np.ndarray) -> tuple[np.ndarray, int]:
    """The answer to one puzzle [T] and its ACT steps."""
    feed = {"tokens": tokens[None].astype(np.int32), "begins": np.array([True])}
    feed |= {name: np.zeros((1, *shape), np.float32) for name, shape in known["states"].items()}
    names = [output.name for output in session.get_outputs()]
    step = 0
    while True:
        step += 1
        found = dict(zip(names, session.run(names, feed), strict=True))
        sure = 1 / (1 + np.exp(-found["q_halt"][0])) >= known["halt_probability"]
        if (found["wants_to_halt"][0] and sure) or step == known["max_steps"]:
            return found["logits"][0].argmax(-1), step
        feed |= {name: found[f"next_{name}"] for name in known["states"]}
        feed["begins"] = np.array([False])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="sudoku-9x9")
    parser.add_argument("--givens", type=int, default=36)
    parser.add_argument("--count", type=int, default=200)
    asked = parser.parse_args()
    checkpoint = load_checkpoint(shipped_models()[asked.model])
    box = checkpoint.metadata.inferred_box_shape()
    assert box is not None
    givens = (asked.givens, asked.givens)
    _, (questions, right) = generate_split(box, 1, asked.count, givens=givens, seed=77)
    known = facts(checkpoint)
    model = as_onnx(trace_step(checkpoint), known["states"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        for dtype in get_args(GraphDtype):
            path = Path(folder) / f"{dtype}.onnx"
            write_onnx(deepcopy(model), known, path, dtype)
            session = onnxruntime.InferenceSession(path, options)
            start = time.perf_counter()
            answers = [solve(session, known, question) for question in questions]
            seconds = time.perf_counter() - start
            exact = (np.stack([answer for answer, _ in answers]) == right).all(1).mean()
            steps = sum(steps for _, steps in answers)
            print(
                json.dumps(
                    {
                        "dtype": dtype,
                        "megabytes": round(path.stat().st_size / 1e6, 2),
                        "exact": float(exact),
                        "mean_steps": round(steps / len(answers), 2),
                        "ms_per_step": round(1000 * seconds / steps, 2),
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
