"""onnxruntime.quantization, as its documentation says to use it. Prints {seconds, peakBytes, version} of quantising alone.

    peer_ort.py MODEL DATA.npz COUNT MinMax|Percentile OUT.onnx
"""
import json
import resource
import sys
import time

import numpy as np
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static


class Reader(CalibrationDataReader):
    def __init__(self, name, x):
        self.samples = iter([{name: sample[None].astype(np.float32)} for sample in x])

    def get_next(self):
        return next(self.samples, None)


def main(model, data, count, method, out):
    with np.load(data) as file:
        x = file["x"][: int(count)]
    name = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).get_inputs()[0].name
    start = time.perf_counter()
    quantize_static(
        model, out, Reader(name, x), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod[method],
    )
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peakBytes": peak, "version": f"onnxruntime {onnxruntime.__version__}"}))


main(*sys.argv[1:])
