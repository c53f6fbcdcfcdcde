"""change.py OUT MODEL: the model with one weight changed by as much as its largest."""

import sys

import numpy as np
import onnx
from onnx import numpy_helper

out, source = sys.argv[1:]
model = onnx.load(source)
for index, tensor in enumerate(model.graph.initializer):
    if tensor.name == "fc.w":
        weights = numpy_helper.to_array(tensor).copy()
        weights[0, np.argmax(np.abs(weights[0]))] *= -1
        model.graph.initializer[index].CopyFrom(numpy_helper.from_array(weights, tensor.name))
        break
else:
    raise SystemExit("no fc.w")
onnx.save(model, out)
