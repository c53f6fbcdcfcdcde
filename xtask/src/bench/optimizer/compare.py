"""Runs two artefacts on the same inputs, in turns, and prints what came out; a file that is not there gives nulls.

    compare.py onnx|tflite SOURCE.onnx INPUTS.npz OURS PEER ROUNDS
    compare.py micro OURS.tflite PEER.tflite INPUTS.npz
    compare.py accuracy MODEL.onnx|.tflite DATA.npz

SQNR is the mean over inputs of each input's ratio in dB against the source in ONNX Runtime. Latency: one thread; each round runs one
artefact and then the other ten times, the first to go alternates; the ratio is the median of the rounds' ratios.
"""
import json
import pathlib
import statistics
import sys
import time

import numpy as np
import onnxruntime

RUNS = 10


def ort(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def lite(path, kind=None):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(model_path=path, num_threads=1, experimental_op_resolver_type=kind or OpResolverType.AUTO)
    interpreter.allocate_tensors()
    (source,), (out, *_) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = source["quantization"]
    real, offset = out["quantization"]

    def run(x):
        # Theirs takes pixels last; what is fed is the same.
        x = x if tuple(source["shape"]) == x.shape else x.transpose(0, 2, 3, 1)
        if source["dtype"] != np.float32:
            x = np.clip(np.rint(x / scale) + zero, -128, 127).astype(source["dtype"])
        interpreter.set_tensor(source["index"], x)
        interpreter.invoke()
        y = interpreter.get_tensor(out["index"])
        return (y.astype(np.float32) - offset) * real if real and out["dtype"] != np.float32 else y.copy()

    return run


def sqnr(expected, found):
    expected, found = expected.astype(np.float64), found.reshape(expected.shape).astype(np.float64)
    return 10 * np.log10((expected**2).sum() / max(((expected - found) ** 2).sum(), 1e-300))


def compare(kind, source, inputs, ours, peer, rounds):
    open_ = ort if kind == "onnx" else lite
    x = np.load(inputs)["x"]
    reference = ort(source)
    expected = [reference(sample[None]) for sample in x]
    there = {name: open_(path) for name, path in (("ours", ours), ("peer", peer)) if pathlib.Path(path).exists()}
    result = {"sqnr": {}, "nanoseconds": {}, "sizes": {}, "source": pathlib.Path(source).stat().st_size}
    for name, run in there.items():
        found = [run(sample[None]) for sample in x]
        result["sqnr"][name] = float(np.mean([sqnr(e, f) for e, f in zip(expected, found)]))
        result["sizes"][name] = pathlib.Path(ours if name == "ours" else peer).stat().st_size
    times, sample = {name: [] for name in there}, x[:1]
    for round_ in range(int(rounds)):
        for name in sorted(there, reverse=bool(round_ % 2)):
            start = time.perf_counter_ns()
            for _ in range(RUNS):
                there[name](sample)
            times[name].append((time.perf_counter_ns() - start) / RUNS)
    result["nanoseconds"] = {name: statistics.median(found) for name, found in times.items()}
    if len(there) == 2:
        result["latencyRatio"] = statistics.median(a / b for a, b in zip(times["ours"], times["peer"]))
    return result


def micro(ours, peer, inputs):
    """The largest difference in integers between TensorFlow Lite Micro and LiteRT's reference kernels, on one input."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
    from tflite_micro.python.tflite_micro import runtime

    x, result = np.load(inputs)["x"][:1], {}
    for name, path in (("ours", ours), ("peer", peer)):
        if not pathlib.Path(path).exists():
            continue
        try:
            one = Interpreter(model_path=path, num_threads=1, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
            one.allocate_tensors()
            (source,), (out, *_) = one.get_input_details(), one.get_output_details()
            fed = x if tuple(source["shape"]) == x.shape else x.transpose(0, 2, 3, 1)
            if source["dtype"] == np.int8:
                scale, zero = source["quantization"]
                fed = np.clip(np.rint(fed / scale) + zero, -128, 127).astype(np.int8)
            one.set_tensor(source["index"], fed)
            one.invoke()
            expected = one.get_tensor(out["index"])
            other = runtime.Interpreter.from_file(path, arena_size=32 << 20)
            other.set_input(fed, 0)
            other.invoke()
            found = np.array(other.get_output(0))
            step = 1 if out["dtype"] == np.int8 else max(float(np.abs(expected).max()), 1e-30) / 127
            result[name] = float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max() / step)
        except Exception as error:  # Whatever a runtime throws is the finding.
            result[f"{name}Error"] = str(error).splitlines()[0][:200]
    return result


def accuracy(model, data):
    file = np.load(data)
    x, y = file["x"], file["y"]
    run = ort(model) if model.endswith(".onnx") else lite(model)
    batch = 1 if model.endswith(".tflite") else 256
    scores = np.concatenate([run(x[i : i + batch]) for i in range(0, len(x), batch)])
    return {"value": float((scores.argmax(1) == y).mean())}


print(json.dumps({"onnx": lambda *a: compare("onnx", *a), "tflite": lambda *a: compare("tflite", *a), "micro": micro, "accuracy": accuracy}[sys.argv[1]](*sys.argv[2:])))
