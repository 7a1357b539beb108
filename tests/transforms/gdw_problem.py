"""Small models with a batch and a meta batch, and one GDW step of them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ltjax

KEY = jax.random.key(0)
B, C, F = 8, 5, 6
LR = 0.07


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def mlp(params, x):
    return jnp.tanh(x @ params["w1"] + params["b1"][None]) @ params["w2"]


def batch_norm(params, x):
    """Train-mode batch normalisation: every row depends on the whole batch."""
    h = x @ params["w1"]
    mean, var = h.mean(0), h.var(0)
    h = (h - mean[None]) / jnp.sqrt(var + 1e-5)[None] * params["scale"][None]
    return jnp.tanh(h + params["b1"][None]) @ params["w2"], {"mean": mean, "var": var}


def conv(params, x):
    h = jax.lax.conv_general_dilated(
        x, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.tanh(h).mean((1, 2)) @ params["w2"]


MODELS = {"mlp": mlp, "batch_norm": lambda p, x: batch_norm(p, x)[0], "conv": conv}


def make_problem(model="mlp", dtype=jnp.float32, batch=B, seed=0):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), dtype)

    params = {"w2": normal(7, C)}
    if model == "conv":
        params |= {"kernel": normal(3, 3, 2, 7)}
        x, x_meta = normal(batch, 4, 4, 2), normal(batch, 4, 4, 2)
    else:
        params |= {"w1": normal(F, 7), "b1": normal(7), "scale": normal(7)}
        x, x_meta = normal(batch, F), normal(batch, F)
    if model == "mlp":
        del params["scale"]
    y, y_meta = (jnp.asarray(rng.integers(0, C, batch), jnp.int32) for _ in range(2))
    return params, (x, y), (x_meta, y_meta)


def meta_gradient(model, meta):
    x, y = meta
    return jax.grad(lambda p: cross_entropy(MODELS[model](p, x), y))


def gdw_step(tx, params, state, batch, meta, model="mlp"):
    x, y = batch
    logits, jac = ltjax.linearize(lambda p: MODELS[model](p, x), params)
    return tx.update(
        jac,
        state,
        params,
        logits=logits,
        labels=y,
        meta_grad_fn=meta_gradient(model, meta),
    )
