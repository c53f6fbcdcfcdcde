"""Makes the benchmark's model and inputs in FOLDER: MobileNetV2-1.0-224 with seeded weights (mbv2.onnx), calib.npz (16 samples),
many.npz (1,000 samples, half precision) and inputs.npz (64 samples). Prints the SHA-256 of the model's weights and of the inputs,
which the benchmark compares with what it expects: everybody measures the same thing.

Weights are He-normal with a spread between channels as trained networks have it; biases are small. Sandler et al. 2018, table 2.
"""
import hashlib
import json
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Expansion, channels, repeats, stride.
BLOCKS = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


class Net:
    def __init__(self, seed):
        self.rng, self.nodes, self.weights, self.hash = np.random.default_rng(seed), [], [], hashlib.sha256()
        self.weight("zero", np.float32(0)), self.weight("six", np.float32(6))

    def weight(self, name, value):
        value = np.asarray(value, np.float32)
        self.hash.update(value.tobytes())
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def node(self, op, inputs, name, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def conv(self, x, name, inputs, outputs, kernel, stride, groups=1, clipped=True):
        fan = inputs // groups * kernel**2
        w = self.rng.standard_normal((outputs, inputs // groups, kernel, kernel)) * np.sqrt((2 if clipped else 1) / fan)
        w *= np.exp(0.3 * self.rng.standard_normal((outputs, 1, 1, 1)))
        names = [self.weight(f"{name}.w", w), self.weight(f"{name}.b", 0.05 * self.rng.standard_normal(outputs))]
        around = [kernel // 2] * 4
        x = self.node("Conv", [x, *names], name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=around, group=groups)
        return self.node("Clip", [x, "zero", "six"], f"{name}.relu6") if clipped else x


def mobilenet():
    net = Net(0)
    x, channels, number = net.conv("input", "stem", 3, 32, 3, 2), 32, 0
    for expansion, wide, repeats, stride in BLOCKS:
        for repeat in range(repeats):
            number += 1
            entry, step, name = x, stride if repeat == 0 else 1, f"block{number}"
            if expansion > 1:
                x = net.conv(x, f"{name}.expand", channels, channels * expansion, 1, 1)
            x = net.conv(x, f"{name}.depthwise", channels * expansion, channels * expansion, 3, step, channels * expansion)
            x = net.conv(x, f"{name}.project", channels * expansion, wide, 1, 1, clipped=False)
            if step == 1 and channels == wide:
                x = net.node("Add", [entry, x], f"{name}.add")
            channels = wide
    x = net.conv(x, "head", channels, 1280, 1, 1)
    x = net.node("Flatten", [net.node("GlobalAveragePool", [x], "mean")], "flat", axis=1)
    net.weight("classes.w", net.rng.standard_normal((1000, 1280)) / np.sqrt(1280))
    net.weight("classes.b", np.zeros(1000))
    net.node("Gemm", [x, "classes.w", "classes.b"], "logits", transB=1)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("input", [1, 3, 224, 224]), ("logits", [1, 1000]))]
    graph = helper.make_graph(net.nodes, "mobilenetv2", ends[:1], ends[1:], net.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model, net.hash.hexdigest()


def main(folder):
    folder = pathlib.Path(folder)
    model, weights = mobilenet()
    onnx.save(model, folder / "mbv2.onnx")
    rng, data = np.random.default_rng(1), hashlib.sha256()
    for name, count, kind in (("calib", 16, np.float32), ("inputs", 64, np.float32), ("many", 1000, np.float16)):
        x = rng.standard_normal((count, 3, 224, 224), np.float32).astype(kind)
        data.update(x.tobytes())
        np.savez(folder / f"{name}.npz", x=x)
    print(json.dumps({"weights": weights, "inputs": data.hexdigest()}))


main(sys.argv[1])
