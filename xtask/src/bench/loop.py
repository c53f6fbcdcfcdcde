"""ONNX Runtime's own loop in Python, with the settings of the runner: prints the median in nanoseconds as JSON."""

import json
import sys
import time

import numpy
import onnxruntime

model, threads, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
options.inter_op_num_threads = 1
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
given = session.get_inputs()[0]
random = numpy.random.default_rng(42)
inputs = [random.random(given.shape, dtype=numpy.float32) for _ in range(16)]
durations = []
for index in range(2 * count):
    x = {given.name: inputs[index % 16]}
    before = time.perf_counter_ns()
    session.run(None, x)
    durations.append(time.perf_counter_ns() - before)
# The first half is warm-up.
durations = sorted(durations[count:])
print(json.dumps({"medianNanoseconds": durations[len(durations) // 2], "version": onnxruntime.__version__}))
