"""Transformations that weight examples, and their product."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ltjax import _validate
from ltjax._numerics import EPS, masked, safe_divide, widest
from ltjax.jacobian._operator import Jacobian
from ltjax.jacobian._updates import as_jacobian


class Update:
    """The ``update`` of a `Weighting`, and the functions that it is made of.

    Not a closure, so that every copy of a weighting still has its parts, and not a
    dataclass, which `dataclasses.asdict` would take apart. Like a function it is
    immutable and its own copy.

    Attributes:
      jacobian: ``(updates, params, **extra) -> Jacobian``, its shape checked.
      weigh: ``(jacobian, state, params, **extra) -> (weights, cotangents, state)``.
      observe: ``(state, gradient) -> state``.
    """

    def __init__(self, jacobian: Callable, weigh: Callable, observe: Callable):
        self.jacobian = jacobian
        self.weigh = weigh
        self.observe = observe

    def __call__(self, updates, state, params=None, **extra_args):
        gradient, _, state = self.with_weights(updates, state, params, **extra_args)
        return gradient, state

    def with_weights(self, updates, state, params=None, **extra_args):
        jac = self.jacobian(updates, params, **extra_args)
        weights, cotangents, state = self.weigh(jac, state, params, **extra_args)
        gradient = jac.vjp(cotangents)
        return gradient, weights, self.observe(state, gradient)

    def weights(self, updates, state, params=None, **extra_args):
        jac = self.jacobian(updates, params, **extra_args)
        weights, _, state = self.weigh(jac, state, params, **extra_args)
        return weights, state

    def __deepcopy__(self, memo):
        return self


def unchanged(state: Any, gradient: Any) -> Any:
    """The ``observe`` of a weighting that does not look at the gradient."""
    del gradient
    return state


def count_step(state: Any, gradient: Any) -> Any:
    """The ``observe`` of a weighting that only counts its steps."""
    del gradient
    return state._replace(step=optax.safe_increment(state.step))


class Weighting(optax.GradientTransformationExtraArgs):
    r"""A gradient transformation that replaces the mean gradient by a weighted one.

    .. math:: g = \frac{1}{B} \sum_i w_i \nabla_\theta \ell_i

    It is an ordinary optax transformation, the first of a chain, whose ``updates`` are
    a `ltjax.Jacobian` or a tree of per-example gradients. `from_weights` makes one of
    a function, `product` combines several.

    To keep the weights, leave the weighting out of the chain and call
    ``update_with_weights``, which is ``update`` with the weights as a third result::

        weighting, optimizer = ltjax.absgd(0.5), optax.sgd(0.1)
        state = weighting.init(params), optimizer.init(params)

        def step(params, state):
            own, inner = state
            losses, jac = ltjax.linearize(losses_fn, params)
            gradient, weights, own = weighting.update_with_weights(
                jac, own, params, losses=losses)
            updates, inner = optimizer.update(gradient, inner, params)
            return optax.apply_updates(params, updates), (own, inner), weights

    A step may also be taken in parts, say to change the weights in between::

        weights, own = weighting.weights(jac, own, params, losses=losses)
        gradient = jac.vjp(weights / weights.size)
        own = weighting.observe(own, gradient)

    Weights have the shape of the Jacobian's outputs, one for each loss (with `gdw` one
    for each logit, whose cotangents are `logit_cotangents`); 1 is that of plain SGD.

    Every ``update`` takes ``where``, booleans ``[B]`` (or of more of the leading axes
    of the outputs, to leave pixels out): false marks padding, whose weight is exactly 0
    and which has no part in statistics and means. A padded batch gives the step of the
    batch without padding. Padding must have finite losses and gradients: repeat an
    example.
    """

    update: Update

    @staticmethod
    def from_weights(
        init: Callable[[Any], Any],
        weights: Callable[..., tuple[jax.Array, Any]],
        observe: Callable[[Any, Any], Any] = unchanged,
    ) -> "Weighting":
        """The weighting of a function that gives every loss a weight.

        Args:
          init: ``params -> state``.
          weights: ``(jacobian, state, params, **extra) -> (weights, state)``, where the
            weights have the shape of the Jacobian's outputs. ``extra`` has ``where``,
            in that shape too, only if ``update`` was given it; what is false there gets
            weight 0 in any case.
          observe: ``(state, gradient) -> state``, which ends a step; ``gradient`` is
            the weighted one.

        Returns:
          A `Weighting`.

        Examples:
          >>> def weights(jac, state, params, *, losses, **extra):
          ...     return jnp.where(losses < 2, 1.0, 0.0), state
          >>> tx = ltjax.Weighting.from_weights(lambda params: (), weights)
          >>> losses, jac = ltjax.linearize(lambda w: (w - jnp.arange(3)) ** 2, 0.0)
          >>> gradient, w, _ = tx.update_with_weights(jac, (), 0.0, losses=losses)
          >>> print(w, f"{gradient:.3f}")
          [1. 1. 0.] -0.667
        """
        weigh = functools.partial(_weigh_losses, weights)
        return Weighting(init, Update(_losses_jacobian, weigh, observe))

    @property
    def update_with_weights(self) -> Callable[..., tuple[Any, jax.Array, Any]]:
        """``(updates, state, params, **extra) -> (gradient, weights, state)``."""
        return self.update.with_weights

    @property
    def weights(self) -> Callable[..., tuple[jax.Array, Any]]:
        """``(updates, state, params, **extra) -> (weights, state)``."""
        return self.update.weights

    @property
    def observe(self) -> Callable[[Any, Any], Any]:
        """``(state, gradient) -> state``: ends a step that `weights` began."""
        return self.update.observe


def product(*weightings: Weighting) -> Weighting:
    r"""The product of several weightings, with one backward pass for all.

    .. math:: w_i = \prod_k w_i^{(k)}

    Every method sees the same losses and Jacobian; their weights are multiplied
    before the one backward pass.

    Args:
      *weightings: at least one of `absgd`, `gradtail`, `l2rw`, ...

    Returns:
      A `Weighting` whose state is the tuple of their states.

    Raises:
      TypeError: if an argument does not weight losses. What `gdw`,
        `optax.inject_hyperparams`, `optax.chain` or `optax.masked` return does not:
        combine first, wrap after.

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
        if w.update.jacobian is not _losses_jacobian:
            raise TypeError("product takes weightings of losses, got one of logits.")

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

    def observe(state, gradient):
        return tuple(
            w.observe(s, gradient) for w, s in zip(weightings, state, strict=True)
        )

    return Weighting.from_weights(init, weights, observe)


def outputs_of(jac: Jacobian, name: str, given: jax.Array | None) -> jax.Array:
    """The outputs that a weighting was given by name, or else the Jacobian's own."""
    outputs = jac.outputs if given is None else given
    if outputs is None:
        raise TypeError(
            f"missing required keyword argument {name!r}, which per-example gradients "
            "do not bring."
        )
    _validate.array(name, outputs, shape=jac.shape, kind="floating")
    return outputs


def effective_size(weights: jax.Array) -> jax.Array:
    """``(sum w)^2 / sum w^2``: how many equally weighted examples these amount to."""
    scaled = safe_divide(weights, jnp.full_like(weights, jnp.max(jnp.abs(weights))))
    return jnp.square(jnp.sum(scaled)) / jnp.maximum(jnp.sum(scaled**2), EPS)


def state_dtype(params: Any) -> jnp.dtype:
    """Float32, or the widest dtype of the parameters where that is wider."""
    return widest(jnp.float32, *map(jnp.result_type, jax.tree.leaves(params)))


def mask_of(where: jax.Array | None, shape: tuple[int, ...]) -> jax.Array | None:
    """``where``, for some leading axes of the outputs, in the shape of all of them."""
    if where is None:
        return None
    ndim = max(getattr(where, "ndim", 1), 1)
    _validate.mask(where, shape[:ndim])
    return jnp.broadcast_to(
        jnp.expand_dims(where, tuple(range(ndim, len(shape)))), shape
    )


def size_of(weights: jax.Array, where: jax.Array | None) -> int | jax.Array:
    """How many weights a mean is over, at least 1."""
    if where is None:
        return weights.size
    return jnp.maximum(jnp.sum(where), 1).astype(weights.dtype)


def _weigh_losses(weights, jac, state, params=None, *, where=None, **extra_args):
    """Weights of losses, and the cotangents that average over them."""
    mask = mask_of(where, jac.shape)
    if mask is not None:
        extra_args["where"] = mask
    w, state = weights(jac, state, params, **extra_args)
    w = masked(w, mask)
    return w, w / size_of(w, mask), state


def _losses_jacobian(updates, params, *, losses=None, **extra_args) -> Jacobian:
    """``updates`` as the Jacobian of losses."""
    del extra_args
    if isinstance(updates, Jacobian):
        return updates
    return as_jacobian(updates, params, None if losses is None else jnp.shape(losses))
