"""Transformations that weight examples, and their product."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ltjax._numerics import EPS, safe_divide, widest
from ltjax.jacobian._operator import Jacobian, as_jacobian


class Weighting(optax.GradientTransformationExtraArgs):
    r"""A gradient transformation that replaces the mean gradient by a weighted one.

    .. math:: g = \frac{1}{B} \sum_i w_i \nabla_\theta \ell_i

    It is an ordinary optax transformation, the first of a chain, whose ``updates`` are
    a `ltjax.Jacobian` or a tree of per-example gradients. Its two further attributes
    are for those who want the weights themselves; `product` combines several.

    Attributes:
      weights: ``(jacobian, state, params, **extra) -> (weights, state)``. The weights
        have the shape of the losses; 1 is the weight that plain SGD gives.
      observe: ``(state, updates) -> state``, called with the weighted gradient.
    """

    weights: Callable[..., tuple[jax.Array, Any]]
    observe: Callable[[Any, Any], Any]

    def __new__(cls, init, weights, observe=lambda state, updates: state):
        def update(updates, state, params=None, **extra_args):
            jac = as_jacobian(updates, params, _shape(updates, params, extra_args))
            w, state = weights(jac, state, params, **extra_args)
            updates = jac.vjp(w / w.size)
            return updates, observe(state, updates)

        self = super().__new__(cls, init, update)
        self.weights = weights
        self.observe = observe
        return self


def product(*weightings: Weighting) -> Weighting:
    r"""The product of several weightings, at the price of one weighted gradient.

    .. math:: w_i = \prod_k w_i^{(k)}

    Every method sees the same losses and Jacobian; their weights are multiplied
    before the one backward pass.

    Args:
      *weightings: at least one of `absgd`, `gradtail`, ...

    Returns:
      A `Weighting` whose state is the tuple of their states.

    Raises:
      TypeError: if an argument is no `Weighting`. What `optax.inject_hyperparams`,
        `optax.chain` or `optax.masked` return is none: combine first, wrap after.

    Examples:
      >>> tx = optax.chain(
      ...     ltjax.product(ltjax.absgd(1.0), ltjax.gradtail(similarity="dot")),
      ...     optax.sgd(0.1),
      ... )
      >>> params = jnp.zeros(2)
      >>> state = tx.init(params)
      >>> losses, jac = ltjax.linearize(lambda w: (w - 1.0) ** 2, params)
      >>> updates, state = tx.update(jac, state, params, losses=losses)
      >>> print(updates)
      [0.1 0.1]
    """
    if not weightings:
        raise ValueError("product needs at least one weighting, got none.")
    for w in weightings:
        if not isinstance(w, Weighting):
            raise TypeError(
                "product takes weightings such as ltjax.absgd(...), "
                f"got {type(w).__name__}: combine first, wrap after."
            )

    def init(params):
        return tuple(w.init(params) for w in weightings)

    def weights(jac, state, params=None, **extra_args):
        parts, states = zip(
            *(
                w.weights(jac, s, params, **extra_args)
                for w, s in zip(weightings, state, strict=True)
            ),
            strict=True,
        )
        total = parts[0]
        for part in parts[1:]:
            total = total * part.astype(total.dtype)
        return total, states

    def observe(state, updates):
        return tuple(
            w.observe(s, updates) for w, s in zip(weightings, state, strict=True)
        )

    return Weighting(init, weights, observe)


def effective_size(weights: jax.Array) -> jax.Array:
    """``(sum w)^2 / sum w^2``: how many equally weighted examples these amount to."""
    scaled = safe_divide(weights, jnp.full_like(weights, jnp.max(jnp.abs(weights))))
    return jnp.square(jnp.sum(scaled)) / jnp.maximum(jnp.sum(scaled**2), EPS)


def state_dtype(params: Any) -> jnp.dtype:
    """Float32, or the widest dtype of the parameters where that is wider."""
    return widest(jnp.float32, *map(jnp.result_type, jax.tree.leaves(params)))


def _shape(updates: Any, params: Any, extra_args: dict[str, Any]) -> tuple[int, ...]:
    """Shape of the losses behind ``updates``."""
    if isinstance(updates, Jacobian):
        return updates.shape
    if "losses" in extra_args:
        return jnp.shape(extra_args["losses"])
    if params is None:
        raise ValueError("params must be given with per-example gradients, got None.")
    rows = jax.tree.leaves(updates)
    leaves = jax.tree.leaves(params)
    if not rows or not leaves:
        raise ValueError("updates must hold at least one array, got none.")
    return jnp.shape(rows[0])[: max(jnp.ndim(rows[0]) - jnp.ndim(leaves[0]), 1)]
