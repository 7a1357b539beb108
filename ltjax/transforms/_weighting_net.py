"""The net that gives an example its weight from its loss, in MW-Net and GDW."""

from typing import Any

import jax
import jax.numpy as jnp

from ltjax import _validate


def init_weighting_net(
    key: jax.Array, hidden: int = 100, dtype: Any = jnp.float32
) -> dict[str, jax.Array]:
    r"""A net from a loss to a weight, one hidden layer, uniform in
    :math:`\pm 1 / \sqrt{\text{fan-in}}`.

    Args:
      key: typed PRNG key.
      hidden: width H.
      dtype: floating dtype of the arrays.

    Returns:
      ``{"w1": [1, H], "b1": [H], "w2": [H, 1], "b2": [1]}``.
    """
    _validate.key("key", key)
    _validate.integer("hidden", hidden, low=1)
    shapes = {"w1": (1, hidden), "b1": (hidden,), "w2": (hidden, 1), "b2": (1,)}
    bounds = {"w1": 1.0, "b1": 1.0, "w2": hidden**-0.5, "b2": hidden**-0.5}
    keys = dict(zip(shapes, jax.random.split(key, len(shapes)), strict=True))
    return {
        name: jax.random.uniform(keys[name], shape, dtype, -bounds[name], bounds[name])
        for name, shape in shapes.items()
    }


def apply_weighting_net(net: dict[str, jax.Array], losses: jax.Array) -> jax.Array:
    r"""Weights in (0, 1): :math:`\sigma(w_2^\top \max(w_1 \ell + b_1, 0) + b_2)`.

    Args:
      net: as `init_weighting_net` makes it.
      losses: ``[B]``; no gradient flows to them.

    Returns:
      ``[B]`` weights in the dtype of the net.
    """
    _validate.array("losses", losses, ndim=1, kind="floating")
    x = jax.lax.stop_gradient(losses).astype(net["w1"].dtype)[:, None]
    hidden = jax.nn.relu(jnp.dot(x, net["w1"], precision="highest") + net["b1"][None])
    out = jnp.dot(hidden, net["w2"], precision="highest") + net["b2"][None]
    return jax.nn.sigmoid(out[:, 0])
