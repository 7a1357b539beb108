"""All products of a Jacobian against dense rows from plain JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import ltjax

QUICKLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


def dense(losses_fn, params):
    """Rows ``[B, P]``."""
    rows = jax.jacrev(losses_fn)(params)
    batch = jax.tree.leaves(rows)[0].shape[0]
    return np.concatenate(
        [np.asarray(g).reshape(batch, -1) for g in jax.tree.leaves(rows)], 1
    )


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
    rows = dense(rows_of or losses_fn, params)
    direction = random_like(params)
    weights = np.linspace(-1, 1, len(rows))
    own = "row" if definition is None else definition

    # Compiled quickly: each program runs once.
    @functools.partial(jax.jit, compiler_options=QUICKLY)
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
    np.testing.assert_allclose(losses, losses_fn(params), **close)
    np.testing.assert_allclose(dots, rows @ flat(direction), **close)
    np.testing.assert_allclose(after[1], dots, **close)
    np.testing.assert_allclose(norms, np.linalg.norm(rows, axis=1), **close)
    if rows_of is None:
        for gradient in (before, after[0]):
            np.testing.assert_allclose(flat(gradient), weights @ rows, **close)
        leaves = [np.asarray(g).reshape(len(rows), -1) for g in jax.tree.leaves(whole)]
        np.testing.assert_allclose(np.concatenate(leaves, 1), rows, **close)


def array(seed, *shape, dtype=None):
    """Normal numbers, in the widest dtype that is enabled."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)
