"""Solve a Sudoku with numpy and onnxruntime alone, from a file of `hrm export --onnx`.

hrm export sudoku-4x4 --onnx model.onnx
python examples/onnx_numpy.py model.onnx .3..1.3...4.4...
"""

import json
import sys

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
facts = {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}
symbols, states = facts["symbols"], facts["states"]

feed = {"tokens": np.array([[symbols.index(c) for c in sys.argv[2]]], np.int32)}
feed |= {name: np.zeros((1, *shape), np.float32) for name, shape in states.items()}
feed["begins"] = np.array([True])  # the start states are taken instead of these zeros
names = [output.name for output in session.get_outputs()]

for step in range(1, facts["max_steps"] + 1):
    found = dict(zip(names, session.run(names, feed), strict=True))
    answer = "".join(symbols[token] for token in found["logits"][0].argmax(-1))
    sure = 1 / (1 + np.exp(-found["q_halt"][0]))
    print(f"step {step:2}, halt {sure:4.0%}: {answer}")
    if found["wants_to_halt"][0] and sure >= facts["halt_probability"]:
        break
    feed |= {name: found[f"next_{name}"] for name in states} | {"begins": np.array([False])}
