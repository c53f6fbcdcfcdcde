"""unsupported.py OUT: a model with an operator that no target takes, at a node called `odd-one`."""

import sys

import onnx
from onnx import TensorProto, helper

nodes = [
    helper.make_node("Relu", ["image"], ["r"], "relu"),
    helper.make_node("Det", ["r"], ["out"], "odd-one"),
]
graph = helper.make_graph(
    nodes,
    "unsupported",
    [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 28, 28])],
    [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 1])],
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), sys.argv[1])
