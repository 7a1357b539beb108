"""Losses weighted by class size (class-balanced) or by difficulty (focal)."""

import jax
import jax.numpy as jnp

from ltjax import _classes, _numerics, _validate
from ltjax.losses import _target


def class_balanced_weights(
    class_counts: jax.Array, *, beta: float | jax.Array = 0.9999
) -> jax.Array:
    r"""Class weights by the effective number of examples, with mean 1.

    .. math:: w_c \propto \frac{1 - \beta}{1 - \beta^{n_c}}, \qquad \sum_c w_c = C

    Args:
      class_counts: ``[C]`` training counts, at least 0; an empty class counts as one
        example.
      beta: in ``[0, 1)``: 0 gives equal weights, close to 1 weights like ``1 / n_c``.
        May be traced; ``1 - beta`` is then only as exact as the dtype of ``beta``.

    Returns:
      ``[C]`` weights in at least float32.

    Examples:
      >>> w = ltjax.losses.class_balanced_weights(jnp.array([90, 10]), beta=0.99)
      >>> f"{w[0]:.3f} {w[1]:.3f}"
      '0.277 1.723'

    References:
      Cui et al., *Class-balanced loss based on effective number of samples*,
      CVPR 2019, section 4. An empty class is not treated there.
    """
    _validate.array("class_counts", class_counts, ndim=1, kind="number")
    _validate.class_vector(
        "class_counts", class_counts, class_counts.shape[0], positive=False
    )
    _validate.number("beta", beta, low=0.0, high=1.0, open_high=True)
    dtype = jnp.result_type(float)
    n = _classes.occupied_counts(class_counts, dtype)
    # 1 - beta^n without cancellation; the numerator 1 - beta cancels in the mean.
    log_beta = jnp.log1p(-jnp.asarray(1.0 - beta, dtype))
    weights = -1.0 / jnp.expm1(n * log_beta)
    return weights / weights.mean()


def class_balanced_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    class_counts: jax.Array,
    beta: float | jax.Array = 0.9999,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Softmax cross-entropy times the class-balanced weight of the target.

    .. math:: \ell_i = -w_{y_i} \log \mathrm{softmax}(z_i)_{y_i}

    Args:
      logits: ``[B, C]`` scores, any float dtype.
      labels: ``[B]`` integers in ``[0, C)``; out-of-range values are not detected.
        Or ``[B, C]`` probabilities (one-hot, smoothed, mixed): the loss is then its
        mean under them.
      class_counts: ``[C]`` training counts, see :func:`class_balanced_weights`.
      beta: in ``[0, 1)``, see :func:`class_balanced_weights`.
      where: ``[B]`` booleans, false for padding: loss 0, whatever its logits and label.

    Returns:
      ``[B]`` losses in at least float32, not reduced. The released code takes their
      plain mean, not the mean weighted by ``w``.

    Examples:
      >>> z, y = jnp.zeros((2, 2)), jnp.array([0, 1])
      >>> loss = ltjax.losses.class_balanced_cross_entropy(
      ...     z, y, class_counts=jnp.array([90, 10]), beta=0.99)
      >>> f"{loss[0]:.3f} {loss[1]:.3f}"
      '0.192 1.194'

    References:
      Cui et al., CVPR 2019, section 4.1.
    """
    z, labels = _target.prepare(logits, labels, where)
    weights = _class_weights(z, class_counts, beta)
    losses = jax.nn.softplus(_target.deficit(z, labels))
    losses = _target.expect(_target.pick(weights, labels) * losses, labels)
    return _numerics.masked(losses, where)


def class_balanced_sigmoid(
    logits: jax.Array,
    labels: jax.Array,
    *,
    class_counts: jax.Array,
    beta: float | jax.Array = 0.9999,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""One binary cross-entropy per class, times the target's class-balanced weight.

    .. math:: \ell_i = \frac{w_{y_i}}{C} \sum_c \log(1 + e^{t_{ic}}), \qquad
      t_{ic} = -z_{ic} \text{ if } c = y_i \text{ else } z_{ic}

    Args:
      logits: ``[B, C]`` scores, any float dtype.
      labels: ``[B]`` integers in ``[0, C)``; out-of-range values are not detected.
        Or ``[B, C]`` probabilities (one-hot, smoothed, mixed): the loss is then its
        mean under them.
      class_counts: ``[C]`` training counts, see :func:`class_balanced_weights`.
      beta: in ``[0, 1)``, see :func:`class_balanced_weights`.
      where: ``[B]`` booleans, false for padding: loss 0, whatever its logits and label.

    Returns:
      ``[B]`` losses in at least float32, not reduced.

    Examples:
      >>> z, y = jnp.zeros((2, 2)), jnp.array([0, 1])
      >>> loss = ltjax.losses.class_balanced_sigmoid(
      ...     z, y, class_counts=jnp.array([90, 10]), beta=0.99)
      >>> f"{loss[0]:.3f} {loss[1]:.3f}"
      '0.192 1.194'

    References:
      Cui et al., CVPR 2019, section 4.2. The mean over classes follows the released
      code; the paper has their sum.
    """
    z, labels = _target.prepare(logits, labels, where)
    weights = _class_weights(z, class_counts, beta)
    losses = _binary_sum(jax.nn.softplus, z, labels, weights) / z.shape[1]
    return _numerics.masked(losses, where)


def class_balanced_focal(
    logits: jax.Array,
    labels: jax.Array,
    *,
    class_counts: jax.Array,
    beta: float | jax.Array = 0.9999,
    gamma: float | jax.Array = 2.0,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""One binary focal loss per class, times the target's class-balanced weight.

    .. math:: \ell_i = w_{y_i} \sum_c \sigma(t_{ic})^\gamma \log(1 + e^{t_{ic}}),
      \qquad t_{ic} = -z_{ic} \text{ if } c = y_i \text{ else } z_{ic}

    Args:
      logits: ``[B, C]`` scores, any float dtype.
      labels: ``[B]`` integers in ``[0, C)``; out-of-range values are not detected.
        Or ``[B, C]`` probabilities (one-hot, smoothed, mixed): the loss is then its
        mean under them.
      class_counts: ``[C]`` training counts, see :func:`class_balanced_weights`.
      beta: in ``[0, 1)``, see :func:`class_balanced_weights`.
      gamma: focusing strength, at least 0; 0 gives ``C`` times
        :func:`class_balanced_sigmoid`. May be traced.
      where: ``[B]`` booleans, false for padding: loss 0, whatever its logits and label.

    Returns:
      ``[B]`` losses in at least float32, not reduced.

    Examples:
      >>> z, y = jnp.zeros((2, 2)), jnp.array([0, 1])
      >>> loss = ltjax.losses.class_balanced_focal(
      ...     z, y, class_counts=jnp.array([90, 10]), beta=0.99)
      >>> f"{loss[0]:.3f} {loss[1]:.3f}"
      '0.096 0.597'

    References:
      Cui et al., CVPR 2019, section 4.3. The sum over classes is that of both the
      paper and the released code.
    """
    z, labels = _target.prepare(logits, labels, where)
    _validate.number("gamma", gamma, low=0.0)
    weights = _class_weights(z, class_counts, beta)
    losses = _binary_sum(lambda t: focal_term(t, gamma), z, labels, weights)
    return _numerics.masked(losses, where)


def focal(
    logits: jax.Array,
    labels: jax.Array,
    *,
    gamma: float | jax.Array = 2.0,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Softmax cross-entropy, scaled down for examples that are already fitted.

    .. math:: \ell_i = -(1 - p_{i, y_i})^\gamma \log p_{i, y_i}, \qquad
      p_i = \mathrm{softmax}(z_i)

    Args:
      logits: ``[B, C]`` scores, any float dtype.
      labels: ``[B]`` integers in ``[0, C)``; out-of-range values are not detected.
        Or ``[B, C]`` probabilities (one-hot, smoothed, mixed): the loss is then its
        mean under them.
      gamma: focusing strength, at least 0; 0 gives plain cross-entropy. May be traced.
      where: ``[B]`` booleans, false for padding: loss 0, whatever its logits and label.

    Returns:
      ``[B]`` losses in at least float32, not reduced.

    Examples:
      >>> z, y = jnp.array([[2.0, 0.0], [2.0, 0.0]]), jnp.array([0, 1])
      >>> loss = ltjax.losses.focal(z, y)
      >>> f"{loss[0]:.3f} {loss[1]:.3f}"
      '0.002 1.650'

    References:
      Lin et al., *Focal loss for dense object detection*, ICCV 2017, equation 4, with
      softmax probabilities in place of one sigmoid and without the class factor.
    """
    z, labels = _target.prepare(logits, labels, where)
    _validate.number("gamma", gamma, low=0.0)
    losses = _target.expect(focal_term(_target.deficit(z, labels), gamma), labels)
    return _numerics.masked(losses, where)


def target_weights(labels: jax.Array, class_weights: jax.Array) -> jax.Array:
    r"""Class weights for any loss: the weight of every example's target.

    .. math:: w_i = w_{y_i}, \qquad w_i = \sum_c q_{ic} w_c

    for labels that are integers or probabilities. Multiply the losses by them.

    Args:
      labels: ``[B]`` integers in ``[0, C)``; out-of-range values are not detected. Or
        ``[B, C]`` probabilities.
      class_weights: ``[C]`` weights, at least 0, such as those of
        :func:`class_balanced_weights`.

    Returns:
      ``[B]`` weights in at least float32.

    Examples:
      >>> counts = jnp.array([90, 10])
      >>> weights = ltjax.losses.target_weights(
      ...     jnp.array([0, 1]), ltjax.losses.class_balanced_weights(counts, beta=0.99))
      >>> f"{weights[0]:.3f} {weights[1]:.3f}"
      '0.277 1.723'
    """
    _validate.array("class_weights", class_weights, ndim=1, kind="number")
    size = class_weights.shape[0]
    _validate.class_vector("class_weights", class_weights, size, positive=False)
    if getattr(labels, "ndim", 1) == 2:
        _validate.array("labels", labels, shape=(None, size), kind="floating")
    else:
        _validate.array("labels", labels, ndim=1, kind="integer")
    weights = jnp.asarray(class_weights)
    if not jnp.issubdtype(weights.dtype, jnp.floating):
        weights = weights.astype(jnp.float32)
    weights = _numerics.at_least_float32(weights)
    return _target.expect(_target.pick(weights, labels), labels)


def focal_term(deficit: jax.Array, gamma: float | jax.Array) -> jax.Array:
    """``(1 - p)^gamma * -log p`` at ``p = sigmoid(-deficit)``, finite at both ends."""
    fade = jnp.exp(-jnp.asarray(gamma, deficit.dtype) * jax.nn.softplus(-deficit))
    return fade * jax.nn.softplus(deficit)


def _class_weights(z, class_counts, beta):
    """Class-balanced weights, ``[C]``."""
    _validate.class_vector("class_counts", class_counts, z.shape[1], positive=False)
    return class_balanced_weights(class_counts, beta=beta).astype(z.dtype)


def _binary_sum(term, z, labels, weights):
    """Sum over each class's yes-or-no question, times the weight of the target."""
    yes = _target.probabilities(labels, z.shape[1], z.dtype) * weights[None, :]
    no = jnp.sum(yes, axis=1, keepdims=True) - yes
    asked = jnp.where(yes == 0, jnp.zeros_like(z), z)  # others may be masked by -inf
    return jnp.sum(yes * term(-asked) + no * term(z), axis=1)
