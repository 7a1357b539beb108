"""Primitives by which JAX is about to replace others are unknown, and never wrong.

Behind their flags, checkpoints and functions with rules of their own become calls of
one primitive that hides its program.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ltjax

FLAGS = [
    name
    for name in ("jax_remat3", "jax_custom_vjp3", "jax_custom_jvp3")
    if name in jax.config.values
]
LABELS = jnp.arange(6) % 3


@jax.custom_vjp
def rounded(z):
    return jnp.round(z)


rounded.defvjp(lambda z: (jnp.round(z), None), lambda _, cotangent: (cotangent,))


@jax.custom_vjp
def product(x, w):
    return x @ w


product.defvjp(lambda x, w: (x @ w, (x, w)), lambda k, d: (d @ k[1].T, k[0].T @ d))


@jax.custom_jvp
def swish(z):
    return z * jax.nn.sigmoid(z)


@swish.defjvp
def _(primals, tangents):
    ((z,), (dz,)), s = (primals, tangents), jax.nn.sigmoid(primals[0])
    return z * s, (s + z * s * (1 - s)) * dz


def block(h, w):
    return jnp.tanh(h @ w)


def in_loop(h, w):
    step = jax.checkpoint(block)
    return jax.lax.scan(lambda h, _: (step(h, w), None), h, None, length=3)[0]


HIDDEN = {
    "relu": lambda h, w: jax.nn.relu(h @ w),
    "checkpoint": jax.checkpoint(block),
    "checkpoints in a loop": in_loop,
    "straight-through": lambda h, w: rounded(h @ w),
    "mapped": lambda h, w: jax.vmap(rounded)(h @ w),
    "of parameters": product,
    "custom_jvp": lambda h, w: swish(h @ w),
    "custom_vjp in a checkpoint": jax.checkpoint(lambda h, w: rounded(h @ w)),
}

RULES = {"straight-through", "mapped", "of parameters", "custom_vjp in a checkpoint"}


@pytest.fixture(params=FLAGS)
def flag(request):
    jax.config.update(request.param, True)
    yield
    jax.config.update(request.param, False)


@pytest.mark.parametrize("layer", HIDDEN)
def test_products_are_those_of_dense_rows(flag, x64, layer):
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (6, 5))
    params = {
        "a": jax.random.normal(keys[1], (5, 4)),
        "b": jax.random.normal(keys[2], (4, 4)),
        "c": jax.random.normal(keys[3], (4, 3)),
    }

    def losses_fn(p):
        logits = HIDDEN[layer](x @ p["a"], p["b"]) @ p["c"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)

    rows = jax.tree.map(np.asarray, jax.jacrev(losses_fn)(params))
    flat = np.concatenate([g.reshape(6, -1) for g in jax.tree.leaves(rows)], 1)
    losses, jac = ltjax.linearize(losses_fn, params)
    weights = jnp.linspace(-1.0, 1.0, 6)
    np.testing.assert_allclose(losses, losses_fn(params), rtol=1e-12)
    for name, gradient in jac.vjp(weights).items():
        want = np.tensordot(np.asarray(weights), rows[name], 1)
        np.testing.assert_allclose(gradient, want, rtol=1e-10, atol=1e-12)
    norms = jac.norms(definition="row")
    np.testing.assert_allclose(norms, np.linalg.norm(flat, axis=1), rtol=1e-10)
    ones = jax.tree.map(jnp.ones_like, params)
    try:
        dots = jac.jvp(ones)
    except ValueError as refused:  # what the rule does cannot be read
        reason = str(refused)
    else:
        np.testing.assert_allclose(dots, flat.sum(1), rtol=1e-10, atol=1e-12)
        return
    assert "custom_vjp" in reason
    assert layer in RULES
