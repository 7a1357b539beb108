"""GradTail's weights: from the similarity of each gradient with the prevailing one."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ltjax import _validate
from ltjax._numerics import at_least_float32, masked, safe_divide

_GATE_MAX = 3.0
_VANISHING = 1e-6  # gradients below this share of the batch's mean have no direction


@dataclasses.dataclass(frozen=True, kw_only=True)
class gated:
    r"""Weights that rise with disagreement, for gradients that are not small.

    .. math:: 1 + a\, \sigma(-k (s - c))\, \min(|g| / \mathrm{mean}|g|, 3)

    A fitted example, whose small gradient points anywhere, is left alone.

    Args:
      strength: a, not negative; 0 gives plain SGD.
      slope: k, positive.
      center: c, the similarity of middling weight.

    Examples:
      >>> s, norms = jnp.array([1.0, -1.0, -1.0]), jnp.array([1.0, 1.0, 0.1])
      >>> print(ltjax.gradtail_weights(
      ...     s, norms=norms, activation=ltjax.transforms.gated(strength=2.0)))
      [0.514 1.86  0.626]
    """

    strength: float | jax.Array = 5.0
    slope: float | jax.Array = 4.0
    center: float | jax.Array = 0.0
    uses_norms: ClassVar[bool] = True

    def __post_init__(self):
        _validate.number("strength", self.strength, low=0)
        _validate.number("slope", self.slope, low=0, open_low=True)
        _validate.number("center", self.center)

    def __call__(self, similarity: jax.Array, relative_norms: jax.Array) -> jax.Array:
        a, k, c = _as(similarity.dtype, self.strength, self.slope, self.center)
        gate = jnp.minimum(relative_norms, _GATE_MAX)
        return 1 + a * jax.nn.sigmoid(-k * (similarity - c)) * gate


@dataclasses.dataclass(frozen=True, kw_only=True)
class bump:
    r"""Weights that peak at gradients orthogonal to the prevailing one.

    .. math:: \exp(-(s - c)^2 / 2 r^2)

    Aligned gradients are taken for common, orthogonal ones for rare and opposed ones
    for wrong labels.

    Args:
      width: r, positive.
      center: c, the similarity of the largest weight.

    Examples:
      >>> s = jnp.array([0.9, 0.1, -0.9])
      >>> activation = ltjax.transforms.bump(width=0.5)
      >>> print(ltjax.gradtail_weights(s, activation=activation))
      [0.431 2.137 0.431]
    """

    width: float | jax.Array = 0.25
    center: float | jax.Array = 0.0

    def __post_init__(self):
        _validate.number("width", self.width, low=0, open_low=True)
        _validate.number("center", self.center)

    def __call__(self, similarity: jax.Array) -> jax.Array:
        r, c = _as(similarity.dtype, self.width, self.center)
        return jnp.exp(-jnp.square((similarity - c) / r) / 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class aligned:
    r"""Weights that rise with agreement, for ``reference="clean"`` of `gradtail`.

    .. math:: 1 + a \max(s, 0)

    Agreement with the gradient of a clean, balanced set is high for rare examples and
    low for wrong labels. Agreement with the mean gradient is highest for common ones.

    Args:
      strength: a, not negative; 0 gives plain SGD.

    Examples:
      >>> s = jnp.array([0.5, 0.0, -0.5])
      >>> activation = ltjax.transforms.aligned(strength=2.0)
      >>> print(ltjax.gradtail_weights(s, norms=jnp.ones(3), activation=activation))
      [1.5  0.75 0.75]
    """

    strength: float | jax.Array = 20.0

    def __post_init__(self):
        _validate.number("strength", self.strength, low=0)

    def __call__(self, similarity: jax.Array) -> jax.Array:
        (a,) = _as(similarity.dtype, self.strength)
        return 1 + a * jnp.maximum(similarity, 0)


Activation = str | Callable[..., jax.Array]
_NAMED: dict[str, Callable[..., jax.Array]] = {
    "gated": gated(),
    "bump": bump(),
    "aligned": aligned(),
}


def gradtail_weights(
    similarity: jax.Array,
    *,
    norms: jax.Array | None = None,
    activation: Activation = "gated",
    max_weight: float | jax.Array = 10.0,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Weights from similarities of gradients with the prevailing gradient.

    .. math:: w_i = \min(a(s_i) / \mathrm{mean}_j\, a(s_j),\ w_{\max})

    where the mean is over the examples whose gradient has not vanished. A vanished
    gradient's direction means nothing; its example gets weight 1 and has no part in
    the weights of others. So does an example whose similarity or norm is not finite.

    Args:
      similarity: cosines, dot products or z-scores, of any shape.
      norms: norms of the gradients, same shape; needed by ``gated``. A gradient has
        vanished if its norm is below a millionth of the mean norm (4 units of
        rounding of the similarity's dtype, where that is more). Without norms the
        magnitudes of the similarity are judged in the same way.
      activation: ``"gated"``, ``"bump"`` or ``"aligned"``, one of `transforms.gated`,
        `transforms.bump` and `transforms.aligned` with other constants, or any function
        from similarities to weights that are not negative. If it has an attribute
        ``uses_norms = True``, the second argument is each norm over the mean norm.
      max_weight: upper bound of the weights, at least 1.
      where: booleans of the same shape, false for padding: weight 0, no part in means.

    Returns:
      Weights of the shape of ``similarity``, in at least float32. Over the examples
      whose gradient has not vanished their mean is 1, up to clipping; if ``activation``
      is 0 for all of these, all weights are 1.

    Raises:
      ValueError: if ``activation`` needs ``norms`` that are not given.

    Examples:
      >>> s, norms = jnp.array([0.9, -0.9, 0.5]), jnp.array([1.0, 1.0, 0.0])
      >>> print(ltjax.gradtail_weights(s, norms=norms))
      [0.253 1.747 1.   ]

    References:
      Chen et al., *GradTail: Learning Long-Tailed Data Using Gradient-based Sample
      Weighting*, 2022 (arXiv:2201.05938). No code was released; we designed the
      activations and chose their constants.
    """
    _validate.array("similarity", similarity, kind="floating")
    activation = resolve_activation(activation)
    if norms is not None:
        _validate.array("norms", norms, shape=similarity.shape, kind="floating")
    elif uses_norms(activation):
        raise ValueError(f"norms must be given for activation={activation}, got None.")
    _validate.number("max_weight", max_weight, low=1)
    s = at_least_float32(similarity)
    sizes = jnp.abs(s) if norms is None else norms.astype(s.dtype)
    share = vanishing_share(similarity.dtype)
    _validate.mask(where, similarity.shape)
    return masked(weigh(s, sizes, share, activation, max_weight, where), where)


def weigh(
    s: jax.Array,
    sizes: jax.Array,
    share: float,
    activation: Callable[..., jax.Array],
    max_weight: float | jax.Array,
    where: jax.Array | None,
) -> jax.Array:
    """`gradtail_weights` of examples that have vanished by ``share`` of their size.

    Padding gets weight 1 here, as what has no part in the weights of others does.
    """
    finite = masked(jnp.isfinite(s) & jnp.isfinite(sizes), where)
    relative = _over_mean(sizes, finite)
    counted = finite & (relative > share)
    s = jnp.where(counted, s, jnp.zeros_like(s))
    raw = activation(s, relative) if uses_norms(activation) else activation(s)
    counted = counted & jnp.isfinite(raw)
    weights = _over_mean(raw, counted)
    neutral = ~counted | ~jnp.any(weights > 0)
    weights = jnp.clip(weights, 0, jnp.asarray(max_weight, s.dtype))
    weights = jnp.where(neutral, jnp.ones_like(weights), weights)
    return jax.lax.stop_gradient(weights)


def resolve_activation(activation: Any) -> Callable[..., jax.Array]:
    """The function that a name stands for, or the function itself."""
    if callable(activation):
        return activation
    if not isinstance(activation, str):
        raise TypeError(
            "activation must be a name or a function of the similarity, "
            f"got {activation!r}; with optax.inject_hyperparams, which calls every "
            "function, name static_args=('activation', 'mask')."
        )
    _validate.choice("activation", activation, _NAMED)
    return _NAMED[activation]


def uses_norms(activation: Callable[..., jax.Array]) -> bool:
    """Whether an activation is also a function of the relative norms."""
    return getattr(activation, "uses_norms", False)


def vanishing_share(dtype: Any) -> float:
    """Share of the mean size below which a gradient has vanished."""
    return max(_VANISHING, 4 * float(jnp.finfo(dtype).eps))


def _over_mean(x: jax.Array, where: jax.Array) -> jax.Array:
    """``x`` over its mean ``where`` true, 0 elsewhere; ``x`` is not negative."""
    x = jnp.where(where, x, jnp.zeros_like(x))
    x = safe_divide(x, jnp.full_like(x, jnp.max(x)))  # or the sum might overflow
    mean = jnp.sum(x) / jnp.maximum(jnp.sum(where), 1).astype(x.dtype)
    return safe_divide(x, jnp.full_like(x, mean))


def _as(dtype: Any, *numbers: Any) -> list[jax.Array]:
    return [jnp.asarray(x, dtype) for x in numbers]
