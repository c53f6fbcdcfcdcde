"""onnx2tf and ai-edge-quantizer, as their documentation says to use them. Prints {seconds, version}; imports are not counted.

    peer_tflite.py MODEL CALIB.npz WORK OUT.tflite
"""
import contextlib
import importlib.metadata
import json
import os
import pathlib
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import onnx2tf
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe


def main(model, data, work, out):
    with np.load(data) as file:
        x = file["x"].transpose(0, 2, 3, 1).copy()
    # It downloads photographs to check its conversion with; what they show does not change the file, so others stand in.
    sys.modules["onnx2tf.onnx2tf"].download_test_image_data = lambda: np.random.default_rng(0).random((20, 128, 128, 3), np.float32)
    start = time.perf_counter()
    with open(os.devnull, "w") as void, contextlib.redirect_stdout(void):
        onnx2tf.convert(input_onnx_file_path=model, output_folder_path=work, non_verbose=True, disable_strict_mode=True)
        (source,) = pathlib.Path(work).glob("*_float32.tflite")
        signatures = Interpreter(model_path=str(source)).get_signature_list()
        key = next(iter(signatures))
        name = signatures[key]["inputs"][0]
        worker = quantizer.Quantizer(str(source))
        worker.load_quantization_recipe(recipe.static_wi8_ai8())
        found = worker.calibrate({key: [{name: x[i : i + 1]} for i in range(len(x))]})
        worker.quantize(found).export_model(out, overwrite=True)
    seconds = time.perf_counter() - start
    versions = " + ".join(f"{name} {importlib.metadata.version(name)}" for name in ("onnx2tf", "ai-edge-quantizer"))
    print(json.dumps({"seconds": seconds, "version": versions}))


main(*sys.argv[1:])
