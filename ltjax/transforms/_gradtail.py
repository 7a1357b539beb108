"""GradTail: weights from the agreement of each gradient with the prevailing one."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ltjax import _validate
from ltjax._numerics import at_least_float32, safe_divide
from ltjax.jacobian._operator import DEFINITIONS
from ltjax.jacobian._trees import resolve_mask, select
from ltjax.transforms._weighting import (
    Weighting,
    count_step,
    effective_size,
    state_dtype,
)

_VANISHING = 1e-6  # norms below this share of the batch's mean have no direction
_GATE_MAX = 3.0


def _bump(s, *, center, width, slope):
    return jnp.exp(-jnp.square(s - center) / (2 * width**2))


def _tent(s, *, center, width, slope):
    return jnp.maximum(1 - jnp.abs(s - center) / width, 0)


def _sigmoid(s, *, center, width, slope):
    return jax.nn.sigmoid(-slope * (s - center))


def _linear(s, *, center, width, slope):
    return jnp.maximum(1 - slope * (s - center), 0)


_SHAPES = {
    "gated": _sigmoid,
    "bump": _bump,
    "tent": _tent,
    "sigmoid": _sigmoid,
    "linear": _linear,
}
ACTIVATIONS = tuple(_SHAPES)
SIMILARITIES = ("cosine", "dot", "dot_unit_mean")


class GradTailState(NamedTuple):
    """State of `gradtail`."""

    step: jax.Array  # shape=(), int32; steps taken
    mean_grad: Any  # tree like params; running mean gradient, biased towards 0
    similarity_mean: jax.Array  # shape=(), float; running mean, biased towards 0
    similarity_square: jax.Array  # shape=(), float; that of the square
    effective_size: jax.Array  # shape=(), float; of the last batch's weights


def gradtail_weights(
    similarity: jax.Array,
    *,
    norms: jax.Array | None = None,
    activation: str | Callable[[jax.Array], jax.Array] = "gated",
    strength: float | jax.Array = 5.0,
    slope: float | jax.Array = 4.0,
    center: float | jax.Array = 0.0,
    width: float | jax.Array = 0.25,
    max_weight: float | jax.Array = 10.0,
) -> jax.Array:
    r"""Weights from similarities of gradients with the prevailing gradient.

    With s the similarity, c ``center``, r ``width``, k ``slope``, a ``strength`` and
    :math:`\rho_i = \min(|g_i| / \mathrm{mean}|g|, 3)`, the raw weight is

    ============  =====================================================
    ``gated``     :math:`1 + a\, \sigma(-k (s - c))\, \rho`
    ``bump``      :math:`\exp(-(s - c)^2 / 2 r^2)`
    ``tent``      :math:`\max(0, 1 - |s - c| / r)`
    ``sigmoid``   :math:`\sigma(-k (s - c))`
    ``linear``    :math:`\max(0, 1 - k (s - c))`
    ============  =====================================================

    ``bump`` and ``tent`` peak at gradients orthogonal to the prevailing one (aligned:
    common, orthogonal: rare, opposed: noisy); the others rise with disagreement.
    ``gated`` leaves alone what is fitted already: a vanishing gradient's direction
    means nothing. The raw weights are divided by their mean, then clipped.

    Args:
      similarity: cosines, dot products or z-scores, of any shape.
      norms: norms of the gradients, same shape; needed by ``gated``. Where they vanish
        (below a millionth of their mean) the weight is 1.
      activation: a name of the table, or a function of the similarity that returns
        raw weights, not negative.
      strength: a, not negative; 0 gives plain SGD with ``gated``.
      slope: k, positive.
      center: c.
      width: r, positive.
      max_weight: upper bound of the weights, at least 1.

    Returns:
      Weights of the shape of ``similarity``, in at least float32, with mean 1 up to
      clipping. All 1 where every raw weight is 0.

    Raises:
      ValueError: if ``activation`` is unknown, needs ``norms`` that are not there, or a
        number is outside its range.

    Examples:
      >>> s = jnp.array([0.9, 0.0, -0.9])
      >>> w = ltjax.gradtail_weights(s, activation="sigmoid", slope=2.0)
      >>> print(w)
      [0.284 1.    1.716]

    References:
      Chen et al., *GradTail: Learning Long-Tailed Data Using Gradient-based Sample
      Weighting*, 2022 (arXiv:2201.05938), publishes the idea but neither activation
      nor constants: all of these are this library's design.
    """
    _validate.array("similarity", similarity, kind="floating")
    if not callable(activation):
        _validate.choice("activation", activation, ACTIVATIONS)
    if activation == "gated" and norms is None:
        raise ValueError("norms must be given for activation='gated', got None.")
    if norms is not None:
        _validate.array("norms", norms, shape=similarity.shape, kind="floating")
    _check_shape(strength, slope, center, width, max_weight)

    s = at_least_float32(similarity)
    gate = jnp.ones_like(s) if norms is None else _relative(norms.astype(s.dtype))
    strength, slope, center, width, max_weight = (
        jnp.asarray(x, s.dtype) for x in (strength, slope, center, width, max_weight)
    )
    if callable(activation):
        raw = activation(s)
    else:
        raw = _SHAPES[activation](s, center=center, width=width, slope=slope)
    if activation == "gated":
        raw = 1 + strength * raw * jnp.minimum(gate, _GATE_MAX)
    mean = jnp.mean(raw)
    weights = jnp.where(
        mean > 0, safe_divide(raw, jnp.full_like(raw, mean)), jnp.ones_like(raw)
    )
    weights = jnp.clip(weights, 0, max_weight)
    return jax.lax.stop_gradient(
        jnp.where(gate > _VANISHING, weights, jnp.ones_like(weights))
    )


def gradtail(
    *,
    activation: str | Callable[[jax.Array], jax.Array] = "gated",
    similarity: str = "cosine",
    decay: float | jax.Array = 0.99,
    burn_in: int | jax.Array = 20,
    mask: Any = None,
    z_score: bool = False,
    reference: str = "unweighted",
    definition: str | None = None,
    strength: float | jax.Array = 5.0,
    slope: float | jax.Array = 4.0,
    center: float | jax.Array = 0.0,
    width: float | jax.Array = 0.25,
    max_weight: float | jax.Array = 10.0,
) -> Weighting:
    r"""Weights every example by how far its gradient leaves the prevailing one.

    With G the running mean of the gradients of earlier steps, each example's
    similarity s is

    .. math::

        \frac{\langle g_i, G \rangle}{|g_i|\,|G|} \ (\texttt{cosine}), \qquad
        \langle g_i, G \rangle \ (\texttt{dot}), \qquad
        \frac{\langle g_i, G \rangle}{|G|} \ (\texttt{dot\_unit\_mean})

    and its weight `gradtail_weights` of s. No class labels are needed, so it serves
    classification, regression and dense prediction (losses ``[B, H, W]``) alike.
    ``update`` needs nothing but the Jacobian.

    Cosines and ``gated`` need the norm of every row. ``dot`` and ``dot_unit_mean``
    with another activation cost one forward-mode pass instead; take these for dense
    prediction, where there are too many rows for norms.

    Args:
      activation: see `gradtail_weights`.
      similarity: ``"cosine"``, ``"dot"`` or ``"dot_unit_mean"``.
      decay: of the running means, in [0, 1).
      burn_in: first steps, in which all weights are 1 while G forms.
      mask: tree of booleans like the parameters (or a prefix, or a function of them):
        those that define similarity, all by default. The update is always on all.
        The last layer alone makes similarity nearly free.
      z_score: standardise s by its running mean and standard deviation; in high
        dimension cosines concentrate, and of a model with one output the cosines
        in the last layer tell little but the sign of the error.
      reference: ``"unweighted"`` makes G of the plain mean gradients, at one more
        backward pass; ``"weighted"`` of the weighted ones, which are there anyway, but
        move with the weights that they decide on. The first did better where both
        were tried (docs/gradtail.md).
      definition: what an example's gradient is where examples are coupled by batch
        normalisation: ``"row"``, ``"frozen"`` or ``"attribution"``, see
        `ltjax.Jacobian`. There it is needed for anything that takes norms.
      strength, slope, center, width, max_weight: see `gradtail_weights`.

    Returns:
      A `Weighting`, to be used as the first transformation of a chain.

    Raises:
      ValueError: if a name is unknown or a number outside its range; in ``update``, if
        examples are coupled and ``definition`` is needed.

    Examples:
      >>> tx = optax.chain(ltjax.gradtail(burn_in=1), optax.sgd(0.1))
      >>> params = jnp.zeros(2)
      >>> state = tx.init(params)
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
      >>> for _ in range(2):
      ...     losses, jac = ltjax.linearize(lambda w: (x @ w - 1.0) ** 2, params)
      ...     updates, state = tx.update(jac, state, params)
      >>> print(updates)
      [0.116 0.089]

    References:
      Chen et al., *GradTail*, 2022 (arXiv:2201.05938): the agreement with the
      prevailing gradient, early in training, with weights that change as examples are
      learned. No code was released; activations, constants, the choice of
      parameters and ``reference`` are this library's design.
    """
    if not callable(activation):
        _validate.choice("activation", activation, ACTIVATIONS)
    _validate.choice("similarity", similarity, SIMILARITIES)
    _validate.choice("reference", reference, ("weighted", "unweighted"))
    if definition is not None:
        _validate.choice("definition", definition, DEFINITIONS)
    _validate.number("decay", decay, low=0, high=1, open_high=True)
    _validate.number("burn_in", burn_in, low=0)
    _check_shape(strength, slope, center, width, max_weight)
    needs_norms = similarity == "cosine" or activation == "gated"

    def init(params):
        dtype = state_dtype(params)

        def zeros(p):
            return jnp.zeros(jnp.shape(p), at_least_float32(jnp.asarray(p)).dtype)

        return GradTailState(
            step=jnp.zeros((), jnp.int32),
            mean_grad=jax.tree.map(zeros, select(params, mask)),
            similarity_mean=jnp.zeros((), dtype),
            similarity_square=jnp.zeros((), dtype),
            effective_size=jnp.zeros((), dtype),
        )

    def weights(jac, state, params=None, **extra_args):
        del params, extra_args
        dtype = state.similarity_mean.dtype
        keep = None if mask is None else resolve_mask(mask, jac.params)
        norms = None
        if needs_norms:
            norms = jac.norms(mask=keep, definition=definition).astype(dtype)
        dots = functools.partial(jac.jvp, definition=definition)
        s = _similarity(similarity, dots, state, decay, norms)
        state = _update_statistics(state, s, decay)
        if z_score:
            s = _standardise(s, state, decay)
        w = gradtail_weights(
            s,
            norms=norms,
            activation=activation,
            strength=strength,
            slope=slope,
            center=center,
            width=width,
            max_weight=max_weight,
        )
        w = jnp.where(state.step >= burn_in, w, jnp.ones_like(w))
        state = state._replace(effective_size=effective_size(w).astype(dtype))
        if reference == "unweighted":
            ones = jnp.full(jac.shape, 1 / w.size, w.dtype)
            state = _update_mean(state, select(jac.vjp(ones), mask), decay)
        return w, state

    def observe(state, updates):
        if reference == "weighted":
            state = _update_mean(state, select(updates, mask), decay)
        return count_step(state, updates)

    return Weighting.from_weights(init, weights, observe)


def _similarity(kind, dots, state, decay, norms):
    """Similarity of every row with the bias-corrected mean gradient."""
    dtype = state.similarity_mean.dtype
    if kind == "dot":
        size = _bias(decay, state.step, dtype)
    else:
        size = optax.tree.norm(state.mean_grad).astype(dtype)  # cancels the bias
    # Scaling before the product keeps tiny gradients from underflowing.
    scale = safe_divide(jnp.ones_like(size), size)
    direction = jax.tree.map(lambda g: scale.astype(g.dtype) * g, state.mean_grad)
    s = dots(direction).astype(dtype)
    return safe_divide(s, norms) if kind == "cosine" else s


def _update_mean(state, gradient, decay):
    def step(mean, g):
        d = jnp.asarray(decay, mean.dtype)
        return d * mean + (1 - d) * g.astype(mean.dtype)

    return state._replace(mean_grad=jax.tree.map(step, state.mean_grad, gradient))


def _update_statistics(state, s, decay):
    """Running moments of the similarity, from the second step on (G is 0 before)."""
    d = jnp.where(state.step > 0, jnp.asarray(decay, s.dtype), jnp.ones((), s.dtype))
    # One exploding gradient must not make the moments infinite for good.
    largest = float(jnp.finfo(s.dtype).max) ** 0.5 / (1 + s.size)
    s = jnp.clip(s, -largest, largest)
    return state._replace(
        similarity_mean=d * state.similarity_mean + (1 - d) * jnp.mean(s),
        similarity_square=d * state.similarity_square + (1 - d) * jnp.mean(s**2),
    )


def _standardise(s, state, decay):
    correction = _bias(decay, state.step, s.dtype)
    mean = safe_divide(state.similarity_mean, correction)
    square = safe_divide(state.similarity_square, correction)
    variance = jnp.maximum(square - mean**2, 0)
    return safe_divide(s - mean, jnp.full_like(s, jnp.sqrt(variance)))


def _bias(decay, steps, dtype):
    """``1 - decay^steps``: 0 before the first step."""
    return 1 - jnp.asarray(decay, dtype) ** steps.astype(dtype)


def _relative(norms):
    return safe_divide(norms, jnp.full_like(norms, jnp.mean(norms)))


def _check_shape(strength, slope, center, width, max_weight):
    _validate.number("strength", strength, low=0)
    _validate.number("slope", slope, low=0, open_low=True)
    _validate.number("center", center)
    _validate.number("width", width, low=0, open_low=True)
    _validate.number("max_weight", max_weight, low=1)
