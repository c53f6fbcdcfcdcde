"""What TensorFlow Lite Micro computes: oracle.py MODEL INPUTS COUNT NUMBER_OF_INPUTS NUMBER_OF_OUTPUTS OUT

INPUTS holds COUNT times all inputs, one after the other; OUT gets as many times all outputs. Ends with 3 if a module is missing.
"""

import sys

try:
    import importlib.metadata

    import numpy as np
    from tflite_micro.python.tflite_micro import runtime
except ImportError as e:
    print(f"{e}", file=sys.stderr)
    sys.exit(3)

# A reference on a host need not be small; the pages that it does not touch cost nothing.
ARENA = 256 << 20


def main():
    model, given, count, inputs, outputs, out = sys.argv[1:]
    with open(model, "rb") as f:
        interpreter = runtime.Interpreter.from_bytes(f.read(), arena_size=ARENA)
    with open(given, "rb") as f, open(out, "wb") as got:
        for _ in range(int(count)):
            for i in range(int(inputs)):
                details = interpreter.get_input_details(i)
                shape, dtype = tuple(details["shape"]), np.dtype(details["dtype"])
                data = f.read(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
                interpreter.set_input(np.frombuffer(data, dtype).reshape(shape), i)
            interpreter.invoke()
            for i in range(int(outputs)):
                got.write(np.asarray(interpreter.get_output(i)).tobytes())
    print(importlib.metadata.version("tflite-micro"))


main()
