"""Losses for examples with any number of labels."""

import jax
import jax.numpy as jnp

from ltjax import _classes, _numerics, _validate
from ltjax.losses._reweighting import focal_term


def multilabel_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    class_priors: jax.Array | None = None,
    tau: float | jax.Array = 1.0,
    class_weights: jax.Array | None = None,
    gamma: float | jax.Array = 0.0,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Mean of one binary cross-entropy per class, with remedies for rare classes.

    .. math::
      \ell_i = \frac{1}{|K_i|} \sum_{c \in K_i} w_c \big[
          y_{ic} f(-s_{ic}) + (1 - y_{ic}) f(s_{ic}) \big], \qquad
      f(t) = \sigma(t)^\gamma \log(1 + e^t), \qquad
      s_{ic} = z_{ic} + \tau \log \frac{\pi_c}{1 - \pi_c}

    The sigmoid forms of the losses with one label:

    - logit adjustment: ``class_priors``; ``tau=1`` is that of balanced softmax. Use the
      logits without the shift at test time.
    - class-balanced: ``class_weights=class_balanced_weights(class_counts)``
    - focal: ``gamma=2``

    Args:
      logits: ``[B, C]`` scores, any float dtype.
      labels: ``[B, C]``, in [0, 1]: whether the example has the class. Integers,
        booleans or floats.
      class_priors: ``[C]``, the share of training examples that have the class, in
        (0, 1).
      tau: strength of the adjustment, at least 0. May be traced.
      class_weights: ``[C]``, at least 0; 1 by default.
      gamma: focusing strength, at least 0. May be traced.
      where: ``[B, C]`` booleans, the set :math:`K_i` of classes whose label is known;
        all by default. The logits and labels of others do not matter, and the loss of
        an example without any is 0.

    Returns:
      ``[B]`` losses in at least float32, not reduced.

    Raises:
      ValueError: if the shapes disagree, or a prior is not in (0, 1).

    Examples:
      >>> z, y = jnp.zeros((1, 2)), jnp.array([[1, 0]])
      >>> plain = ltjax.losses.multilabel_cross_entropy(z, y)
      >>> adjusted = ltjax.losses.multilabel_cross_entropy(
      ...     z, y, class_priors=jnp.array([0.1, 0.5]))
      >>> f"{plain[0]:.3f} {adjusted[0]:.3f}"
      '0.693 1.498'

    References:
      Menon et al., ICLR 2021; Ren et al., NeurIPS 2020; Cui et al., CVPR 2019, section
      4.2; Lin et al., ICCV 2017, equation 4. Menon et al. and Ren et al. have one label
      per example: the shift by the log odds is theirs for two classes.
    """
    _validate.array("logits", logits, ndim=2, kind="floating")
    _validate.array("labels", labels, shape=logits.shape)
    _validate.number("tau", tau, low=0.0)
    _validate.number("gamma", gamma, low=0.0)
    _validate.mask(where, logits.shape)
    z = _numerics.masked(_numerics.at_least_float32(logits), where)
    if class_priors is not None:
        odds = _log_odds(class_priors, z.shape[1], z.dtype)
        z = z + (jnp.asarray(tau, z.dtype) * odds)[None, :]
    y = _numerics.masked(jnp.asarray(labels).astype(z.dtype), where)
    terms = y * focal_term(-z, gamma) + (1 - y) * focal_term(z, gamma)
    if class_weights is not None:
        size = z.shape[1]
        _validate.class_vector("class_weights", class_weights, size, positive=False)
        terms = terms * jnp.asarray(class_weights, z.dtype)[None, :]
    known = jnp.ones(z.shape, jnp.bool_) if where is None else where
    total = jnp.sum(terms, axis=1, where=known)
    return total / jnp.maximum(jnp.sum(known, axis=1), 1).astype(z.dtype)


def _log_odds(class_priors, num_classes, dtype):
    """``log(pi / (1 - pi))``, finite for traced priors of 0 and 1."""
    _validate.class_vector("class_priors", class_priors, num_classes, positive=True)
    if _validate.concrete(class_priors) and (class_priors >= 1).any():
        raise ValueError(f"class_priors must be below 1, got {class_priors.max()}.")
    priors = _classes.positive_priors(class_priors, dtype)
    rest = jnp.maximum(1 - priors, jnp.finfo(dtype).eps)
    return jnp.log(priors) - jnp.log(rest)
