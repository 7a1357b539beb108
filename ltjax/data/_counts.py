"""Class counts: those of labels, and those of long-tailed profiles."""

import math

import numpy as np
from numpy.typing import ArrayLike

from ltjax import _host, _validate


def exponential_counts(
    num_classes: int, max_count: float, factor: float, *, rounding: str = "floor"
) -> np.ndarray:
    r"""Exponentially decaying class counts, the most frequent class first.

    .. math:: n_c = \lfloor n_\mathrm{max} f^{c / (C-1)} \rfloor

    Args:
      num_classes: C.
      max_count: examples of class 0; need not be whole.
      factor: count of the last class over that of the first, in (0, 1]; the inverse of
        the imbalance ratio.
      rounding: ``"floor"``, or ``"nearest"`` (halves to even).

    Returns:
      ``[C]`` int64; 0 for classes whose share is below one example.

    Examples:
      >>> int(exponential_counts(10, 5000, 0.01).sum())
      12406

    References:
      Cui et al., *Class-balanced loss based on effective number of samples*, CVPR 2019.
    """
    _check_profile(num_classes, max_count, factor)
    _validate.choice("rounding", rounding, ("floor", "nearest"))
    exponents = np.arange(num_classes) / max(num_classes - 1, 1)
    counts = max_count * factor**exponents
    return (np.floor if rounding == "floor" else np.rint)(counts).astype(np.int64)


def step_counts(num_classes: int, max_count: float, factor: float) -> np.ndarray:
    r"""Class counts in two steps: frequent classes, then rare ones.

    .. math:: n_c = \lfloor n_\mathrm{max} \rfloor \text{ for } c < \lfloor C/2 \rfloor,
      \quad \lfloor n_\mathrm{max} f \rfloor \text{ otherwise}

    Args:
      num_classes: C.
      max_count: examples of each frequent class.
      factor: count of a rare class over that of a frequent one, in (0, 1].

    Returns:
      ``[C]`` int64.

    Examples:
      >>> step_counts(4, 500, 0.01)
      array([500, 500,   5,   5])

    References:
      Cao et al., *Learning imbalanced datasets with label-distribution-aware margin
      loss*, NeurIPS 2019.
    """
    _check_profile(num_classes, max_count, factor)
    counts = np.full(num_classes, math.floor(max_count * factor), np.int64)
    counts[: num_classes // 2] = math.floor(max_count)
    return counts


def class_counts(labels: ArrayLike, num_classes: int) -> np.ndarray:
    """Examples of each class.

    Args:
      labels: ``[N]`` integers in ``[0, C)``.
      num_classes: C.

    Returns:
      ``[C]`` int64; 0 for a class without examples.

    Examples:
      >>> class_counts([0, 2, 0], 4)
      array([2, 0, 1, 0])
    """
    return np.bincount(_host.labels(labels, num_classes), minlength=num_classes)


def class_priors(class_counts: ArrayLike, *, smoothing: float = 0.0) -> np.ndarray:
    r"""Class frequencies, optionally with pseudo-counts.

    .. math:: \pi_c = \frac{n_c + s}{\sum_{c'} (n_{c'} + s)}

    Args:
      class_counts: ``[C]`` numbers, not negative.
      smoothing: pseudo-count s of each class, not negative. Positive values keep the
        prior of an empty class above 0, as logarithms of priors need.

    Returns:
      ``[C]`` float64 that sum to 1.

    Raises:
      ValueError: if all counts and ``smoothing`` are 0.

    Examples:
      >>> class_priors([6, 2, 0])
      array([0.75, 0.25, 0.  ])
      >>> class_priors([6, 2, 0], smoothing=1.0).round(3)
      array([0.636, 0.273, 0.091])
    """
    counts = _host.counts(class_counts)
    _validate.number("smoothing", smoothing, low=0)
    counts = counts + smoothing
    if not counts.any():
        raise ValueError("class_counts must have a positive count, got only zeros.")
    return counts / counts.sum()


def _check_profile(num_classes: int, max_count: float, factor: float) -> None:
    """Checks the three numbers that describe a long tail."""
    _validate.integer("num_classes", num_classes, low=1)
    _validate.number("max_count", max_count, low=1)
    _validate.number("factor", factor, low=0, open_low=True, high=1)
