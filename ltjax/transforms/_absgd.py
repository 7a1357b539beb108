"""ABSGD: attentional biased stochastic gradient descent."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ltjax import _validate
from ltjax._numerics import masked, widest
from ltjax.transforms._weighting import (
    Weighting,
    count_step,
    effective_size,
    outputs_of,
    state_dtype,
)

_ZERO = 1e-20  # temperatures below it are 0, lest losses over them overflow
_JUMP = 0.1  # relative change of the temperature that is more than a gradual one


class AbsgdState(NamedTuple):
    """State of `absgd`."""

    step: jax.Array  # shape=(), int32; steps taken
    log_u: jax.Array  # shape=(), float; logarithm of the running mean, -inf at first
    effective_size: jax.Array  # shape=(), float; of the last batch's weights
    temperature: jax.Array  # shape=(), float; the one that log_u belongs to


def absgd_weights(
    losses: jax.Array,
    log_u: jax.Array,
    *,
    temperature: float | jax.Array,
    gamma: float | jax.Array = 0.9,
    alpha: float | jax.Array = 1.0,
    step: int | jax.Array = 1,
    bias_correction: bool = True,
    where: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    r"""Weights from an exponential of the loss, and the new logarithm of their scale.

    .. math::

        u \leftarrow (1 - \gamma)\, u
            + \gamma \alpha\, \tfrac{1}{B} \sum_i e^{\ell_i / \lambda}, \qquad
        w_i = e^{\ell_i / \lambda} / u

    Everything is computed from :math:`\log u`, so that no finite loss overflows. No
    gradient flows through the weights.

    Args:
      losses: losses, ``[B]`` or any other shape. One that is not finite has no part in
        u, and a weight that need not be finite.
      log_u: scalar, the logarithm of u; ``-inf`` before the first step.
      temperature: lambda, not 0. Positive: hard examples count more (class
        imbalance); negative: they count less (label noise).
      gamma: step of the running mean u, in (0, 1]; 1 uses this batch alone.
      alpha: scale of u, positive; the weights' mean is 1/alpha in steady state.
      step: number of this step, counted from 1.
      bias_correction: divide u by ``1 - (1 - gamma)^step``.
      where: booleans of the losses' shape, false for padding: weight 0, no part in u.

    Returns:
      ``(weights, log_u)``: weights of the losses' shape in at least float32, where 1
      is the weight that plain SGD gives; the new ``log_u``.

    Raises:
      ValueError: if ``temperature`` is 0.

    Examples:
      >>> w, log_u = ltjax.absgd_weights(
      ...     jnp.array([0.0, 1.0]), -jnp.inf, temperature=1.0)
      >>> print(w)
      [0.538 1.462]
    """
    _validate.array("losses", losses, kind="floating")
    _validate.mask(where, losses.shape)
    _check_temperature(temperature)
    _check_scale(gamma, alpha)
    log_u = jnp.asarray(log_u)
    dtype = widest(losses.dtype, log_u.dtype)
    gamma, alpha, temperature = (
        jnp.asarray(x, dtype) for x in (gamma, alpha, temperature)
    )
    losses = jax.lax.stop_gradient(losses.astype(dtype))
    # Relative to the largest exponent, and before the division, which rounds: large
    # losses cost the weights no digits.
    counted = jnp.isfinite(losses)
    counted = counted if where is None else counted & where
    some = jnp.any(counted)
    extreme = jnp.where(
        temperature > 0,
        jnp.max(losses, where=counted, initial=-jnp.inf),
        jnp.min(losses, where=counted, initial=jnp.inf),
    )
    extreme = jnp.where(some, extreme, jnp.zeros_like(extreme))
    scaled = (losses - extreme) / temperature
    total = jnp.sum(jnp.exp(scaled), where=counted)
    mean = total / jnp.maximum(jnp.sum(counted), 1).astype(dtype)
    largest = extreme / temperature
    log_decay = jnp.log1p(-gamma)
    scale = jnp.logaddexp(
        log_decay + log_u.astype(dtype) - largest,
        jnp.log(gamma) + jnp.log(alpha) + jnp.log(mean),
    )
    log_u = jnp.where(some, scale + largest, log_u.astype(dtype))
    if bias_correction:
        scale = scale - _log_bias(gamma, step, dtype)
    return masked(jnp.exp(scaled - scale), where), log_u


def absgd(
    temperature: float | jax.Array | optax.Schedule,
    *,
    gamma: float | jax.Array = 0.9,
    alpha: float | jax.Array = 1.0,
    bias_correction: bool = True,
    erm_weight: float | jax.Array = 0.0,
    start_step: int | jax.Array = 0,
) -> Weighting:
    r"""Weights every example by an exponential of its loss.

    One step of stochastic compositional descent on
    :math:`\lambda \log \frac{1}{B} \sum_i e^{\ell_i / \lambda}`:

    .. math::

        u \leftarrow (1 - \gamma)\, u
            + \gamma \alpha\, \tfrac{1}{B} \sum_i e^{\ell_i / \lambda}, \qquad
        g = \tfrac{1}{B} \sum_i
            \left( e^{\ell_i / \lambda} / u + \epsilon \right) \nabla \ell_i

    Its cost is that of plain SGD. ``update`` takes ``losses=[B]`` (any shape that the
    Jacobian has); those of the Jacobian by default, needed with a tree of per-example
    gradients.

    Args:
      temperature: lambda, a number other than 0 or a schedule of the step. Positive:
        hard examples count more (class imbalance); negative: they count less (label
        noise). Large magnitudes approach plain SGD. Where lambda changes gradually, u
        follows (lambda log u is kept); where it changes by more than a tenth, u starts
        again from the batch. A step at which a schedule is 0 is a plain one.
      gamma: step of the running mean u, in (0, 1]; with 1 the weights are ``B`` times
        a softmax over the batch. Below 1, an outlier of loss :math:`\ell` keeps all
        weights near 0 for about :math:`\ell / (-\lambda \log(1 - \gamma))` steps.
      alpha: scale of u, positive. In steady state the weights' mean is 1/alpha, so 0.5
        doubles the effective learning rate.
      bias_correction: start u without bias. False is the released code's start from
        u = 0, where the first step's weights have mean ``1 / (gamma * alpha)``.
      erm_weight: epsilon, not negative, added to every weight. The released code for
        noisy labels adds 1.
      start_step: first weighted step; earlier steps take the plain mean (two-stage
        training).

    Returns:
      A `Weighting`, to be used as the first transformation of a chain.

    Raises:
      ValueError: if ``temperature`` is 0.

    Examples:
      >>> tx = optax.chain(ltjax.absgd(temperature=0.5), optax.sgd(0.1))
      >>> params = jnp.zeros(2)
      >>> state = tx.init(params)
      >>> target = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> def losses_fn(w):
      ...     return jnp.sum((w - target) ** 2, axis=1)
      >>> losses, jac = ltjax.linearize(losses_fn, params)
      >>> updates, state = tx.update(jac, state, params, losses=losses)
      >>> print(updates)
      [0.    0.399]

    References:
      Qi et al., *Attentional-Biased Stochastic Gradient Descent*, TMLR 2023
      (arXiv:2012.06951), algorithm 1. The released code takes exponentials directly
      and fails once a loss overflows; this one keeps the logarithm of u, which agrees
      to rounding. ``bias_correction`` and schedules for lambda are additions. The
      released code keeps u where lambda changes, so that weights are of the wrong size
      until u is forgotten.
    """
    if not callable(temperature):
        _check_temperature(temperature)
    _check_scale(gamma, alpha)
    _validate.number("erm_weight", erm_weight, low=0)
    _validate.number("start_step", start_step, low=0)

    def init(params):
        dtype = state_dtype(params)
        return AbsgdState(
            step=jnp.zeros((), jnp.int32),
            log_u=jnp.full((), -jnp.inf, dtype),
            effective_size=jnp.zeros((), dtype),
            temperature=jnp.zeros((), dtype),
        )

    def weights(jac, state, params=None, *, losses=None, where=None, **extra_args):
        del params, extra_args
        losses = outputs_of(jac, "losses", losses)
        dtype = state.log_u.dtype
        value = temperature(state.step) if callable(temperature) else temperature
        value = jnp.asarray(value, dtype)
        defined = jnp.abs(value) >= _ZERO
        weighted = defined & (state.step >= start_step)
        value = jnp.where(defined, value, jnp.ones_like(value))
        count = jnp.maximum(state.step - start_step + 1, 1)
        log_u, jumped = _in_unit_of(value, state)
        if bias_correction:  # with steps before in which no loss counted
            jumped = jumped | (jnp.isneginf(log_u) & (count > 1))
        w, log_u = absgd_weights(
            losses,
            log_u,
            temperature=value,
            gamma=jnp.where(jumped, 1.0, gamma),
            alpha=alpha,
            step=count,
            bias_correction=bias_correction,
            where=where,
        )
        log_u = log_u.astype(dtype)
        if bias_correction:  # which later steps divide by
            some = jnp.any(masked(jnp.isfinite(losses), where))
            grown = _log_bias(gamma, count, dtype) - jnp.where(
                jumped | (count == 1), 0, _log_bias(gamma, count - 1, dtype)
            )
            log_u = log_u + jnp.where(jumped | ~some, grown, 0)
        w = jnp.where(weighted, w + jnp.asarray(erm_weight, w.dtype), jnp.ones_like(w))
        w = masked(w, where)
        return w, AbsgdState(
            step=state.step,
            log_u=jnp.where(weighted, log_u, state.log_u),
            effective_size=effective_size(w).astype(dtype),
            temperature=jnp.where(weighted, value, state.temperature),
        )

    return Weighting.from_weights(init, weights, count_step)


def _in_unit_of(temperature, state):
    """``log_u`` for another temperature, and whether that is too far for it.

    What is carried is lambda log u, a loss.
    """
    ratio = state.temperature / temperature
    started = state.log_u > -jnp.inf
    log_u = jnp.where(started, ratio * state.log_u, state.log_u)
    return log_u, started & (jnp.abs(ratio - 1) > _JUMP)


def _log_bias(gamma, step, dtype):
    """``log(1 - (1 - gamma)^step)``, where 1 - gamma may round to 1."""
    log_decay = jnp.log1p(-jnp.asarray(gamma, dtype))
    return jnp.log(-jnp.expm1(jnp.asarray(step, dtype) * log_decay))


def _check_temperature(temperature):
    _validate.number("temperature", temperature)
    if _validate.concrete(temperature) and abs(temperature) < _ZERO:
        raise ValueError(f"temperature must not be 0, got {temperature}.")


def _check_scale(gamma, alpha):
    _validate.number("gamma", gamma, low=0, high=1, open_low=True)
    _validate.number("alpha", alpha, low=0, open_low=True)
