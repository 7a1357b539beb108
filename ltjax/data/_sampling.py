"""Sampling: which examples an epoch shows, and in which order."""

import numpy as np
from numpy.typing import ArrayLike

from ltjax import _host, _validate
from ltjax.data._rounding import round_unbiased


def sampling_probabilities(class_counts: ArrayLike, *, power: float) -> np.ndarray:
    r"""Probability of drawing each class, by a power of its frequency.

    .. math:: p_c = \frac{n_c^q}{\sum_{c'} n_{c'}^q}

    q = 1 samples examples evenly, q = 0 classes; q = 1/2 is square-root sampling.

    Args:
      class_counts: ``[C]`` numbers, not negative.
      power: q, in [0, 1].

    Returns:
      ``[C]`` float64 that sum to 1; 0 for an empty class.

    Raises:
      ValueError: if all counts are 0.

    Examples:
      >>> sampling_probabilities([81, 1, 0], power=0.5)
      array([0.9, 0.1, 0. ])

    References:
      Kang et al., *Decoupling representation and classifier for long-tailed
      recognition*, ICLR 2020, equation 1.
    """
    counts = _host.counts(class_counts)
    _validate.number("power", power, low=0, high=1)
    if not counts.any():
        raise ValueError("class_counts must have a positive count, got only zeros.")
    weights = np.where(counts > 0, counts**power, 0.0)
    return weights / weights.sum()


def progressive_probabilities(
    class_counts: ArrayLike, *, progress: float
) -> np.ndarray:
    r"""Probability of drawing each class, from example-balanced to class-balanced.

    .. math:: p_c = (1 - t) \frac{n_c}{N} + t \frac{1}{|\{c' : n_{c'} > 0\}|}

    Args:
      class_counts: ``[C]`` numbers, not negative.
      progress: t in [0, 1], for example epoch over number of epochs.

    Returns:
      ``[C]`` float64 that sum to 1; 0 for an empty class.

    Raises:
      ValueError: if all counts are 0.

    Examples:
      >>> progressive_probabilities([9, 1], progress=0.5)
      array([0.7, 0.3])

    References:
      Kang et al., *Decoupling representation and classifier for long-tailed
      recognition*, ICLR 2020, equation 2.
    """
    _validate.number("progress", progress, low=0, high=1)
    by_example = sampling_probabilities(class_counts, power=1)
    balanced = sampling_probabilities(class_counts, power=0)
    return (1 - progress) * by_example + progress * balanced


def epoch_indices(
    labels: ArrayLike,
    class_probabilities: ArrayLike,
    rng: np.random.Generator,
    *,
    size: int | None = None,
) -> np.ndarray:
    r"""Examples of one epoch in order, with the given class probabilities.

    Class c is drawn :math:`\lfloor S p_c \rfloor` or :math:`\lceil S p_c \rceil` times
    among S (on average exactly :math:`S p_c`), at random positions. No example of a
    class is repeated before all others of the class have been shown. With probabilities
    proportional to the class counts this is a plain shuffle.

    An epoch depends only on the state of ``rng``: to resume at any epoch, make the
    generator from the run's seed and the epoch.

    Args:
      labels: ``[N]`` integers in ``[0, C)``.
      class_probabilities: ``[C]`` numbers that sum to 1, 0 for empty classes; see
        :func:`sampling_probabilities` and :func:`progressive_probabilities`.
      rng: source of the draws.
      size: length S of the epoch, N by default.

    Returns:
      ``[S]`` int64 indices into ``labels``.

    Raises:
      ValueError: if a class without examples has a positive probability.

    Examples:
      >>> labels = np.array([0, 0, 0, 0, 0, 0, 1, 1])
      >>> balanced = sampling_probabilities(np.bincount(labels), power=0)
      >>> seed, epoch = 0, 3
      >>> rng = np.random.default_rng([seed, epoch])
      >>> indices = epoch_indices(labels, balanced, rng)
      >>> np.bincount(labels[indices])
      array([4, 4])
    """
    _host.generator("rng", rng)
    p = _host.counts(class_probabilities, name="class_probabilities")
    y = _host.labels(labels, p.size)
    size = y.size if size is None else size
    _validate.integer("size", size, low=0)
    _check_probabilities(p, y)
    drawn = round_unbiased(size * p / p.sum(), rng)
    classes = rng.permutation(np.repeat(np.arange(p.size), drawn))
    indices = np.empty(size, np.int64)
    counts = np.bincount(y, minlength=p.size)
    members = np.split(np.argsort(y, kind="stable"), np.cumsum(counts)[:-1])
    places = np.split(np.argsort(classes, kind="stable"), np.cumsum(drawn)[:-1])
    for own, where in zip(members, places, strict=True):
        if where.size:
            rounds = -(-where.size // own.size)
            shuffled = [rng.permutation(own) for _ in range(rounds)]
            indices[where] = np.concatenate(shuffled)[: where.size]
    return indices


def _check_probabilities(p: np.ndarray, y: np.ndarray) -> None:
    """Checks the sum, and that every class to be drawn has examples."""
    if abs(p.sum() - 1) > 1e-4:
        raise ValueError(f"class_probabilities must sum to 1, got {p.sum():.8g}.")
    impossible = (p > 0) & (np.bincount(y, minlength=p.size) == 0)
    if impossible.any():
        c = int(np.argmax(impossible))
        raise ValueError(
            "class_probabilities must be 0 for classes without examples, got "
            f"{p[c]:g} for class {c}."
        )
