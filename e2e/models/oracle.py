"""oracle.py OUT MODEL COUNT SEED: the digest of what TensorFlow Lite Micro computes, as `sha256:…` in OUT.

The inputs are those that the device-runner makes from a seed where there is no data set: int8 over their whole range, floats from 0
to 1, from SplitMix64 (Steele et al. 2014). The digest is of all outputs of the first input, of the second, and so on.
"""

import hashlib
import pathlib
import sys

import numpy as np
from tflite_micro.python.tflite_micro import runtime

GAMMA = 0x9E3779B97F4A7C15


class SplitMix64:
    def __init__(self, seed):
        self.state = seed

    def next(self, count):
        with np.errstate(over="ignore"):
            z = np.uint64(self.state) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GAMMA)
            self.state = (self.state + count * GAMMA) % (1 << 64)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def made_up(random, shape, dtype):
    # The upper 53 bits are a number from 0 to 1.
    unit = (random.next(int(np.prod(shape))) >> np.uint64(11)).astype(np.float64) / 2**53
    values = np.floor(unit * 256) - 128 if dtype == np.int8 else unit
    return values.astype(dtype).reshape(shape)


def main():
    out, model, count, seed = sys.argv[1:]
    interpreter = runtime.Interpreter.from_bytes(pathlib.Path(model).read_bytes(), arena_size=64 << 20)
    random, digest = SplitMix64(int(seed)), hashlib.sha256()
    details = interpreter.get_input_details(0)
    for _ in range(int(count)):
        interpreter.set_input(made_up(random, tuple(details["shape"]), np.dtype(details["dtype"])), 0)
        interpreter.invoke()
        digest.update(np.ascontiguousarray(interpreter.get_output(0)).tobytes())
    pathlib.Path(out).write_text(f"sha256:{digest.hexdigest()}")


main()
