"""Losses of small models of every kind, and their parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

B, CLASSES = 4, 3


def array(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) / 2)


def labels():
    return jnp.arange(B) % CLASSES


def cross_entropy(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels())


def conv(x, kernel, stride=1, padding="SAME", groups=1, dilation=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def normalise(x, axes):
    mean = x.mean(axes, keepdims=True)
    variance = jnp.square(x - mean).mean(axes, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5)


def with_group_norm(x):
    grouped = x.reshape(*x.shape[:-1], 2, -1)
    return normalise(grouped, (1, 2, 4)).reshape(x.shape)


def with_batch_norm(x):
    return normalise(x, (0, 1, 2))


def mlp():
    x = array(1, B, 5)
    params = {"w": array(2, 5, 6), "b": array(3, 6), "v": array(4, 6, CLASSES)}

    def losses_fn(p):
        return cross_entropy(jax.nn.relu(x @ p["w"] + p["b"][None]) @ p["v"])

    return losses_fn, params


def convolutional(norm):
    x = array(1, B, 6, 6, 2)
    params = {
        "stem": array(2, 3, 3, 2, 4),
        "block": array(3, 3, 3, 4, 4),
        "down": array(4, 3, 3, 4, 6),
        "short": array(5, 1, 1, 4, 6),
        "depthwise": array(6, 2, 2, 1, 6),
        "scale": array(7, 1, 1, 1, 4),
        "bias": array(8, 1, 1, 1, 4),
        "head": array(9, 6, CLASSES),
        "temperature": jnp.asarray(1.5),
    }

    def losses_fn(p):
        h = jax.nn.relu(norm(conv(x, p["stem"])) * p["scale"] + p["bias"])
        h += jax.nn.relu(norm(conv(h, p["block"], dilation=2)) * p["scale"])
        h = jax.nn.relu(norm(conv(h, p["down"], 2))) + conv(h, p["short"], 2)
        h = conv(h, p["depthwise"], padding="VALID", groups=6)
        h = lax.reduce_window(h, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "SAME")
        return cross_entropy(h.mean((1, 2)) @ p["head"] * p["temperature"])

    return losses_fn, params


def group_norm():
    return convolutional(with_group_norm)


def batch_norm():
    return convolutional(with_batch_norm)


def vision_transformer():
    x, width, heads = array(1, B, 4, 4, 2), 4, 2
    params = {
        "patches": array(2, 2, 2, 2, width),
        "token": array(3, 1, 1, width),
        "positions": array(4, 1, 5, width),
        "qkv": array(5, width, 3, heads, width // heads),
        "out": array(6, heads, width // heads, width),
        "scale": array(7, 1, 1, width),
        "up": array(8, width, 6),
        "down": array(9, 6, width),
        "head": array(10, width, CLASSES),
    }

    def losses_fn(p):
        h = conv(x, p["patches"], 2, "VALID").reshape(B, -1, width)
        token = jnp.broadcast_to(p["token"], (B, 1, width))
        h = jnp.concatenate([token, h], 1) + p["positions"]
        n = normalise(h, -1) * p["scale"]
        q, k, v = jnp.moveaxis(jnp.einsum("btd,dchk->btchk", n, p["qkv"]), 2, 0)
        attention = jax.nn.softmax(jnp.einsum("bthk,bshk->bhts", q, k))
        h += jnp.einsum("bhts,bshk,hkd->btd", attention, v, p["out"])
        h += jax.nn.gelu(normalise(h, -1) * p["scale"] @ p["up"]) @ p["down"]
        return cross_entropy(h[:, 0] @ p["head"])

    return losses_fn, params


def tokens():
    return jnp.asarray([[0, 0, 1, 2], [3, 1, 3, 3], [2, 2, 2, 2], [0, 1, 2, 3]])


def embedding():
    params = {"table": array(1, 9, 4), "w": array(2, 4, CLASSES)}

    def losses_fn(p):
        h = jnp.tanh(jnp.take(p["table"], tokens(), axis=0)).sum(1)
        return cross_entropy(h @ p["w"])

    return losses_fn, params


def tied_weights():
    params = {"table": array(1, 9, 4), "w": array(2, 4, 4)}

    def losses_fn(p):
        h = jnp.tanh(p["table"][tokens()].mean(1) @ p["w"] @ p["w"])
        return cross_entropy(h @ p["table"].T)

    return losses_fn, params


def dropout():
    _, params = mlp()
    x = array(1, B, 5)

    def losses_fn(p):
        h = jnp.tanh(x @ p["w"] + p["b"][None])
        keep = jax.random.bernoulli(jax.random.key(0), 0.7, h.shape)
        return cross_entropy(jnp.where(keep, h / 0.7, 0.0) @ p["v"])

    return losses_fn, params


def weight_norm():
    losses_fn, params = mlp()

    def normalised(p):
        w = p["w"] / jnp.linalg.norm(p["w"], axis=0, keepdims=True)
        return losses_fn({**p, "w": w})

    return normalised, params


def example_latents():
    x = array(1, B, 5)
    params = {"z": array(2, B, 5), "w": array(3, 5, CLASSES)}
    return lambda p: cross_entropy((x + p["z"]) @ p["w"]), params


def positions_in_the_batch_axis():
    x = array(1, B, 4, 4, 2)
    params = {
        "c": array(2, 3, 3, 2, 4),
        "w": array(3, 4, 3),
        "v": array(4, 48, CLASSES),
    }

    def losses_fn(p):
        h = jnp.tanh(conv(x, p["c"])).reshape(-1, 4) @ p["w"]
        return cross_entropy(jnp.tanh(h).reshape(B, -1) @ p["v"])

    return losses_fn, params


def indexing():
    _, params = mlp()
    x = array(1, B, 5)

    def losses_fn(p):
        z = jnp.tanh(x @ p["w"] + p["b"][None]) @ p["v"]
        z = z.at[jnp.arange(B), labels()].add(-0.3)
        picked = jax.nn.log_softmax(z)[jnp.arange(B), labels()]
        best, _ = lax.top_k(z, 2)
        return best.sum(-1) - picked - jnp.sort(z, -1)[:, 0]

    return losses_fn, params


def nnx_model():
    x = array(1, B, 5)

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.inner = nnx.Linear(5, 6, rngs=rngs, param_dtype=jnp.float64)
            self.norm = nnx.LayerNorm(6, rngs=rngs, param_dtype=jnp.float64)
            self.outer = nnx.Linear(6, CLASSES, rngs=rngs, param_dtype=jnp.float64)

        def __call__(self, x):
            return self.outer(nnx.relu(self.norm(self.inner(x))))

    graph, params = nnx.split(Model(nnx.Rngs(0)))

    def losses_fn(p):
        with jax.numpy_dtype_promotion("standard"):  # for Flax's normalisation
            return cross_entropy(nnx.merge(graph, p, copy=True)(x))

    return losses_fn, params


def scanned_layers():
    x = array(1, B, 5)
    params = {"w": array(2, 3, 5, 5), "b": array(3, 3, 5), "v": array(4, 5, 3)}

    def losses_fn(p):
        def layer(h, wb):
            return jnp.tanh(h @ wb[0] + wb[1][None]), None

        return cross_entropy(lax.scan(layer, x, (p["w"], p["b"]))[0] @ p["v"])

    return losses_fn, params


def custom_backward():
    """A backward rule of its own that keeps examples apart."""
    _, params = mlp()
    x = array(1, B, 5)

    @jax.custom_vjp
    def double(h):
        return h

    double.defvjp(lambda h: (h, None), lambda _, d: (2 * d,))

    def losses_fn(p):
        h = double(jnp.tanh(x @ p["w"] + p["b"][None]))
        return cross_entropy(h @ p["v"])

    return losses_fn, params


def cholesky():
    _, params = mlp()
    x = array(1, B, 5)

    def losses_fn(p):
        h = jnp.tanh(x @ p["w"] + p["b"][None])
        gram = h[:, :, None] * h[:, None, :] + jnp.eye(6)[None]
        return cross_entropy(lax.linalg.cholesky(gram)[:, :, 0] @ p["v"])

    return losses_fn, params


def solve():
    """A system of equations whose matrix all examples share."""
    _, params = mlp()
    x = array(1, B, 5)

    def losses_fn(p):
        h = jnp.tanh(x @ p["w"] + p["b"][None])
        gram = p["w"].T @ p["w"] + jnp.eye(6)
        return cross_entropy(jnp.linalg.solve(gram, h.T).T @ p["v"])

    return losses_fn, params


def contrastive():
    _, params = mlp()
    x = array(1, B, 5)

    def losses_fn(p):
        h = jnp.tanh(x @ p["w"] + p["b"][None]) @ p["v"]
        return jax.nn.logsumexp(h @ h.T, 1)

    return losses_fn, params
