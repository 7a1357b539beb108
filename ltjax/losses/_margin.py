"""Label-distribution-aware margins."""

import jax
import jax.numpy as jnp

from ltjax import _classes, _numerics, _validate
from ltjax.losses import _target


def ldam(
    logits: jax.Array,
    labels: jax.Array,
    *,
    class_counts: jax.Array,
    max_margin: float | jax.Array = 0.5,
    scale: float | jax.Array = 30.0,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Cross-entropy with larger margins for rarer classes (LDAM).

    .. math::
      \ell_i = -\log \mathrm{softmax}(s (z_i - m_{y_i} e_{y_i}))_{y_i}, \qquad
      m_c = m_{\max} \Big(\frac{\min_k n_k}{n_c}\Big)^{1/4}

    The defaults suit cosine logits, as from a normalised classifier; for plain
    logits use ``scale=1``.

    Args:
      logits: ``[B, C]`` scores, any float dtype.
      labels: ``[B]`` integers in ``[0, C)``; out-of-range values are not detected.
        Or ``[B, C]`` probabilities (one-hot, smoothed, mixed): the loss is then its
        mean under them.
      class_counts: ``[C]`` training counts, at least 0; an empty class counts as one
        example.
      max_margin: margin of the rarest class, at least 0. May be traced.
      scale: factor on the logits after the margin, positive. May be traced.
      where: ``[B]`` booleans, false for padding: loss 0, whatever its logits and label.

    Returns:
      ``[B]`` losses in at least float32, not reduced.

    Examples:
      >>> z, y = jnp.array([[0.2, 0.7]]), jnp.array([1])
      >>> loss = ltjax.losses.ldam(z, y, class_counts=jnp.array([160, 10]), scale=1.0)
      >>> f"{loss[0]:.3f}"
      '0.693'

    References:
      Cao et al., *Learning imbalanced datasets with label-distribution-aware margin
      loss*, NeurIPS 2019, section 3. The scale is in the authors' code only.
    """
    z, labels = _target.prepare(logits, labels, where)
    num_classes = logits.shape[1]
    _validate.class_vector("class_counts", class_counts, num_classes, positive=False)
    _validate.number("max_margin", max_margin, low=0.0)
    _validate.number("scale", scale, low=0.0, open_low=True)
    n = _classes.occupied_counts(class_counts, z.dtype)
    margins = jnp.asarray(max_margin, z.dtype) * (n.min() / n) ** 0.25
    scale = jnp.asarray(scale, z.dtype)
    deficit = _target.deficit(scale * z, labels)
    deficit = deficit + scale * _target.pick(margins, labels)
    losses = _target.expect(jax.nn.softplus(deficit), labels)
    return _numerics.masked(losses, where)
