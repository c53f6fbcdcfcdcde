"""Trains the keyword spotter of the examples and writes keyword-dscnn.onnx. Needs jax, numpy and onnx.

    python prepare.py DATA --train
    python train.py DATA [--epochs 30] [--seed 1] [--out keyword-dscnn.onnx]

A depthwise separable network as MLPerf Tiny's keyword spotting has it, with four blocks of 64 channels and batch normalisation, which
is written into the model as it is: the optimizer has something to fold. The result is committed, so neither the build nor the tests
need a training framework.
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS, BLOCKS, CLASSES = 64, 4, 10
# The layers: name, shape of the weights, strides, groups.
LAYERS = [("stem", (CHANNELS, 1, 10, 4), (2, 2), 1)] + [
    layer
    for n in range(1, BLOCKS + 1)
    for layer in [(f"dw{n}", (CHANNELS, 1, 3, 3), (1, 1), CHANNELS), (f"pw{n}", (CHANNELS, CHANNELS, 1, 1), (1, 1), 1)]
]


def initial(key):
    p = {}
    for (name, shape, _, _), key in zip(LAYERS, jax.random.split(key, len(LAYERS))):
        p[f"{name}.w"] = jax.random.normal(key, shape) * np.sqrt(2 / np.prod(shape[1:]))
        p[f"{name}.scale"], p[f"{name}.bias"] = jnp.ones(CHANNELS), jnp.zeros(CHANNELS)
    p["fc.w"], p["fc.b"] = jax.random.normal(key, (CLASSES, CHANNELS)) / np.sqrt(CHANNELS), jnp.zeros(CLASSES)
    return p


def same(size, kernel, stride):
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pads(shape, x, strides):
    return [same(size, kernel, stride) for size, kernel, stride in zip(x, shape[2:], strides)]


def logits(p, state, x, training):
    """Logits and the moving statistics after this batch."""
    new = {}
    for name, shape, strides, groups in LAYERS:
        x = jax.lax.conv_general_dilated(
            x, p[f"{name}.w"], strides, pads(shape, x.shape[2:], strides),
            dimension_numbers=("NCHW", "OIHW", "NCHW"), feature_group_count=groups,
        )
        mean, variance = (x.mean((0, 2, 3)), x.var((0, 2, 3))) if training else state[name]
        old = state[name]
        new[name] = (0.95 * old[0] + 0.05 * mean, 0.95 * old[1] + 0.05 * variance) if training else old
        factor = p[f"{name}.scale"] / jnp.sqrt(variance + 1e-5)
        x = jax.nn.relu((x - mean[:, None, None]) * factor[:, None, None] + p[f"{name}.bias"][:, None, None])
    return x.mean((2, 3)) @ p["fc.w"].T + p["fc.b"], new


def augment(key, x):
    """Shifts in time and level: a clip may start anywhere and be louder."""
    shift, level = jax.random.split(key)
    x = jax.vmap(lambda clip, n: jnp.roll(clip, n, 1))(x, jax.random.randint(shift, x.shape[:1], -4, 5))
    return x.at[..., 0].add(0.3 * jax.random.normal(level, (x.shape[0], 1, 1)))


@jax.jit
def step(p, state, m, v, t, key, x, y, rate):
    def loss(p):
        scores, new = logits(p, state, augment(key, x), True)
        targets = 0.95 * jax.nn.one_hot(y, CLASSES) + 0.05 / CLASSES
        decay = sum(jnp.sum(w**2) for name, w in p.items() if name.endswith(".w"))
        return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(scores), 1)) + 1e-4 * decay, new

    g, new = jax.grad(loss, has_aux=True)(p)
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)

    def adam(p, m, v):
        return p - rate * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)

    return jax.tree.map(adam, p, m, v), new, m, v


def to_onnx(p, state):
    weights = dict(p)
    for name, (mean, variance) in state.items():
        weights[f"{name}.mean"], weights[f"{name}.variance"] = mean, variance
    nodes, x, size = [], "features", (49, 10)
    for name, shape, strides, groups in LAYERS:
        around = pads(shape, size, strides)
        size = tuple(-(-s // stride) for s, stride in zip(size, strides))
        begins, ends = zip(*around)
        nodes += [
            helper.make_node(
                "Conv", [x, f"{name}.w"], [name], name, kernel_shape=shape[2:], strides=strides, group=groups, pads=begins + ends
            ),
            helper.make_node(
                "BatchNormalization", [name] + [f"{name}.{part}" for part in ("scale", "bias", "mean", "variance")],
                [f"{name}.normal"], f"{name}.bn", epsilon=1e-5,
            ),
            helper.make_node("Relu", [f"{name}.normal"], [f"{name}.relu"], f"{name}.relu"),
        ]
        x = f"{name}.relu"
    nodes += [
        helper.make_node("GlobalAveragePool", [x], ["mean"], "mean"),
        helper.make_node("Flatten", ["mean"], ["flat"], "flatten", axis=1),
        helper.make_node("Gemm", ["flat", "fc.w", "fc.b"], ["logits"], "fc", transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=-1),
    ]
    graph = helper.make_graph(
        nodes, "keyword-dscnn",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 1, 49, 10])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="edgeyard-examples")
    onnx.checker.check_model(model, full_check=True)
    return model


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data", type=pathlib.Path)
    arguments.add_argument("--epochs", type=int, default=30)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).with_name("keyword-dscnn.onnx"))
    arguments = arguments.parse_args()
    train, test = (np.load(arguments.data / f"{part}.npz") for part in ("train", "test"))
    x, y, test_x, test_y = train["x"], train["y"], jnp.asarray(test["x"]), test["y"]
    key = jax.random.key(arguments.seed)
    p = initial(key)
    state = {name: (jnp.zeros(CHANNELS), jnp.ones(CHANNELS)) for name, *_ in LAYERS}
    m = v = jax.tree.map(jnp.zeros_like, p)
    infer = jax.jit(lambda p, state, x: logits(p, state, x, False)[0])
    batch, t = 128, 0
    steps = arguments.epochs * (len(x) // batch)
    for epoch in range(arguments.epochs):
        order = np.random.default_rng(arguments.seed + epoch).permutation(len(x))
        for start in range(0, len(x) - batch + 1, batch):
            t += 1
            key, now = jax.random.split(key)
            chosen = order[start : start + batch]
            rate = 2e-3 * 0.5 * (1 + np.cos(np.pi * t / steps))
            p, state, m, v = step(p, state, m, v, t, now, jnp.asarray(x[chosen]), jnp.asarray(y[chosen]), rate)
        right = np.mean(np.argmax(np.asarray(infer(p, state, test_x)), 1) == test_y)
        print(f"epoch {epoch + 1}: {right:.4f} of the test clips are right", flush=True)
    arguments.out.write_bytes(to_onnx(p, state).SerializeToString())
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes, {sum(w.size for w in p.values())} parameters")


if __name__ == "__main__":
    main()
