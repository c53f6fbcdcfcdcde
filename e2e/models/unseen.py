"""unseen.py OUT SEED: a small network with random weights that nobody has seen before: depthwise and strided
convolutions, a residual sum and global average pooling, on 1×28×28 images."""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

out, seed = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(seed)
channels = int(rng.integers(8, 24))
weights = {
    "w1": rng.normal(0, 0.4, (channels, 1, 3, 3)),
    "b1": rng.normal(0, 0.1, channels),
    "w2": rng.normal(0, 0.3, (channels, 1, 3, 3)),
    "b2": rng.normal(0, 0.1, channels),
    "w3": rng.normal(0, 0.3, (channels, channels, 1, 1)),
    "b3": rng.normal(0, 0.1, channels),
    "w4": rng.normal(0, 0.3, (10, channels)),
    "b4": rng.normal(0, 0.1, 10),
}
node = helper.make_node
nodes = [
    node("Conv", ["image", "w1", "b1"], ["c1"], "c1", pads=[1, 1, 1, 1], strides=[2, 2]),
    node("Relu", ["c1"], ["r1"], "r1"),
    node("Conv", ["r1", "w2", "b2"], ["c2"], "c2", pads=[1, 1, 1, 1], group=channels),
    node("Relu", ["c2"], ["r2"], "r2"),
    node("Conv", ["r2", "w3", "b3"], ["c3"], "c3"),
    node("Add", ["c3", "r1"], ["sum"], "sum"),
    node("GlobalAveragePool", ["sum"], ["mean"], "mean"),
    node("Flatten", ["mean"], ["flat"], "flat"),
    node("Gemm", ["flat", "w4", "b4"], ["out"], "fc", transB=1),
]
graph = helper.make_graph(
    nodes,
    "unseen",
    [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 28, 28])],
    [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 10])],
    [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, out)
