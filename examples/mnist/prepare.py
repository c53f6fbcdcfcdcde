"""Turns MNIST's idx files into the .npz data sets of the examples. Needs numpy only.

    python prepare.py MNIST_DIR OUT_DIR

Writes calib.npz (x: 128 training images), test.npz (x, y: all 10,000 test images), smoke.npz
(x, y: the first 512 of them) and shuffled.npz (test.npz with the labels in a random order, on
which every model must score about 10 %). Images are float32, N×1×28×28, 0 to 1.
"""

import pathlib
import struct
import sys

import numpy as np


def load(folder, part):
    images = (folder / f"{part}-images-idx3-ubyte").read_bytes()
    labels = (folder / f"{part}-labels-idx1-ubyte").read_bytes()
    magic, count, height, width = struct.unpack(">IIII", images[:16])
    if magic != 0x803:
        raise SystemExit(f"{folder}: {part}-images-idx3-ubyte is no idx file of images")
    x = np.frombuffer(images, np.uint8, offset=16).reshape(count, 1, height, width).astype(np.float32) / 255
    y = np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)
    return x, y


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    source, out = map(pathlib.Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    x, _ = load(source, "train")
    np.savez_compressed(out / "calib.npz", x=x[:128])
    x, y = load(source, "t10k")
    np.savez_compressed(out / "test.npz", x=x, y=y)
    np.savez_compressed(out / "smoke.npz", x=x[:512], y=y[:512])
    np.savez_compressed(out / "shuffled.npz", x=x, y=np.random.default_rng(1).permutation(y))
    for file in sorted(out.glob("*.npz")):
        print(f"{file.name}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
