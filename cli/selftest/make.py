"""make.py OUT: the tiny model of `kubectl edgeyard selftest`: out = softmax(x · W + b), four numbers in, two out."""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

weights = np.arange(8, dtype=np.float32).reshape(4, 2) / 8 - 0.5
graph = helper.make_graph(
    [
        helper.make_node("Gemm", ["x", "w", "b"], ["sum"], "gemm"),
        helper.make_node("Softmax", ["sum"], ["out"], "softmax", axis=-1),
    ],
    "selftest",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
    [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 2])],
    [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array([0.25, -0.25], np.float32), "b")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="edgeyard")
onnx.checker.check_model(model, full_check=True)
onnx.save(model, sys.argv[1])
