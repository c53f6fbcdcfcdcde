"""What the training scripts of the examples share: Adam with a cosine schedule, and writing the result as ONNX. Needs jax, numpy and onnx."""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BATCH, RATE = 128, 2e-3


def arguments(doc, script, model, epochs):
    """Parses DATA, --epochs, --seed and --out."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(script).with_name(model))
    return parser.parse_args()


def fit(p, state, loss, logits, train, test, epochs, seed):
    """Parameters and state (moving statistics, or nothing) after training.

    loss(p, state, key, x, y) gives the loss and the next state; logits(p, state, x) is the network as it is used. The same seed gives
    the same network on the same machine.
    """

    @jax.jit
    def step(p, state, m, v, t, key, x, y, rate):
        g, state = jax.grad(loss, has_aux=True)(p, state, key, x, y)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)

        def adam(p, m, v):
            return p - rate * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)

        return jax.tree.map(adam, p, m, v), state, m, v

    (x, y), (test_x, test_y) = train, test
    infer, key, t = jax.jit(logits), jax.random.key(seed), 0
    m = v = jax.tree.map(jnp.zeros_like, p)
    steps = epochs * (len(x) // BATCH)
    for epoch in range(epochs):
        order = np.random.default_rng(seed + epoch).permutation(len(x))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            t += 1
            key, now = jax.random.split(key)
            chosen = order[start : start + BATCH]
            rate = RATE * 0.5 * (1 + np.cos(np.pi * t / steps))
            p, state, m, v = step(p, state, m, v, t, now, jnp.asarray(x[chosen]), jnp.asarray(y[chosen]), rate)
        right = np.mean(np.argmax(np.asarray(infer(p, state, jnp.asarray(test_x))), 1) == test_y)
        print(f"epoch {epoch + 1}: {right:.4f} of the test samples are right", flush=True)
    return p, state


def classifier(x):
    """The operators from features N×C to `probabilities`, with the weights fc.w and fc.b."""
    return [
        helper.make_node("Flatten", [x], ["flat"], "flatten", axis=1),
        helper.make_node("Gemm", ["flat", "fc.w", "fc.b"], ["logits"], "fc", transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=-1),
    ]


def save(path, nodes, weights, given, shape, classes):
    """Writes a model with one input and the output `probabilities`, both with a free batch."""
    graph = helper.make_graph(
        nodes, path.stem,
        [helper.make_tensor_value_info(given, TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="edgeyard-examples")
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    print(f"{path}: {path.stat().st_size} bytes, {sum(w.size for w in weights.values())} numbers")
