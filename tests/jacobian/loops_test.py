"""Loops in which axes, constants, lengths and dtypes are not the usual ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import ltjax
from tests.jacobian.reference import array, assert_products, dense, flat

pytestmark = pytest.mark.usefixtures("x64")

B = 4


def _loss(h):
    return jnp.square(h).reshape(B, -1).sum(1)


def axes_of_two_states():
    """Examples on the first axis of one state, on the last of the other."""
    x, z = array(0, B, 3), array(1, 5, B)
    params = {"w": array(2, 2, 3, 3), "v": array(3, 2, 5, 5), "s": array(4, 3, 5)}

    def losses_fn(p):
        def step(states, q):
            (a, b), (w, v) = states, q
            moved = jnp.tanh(a @ w + (p["s"] @ b).T), jnp.tanh(v @ b + (a @ p["s"]).T)
            return moved, (a, b)

        (a, b), (before, _) = lax.scan(step, (x, z), (p["w"], p["v"]))
        return _loss(a) + jnp.square(b).sum(0) + before.sum((0, 2))

    return losses_fn, params


def axes_that_change_places():
    """Two square states, each the transpose of the other's next."""
    x, params = array(0, B, B), {"w": array(1, 3, B, B)}

    def losses_fn(p):
        step = lambda c, w: ((c[1].T @ w, (c[0] @ w).T), None)  # noqa: E731
        (a, b), _ = lax.scan(step, (x, x.T), p["w"])
        return _loss(a) + jnp.sin(b).sum(0)

    return losses_fn, params


def constant_products():
    """Products that no iteration of one or of both loops changes."""
    x, shapes = array(0, B, 3), {"e": (3, 3), "w": (2, 3, 3), "f": (3, 3)}
    params = {k: array(i, *s) for i, (k, s) in enumerate(shapes.items())}

    def losses_fn(p):
        def layer(h, w):
            def step(h, _):
                c = x @ p["e"]
                return jnp.tanh(h @ p["f"] + c + c @ w), c @ p["f"]

            h, ys = lax.scan(step, h, length=3)
            return h, ys.sum(0)

        h, ys = lax.scan(layer, x, p["w"])
        return _loss(h) + jnp.square(ys).sum((0, 2))

    return losses_fn, params


def sums_in_use():
    """Products that are added, and needed by themselves too."""
    x, params = array(0, B, 3), {"w": array(1, 2, 3, 3), "v": array(2, 3, 3)}

    def losses_fn(p):
        def step(h, w):
            y = h @ w
            z = y + h @ p["v"]
            return jnp.tanh(z + z), jnp.sin(y)

        h, ys = lax.scan(step, x, p["w"])
        return _loss(h) + jnp.square(ys).sum((0, 2))

    return losses_fn, params


def lengths():
    """One iteration, none, and some at a time; parameters without entries."""
    shapes = {"one": (1, 3, 3), "no": (0, 3, 3), "w": (5, 3, 3), "empty": (5, 3, 0)}
    params = {k: array(i, *s) for i, (k, s) in enumerate(shapes.items())}

    def losses_fn(p):
        def step(h, q):
            w, *rest = q
            return jnp.tanh(h @ w + sum(r.sum() for r in rest)), h @ p["one"][0]

        h, ys = lax.scan(step, array(9, B, 3), (p["one"],), unroll=4)
        h, _ = lax.scan(step, h, (p["no"],))
        h, zs = lax.scan(step, h, (p["w"], p["empty"]), unroll=2, reverse=True)
        return _loss(h) + jnp.square(ys).sum((0, 2)) + zs.sum((0, 2))

    return losses_fn, params


def complex_states():
    """Linear recurrence with complex rates, and small integers that look up."""
    x, tokens = array(0, B, 5, 3), jnp.asarray(np.arange(B * 5) % 3, jnp.uint8)
    params = {"rate": array(1, 2, 3), "t": array(2, 2, 4, 3), "w": array(3, 3, 3)}

    def losses_fn(p):
        def layer(h, q):
            rate, table = q

            def step(c, u):
                c = c * jnp.broadcast_to(jnp.exp(1j * rate - 0.3), c.shape) + u
                return c, c

            _, ys = lax.scan(step, jnp.zeros((B, 3), complex), jnp.moveaxis(h, 1, 0))
            y = jnp.moveaxis(ys, 0, 1) @ (p["w"] + 1j * p["w"].T)
            return y.real + y.imag**2 + table[tokens.reshape(B, 5)], None

        h = lax.scan(layer, x, (p["rate"], p["t"]))[0]
        return _loss(h)

    return losses_fn, params


def time_major_tokens():
    """One table for all steps, with tokens outside of it."""
    tokens = jnp.asarray(np.random.default_rng(0).integers(-5, 9, (6, B)))
    params = {"t": array(1, 4, 3), "w": array(2, 3, 3)}

    def losses_fn(p):
        def step(h, i):
            near = p["t"].at[i].get(mode="clip")
            far = p["t"].at[i + 1].get(mode="fill", fill_value=0.5)
            return jnp.tanh(h @ p["w"] + near * far), None

        return _loss(lax.scan(step, jnp.zeros((B, 3)), tokens)[0])

    return losses_fn, params


def dropped_weights():
    """Random numbers for parameters in each layer, which `jax.vmap` may change."""
    x, params = array(0, B, 3), {"w": array(1, 3, 3, 3)}
    keys = jax.random.split(jax.random.key(0, impl="rbg"), 3)

    @jax.checkpoint
    def dropped(w, key):
        return jnp.where(jax.random.bernoulli(key, 0.5, w.shape), w, 0.0)

    def losses_fn(p):
        step = lambda h, q: (jnp.tanh(h @ dropped(*q) + h), None)  # noqa: E731
        return _loss(lax.scan(step, x, (p["w"], keys))[0])

    return losses_fn, params


MODELS = [
    dropped_weights,
    axes_of_two_states,
    axes_that_change_places,
    constant_products,
    sums_in_use,
    lengths,
    complex_states,
    time_major_tokens,
]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_loops_are_intercepted(model):
    losses_fn, params = model()
    with jax.numpy_dtype_promotion("standard"):
        assert_products(losses_fn, params, tolerance=1e-9, method="intercept")


@pytest.mark.parametrize("checkpoint", [False, True])
def test_statistics_of_rows(checkpoint):
    """Clipped sums and inner products, through taps in loops and in checkpoints."""
    x, params = array(0, B, 3), {"w": array(1, 2, 3, 3), "s": array(2, 3, 3)}
    layer = lambda h, w, s: jnp.tanh(h @ w + h @ s)  # noqa: E731
    layer = jax.checkpoint(layer) if checkpoint else layer

    def losses_fn(p):
        step = lambda h, w: (layer(h, w, p["s"]), None)  # noqa: E731
        return _loss(lax.scan(step, x, p["w"])[0])

    @jax.jit
    def statistics(params):
        _, jac = ltjax.linearize(losses_fn, params)
        largest = jac.map_rows(lambda row: jnp.max(jnp.abs(row["w"])))
        return ltjax.clipped_sum(jac, 0.7), ltjax.gram(jac), largest

    clipped, gram, largest = statistics(params)
    rows = dense(losses_fn, params)
    scale = np.minimum(1, 0.7 / np.linalg.norm(rows, axis=1))
    np.testing.assert_allclose(flat(clipped), scale @ rows, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(gram, rows @ rows.T, rtol=1e-10, atol=1e-12)
    expected = np.abs(rows[:, params["s"].size :]).max(1)
    np.testing.assert_allclose(largest, expected, rtol=1e-10)
