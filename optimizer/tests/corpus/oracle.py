"""Runs published models beside what the optimizer made of them.

    oracle.py light FOLDER     writes onnx's light models with weights and opset 13
    oracle.py ranges FOLDER    writes what every float tensor of NAME.fixed.onnx takes
    oracle.py check FOLDER     writes how far NAME.{declared,fixed}.onnx and NAME.{f32,i8}.tflite are from NAME.onnx

Each model is run in a process of its own: a runtime that crashes is a failure of that model only.
"""
import json
import pathlib
import sys
import zlib

import numpy as np
import onnx
from onnx import numpy_helper

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from reference import apart, observed, session_of

SAMPLES = 3
# vgg19, alexnet and zfnet512 have hundreds of megabytes of weights and nothing that the others lack.
LIGHT = ["densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet"]


def image(rng, shape):
    """Smooth, between 0 and 1: a network that saw photographs is not asked about white noise."""
    y, x = np.meshgrid(np.linspace(0, 1, shape[-2]), np.linspace(0, 1, shape[-1]), indexing="ij")
    waves = sum(np.sin(2 * np.pi * (rng.uniform(0, 9) * x + rng.uniform(0, 9) * y + rng.uniform())) for _ in range(6))
    base = 0.5 + waves / 12
    return np.clip(base + 0.08 * rng.standard_normal(shape), 0, 1)


def writing(rng, shape):
    """Rows of dark strokes on light ground, as normalised as PP-OCR wants it: a network that looks for text finds some."""
    height, width = shape[-2:]
    page = np.ones((height, width))
    size = min(32, height - 8)
    for top in range(4, height - size, size + 16):
        for left in range(8, width - 20, 20):
            if rng.uniform() < 0.85:
                for _ in range(3):
                    if rng.uniform() < 0.5:
                        column = left + rng.integers(0, 11)
                        page[top : top + size, column : column + 3] = 0.1
                    else:
                        row = top + rng.integers(0, size - 3)
                        page[row : row + 3, left : left + 14] = 0.1
    return np.broadcast_to((page - 0.5) / 0.25, shape) + 0.02 * rng.standard_normal(shape)


def sound(rng, shape):
    t = np.arange(shape[-1])
    tones = sum(rng.uniform(0.05, 0.2) * np.sin(rng.uniform(0.01, 0.6) * t + rng.uniform(0, 6)) for _ in range(5))
    return tones + 0.02 * rng.standard_normal(shape)


def feed_of(rng, session, fixed, picture):
    feed = {}
    for source in session.get_inputs():
        shape = fixed.get(source.name, source.shape)
        if source.type == "tensor(int64)":
            feed[source.name] = np.full(shape, 16000, np.int64)  # silero's sampling rate
        elif source.type == "tensor(int32)":
            feed[source.name] = rng.integers(0, 257, shape).astype(np.int32)  # magika's bytes
        elif source.name == "state":
            feed[source.name] = (0.1 * rng.standard_normal(shape)).astype(np.float32)
        elif len(shape) == 2:
            feed[source.name] = sound(rng, shape).astype(np.float32)
        elif len(shape) == 3 and shape[-1] == 1:
            feed[source.name] = sound(rng, shape[:2]).astype(np.float32)[..., None]
        elif len(shape) == 4 and shape[1] == 3:
            feed[source.name] = picture(rng, shape).astype(np.float32)
        else:
            feed[source.name] = rng.standard_normal(shape).astype(np.float32)
    return feed


def feeds_of(folder, name):
    """Inputs in the shapes of the model whose shapes are fixed; the original takes the same."""
    session = session_of((folder / f"{name}.fixed.onnx").read_bytes())
    fixed = {source.name: source.shape for source in session.get_inputs()}
    original = session_of((folder / f"{name}.onnx").read_bytes())
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    picture = writing if name.startswith("ppocr") else image
    return original, [feed_of(rng, original, fixed, picture) for _ in range(SAMPLES)]


def run(model, feeds):
    session = session_of(model)
    wanted = {source.name for source in session.get_inputs()}
    return [session.run(None, {n: v for n, v in feed.items() if n in wanted}) for feed in feeds]


def ranges(folder, name):
    return observed(folder / f"{name}.fixed.onnx", feeds_of(folder, name)[1])


def litert(path, feeds):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    results = []
    for feed in feeds:
        for detail in interpreter.get_input_details():
            # What is 64 bits in ONNX is fed in 32.
            interpreter.set_tensor(detail["index"], feed[detail["name"]].astype(detail["dtype"]))
        interpreter.invoke()
        results.append([interpreter.get_tensor(o["index"]).copy() for o in interpreter.get_output_details()])
    return results


def worst(expected, found):
    """Largest difference of an output, relative to the largest value of that output over all samples."""
    result = 0.0
    for index in range(len(expected[0])):
        scale = max(float(np.abs(row[index]).max()) for row in expected)
        for one, other in zip(expected, found):
            assert one[index].shape == other[index].shape, f"output {index}: {other[index].shape}, not {one[index].shape}"
            difference = np.abs(one[index].astype(np.float64) - other[index]).max()
            result = max(result, float(difference) / max(scale, 1e-3))
    return result


def sqnr(expected, found):
    """The worst output's signal to noise ratio in dB: a large output must not hide a small one."""
    result = 300.0
    for index in range(len(expected[0])):
        signal = sum(float((row[index].astype(np.float64) ** 2).sum()) for row in expected)
        noise = sum(
            float(((one[index].astype(np.float64) - other[index]) ** 2).sum()) for one, other in zip(expected, found)
        )
        result = min(result, 10 * np.log10(max(signal, 1e-30) / max(noise, 1e-30)))
    return result


def check(folder, name):
    original, feeds = feeds_of(folder, name)
    expected = [original.run(None, feed) for feed in feeds]
    assert all(np.isfinite(value).all() for row in expected for value in row), "the original's outputs are not finite"
    verdict = {
        kind: worst(expected, run((folder / f"{name}.{kind}.onnx").read_bytes(), feeds)) for kind in ("declared", "fixed")
    }
    if (folder / f"{name}.f32.tflite").exists():
        found = litert(folder / f"{name}.f32.tflite", feeds)
        verdict |= {"float": worst(expected, found), "float_sqnr": sqnr(expected, found)}
    if (folder / f"{name}.i8.tflite").exists():
        verdict["int8_sqnr"] = sqnr(expected, litert(folder / f"{name}.i8.tflite", feeds))
    return verdict


def weights(rng, shape, reader, place):
    """What stands in for weights that the light models leave out; variances are positive, layers keep the signal's size."""
    if len(shape) > 1:
        return rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    if reader == "BatchNormalization" and place in (2, 3) or reader in ("Conv", "Gemm", "Sum"):
        return 0.05 * rng.standard_normal(shape)
    return np.abs(1 + 0.1 * rng.standard_normal(shape))


def light(folder):
    source = pathlib.Path(onnx.__file__).parent / "backend/test/data/light"
    for name in LIGHT:
        model = onnx.load(source / f"light_{name}.onnx")
        graph = model.graph
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        shapes = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        readers = {}
        for node in graph.node:
            for place, tensor in enumerate(node.input):
                readers.setdefault(tensor, (node.op_type, place))
        kept = []
        for node in graph.node:
            if node.op_type != "ConstantOfShape":
                kept.append(node)
                continue
            value = weights(rng, tuple(shapes[node.input[0]]), *readers.get(node.output[0], ("", 0)))
            graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), node.output[0]))
        if kept[-1].op_type == "Softmax":
            # Made-up weights give logits so far apart that probabilities say nothing.
            softmax = kept.pop()
            kept[-1].output[0] = softmax.output[0]
        del graph.node[:]
        graph.node.extend(kept)
        used = {tensor for node in kept for tensor in node.input}
        needless = [i for i in graph.initializer if i.name not in used]
        for initializer in needless:
            graph.initializer.remove(initializer)
        model.ir_version = 8
        feeds = [i for i in graph.input if i.name in used and i.name not in {x.name for x in graph.initializer}]
        del graph.input[:]
        graph.input.extend(feeds)
        onnx.save(onnx.version_converter.convert_version(model, 13), folder / f"{name}.onnx")


def main(step, folder):
    folder = pathlib.Path(folder)
    if step == "light":
        return light(folder)
    names = sorted(p.name[: -len(".fixed.onnx")] for p in folder.glob("*.fixed.onnx"))
    function = {"ranges": ranges, "check": check}[step]
    target = folder / ("ranges.json" if step == "ranges" else "verdicts.json")
    target.write_text(json.dumps({name: apart(function, folder, name) for name in names}))


main(*sys.argv[1:])
