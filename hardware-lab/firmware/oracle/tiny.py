"""Networks of the shapes of MLPerf Tiny's four, int8 with random weights: tiny.py OUT_DIR

The shapes are those of the closed division's models (mlcommons/tiny, benchmark/training): `ad` an autoencoder of nine hidden
layers, `ic` a ResNet of eight convolutions, `kws` a DS-CNN, `vww` a MobileNetV1 of width 0.25. How many instructions a network
takes depends on its shapes, hardly on its weights; its outputs mean nothing.
"""

import pathlib
import sys

import numpy as np
from generate import OP, Builder, options, schema, weighted

RELU = 1


def out(size, stride):
    """Extent of an output with padding SAME."""
    return -(-size // stride)


def convolution(b, x, channels, kernel, stride, activation=RELU):
    n, h, w, c = b.shape(x)
    kh, kw = kernel
    shape = [n, out(h, stride), out(w, stride), channels]
    weights, bias, y = weighted(
        b, x, [channels, kh, kw, c], 0, channels, kh * kw * c, shape, False, per_channel=True, biased=1
    )
    o = options(
        schema.Conv2DOptionsT, padding=0, strideH=stride, strideW=stride, dilationHFactor=1, dilationWFactor=1,
        fusedActivationFunction=activation,
    )
    b.op(OP.CONV_2D, [x, weights, bias], [y], o, 3)
    return y


def depthwise(b, x, stride):
    n, h, w, c = b.shape(x)
    shape = [n, out(h, stride), out(w, stride), c]
    weights, bias, y = weighted(b, x, [1, 3, 3, c], 3, c, 9, shape, False, per_channel=True, biased=1)
    o = options(
        schema.DepthwiseConv2DOptionsT, padding=0, strideH=stride, strideW=stride, dilationHFactor=1, dilationWFactor=1,
        depthMultiplier=1, fusedActivationFunction=RELU,
    )
    b.op(OP.DEPTHWISE_CONV_2D, [x, weights, bias], [y], o, 3)
    return y


def dense(b, x, channels, activation=0, last=False):
    shape = b.shape(x)
    length = int(np.prod(shape[1:]))
    weights, bias, y = weighted(
        b, x, [channels, length], 0, channels, length, [shape[0], channels], last, per_channel=False, biased=1
    )
    o = options(schema.FullyConnectedOptionsT, fusedActivationFunction=activation)
    b.op(OP.FULLY_CONNECTED, [x, weights, bias], [y], o, 4)
    return y


def classes(b, x, count):
    """Mean of each channel, one dense layer, softmax."""
    n, h, w, c = b.shape(x)
    scale, zero_point = b.quantization(x)
    mean = b.output([n, 1, 1, c], scale, zero_point, last=False)
    o = options(schema.Pool2DOptionsT, padding=1, strideH=h, strideW=w, filterHeight=h, filterWidth=w)
    b.op(OP.AVERAGE_POOL_2D, [x], [mean], o, 2)
    scores = dense(b, mean, count)
    y = b.output(b.shape(scores), 1 / 256, -128)
    b.op(OP.SOFTMAX, [scores], [y], options(schema.SoftmaxOptionsT, beta=1.0))


def add(b, left, right):
    scale = max(b.quantization(left)[0], b.quantization(right)[0])
    y = b.output(b.shape(left), float(scale * 1.3), last=False)
    b.op(OP.ADD, [left, right], [y], options(schema.AddOptionsT, fusedActivationFunction=RELU), 2)
    return y


def ad(b):
    x = b.input([1, 640])
    for width in [128] * 4 + [8] + [128] * 4:
        x = dense(b, x, width, RELU)
    dense(b, x, 640, 0, True)


def kws(b):
    x = convolution(b, b.input([1, 49, 10, 1]), 64, (10, 4), 2)
    for _ in range(4):
        x = convolution(b, depthwise(b, x, 1), 64, (1, 1), 1)
    classes(b, x, 12)


def vww(b):
    x = convolution(b, b.input([1, 96, 96, 3]), 8, (3, 3), 2)
    for channels, stride in [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2)] + [(128, 1)] * 5 + [(256, 2), (256, 1)]:
        x = convolution(b, depthwise(b, x, stride), channels, (1, 1), 1)
    classes(b, x, 2)


def ic(b):
    x = convolution(b, b.input([1, 32, 32, 3]), 16, (3, 3), 1)
    for channels, stride in [(16, 1), (32, 2), (64, 2)]:
        y = convolution(b, convolution(b, x, channels, (3, 3), stride), channels, (3, 3), 1, activation=0)
        x = add(b, x if stride == 1 else convolution(b, x, channels, (1, 1), stride, activation=0), y)
    classes(b, x, 10)


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for network in (ad, ic, kws, vww):
        b = Builder(np.random.default_rng(1))
        network(b)
        (folder / f"{network.__name__}.tflite").write_bytes(b.build())


if __name__ == "__main__":
    main()
