"""All products of a Jacobian against dense rows from plain JAX."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ltjax


class Told(NamedTuple):
    """How products are computed, and why so."""

    method: str
    reason: str


def jacobian(losses_fn, params, use=None, **options):
    """Traces the Jacobian, and what ``use`` does with it; nothing is computed."""
    found = []

    def run(params):
        losses, jac = ltjax.linearize(losses_fn, params, **options)
        found.append(Told(jac.method, jac.reason))
        return losses if use is None else use(jac)

    jax.eval_shape(run, params)
    return found[0]


def dense(losses_fn, params):
    """Rows ``[B, P]``."""
    return side_by_side(jax.jit(jax.jacrev(losses_fn))(params))


def side_by_side(rows):
    """A tree of rows ``[B, ...]`` as ``[B, P]``."""
    leaves = [np.asarray(g) for g in jax.tree.leaves(rows)]
    return np.concatenate([g.reshape(len(g), -1) for g in leaves], 1)


def random_like(params, seed=0):
    """A tree of the same shapes."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), params
    )


def flat(tree):
    return np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(tree)])


def assert_products(
    losses_fn, params, *, rows_of=None, definition=None, tolerance=1e-9, method="auto"
):
    """Holds every product, in several orders, to the rows of ``rows_of``."""
    expected, rows = jax.jit(
        lambda p: (losses_fn(p), jax.jacrev(rows_of or losses_fn)(p))
    )(params)
    rows = side_by_side(rows)
    direction = random_like(params)
    weights = np.linspace(-1, 1, len(rows))
    own = "row" if definition is None else definition

    @jax.jit
    def products(params):
        losses, jac = ltjax.linearize(losses_fn, params, method=method)
        w = jnp.asarray(weights, losses.dtype)
        before = jac.vjp(w)
        dots = jac.jvp(direction, definition=definition)
        norms = jac.norms(definition=own)
        after = jac.vjp(w), jac.jvp(direction, definition=definition)
        return losses, before, dots, norms, after, jac.dense()

    losses, before, dots, norms, after, whole = products(params)
    close = {"rtol": tolerance, "atol": tolerance}
    np.testing.assert_allclose(losses, expected, **close)
    np.testing.assert_allclose(dots, rows @ flat(direction), **close)
    np.testing.assert_allclose(after[1], dots, **close)
    np.testing.assert_allclose(norms, np.linalg.norm(rows, axis=1), **close)
    if rows_of is None:
        for gradient in (before, after[0]):
            np.testing.assert_allclose(flat(gradient), weights @ rows, **close)
        np.testing.assert_allclose(side_by_side(whole), rows, **close)


def array(seed, *shape, dtype=None):
    """Normal numbers, in the widest dtype that is enabled."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def flops(fun, *args):
    """What the compiler counts; bodies of loops count once."""
    return jax.jit(fun).lower(*args).compile().cost_analysis()["flops"]
