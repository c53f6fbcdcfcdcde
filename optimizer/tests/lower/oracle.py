"""Runs lowered models beside their source, for the tests of lowering.

`ranges FOLDER` writes what every tensor of the models takes on seeded inputs; `check FOLDER` runs what lowering made of
them in LiteRT and TensorFlow Lite Micro and writes how far the results are from onnxruntime's and from one another.
Each model is run in a process of its own: a runtime that crashes is a failure of that case only.
"""
import json
import pathlib
import sys
import zlib

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from reference import apart, observed, session_of

SAMPLES = 12


def inputs_of(name, session):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    shapes = [(i.name, i.type, [d if isinstance(d, int) else 1 for d in i.shape]) for i in session.get_inputs()]

    def values(kind, shape):
        if kind == "tensor(float)":
            return rng.standard_normal(shape).astype(np.float32)
        # Words of a small vocabulary.
        return rng.integers(0, 6, shape).astype({"tensor(int64)": np.int64, "tensor(int32)": np.int32}.get(kind, np.uint8))

    return [{n: values(k, s) for n, k, s in shapes} for _ in range(SAMPLES)]


def as_fed(feed, kinds):
    """What is 64 bits in ONNX is fed in 32."""
    return {name: value.astype(kinds[name]) if value.dtype == np.int64 else value for name, value in feed.items()}


def ranges(folder, name):
    path = folder / f"{name}.simple.onnx"
    return observed(path, inputs_of(name, session_of(path.read_bytes())))


def quantize(value, detail, dtype=np.int8):
    scale, zero = detail
    limits = np.iinfo(dtype)
    return np.clip(np.rint(value / scale + zero), limits.min, limits.max).astype(dtype) if scale else value


def dequantize(value, detail):
    scale, zero = detail
    return (value.astype(np.float32) - zero) * scale if scale else value


def litert(path, feeds, order, optimised=True):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.AUTO if optimised else OpResolverType.BUILTIN_REF
    interpreter = Interpreter(model_path=str(path), num_threads=1, experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    ins, outs = interpreter.get_input_details(), interpreter.get_output_details()
    assert [i["name"] for i in ins] == order, f"inputs are named {[i['name'] for i in ins]}, not {order}"
    results = []
    for feed in feeds:
        for detail in ins:
            value = as_fed(feed, {i["name"]: i["dtype"] for i in ins})[detail["name"]]
            interpreter.set_tensor(detail["index"], quantize(value, detail["quantization"]))
        interpreter.invoke()
        results.append([interpreter.get_tensor(o["index"]).copy() for o in outs])
    return results, [o["quantization"] for o in outs]


def micro(path, feeds, order, dtype=np.int8):
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_file(str(path), arena_size=4 << 20)
    results, details = [], None
    for feed in feeds:
        for index, name in enumerate(order):
            detail = interpreter.get_input_details(index)["quantization_parameters"]
            quantization = (detail["scales"][0], detail["zero_points"][0]) if len(detail["scales"]) else (0, 0)
            value = as_fed(feed, dict.fromkeys(feed, np.int32))[name]
            interpreter.set_input(quantize(value, quantization, dtype), index)
        interpreter.invoke()
        outputs = []
        while True:
            try:
                outputs.append(np.array(interpreter.get_output(len(outputs))))
            except (IndexError, ValueError):
                break
        results.append(outputs)
        if details is None:
            parameters = [interpreter.get_output_details(i)["quantization_parameters"] for i in range(len(outputs))]
            details = [(p["scales"][0], p["zero_points"][0]) for p in parameters]
    return results, details


def sqnr(expected, found):
    signal = sum(float((e.astype(np.float64) ** 2).sum()) for row in expected for e in row)
    noise = sum(
        float(((e.astype(np.float64) - f) ** 2).sum()) for one, other in zip(expected, found) for e, f in zip(one, other)
    )
    return 10 * np.log10(max(signal, 1e-30) / max(noise, 1e-30))


def steps(one, other):
    return max(
        int(np.abs(a.astype(np.int32) - b.astype(np.int32)).max()) for x, y in zip(one, other) for a, b in zip(x, y)
    )


def check(folder, name):
    if not (folder / f"{name}.f32.tflite").exists():
        return {"error": "it was not lowered"}
    session = session_of((folder / f"{name}.onnx").read_bytes())
    feeds = inputs_of(name, session)
    order = [i.name for i in session.get_inputs()]
    expected = [session.run(None, feed) for feed in feeds]
    largest = max(float(np.abs(e).max()) for row in expected for e in row)
    verdict = {}

    def compare_shapes(found):
        got, wanted = [f.shape for f in found[0]], [e.shape for e in expected[0]]
        assert got == wanted, f"output shapes are {got}, not {wanted}"

    found, _ = litert(folder / f"{name}.f32.tflite", feeds, order)
    compare_shapes(found)
    worst = max(float(np.abs(e - f).max()) for one, other in zip(expected, found) for e, f in zip(one, other))
    verdict["float_error"] = worst / max(largest, 1e-6)
    if (folder / f"{name}.import.onnx").exists():
        imported = session_of((folder / f"{name}.import.onnx").read_bytes())
        kinds = dict.fromkeys(feeds[0], np.int32)
        found = [imported.run(None, as_fed(feed, kinds)) for feed in feeds]
        compare_shapes(found)
        worst = max(float(np.abs(e - f).max()) for one, other in zip(expected, found) for e, f in zip(one, other))
        verdict["import_error"] = worst / max(largest, 1e-6)
    found, _ = litert(folder / f"{name}.f16.tflite", feeds, order)
    verdict["half_sqnr"] = sqnr(expected, found)
    for kind in ("dyn", "i4"):
        found, _ = litert(folder / f"{name}.{kind}.tflite", feeds, order)
        verdict[{"dyn": "dynamic_sqnr", "i4": "int4_sqnr"}[kind]] = sqnr(expected, found)
    if not (folder / f"{name}.i8f.tflite").exists():
        return verdict
    found, _ = litert(folder / f"{name}.i16f.tflite", feeds, order)
    compare_shapes(found)
    verdict["int16_sqnr"] = sqnr(expected, found)
    if (folder / f"{name}.i16.tflite").exists():
        found, details = micro(folder / f"{name}.i16.tflite", feeds, order, np.int16)
        verdict["micro_int16_sqnr"] = sqnr(expected, [[dequantize(f, d) for f, d in zip(r, details)] for r in found])
    found, _ = litert(folder / f"{name}.i8f.tflite", feeds, order)
    compare_shapes(found)
    verdict["int8_sqnr"] = sqnr(expected, found)
    if not (folder / f"{name}.i8.tflite").exists():
        return verdict
    try:
        reference, _ = litert(folder / f"{name}.i8.tflite", feeds, order, optimised=False)
    except ValueError:
        reference = None  # no reference kernel
    optimised, _ = litert(folder / f"{name}.i8.tflite", feeds, order)
    found, details = micro(folder / f"{name}.i8.tflite", feeds, order)
    compare_shapes(found)
    verdict["micro_sqnr"] = sqnr(expected, [[dequantize(f, d) for f, d in zip(row, details)] for row in found])
    verdict["reference_steps"] = steps(reference, found) if reference else None
    verdict["optimised_steps"] = steps(optimised, found)
    return verdict


def main(step, folder):
    folder = pathlib.Path(folder)
    names = sorted(p.name[: -len(".simple.onnx")] for p in folder.glob("*.simple.onnx"))
    if step == "ranges":
        (folder / "ranges.json").write_text(json.dumps({name: ranges(folder, name) for name in names}))
    else:
        (folder / "verdicts.json").write_text(json.dumps({name: apart(check, folder, name) for name in names}))


main(*sys.argv[1:])
