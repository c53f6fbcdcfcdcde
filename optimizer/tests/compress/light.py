"""Makes models of the architectures that the package onnx ships as "light" models, whose weights are left out: random weights of
usual size, batch normalisations with usual statistics, operator set 13, logits instead of the final softmax.

    python light.py OUT_DIR NAME...

Prints the multiply-accumulates of each, by onnx's shape inference.
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import numpy_helper, version_converter


def macs(model):
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    shapes.update({i.name: list(i.dims) for i in graph.initializer})
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            total += int(np.prod(shapes[node.output[0]]) * np.prod(shapes[node.input[1]][1:]))
        elif node.op_type == "Gemm":
            total += int(np.prod(shapes[node.output[0]]) * shapes[node.input[0]][1])
    return total


def make(name, out):
    path = pathlib.Path(onnx.__file__).parent / f"backend/test/data/light/light_{name}.onnx"
    model, rng = onnx.load(path), np.random.default_rng(1)
    graph = model.graph
    # Weights are ConstantOfShape nodes over a constant shape.
    shapes = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    made = {n.output[0]: shapes[n.input[0]] for n in graph.node if n.op_type == "ConstantOfShape"}
    roles = {}
    for node in graph.node:
        for at, tensor in enumerate(node.input):
            roles.setdefault(tensor, (node.op_type, at))
    keep = [n for n in graph.node if n.op_type != "ConstantOfShape"]
    if keep[-1].op_type == "Softmax":
        graph.output[0].name = keep.pop().input[0]
    del graph.node[:]
    graph.node.extend(keep)
    read = {t for n in keep for t in n.input}
    for tensor, shape in made.items():
        if tensor not in read:
            continue
        value = rng.standard_normal(shape)
        op, at = roles[tensor]
        if op == "BatchNormalization":
            value = abs(value) * 0.3 + 0.7 if at in (1, 4) else value * 0.1
        elif len(shape) > 1:
            value *= np.sqrt(1.5 / np.prod(shape[1:]))
        else:
            value = value * 0.1 + (1 if op == "Unsqueeze" else 0)
        graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), tensor))
    real = [i for i in graph.input if i.name not in shapes and i.name not in made]
    rest = [i for i in graph.initializer if i.name in read]
    for field, values in ((graph.input, real), (graph.initializer, rest)):
        del field[:]
        field.extend(values)
    del graph.value_info[:]
    model.ir_version = 8
    model = version_converter.convert_version(model, 13)
    onnx.checker.check_model(model)
    onnx.save(model, out / f"{name}.onnx")
    print(macs(model))


for name in sys.argv[2:]:
    make(name, pathlib.Path(sys.argv[1]))
