"""Writes mobilenetv2.onnx (MobileNetV2-1.0-224, Sandler et al. 2018, random weights) and small.onnx into a folder."""

import os
import sys

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

random = numpy.random.default_rng(42)


class Graph:
    def __init__(self):
        self.nodes, self.constants, self.count = [], [], 0

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(numpy.asarray(array), name))
        return name

    def node(self, op, inputs, **attributes):
        name = f"t{self.count}"
        self.count += 1
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def weights(self, shape):
        fan_in = int(numpy.prod(shape[1:]))
        return self.constant((random.standard_normal(shape) * (2.0 / fan_in) ** 0.5).astype(numpy.float32))

    def convolution(self, x, inputs, outputs, size, stride, group, bounded):
        bias = self.constant(numpy.zeros(outputs, numpy.float32))
        y = self.node(
            "Conv",
            [x, self.weights((outputs, inputs // group, size, size)), bias],
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[size // 2] * 4,
            group=group,
        )
        if not bounded:
            return y
        low, high = self.constant(numpy.float32(0)), self.constant(numpy.float32(6))
        return self.node("Clip", [y, low, high])

    def save(self, path, shape, y, classes):
        self.nodes.append(helper.make_node("Identity", [y], ["y"]))
        graph = helper.make_graph(
            self.nodes,
            "bench",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, classes])],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, path)


def mobilenet(path):
    graph = Graph()
    x, channels = graph.convolution("x", 3, 32, 3, 2, 1, True), 32
    # Expansion, channels, repetitions, stride: table 2 of the paper.
    for expansion, outputs, repetitions, first_stride in [
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ]:
        for repetition in range(repetitions):
            stride = first_stride if repetition == 0 else 1
            hidden = channels * expansion
            y = graph.convolution(x, channels, hidden, 1, 1, 1, True) if expansion > 1 else x
            y = graph.convolution(y, hidden, hidden, 3, stride, hidden, True)
            y = graph.convolution(y, hidden, outputs, 1, 1, 1, False)
            x = graph.node("Add", [x, y]) if stride == 1 and channels == outputs else y
            channels = outputs
    x = graph.convolution(x, channels, 1280, 1, 1, 1, True)
    x = graph.node("Flatten", [graph.node("GlobalAveragePool", [x])])
    bias = graph.constant(numpy.zeros(1000, numpy.float32))
    graph.save(path, [1, 3, 224, 224], graph.node("Gemm", [x, graph.weights((1000, 1280)), bias], transB=1), 1000)


def small(path):
    graph = Graph()
    x = "x"
    for inputs, outputs in [(512, 448), (448, 256), (256, 10)]:
        bias = graph.constant(numpy.zeros(outputs, numpy.float32))
        x = graph.node("Gemm", [x, graph.weights((outputs, inputs)), bias], transB=1)
        if outputs != 10:
            x = graph.node("Relu", [x])
    graph.save(path, [1, 512], x, 10)


folder = sys.argv[1]
mobilenet(os.path.join(folder, "mobilenetv2.onnx"))
small(os.path.join(folder, "small.onnx"))
