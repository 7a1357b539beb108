"""Cross-entropy on logits shifted by the class frequencies."""

import jax
import jax.numpy as jnp

from ltjax import _classes, _numerics, _validate
from ltjax.losses import _target


def logit_adjusted_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    class_priors: jax.Array,
    tau: float | jax.Array = 1.0,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Softmax cross-entropy on logits raised by the log of the class priors.

    .. math:: \ell_i = -\log \mathrm{softmax}(z_i + \tau \log \pi)_{y_i}

    A rare class has to win by a margin, so the trained logits, used without the
    shift, favour it. Use :func:`ltjax.heads.adjust_logits` instead where the model
    was trained with plain cross-entropy, never both.

    Args:
      logits: ``[B, C]`` scores, any float dtype.
      labels: ``[B]`` integers in ``[0, C)``; out-of-range values are not detected.
        Or ``[B, C]`` probabilities (one-hot, smoothed, mixed): the loss is then its
        mean under them.
      class_priors: ``[C]`` positive training frequencies; their sum does not matter.
        A traced zero is taken for the smallest normal number.
      tau: strength, at least 0; 0 gives plain cross-entropy. May be traced.
      where: ``[B]`` booleans, false for padding: loss 0, whatever its logits and label.

    Returns:
      ``[B]`` losses in at least float32, not reduced.

    Examples:
      >>> z, y = jnp.array([[2.0, 0.0]]), jnp.array([1])
      >>> loss = ltjax.losses.logit_adjusted_cross_entropy(
      ...     z, y, class_priors=jnp.array([0.9, 0.1]))
      >>> f"{loss[0]:.3f}"
      '4.212'

    References:
      Menon et al., *Long-tail learning via logit adjustment*, ICLR 2021, equation 10.
    """
    z, labels = _target.prepare(logits, labels, where)
    _validate.class_vector("class_priors", class_priors, logits.shape[1], positive=True)
    _validate.number("tau", tau, low=0.0)
    shift = jnp.asarray(tau, z.dtype) * _classes.log_priors(class_priors, z.dtype)
    losses = _target.cross_entropy(z + shift[None, :], labels)
    return _numerics.masked(losses, where)


def balanced_softmax(
    logits: jax.Array,
    labels: jax.Array,
    *,
    class_counts: jax.Array,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Softmax cross-entropy with every class weighted by its training count.

    .. math:: \ell_i = -\log \frac{n_{y_i} e^{z_{i, y_i}}}{\sum_c n_c e^{z_{ic}}}

    This is :func:`logit_adjusted_cross_entropy` at strength 1, stated with counts.

    Args:
      logits: ``[B, C]`` scores, any float dtype.
      labels: ``[B]`` integers in ``[0, C)``; out-of-range values are not detected.
        Or ``[B, C]`` probabilities (one-hot, smoothed, mixed): the loss is then its
        mean under them.
      class_counts: ``[C]`` training counts, at least 0; an empty class counts as one
        example.
      where: ``[B]`` booleans, false for padding: loss 0, whatever its logits and label.

    Returns:
      ``[B]`` losses in at least float32, not reduced.

    Examples:
      >>> z, y = jnp.array([[2.0, 0.0]]), jnp.array([1])
      >>> loss = ltjax.losses.balanced_softmax(z, y, class_counts=jnp.array([90, 10]))
      >>> f"{loss[0]:.3f}"
      '4.212'

    References:
      Ren et al., *Balanced meta-softmax for long-tailed visual recognition*,
      NeurIPS 2020, section 3.
    """
    z, labels = _target.prepare(logits, labels, where)
    _validate.class_vector(
        "class_counts", class_counts, logits.shape[1], positive=False
    )
    shift = jnp.log(_classes.occupied_counts(class_counts, z.dtype))
    losses = _target.cross_entropy(z + shift[None, :], labels)
    return _numerics.masked(losses, where)
