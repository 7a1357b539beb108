"""Adjustment of a trained classifier to the frequencies of its classes."""

import jax
import jax.numpy as jnp

from ltjax import _classes, _numerics, _validate

_MODES = ("additive", "multiplicative")


def adjust_logits(
    logits: jax.Array,
    class_priors: jax.Array,
    *,
    tau: float | jax.Array,
    mode: str = "additive",
    target_priors: jax.Array | None = None,
) -> jax.Array:
    r"""Moves the logits of a trained model from training to target class priors.

    - ``"additive"``: :math:`z_c - \tau \log(\pi_c / \pi^*_c)`
    - ``"multiplicative"``: :math:`z_c \, (\pi_c / \pi^*_c)^{-\tau}`

    The additive form is Bayes' rule for calibrated logits at ``tau=1``. The
    multiplicative one rescales every class's output as a change of its weights and
    bias would; it is meant for heads whose correct logits are positive, since it also
    pushes negative logits of rare classes further down. Choose ``tau`` on validation
    data, see :func:`search_tau`.

    Args:
      logits: ``[B, C]`` scores, bias included, any float dtype.
      class_priors: ``[C]`` positive training frequencies. Their sum shifts or scales
        all logits alike. A traced zero is taken for the smallest normal number, and
        multiplicative factors stop short of overflow.
      tau: strength, at least 0; 0 leaves the logits. May be traced.
      mode: ``"additive"`` or ``"multiplicative"``.
      target_priors: ``[C]`` frequencies, at least 0, where the model will be used. By
        default all 1, which ranks classes as equal priors do.

    Returns:
      ``[B, C]`` adjusted logits in at least float32.

    Examples:
      >>> z, pi = jnp.array([[2.0, 1.0]]), jnp.array([0.9, 0.1])
      >>> adjusted = ltjax.heads.adjust_logits(z, pi, tau=1.0)
      >>> f"{adjusted[0, 0]:.3f} {adjusted[0, 1]:.3f}"
      '2.105 3.303'

    References:
      Additive: Menon et al., *Long-tail learning via logit adjustment*, ICLR 2021,
      equation 9. Multiplicative: Kim and Kim, *Adjusting decision boundary for class
      imbalanced learning*, IEEE Access 2020, as used by Hasegawa and Sato, ICLR 2024
      (arXiv 2305.16573). Target priors in the multiplicative form are ours.
    """
    _validate.array("logits", logits, ndim=2, kind="floating")
    num_classes = logits.shape[1]
    _validate.class_vector("class_priors", class_priors, num_classes, positive=True)
    _validate.number("tau", tau, low=0.0)
    _validate.choice("mode", mode, _MODES)
    z = _numerics.at_least_float32(logits)
    shift = _classes.log_priors(class_priors, z.dtype)
    if target_priors is not None:
        _validate.class_vector(
            "target_priors", target_priors, num_classes, positive=False
        )
        shift = shift - _classes.log_priors(target_priors, z.dtype)
    shift = jnp.asarray(tau, z.dtype) * shift
    if mode == "additive":
        return z - shift[None, :]
    largest = 0.5 * jnp.log(jnp.finfo(z.dtype).max)
    return z * jnp.exp(jnp.minimum(-shift, largest.astype(z.dtype)))[None, :]


def search_tau(
    logits: jax.Array,
    labels: jax.Array,
    class_priors: jax.Array,
    taus: jax.Array,
    *,
    mode: str = "additive",
) -> tuple[jax.Array, jax.Array]:
    """Balanced accuracy at every strength of :func:`adjust_logits`, and the best one.

    Search on validation data, never on the data that the result is reported on.

    Args:
      logits: ``[B, C]`` scores of held-out examples, any float dtype.
      labels: ``[B]`` integers in ``[0, C)``.
      class_priors: ``[C]`` positive training frequencies.
      taus: ``[T]`` strengths to try, at least 0.
      mode: ``"additive"`` or ``"multiplicative"``.

    Returns:
      The best strength, the first of equals, and ``[T]`` balanced accuracies: mean
      recall over the classes that occur in ``labels``.

    Raises:
      ValueError: if ``taus`` is empty.

    Examples:
      >>> z, y = jnp.array([[3.0, 0.0], [1.0, 0.0]]), jnp.array([0, 1])
      >>> best, accuracy = ltjax.heads.search_tau(
      ...     z, y, jnp.array([0.9, 0.1]), jnp.array([0.0, 1.0, 2.0]))
      >>> print(best, accuracy)
      1.0 [0.5 1.  0.5]
    """
    _validate.classification(logits, labels)
    _validate.array("taus", taus, ndim=1, kind="floating")
    if taus.shape[0] == 0:
        raise ValueError("taus must hold at least one strength, got shape (0,).")
    if _validate.concrete(taus):
        for i, tau in enumerate(taus):
            _validate.number(f"taus[{i}]", tau, low=0.0)
    members = jax.nn.one_hot(labels, logits.shape[1], dtype=jnp.float32)
    counts = members.sum(axis=0)

    def balanced_accuracy(tau):
        z = adjust_logits(logits, class_priors, tau=tau, mode=mode)
        hits = (z.argmax(axis=1) == labels).astype(members.dtype)
        recalls = (members * hits[:, None]).sum(axis=0) / jnp.maximum(counts, 1)
        return recalls.mean(where=counts > 0)

    accuracies = jax.lax.map(balanced_accuracy, jnp.asarray(taus))
    return jnp.asarray(taus)[accuracies.argmax()], accuracies


def tau_normalize(
    kernel: jax.Array, *, tau: float | jax.Array = 1.0, class_axis: int = -1
) -> jax.Array:
    r"""Rescales the classifier's weight vectors towards equal lengths.

    .. math:: \tilde w_c = w_c / \|w_c\|^\tau

    Args:
      kernel: ``[E, C]`` as in Flax, or ``[C, E]`` with ``class_axis=0``. A class of
        zero weights stays zero.
      tau: strength; 0 leaves the kernel, 1 gives unit vectors. May be traced.
      class_axis: the axis along which classes are numbered.

    Returns:
      The normalised kernel, in the shape and dtype of ``kernel``.

    Examples:
      >>> kernel = jnp.array([[3.0, 0.0], [4.0, 2.0]])
      >>> print(ltjax.heads.tau_normalize(kernel).round(3))
      [[0.6 0. ]
       [0.8 1. ]]

    References:
      Kang et al., *Decoupling representation and classifier for long-tailed
      recognition*, ICLR 2020.
    """
    _validate.array("kernel", kernel, ndim=2, kind="floating")
    _validate.number("tau", tau, low=0.0)
    _validate.integer("class_axis", class_axis)
    if class_axis not in (-2, -1, 0, 1):
        raise ValueError(f"class_axis must be -2, -1, 0 or 1, got {class_axis!r}.")
    w = _numerics.at_least_float32(kernel)
    length = _numerics.safe_norm(w, axis=(class_axis + 1) % 2, keepdims=True)
    length = jnp.where(length > 0, length, jnp.ones_like(length))
    return (w / length ** jnp.asarray(tau, w.dtype)).astype(kernel.dtype)
