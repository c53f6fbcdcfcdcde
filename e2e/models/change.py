"""change.py OUT MODEL: the model with one weight of the first layer turned round: all later layers see it."""

import sys

import numpy as np
import onnx
from onnx import numpy_helper

out, source = sys.argv[1:]
model = onnx.load(source)
for index, tensor in enumerate(model.graph.initializer):
    if tensor.name == "conv1.w":
        weights = numpy_helper.to_array(tensor).copy()
        weights[np.argmax(np.abs(weights[:, 0, 1, 1])), 0, 1, 1] *= -1
        model.graph.initializer[index].CopyFrom(numpy_helper.from_array(weights, tensor.name))
        break
else:
    raise SystemExit("no conv1.w")
onnx.save(model, out)
