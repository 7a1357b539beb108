"""Directions of feature vectors: the cone they lie in, and their sparsity."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ltjax import _host


class CosineStatistics(NamedTuple):
    """Mean cosine over pairs of different examples; 0 where there is no pair."""

    overall: float  # all pairs
    within: float  # pairs of the same class
    between: float  # pairs of different classes
    by_class: np.ndarray  # [C, C], pairs with one example from each class


def cosine_statistics(
    features: ArrayLike, labels: ArrayLike, num_classes: int
) -> CosineStatistics:
    r"""Mean pairwise cosine of the features: overall, within and between classes.

    With :math:`u_i = h_i/|h_i|` and :math:`s_c = \sum_{y_i = c} u_i`, the sum over all
    ordered pairs of different examples is

    .. math::
      \sum_{i \ne j} \langle u_i, u_j \rangle = \Big|\sum_c s_c\Big|^2 - \sum_i |u_i|^2,

    and likewise within a class, so that no N x N matrix is formed. A mean near 1 says
    that the features lie in a narrow cone.

    Args:
      features: ``[N, E]`` vectors. A zero vector has cosine 0 with everything.
      labels: ``[N]`` integers in ``[0, C)``; all zero for inputs without classes, such
        as noise.
      num_classes: C.

    Returns:
      Means over pairs: each pair counts once, so frequent classes weigh more;
      ``by_class`` allows any other average.

    Raises:
      ValueError: if N is 0 or a feature is not finite.

    Examples:
      >>> h = [[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]
      >>> stats = cosine_statistics(h, [0, 0, 1], 2)
      >>> f"{stats.overall:.3f} {stats.within:.3f} {stats.between:.3f}"
      '0.333 1.000 0.000'

    References:
      Hasegawa and Sato, *Exploring weight balancing on long-tailed recognition
      problem*, ICLR 2024 (the cone effect).
    """
    h = _host.floats("features", features, shape=(None, None))
    _host.not_empty("features", h)
    y = _host.labels(labels, num_classes, length=h.shape[0])
    u = unit_rows(h)
    sums = np.zeros((num_classes, h.shape[1]))
    np.add.at(sums, y, u)
    counts = np.bincount(y, minlength=num_classes)
    squares = np.bincount(y, (u * u).sum(axis=1), num_classes)
    dots = sums @ sums.T - np.diag(squares)
    pairs = np.outer(counts, counts) - np.diag(counts)
    own = np.eye(num_classes, dtype=bool)
    return CosineStatistics(
        overall=_ratio(dots.sum(), pairs.sum()),
        within=_ratio(dots[own].sum(), pairs[own].sum()),
        between=_ratio(dots[~own].sum(), pairs[~own].sum()),
        by_class=dots / np.maximum(pairs, 1),
    )


def hoyer_sparsity(vectors: ArrayLike) -> np.ndarray:
    r"""Hoyer's sparsity of the last axis: 0 for equal entries, 1 for a single one.

    .. math:: \frac{\sqrt{E} - |x|_1 / |x|_2}{\sqrt{E} - 1}

    Args:
      vectors: ``[..., E]`` with E at least 2.

    Returns:
      ``[...]`` float64 in [0, 1]; 0 for a zero vector.

    Raises:
      ValueError: if an entry is not finite.

    Examples:
      >>> hoyer_sparsity([[0.0, 3.0], [1.0, -1.0], [0.0, 0.0]]).round(3)
      array([1., 0., 0.])

    References:
      Hoyer, *Non-negative matrix factorization with sparseness constraints*, JMLR 2004.
    """
    x = _host.floats("vectors", vectors)
    if x.ndim == 0 or x.shape[-1] < 2:
        raise ValueError(
            f"vectors must have at least 2 entries on the last axis, got {x.shape}."
        )
    root = np.sqrt(x.shape[-1])
    u = unit_rows(x)
    sparsity = (root - np.abs(u).sum(axis=-1)) / (root - 1)
    return np.where((x == 0).all(axis=-1), 0.0, np.clip(sparsity, 0.0, 1.0))


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Vectors of length 1 along the last axis; zero vectors stay zero."""
    largest = np.abs(x).max(axis=-1, keepdims=True, initial=0.0)
    x = x / np.where(largest == 0, 1.0, largest)
    norm = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    return x / np.where(norm == 0, 1.0, norm)


def _ratio(total: float, count: int) -> float:
    """A mean, 0 over nothing."""
    return float(total / count) if count else 0.0
