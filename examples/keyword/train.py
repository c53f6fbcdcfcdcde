"""Trains the keyword spotter of the examples and writes keyword-cnn.onnx. Needs jax, numpy and onnx.

    python prepare.py DATA --train
    python train.py DATA [--epochs 16] [--seed 1] [--out keyword-cnn.onnx]

Four full convolutions with batch normalisation, which is written into the model as it is: the optimizer has something to fold. It
takes a few minutes on two cores. The result is committed, so neither the build nor the tests need a training framework.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from onnx import helper

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))
import training

CLASSES, DECAY = 10, 2e-4
# The layers: name, shape of the weights, strides.
LAYERS = [
    ("stem", (48, 1, 10, 4), (2, 2)),
    ("conv1", (64, 48, 3, 3), (2, 1)),
    ("conv2", (64, 64, 3, 3), (1, 1)),
    ("conv3", (64, 64, 3, 3), (2, 2)),
]


def initial(key):
    p = {}
    for (name, shape, _), key in zip(LAYERS, jax.random.split(key, len(LAYERS))):
        p[f"{name}.w"] = jax.random.normal(key, shape) * np.sqrt(2 / np.prod(shape[1:]))
        p[f"{name}.scale"], p[f"{name}.bias"] = jnp.ones(shape[0]), jnp.zeros(shape[0])
    channels = LAYERS[-1][1][0]
    p["fc.w"], p["fc.b"] = jax.random.normal(key, (CLASSES, channels)) / np.sqrt(channels), jnp.zeros(CLASSES)
    return p


def same(size, kernel, stride):
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pads(shape, x, strides):
    return [same(size, kernel, stride) for size, kernel, stride in zip(x, shape[2:], strides)]


def forward(p, state, x, training):
    """Logits and the moving statistics after this batch."""
    new = {}
    for name, shape, strides in LAYERS:
        around = pads(shape, x.shape[2:], strides)
        x = jax.lax.conv_general_dilated(x, p[f"{name}.w"], strides, around, dimension_numbers=("NCHW", "OIHW", "NCHW"))
        mean, variance = (x.mean((0, 2, 3)), x.var((0, 2, 3))) if training else state[name]
        old = state[name]
        new[name] = (0.95 * old[0] + 0.05 * mean, 0.95 * old[1] + 0.05 * variance) if training else old
        factor = p[f"{name}.scale"] / jnp.sqrt(variance + 1e-5)
        x = jax.nn.relu((x - mean[:, None, None]) * factor[:, None, None] + p[f"{name}.bias"][:, None, None])
    return x.mean((2, 3)) @ p["fc.w"].T + p["fc.b"], new


def logits(p, state, x):
    return forward(p, state, x, False)[0]


def augment(key, x):
    """Shifts in time and level: a clip may start anywhere and be louder."""
    shift, level = jax.random.split(key)
    x = jax.vmap(lambda clip, n: jnp.roll(clip, n, 1))(x, jax.random.randint(shift, x.shape[:1], -4, 5))
    return x.at[..., 0].add(0.3 * jax.random.normal(level, (x.shape[0], 1, 1)))


def loss(p, state, key, x, y):
    scores, new = forward(p, state, augment(key, x), True)
    targets = 0.95 * jax.nn.one_hot(y, CLASSES) + 0.05 / CLASSES
    decay = sum(jnp.sum(w**2) for name, w in p.items() if name.endswith(".w"))
    return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(scores), 1)) + DECAY * decay, new


def nodes():
    made, x, size = [], "features", (49, 10)
    for name, shape, strides in LAYERS:
        begins, ends = zip(*pads(shape, size, strides))
        size = tuple(-(-s // stride) for s, stride in zip(size, strides))
        normal = [name] + [f"{name}.{part}" for part in ("scale", "bias", "mean", "variance")]
        made += [
            helper.make_node("Conv", [x, f"{name}.w"], [name], name, kernel_shape=shape[2:], strides=strides, pads=begins + ends),
            helper.make_node("BatchNormalization", normal, [f"{name}.normal"], f"{name}.bn", epsilon=1e-5),
            helper.make_node("Relu", [f"{name}.normal"], [f"{name}.relu"], f"{name}.relu"),
        ]
        x = f"{name}.relu"
    return made + [helper.make_node("GlobalAveragePool", [x], ["mean"], "mean")] + training.classifier("mean")


def main():
    arguments = training.arguments(__doc__, __file__, "keyword-cnn.onnx", epochs=16)
    train, test = (np.load(arguments.data / f"{part}.npz") for part in ("train", "test"))
    start = initial(jax.random.key(arguments.seed))
    state = {name: (jnp.zeros(shape[0]), jnp.ones(shape[0])) for name, shape, _ in LAYERS}
    train, test = (train["x"], train["y"]), (test["x"], test["y"])
    p, state = training.fit(start, state, loss, logits, train, test, arguments.epochs, arguments.seed)
    weights = dict(p)
    for name, (mean, variance) in state.items():
        weights[f"{name}.mean"], weights[f"{name}.variance"] = mean, variance
    training.save(arguments.out, nodes(), weights, "features", (1, 49, 10), CLASSES)


if __name__ == "__main__":
    main()
