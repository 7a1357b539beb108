"""Weighted gradients for loops that take nothing else."""

from collections.abc import Callable
from typing import Any

import optax

from ltjax.jacobian._linearize import linearize


def weighted_value_and_grad(
    losses_fn: Callable[..., Any],
    weighting: optax.GradientTransformation,
    *,
    has_aux: bool = False,
) -> Callable[..., tuple[Any, Any, Any]]:
    r"""`jax.value_and_grad` of losses, with the gradient that a weighting makes.

    .. math:: g = \frac{1}{B} \sum_i w_i \nabla_\theta \ell_i

    For whatever insists on an ordinary gradient: other libraries' optimisers,
    `optax.MultiSteps` or `optax.apply_if_finite` around a whole chain, a gradient to be
    summed with others. The weighting's state is an argument and a result, and belongs
    into checkpoints.

    Args:
      losses_fn: ``(params, *args) -> [B]`` losses, not reduced; logits ``[B, C]`` for
        `gdw`.
      weighting: a `Weighting`, or a chain that starts with one.
      has_aux: whether ``losses_fn`` returns ``(losses, aux)``.

    Returns:
      A function ``(params, state, *args, **extra) -> (losses, gradient, state)``, with
      ``(losses, aux)`` in place of ``losses`` where ``has_aux``. Keyword arguments are
      those of the weighting's ``update``, such as ``labels`` and ``meta_grad_fn`` of
      `gdw`.

    Raises:
      TypeError: if ``weighting`` is not a gradient transformation.

    Examples:
      >>> def losses_fn(w, x, y):
      ...     return (x @ w - y) ** 2
      >>> weighting = ltjax.absgd(1.0)
      >>> value_and_grad = ltjax.weighted_value_and_grad(losses_fn, weighting)
      >>> params = jnp.zeros(2)
      >>> x, y = jnp.eye(2), jnp.array([0.0, 1.0])
      >>> losses, gradient, state = value_and_grad(
      ...     params, weighting.init(params), x, y)
      >>> print(losses, gradient)
      [0. 1.] [ 0.    -1.462]
    """
    if not isinstance(weighting, optax.GradientTransformation):
        raise TypeError(
            "weighting must be a gradient transformation such as ltjax.absgd(...), "
            f"got {type(weighting).__name__}."
        )

    def value_and_grad(params, state, *args, **extra_args):
        losses, jac, *aux = linearize(
            lambda p: losses_fn(p, *args), params, has_aux=has_aux
        )
        gradient, state = weighting.update(jac, state, params, **extra_args)
        return (losses, *aux) if has_aux else losses, gradient, state

    return value_and_grad
