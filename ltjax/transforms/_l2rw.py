"""L2RW: example weights straight from the gradient of a clean set."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ltjax import _validate
from ltjax._numerics import masked, safe_divide
from ltjax.transforms._gdw import check_meta, meta_tangents
from ltjax.transforms._weighting import (
    Weighting,
    effective_size,
    size_of,
    state_dtype,
)


class L2rwState(NamedTuple):
    """State of `l2rw`."""

    effective_size: jax.Array  # shape=(), float; of the last batch's weights


def l2rw_weights(alignment: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
    r"""Weights from the agreement of gradients with the meta gradient.

    .. math:: w_i = B \max(a_i, 0) / \sum_j \max(a_j, 0)

    Args:
      alignment: ``[B]`` (or of any other shape) products
        :math:`\langle \nabla \ell_i, u \rangle`.
      where: booleans of the same shape, false for padding: weight 0, not counted in B.

    Returns:
      Weights of the same shape and dtype, of mean 1; all 0 where no product is
      positive.

    Examples:
      >>> print(ltjax.l2rw_weights(jnp.array([3.0, -1.0, 1.0, 0.0])))
      [3. 0. 1. 0.]
    """
    _validate.array("alignment", alignment, kind="floating")
    _validate.mask(where, alignment.shape)
    # Relative to the largest, so that tiny products neither vanish nor overflow.
    positive = masked(jnp.maximum(alignment, 0), where)
    scaled = safe_divide(positive, jnp.full_like(positive, jnp.max(positive)))
    mean = jnp.sum(scaled) / size_of(scaled, where)
    return jax.lax.stop_gradient(safe_divide(scaled, jnp.full_like(scaled, mean)))


def l2rw() -> Weighting:
    r"""Weights every example by how much its gradient step would lower the meta loss.

    .. math::

        w_i \propto \max\Big(0, -\frac{\partial}{\partial \epsilon_i}
            L_\text{meta}\Big(\theta - \eta \sum_j \epsilon_j \nabla \ell_j\Big)
            \Big|_{\epsilon = 0}\Big)
            = \eta \max(0, \langle \nabla \ell_i, \nabla L_\text{meta} \rangle)

    The weights are normalised, so the learning rate of the look-ahead cancels; one
    forward-mode pass gives all of them exactly. ``update`` needs ``params`` and
    ``meta_grad_fn``: ``params -> gradient`` of the mean loss on a batch of clean,
    balanced data.

    Returns:
      A `Weighting`, to be used as the first transformation of a chain.

    Examples:
      >>> tx = optax.chain(ltjax.l2rw(), optax.sgd(0.1))
      >>> params = jnp.zeros(2)
      >>> state = tx.init(params)
      >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
      >>> y = jnp.array([1.0, 1.0, -1.0])  # the last target is wrong
      >>> losses, jac = ltjax.linearize(lambda w: (x @ w - y) ** 2, params)
      >>> updates, state = tx.update(
      ...     jac, state, params, meta_grad_fn=lambda w: 2 * (w - 1.0))
      >>> print(updates)
      [0.1 0.1]

    References:
      Ren et al., *Learning to Reweight Examples for Robust Deep Learning*, ICML 2018
      (arXiv:1803.09050), equations 11 to 14; computed without their second
      differentiation.
    """

    def init(params):
        return L2rwState(jnp.zeros((), state_dtype(params)))

    def weights(jac, state, params=None, *, meta_grad_fn, where=None, **extra_args):
        del extra_args
        check_meta(params, meta_grad_fn)
        dtype = state.effective_size.dtype
        alignment = meta_tangents(jac, meta_grad_fn(params))
        w = l2rw_weights(alignment.astype(dtype), where=where)
        return w, L2rwState(effective_size(w))

    return Weighting.from_weights(init, weights)
