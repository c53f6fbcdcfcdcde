"""What the oracles of the tests share: sessions of ONNX Runtime, what tensors take, and a process of its own for each model."""

import json
import os
import traceback

import numpy as np
import onnx
import onnxruntime


def session_of(model, plain=True):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_DISABLE_ALL if plain else level.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def observed(path, feeds):
    """The least and the largest value of every float tensor of a model; of each feed, what the model takes is fed."""
    model = onnx.load(path)
    known = {o.name for o in model.graph.output}
    for node in model.graph.node:
        for output in node.output:
            if output and output not in known:
                model.graph.output.append(onnx.ValueInfoProto(name=output))
                known.add(output)
    session = session_of(model.SerializeToString())
    names = [o.name for o in session.get_outputs() if o.type == "tensor(float)"]
    wanted = {source.name for source in session.get_inputs()}
    found = {}
    for feed in feeds:
        feed = {n: v for n, v in feed.items() if n in wanted}
        for tensor, value in (dict(zip(names, session.run(names, feed))) | feed).items():
            if value.dtype == np.float32 and value.size and np.isfinite(value).all():
                low, high = float(value.min()), float(value.max())
                if tensor in found:
                    low, high = min(low, found[tensor][0]), max(high, found[tensor][1])
                found[tensor] = (low, high)
    return found


def apart(function, folder, name):
    """The function's result from a process of its own, or why there is none."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            result = function(folder, name)
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            result = {"error": f"{error!r} at {place.name}:{place.lineno}"}
        with os.fdopen(writing, "w") as stream:
            json.dump(result, stream)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        text = stream.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else {"error": f"the runtime crashed (wait status {status})"}
