"""Parameters of any kind, losses of them, and their dense rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

B, CLASSES = 8, 3


def array(seed, *shape, dtype=np.float32):
    values = np.random.default_rng(seed).normal(size=shape) / 2
    return jnp.asarray(values.astype(np.float32)).astype(dtype)


def labels():
    return jnp.arange(B) % CLASSES


def nested(dtype=np.float32):
    """Nested parameters with a scalar and holes."""
    return {
        "layers": [
            {"w": array(1, 4, 5, dtype=dtype), "b": array(2, 5, dtype=dtype)},
            (array(3, 5, CLASSES, dtype=dtype), None),
        ],
        "scale": jnp.asarray(1.5, dtype),
        "nothing": None,
    }


def losses_fn(params, x=None):
    x = array(0, B, 4, dtype=params["scale"].dtype) if x is None else x
    first, (w, _) = params["layers"]
    h = jnp.tanh(x @ first["w"] + first["b"][None])
    return optax.softmax_cross_entropy_with_integer_labels(
        h @ w * params["scale"], labels()
    )


def coupled(params):
    """Every loss depends on the statistics of the batch."""
    x = array(0, B, 4, dtype=params["scale"].dtype)
    first, (w, _) = params["layers"]
    h = x @ first["w"] + first["b"][None]
    h = (h - h.mean(0, keepdims=True)) / (0.1 + h.std(0, keepdims=True))
    return jnp.square(h @ w * params["scale"]).sum(1)


def rows_of(fun, params):
    """Dense rows, one plain backward pass each."""
    return outputs_and_rows(fun, params)[1]


@functools.partial(jax.jit, static_argnums=0)
def outputs_and_rows(fun, params):
    outputs, vjp = jax.vjp(fun, params)
    basis = jnp.eye(outputs.size, dtype=outputs.dtype)
    rows = lax.map(lambda e: vjp(e.reshape(outputs.shape))[0], basis)
    return outputs, jax.tree.map(
        lambda r: r.reshape(*outputs.shape, *r.shape[1:]), rows
    )


def dots_of(rows, direction):
    return sum(
        np.tensordot(np.asarray(r, np.float64), np.asarray(v, np.float64), v.ndim)
        for r, v in zip(jax.tree.leaves(rows), jax.tree.leaves(direction), strict=True)
    )


def norms_of(rows, ndim=1):
    squares = [
        np.square(np.asarray(r, np.float64)).sum(tuple(range(ndim, r.ndim)))
        for r in jax.tree.leaves(rows)
    ]
    return np.sqrt(sum(squares))
