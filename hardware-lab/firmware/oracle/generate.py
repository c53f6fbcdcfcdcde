"""Random int8 .tflite models with the outputs that TensorFlow Lite Micro computes for random inputs.

    generate.py --seed N --count N OUT        many small models, one operator each (a few with several)
    generate.py --model FILE --seed N OUT     random inputs for a given model
    generate.py --bench --seed N OUT          models of one operator with fixed shapes, and OUT/index.json with their multiplications
    generate.py --refused --seed N OUT        models that must be refused: float, unknown, version, version-next, wide (no inputs or outputs)

Writes OUT/NAME.tflite, OUT/NAME.in (all inputs of a trial one after the other, trial after trial) and OUT/NAME.out. The tests of the engine and of
the firmware read them. The same seed makes the same files. Needs tflite-micro, ai-edge-litert (for its schema), flatbuffers and numpy.
"""

import argparse
import json
import os
import pathlib
import sys

import ai_edge_litert.schema_py_generated as schema
import flatbuffers
import numpy as np
from tflite_micro.python.tflite_micro import runtime

TRIALS = 4
INT8, INT16, INT32, FLOAT32 = (schema.TensorType.INT8, schema.TensorType.INT16, schema.TensorType.INT32, schema.TensorType.FLOAT32)
OP = schema.BuiltinOperator
TYPES = {INT8: np.int8, INT32: np.int32, FLOAT32: np.float32}


class Builder:
    """Collects tensors and operators of one model."""

    def __init__(self, rng):
        self.rng = rng
        self.tensors, self.buffers, self.operators, self.codes = [], [schema.BufferT()], [], []
        self.inputs, self.outputs = [], []

    def tensor(self, shape, dtype=INT8, scale=None, zero=None, data=None, axis=0, name=None):
        t = schema.TensorT()
        t.shape, t.type, t.name = [int(d) for d in shape], dtype, name or f"t{len(self.tensors)}"
        t.buffer = 0
        if data is not None:
            b = schema.BufferT()
            b.data = np.frombuffer(np.ascontiguousarray(data, TYPES[dtype]).tobytes(), np.uint8)
            t.buffer = len(self.buffers)
            self.buffers.append(b)
        if scale is not None:
            q = schema.QuantizationParametersT()
            q.scale = np.atleast_1d(np.asarray(scale, np.float32))
            q.zeroPoint = np.atleast_1d(np.asarray(0 if zero is None else zero, np.int64))
            if len(q.zeroPoint) < len(q.scale):
                q.zeroPoint = np.zeros(len(q.scale), np.int64)
            q.quantizedDimension = axis
            t.quantization = q
        self.tensors.append(t)
        return len(self.tensors) - 1

    def constant32(self, values):
        values = np.asarray(values, np.int32)
        return self.tensor(values.shape, INT32, data=values)

    def input(self, shape, scale=None, zero=None, dtype=INT8):
        if dtype == INT8:
            scale = self.scale() if scale is None else scale
            zero = self.zero() if zero is None else zero
        t = self.tensor(shape, dtype, scale, zero)
        self.inputs.append(t)
        return t

    def output(self, shape, scale=None, zero=None, dtype=INT8, last=True):
        if dtype == INT8:
            scale = self.scale() if scale is None else scale
            zero = self.zero() if zero is None else zero
        t = self.tensor(shape, dtype, scale, zero)
        if last:
            self.outputs.append(t)
        return t

    def scale(self):
        return float(np.float32(np.exp(self.rng.uniform(np.log(0.002), np.log(0.3)))))

    def zero(self):
        return int(self.rng.choice([-128, 127, 0, self.rng.integers(-128, 128)]))

    def op(self, code, inputs, outputs, options=None, version=1):
        if (code, version) not in self.codes:
            self.codes.append((code, version))
        o = schema.OperatorT()
        o.opcodeIndex, o.inputs, o.outputs = self.codes.index((code, version)), inputs, outputs
        if options is not None:
            o.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
            o.builtinOptions = options
        self.operators.append(o)

    def shape(self, t):
        return self.tensors[t].shape

    def quantization(self, t):
        q = self.tensors[t].quantization
        return float(q.scale[0]), int(q.zeroPoint[0])

    def build(self):
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = self.inputs, self.outputs
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers, model.description = 3, [graph], self.buffers, "generated"
        model.operatorCodes = []
        for code, version in self.codes:
            c = schema.OperatorCodeT()
            c.builtinCode, c.deprecatedBuiltinCode, c.version = code, min(code, 127), version
            model.operatorCodes.append(c)
        b = flatbuffers.Builder(1024)
        b.Finish(model.Pack(b), b"TFL3")
        return bytes(b.Output())


def options(cls, **values):
    o = cls()
    for k, v in values.items():
        setattr(o, k, v)
    return o


def out_size(size, kernel, stride, dilation, same):
    span = (kernel - 1) * dilation + 1
    return -(-size // stride) if same else (size + stride - span) // stride


def activation(rng):
    return int(rng.choice([0, 0, 1, 3, 2], p=[0.3, 0.2, 0.2, 0.2, 0.1]))


def window(b, x, kernel=(5, 5), dilation=True):
    """Random kernel, stride, dilation and padding that fit the image x."""
    rng = b.rng
    _, h, w, _ = b.shape(x)
    while True:
        kh, kw = (int(rng.integers(1, k + 1)) for k in kernel)
        sh, sw = (int(v) for v in rng.integers(1, 4, 2))
        dh, dw = (int(v) for v in rng.integers(1, 3, 2)) if dilation and rng.random() < 0.3 else (1, 1)
        same = bool(rng.integers(2))
        if dh > 1 or dw > 1:
            sh = sw = 1
        oh, ow = out_size(h, kh, sh, dh, same), out_size(w, kw, sw, dw, same)
        if oh > 0 and ow > 0:
            return kh, kw, sh, sw, dh, dw, same, oh, ow


def weighted(b, x, weights_shape, channel_axis, channels, length, out_shape, last=True, per_channel=None, biased=0.85):
    """Weights, bias and output of an operator with weights, with an output scale that uses the range."""
    rng = b.rng
    per_channel = bool(rng.integers(2)) if per_channel is None else per_channel
    s, _ = b.quantization(x)
    spread = np.sqrt(length) * 60 * 60
    o_scale = b.scale()
    w_scale = (o_scale * 127 / (s * spread) * np.exp(rng.uniform(-1.5, 1.5, channels if per_channel else 1))).astype(np.float32)
    data = rng.integers(-127, 128, weights_shape)
    if rng.random() < 0.1:
        # The largest sums there are, on a scale that leaves them visible.
        data[...] = rng.choice([-128, 127])
        w_scale = (w_scale / np.float32(length ** 0.5 * 4)).astype(np.float32)
    w = b.tensor(weights_shape, INT8, w_scale, 0, data, channel_axis)
    bias = -1
    if rng.random() < biased:
        values = rng.integers(-int(spread) - 1, int(spread) + 1, channels)
        bias = b.tensor([channels], INT32, (s * w_scale).astype(np.float32), 0, values)
    return w, bias, b.output(out_shape, o_scale, last=last)


def conv(b, x=None, last=True, groups=None, channels=None):
    rng = b.rng
    if x is None:
        g = groups or 1
        x = b.input([int(rng.integers(1, 3)), *(int(v) for v in rng.integers(1, 12, 2)), g * int(rng.choice([1, 2, 3, 4, 5, 8, 16, 17]))])
    n, _, _, c = b.shape(x)
    g = groups or 1
    kh, kw, sh, sw, dh, dw, same, oh, ow = window(b, x)
    if rng.random() < 0.3:
        kh, kw, sh, sw, dh, dw, same = 1, 1, 1, 1, 1, 1, bool(rng.integers(2))
        oh, ow = b.shape(x)[1:3]
    oc = channels or g * int(rng.choice([1, 2, 3, 4, 6, 8, 16, 19]))
    w, bias, y = weighted(b, x, [oc, kh, kw, c // g], 0, oc, kh * kw * c // g, [n, oh, ow, oc], last)
    b.op(OP.CONV_2D, [x, w, bias] if bias >= 0 else [x, w], [y], options(
        schema.Conv2DOptionsT, padding=0 if same else 1, strideH=sh, strideW=sw, dilationHFactor=dh, dilationWFactor=dw,
        fusedActivationFunction=activation(rng)), 3)
    return y


def grouped_conv(b):
    return conv(b, groups=int(b.rng.choice([2, 3, 4])))


def depthwise(b, x=None, last=True):
    rng = b.rng
    if x is None:
        x = b.input([int(rng.integers(1, 3)), *(int(v) for v in rng.integers(1, 12, 2)), int(rng.choice([1, 2, 3, 4, 7, 8, 12, 16, 18]))])
    n, _, _, c = b.shape(x)
    kh, kw, sh, sw, dh, dw, same, oh, ow = window(b, x)
    if rng.random() < 0.4 and min(b.shape(x)[1:3]) >= 3:
        kh = kw = 3
        sh = sw = int(rng.integers(1, 3))
        dh = dw = 1
        oh, ow = out_size(b.shape(x)[1], 3, sh, 1, same), out_size(b.shape(x)[2], 3, sw, 1, same)
    m = int(rng.choice([1, 1, 1, 2, 3, 8])) if c < 8 else int(rng.choice([1, 1, 2]))
    oc = c * m
    # The oracle ends its process over a depthwise convolution without a bias.
    w, bias, y = weighted(b, x, [1, kh, kw, oc], 3, oc, kh * kw, [n, oh, ow, oc], last, biased=1)
    b.op(OP.DEPTHWISE_CONV_2D, [x, w, bias], [y], options(
        schema.DepthwiseConv2DOptionsT, padding=0 if same else 1, strideH=sh, strideW=sw, dilationHFactor=dh, dilationWFactor=dw, depthMultiplier=m,
        fusedActivationFunction=activation(rng)), 3)
    return y


def extremes(b):
    """The least weights on the least inputs (trial 1 has many): products whose sums overflow 16 bits, not clipped at the output."""
    k, c = int(b.rng.choice([3, 5])), int(b.rng.choice([4, 8, 16, 19]))
    x = b.input([1, 8, 8, c], 0.01, 0)
    w = b.tensor([1, k, k, c], INT8, 0.001, 0, np.full([1, k, k, c], -128), 3)
    bias = b.tensor([c], INT32, 0.00001, 0, np.zeros(c))
    y = b.output([1, 8, 8, c], 0.02, 0)
    b.op(OP.DEPTHWISE_CONV_2D, [x, w, bias], [y], options(
        schema.DepthwiseConv2DOptionsT, padding=0, strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1, depthMultiplier=1), 3)
    return y


def fully_connected(b, x=None, last=True):
    rng = b.rng
    if x is None:
        x = b.input([int(rng.integers(1, 4)), int(rng.choice([1, 2, 3, 7, 16, 33, 64, 100]))])
    shape = b.shape(x)
    length = int(np.prod(shape[1:]))
    oc = int(rng.integers(1, 20))
    w, bias, y = weighted(b, x, [oc, length], 0, oc, length, [shape[0], oc], last)
    b.op(OP.FULLY_CONNECTED, [x, w, bias] if bias >= 0 else [x, w, -1], [y], options(
        schema.FullyConnectedOptionsT, fusedActivationFunction=activation(rng)), 4)
    return y


def pool(b, x=None, last=True):
    rng = b.rng
    if x is None:
        x = b.input([int(rng.integers(1, 3)), *(int(v) for v in rng.integers(1, 12, 2)), int(rng.integers(1, 10))])
    n, _, _, c = b.shape(x)
    kh, kw, sh, sw, _, _, same, oh, ow = window(b, x, dilation=False)
    s, z = b.quantization(x)
    y = b.output([n, oh, ow, c], s, z, last=last)
    b.op(OP.AVERAGE_POOL_2D if rng.integers(2) else OP.MAX_POOL_2D, [x], [y], options(
        schema.Pool2DOptionsT, padding=0 if same else 1, strideH=sh, strideW=sw, filterHeight=kh, filterWidth=kw,
        fusedActivationFunction=activation(rng)), 2)
    return y


def random_shape(rng, low=1, high=5, size=6):
    return [int(v) for v in rng.integers(1, size + 1, rng.integers(low, high))]


def elementwise(b):
    rng = b.rng
    code = [OP.ADD, OP.SUB, OP.MUL][rng.integers(3)]
    shape = random_shape(rng)
    first, second = list(shape), list(shape)
    style = rng.integers(4)
    if style == 0:
        for side in (first, second):
            i = int(rng.integers(len(shape)))
            if first[i] == second[i]:
                side[i] = 1
    elif style == 1:
        second = [1] * len(shape)
    elif style == 2:
        second = shape[int(rng.integers(len(shape))):]
    x = b.input(first)
    sx, _ = b.quantization(x)
    s2 = float(sx * np.exp(rng.uniform(-2, 2)))
    if rng.random() < 0.4:
        y = b.tensor(second, INT8, s2, b.zero(), rng.integers(-128, 128, second))
    else:
        y = b.input(second, s2)
    out = [max(p, q) for p, q in zip([1] * (len(shape) - len(first)) + first, [1] * (len(shape) - len(second)) + second)]
    scale = sx * s2 * 128 * np.exp(rng.uniform(-1, 1)) if code == OP.MUL else max(sx, s2) * np.exp(rng.uniform(-1.5, 1.5))
    z = b.output(out, float(scale))
    kind = {OP.ADD: schema.AddOptionsT, OP.SUB: schema.SubOptionsT, OP.MUL: schema.MulOptionsT}[code]
    b.op(code, [x, y] if rng.integers(2) or b.inputs != [x] else [y, x], [z], options(kind, fusedActivationFunction=activation(rng)), 2)


def unary(b):
    rng = b.rng
    code = [OP.RELU, OP.RELU6, OP.LOGISTIC, OP.TANH, OP.HARD_SWISH, OP.QUANTIZE][rng.integers(6)]
    shape = random_shape(rng, size=8)
    x = b.input(shape, scale=float(np.exp(rng.uniform(np.log(0.003), np.log(0.3)))))
    s, z = b.quantization(x)
    made = None
    if code == OP.LOGISTIC:
        y = b.output(shape, 1 / 256, -128)
    elif code == OP.TANH:
        y = b.output(shape, 1 / 128, 0)
    elif code == OP.RELU6:
        y = b.output(shape, s, z)
    elif code == OP.HARD_SWISH:
        y = b.output(shape, float(s * np.exp(rng.uniform(-0.5, 1))))
        made = schema.HardSwishOptionsT()
    else:
        y = b.output(shape, float(s * np.exp(rng.uniform(-1.5, 1.5))))
    b.op(code, [x], [y], made)


def softmax(b):
    rng = b.rng
    shape = [*random_shape(rng, 1, 3, 4), int(rng.integers(1, 40))]
    x = b.input(shape, scale=float(np.exp(rng.uniform(np.log(0.01), np.log(1.0)))))
    y = b.output(shape, 1 / 256, -128)
    b.op(OP.SOFTMAX, [x], [y], options(schema.SoftmaxOptionsT, beta=float(rng.choice([1.0, 0.5, 2.0]))))


def mean(b):
    rng = b.rng
    keep = bool(rng.integers(2))
    if rng.random() < 0.5:
        shape, axes = [int(rng.integers(1, 3)), *(int(v) for v in rng.integers(1, 9, 2)), int(rng.integers(1, 9))], [1, 2]
    else:
        shape = random_shape(rng, 2, 5)
        axes = sorted(int(a) for a in rng.choice(len(shape), int(rng.integers(1, min(3, len(shape) + 1))), replace=False))
    if rng.random() < 0.3:
        axes = [a - len(shape) for a in axes]
    x = b.input(shape)
    s, z = b.quantization(x)
    gone = {a % len(shape) for a in axes}
    out = [1 if i in gone else d for i, d in enumerate(shape) if keep or i not in gone]
    same = rng.random() < 0.3
    y = b.output(out or [1], *((s, z) if same else (float(s * np.exp(rng.uniform(-1.5, 1))),)))
    b.op(OP.MEAN, [x, b.constant32(axes)], [y], options(schema.ReducerOptionsT, keepDims=keep), 2)


def pad(b):
    rng = b.rng
    shape = random_shape(rng, 1, 5)
    amounts = rng.integers(0, 4, (len(shape), 2))
    x = b.input(shape)
    s, z = b.quantization(x)
    y = b.output([int(d + p.sum()) for d, p in zip(shape, amounts)], s, z)
    if rng.integers(2):
        b.op(OP.PAD, [x, b.constant32(amounts)], [y], schema.PadOptionsT(), 2)
    else:
        value = b.tensor([1], INT8, s, z, rng.integers(-128, 128, 1))
        b.op(OP.PADV2, [x, b.constant32(amounts), value], [y], schema.PadV2OptionsT(), 2)


def reshape(b):
    rng = b.rng
    shape = random_shape(rng, 2, 5)
    x = b.input(shape)
    s, z = b.quantization(x)
    out = list(rng.permutation(shape)) if rng.integers(2) else [int(np.prod(shape))]
    y = b.output(out, s, z)
    b.op(OP.RESHAPE, [x, b.constant32(out)], [y], options(schema.ReshapeOptionsT, newShape=[int(v) for v in out]))


def concat(b):
    rng = b.rng
    shape = random_shape(rng, 1, 5, 5)
    axis = int(rng.integers(len(shape)))
    s, z = b.scale(), b.zero()
    parts, total = [], 0
    for _ in range(int(rng.integers(1, 5))):
        part = list(shape)
        part[axis] = int(rng.integers(1, 6))
        total += part[axis]
        parts.append(b.input(part, s, z))
    out = list(shape)
    out[axis] = total
    y = b.output(out, s, z)
    b.op(OP.CONCATENATION, parts, [y], options(schema.ConcatenationOptionsT, axis=axis - (len(shape) if rng.integers(2) else 0)), 2)


def split(b):
    rng = b.rng
    shape = random_shape(rng, 1, 5, 4)
    axis, count = int(rng.integers(len(shape))), int(rng.integers(1, 4))
    part = list(shape)
    shape[axis] *= count
    x = b.input(shape)
    s, z = b.quantization(x)
    ys = [b.output(part, s, z) for _ in range(count)]
    axis_t = b.tensor([], INT32, data=np.asarray(axis - (len(shape) if rng.integers(2) else 0), np.int32))
    b.op(OP.SPLIT, [axis_t, x], ys, options(schema.SplitOptionsT, numSplits=count), 2)


def strided_slice(b):
    rng = b.rng
    shape = random_shape(rng, 1, 5, 7)
    while True:
        begin, end, stride, out = [], [], [], []
        begin_mask = end_mask = shrink = 0
        for i, d in enumerate(shape):
            lo, hi = sorted(int(v) for v in rng.integers(0, d + 1, 2))
            st = int(rng.choice([1, 1, 2, 3, -1, -2]))
            if st < 0:
                lo, hi = hi - 1, lo - 1
            if rng.random() < 0.2:
                begin_mask |= 1 << i
            if rng.random() < 0.2 or (st < 0 and hi < 0):
                end_mask |= 1 << i
            lo_eff = (0 if st > 0 else d - 1) if begin_mask >> i & 1 else lo
            hi_eff = (d if st > 0 else -1) if end_mask >> i & 1 else hi
            picked = len(range(lo_eff, hi_eff, st))
            if st > 0 and rng.random() < 0.2 and lo < d:
                lo -= d
            begin.append(lo)
            end.append(hi)
            stride.append(st)
            out.append(picked)
        if all(out):
            break
    x = b.input(shape)
    s, z = b.quantization(x)
    y = b.output(out, s, z)
    b.op(OP.STRIDED_SLICE, [x, b.constant32(begin), b.constant32(end), b.constant32(stride)], [y], options(
        schema.StridedSliceOptionsT, beginMask=begin_mask, endMask=end_mask, shrinkAxisMask=shrink), 2)


def transpose(b):
    rng = b.rng
    shape = random_shape(rng, 1, 5)
    order = [int(v) for v in rng.permutation(len(shape))]
    x = b.input(shape)
    s, z = b.quantization(x)
    y = b.output([shape[o] for o in order], s, z)
    b.op(OP.TRANSPOSE, [x, b.constant32(order)], [y], schema.TransposeOptionsT(), 2)


def resize(b):
    rng = b.rng
    shape = [int(rng.integers(1, 3)), *(int(v) for v in rng.integers(1, 7, 2)), int(rng.integers(1, 5))]
    size = [int(v) for v in rng.integers(1, 14, 2)]
    align, half = [(False, False), (True, False), (False, True)][rng.integers(3)]
    if half:
        # The oracle ignores half-pixel centres, which is right only where they make no difference.
        size = [int(d * rng.integers(1, 4)) for d in shape[1:3]]
    x = b.input(shape)
    s, z = b.quantization(x)
    y = b.output([shape[0], *size, shape[3]], s, z)
    b.op(OP.RESIZE_NEAREST_NEIGHBOR, [x, b.constant32(size)], [y], options(
        schema.ResizeNearestNeighborOptionsT, alignCorners=align, halfPixelCenters=half), 3)


def edges(b):
    """Floats in, int8, floats out."""
    shape = random_shape(b.rng)
    if b.rng.integers(2):
        x = b.input(shape, dtype=FLOAT32)
        b.op(OP.QUANTIZE, [x], [b.output(shape)])
    else:
        x = b.input(shape)
        b.op(OP.DEQUANTIZE, [x], [b.output(shape, dtype=FLOAT32)], schema.DequantizeOptionsT(), 2)


def network(b):
    """Several operators with a branch, so that planning and lifetimes matter."""
    rng = b.rng
    x = b.input([1, 14, 14, int(rng.choice([1, 3, 8]))])
    y = conv(b, x, last=False, channels=8)
    z = depthwise(b, y, last=False)
    c = b.shape(z)[3]
    left = conv_like(b, z, c)
    right = conv_like(b, z, c)
    s = max(b.quantization(left)[0], b.quantization(right)[0])
    joined = b.output(b.shape(z), float(s * 1.3), last=False)
    b.op(OP.ADD, [left, right], [joined], options(schema.AddOptionsT, fusedActivationFunction=1), 2)
    pooled = pool(b, joined, last=False)
    s, zero = b.quantization(pooled)
    length = int(np.prod(b.shape(pooled)))
    flat = b.output([1, length], s, zero, last=False)
    b.op(OP.RESHAPE, [pooled, b.constant32([1, length])], [flat], options(schema.ReshapeOptionsT, newShape=[1, length]))
    logits = fully_connected(b, flat, last=False)
    y = b.output(b.shape(logits), 1 / 256, -128)
    b.op(OP.SOFTMAX, [logits], [y], options(schema.SoftmaxOptionsT, beta=1.0))


def conv_like(b, x, channels):
    """A pointwise convolution to the same shape."""
    w, bias, y = weighted(b, x, [channels, 1, 1, b.shape(x)[3]], 0, channels, b.shape(x)[3], b.shape(x), last=False)
    b.op(OP.CONV_2D, [x, w, bias] if bias >= 0 else [x, w], [y], options(schema.Conv2DOptionsT, padding=0, strideH=1, strideW=1), 3)
    return y


def refused(kind):
    """A model that the engine must refuse by name."""
    b = Builder(np.random.default_rng(0))
    if kind == "float":
        x = b.input([1, 4], dtype=FLOAT32)
        w = b.tensor([2, 4], FLOAT32, data=np.ones((2, 4)))
        b.op(OP.FULLY_CONNECTED, [x, w, -1], [b.output([1, 2], dtype=FLOAT32)], schema.FullyConnectedOptionsT())
    elif kind == "unknown":
        b.op(OP.COS, [b.input([1, 4])], [b.output([1, 4])])
    elif kind == "version":
        b.op(OP.RELU, [b.input([1, 4])], [b.output([1, 4])], version=99)
    elif kind == "version-next":
        b.op(OP.CONV_2D, [b.input([1, 4, 4, 1])], [b.output([1, 4, 4, 1])], version=9)
    else:
        b.op(OP.SOFTMAX, [b.input([1, 4])], [b.output([1, 4], 1 / 32768, 0, dtype=INT16)], schema.SoftmaxOptionsT())
    return b.build()


# Shapes whose instructions per multiplication are followed: kind, height and width, input channels, output channels, kernel, stride.
BENCH = [("conv", 16, 16, 16, 1, 1), ("conv", 16, 32, 64, 1, 1), ("conv", 6, 128, 128, 1, 1), ("conv", 16, 16, 16, 3, 1), ("conv", 16, 32, 32, 3, 2),
         ("depthwise", 48, 16, 16, 3, 1), ("depthwise", 6, 128, 128, 3, 1), ("depthwise", 12, 64, 64, 3, 2), ("depthwise", 24, 16, 16, 5, 1),
         ("depthwise", 12, 32, 32, 7, 1), ("depthwise", 49, 1, 8, 8, 2), ("fully-connected", 1, 784, 128, 1, 1), ("fully-connected", 1, 128, 10, 1, 1)]


def bench(seed, out):
    index = {}
    for kind, size, c, oc, k, stride in BENCH:
        b = Builder(np.random.default_rng([seed, len(index)]))
        side = -(-size // stride)
        if kind == "fully-connected":
            x, macs = b.input([1, c]), c * oc
            w, bias, y = weighted(b, x, [oc, c], 0, oc, c, [1, oc], True)
            b.op(OP.FULLY_CONNECTED, [x, w, bias], [y], schema.FullyConnectedOptionsT(), 4)
        else:
            x = b.input([1, size, size, c])
            shape, axis, fan = ([oc, k, k, c], 0, k * k * c) if kind == "conv" else ([1, k, k, oc], 3, k * k)
            macs = side * side * oc * fan
            w, bias, y = weighted(b, x, shape, axis, oc, fan, [1, side, side, oc], True, biased=1)
            code, cls = (OP.CONV_2D, schema.Conv2DOptionsT) if kind == "conv" else (OP.DEPTHWISE_CONV_2D, schema.DepthwiseConv2DOptionsT)
            o = options(cls, padding=0, strideH=stride, strideW=stride, dilationHFactor=1, dilationWFactor=1)
            if kind == "depthwise":
                o.depthMultiplier = oc // c
            b.op(code, [x, w, bias], [y], o, 3)
        name, model = f"{kind} {k}x{k} {size}x{size} {c}-{oc} stride {stride}" if k > 1 or kind == "conv" else f"{kind} {c}-{oc}", b.build()
        write(out, name, model, *run(model, len(b.inputs), len(b.outputs), b.rng, 1))
        index[name] = macs
    (out / "index.json").write_text(json.dumps(index))


KINDS = [conv, conv, depthwise, depthwise, fully_connected, pool, elementwise, elementwise, unary, unary, softmax, mean, pad, reshape, concat, split,
         strided_slice, transpose, resize, edges, network, grouped_conv, extremes]


def fill(rng, details, trial):
    shape, dtype = tuple(details["shape"]), details["dtype"]
    if dtype == np.float32:
        return rng.normal(0, 10, shape).astype(np.float32)
    if trial == 1:
        return rng.choice([-128, 127], shape).astype(np.int8)
    return rng.integers(-128, 128, shape).astype(np.int8)


def run(model, inputs, outputs, rng, trials):
    """Bytes of random inputs and of what the oracle computes from them."""
    interpreter = runtime.Interpreter.from_bytes(model, arena_size=4 << 20)
    given, got = bytearray(), bytearray()
    for trial in range(trials):
        for i in range(inputs):
            x = fill(rng, interpreter.get_input_details(i), trial)
            interpreter.set_input(x, i)
            given += x.tobytes()
        interpreter.invoke()
        for i in range(outputs):
            got += np.asarray(interpreter.get_output(i)).tobytes()
    return bytes(given), bytes(got)


def write(out, name, model, given, got):
    for suffix, data in (("tflite", model), ("in", given), ("out", got)):
        (out / f"{name}.{suffix}").write_bytes(data)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--seed", type=int, required=True)
    p.add_argument("--count", type=int, default=220)
    p.add_argument("--trials", type=int, default=TRIALS)
    p.add_argument("--refused", action="store_true")
    p.add_argument("--bench", action="store_true")
    p.add_argument("--model", type=pathlib.Path, action="append", default=[])
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for path in args.model:
        model = path.read_bytes()
        graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0)).subgraphs[0]
        rng = np.random.default_rng([args.seed, 1])
        write(args.out, path.stem, model, *run(model, len(graph.inputs), len(graph.outputs), rng, args.trials))
    for kind in ("float", "unknown", "version", "version-next", "wide") if args.refused else ():
        (args.out / f"{kind}.tflite").write_bytes(refused(kind))
    if args.bench:
        bench(args.seed, args.out)
    for i in range(0 if args.model or args.refused or args.bench else args.count):
        rng = np.random.default_rng([args.seed, i])
        kind = KINDS[i % len(KINDS)]
        b = Builder(rng)
        kind(b)
        model = b.build()
        name = f"{i:04}-{kind.__name__}"
        (args.out / f"{name}.tflite").write_bytes(model)
        # The oracle ends its process over a model that it does not like: give it one of its own, so that the model can be named.
        child = os.fork()
        if child == 0:
            code = 1
            try:
                write(args.out, name, model, *run(model, len(b.inputs), len(b.outputs), rng, args.trials))
                code = 0
            except Exception as e:
                print(f"{name}: {e}", file=sys.stderr)
            os._exit(code)
        if os.waitpid(child, 0)[1] != 0:
            sys.exit(f"{name}: the oracle refused a generated model")


if __name__ == "__main__":
    main()
