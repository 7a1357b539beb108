"""Distances between classes relative to their spread."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ltjax import _host
from ltjax.metrics._moments import class_moments, normalized

_EPS = float(np.finfo(np.float64).eps)


def fisher_discriminant_ratio(
    features: ArrayLike, labels: ArrayLike, num_classes: int
) -> float:
    r"""Fisher's discriminant ratio: between-class over within-class scatter.

    .. math::
      \mathrm{FDR} = \mathrm{tr}(S_W^{+} S_B), \quad
      S_W = \frac1N \sum_i (h_i - m_{y_i})(h_i - m_{y_i})^\top, \quad
      S_B = \frac1N \sum_c n_c (m_c - m)(m_c - m)^\top

    in float64, with m the mean of all examples. Constant dimensions are dropped and the
    others scaled to unit variance, which leaves the ratio unchanged. The inverse is a
    pseudo-inverse: directions without within-class scatter (there are some whenever
    examples are fewer than dimensions) are left out, so the ratio stays finite. If
    every class has collapsed to a point no direction is left and the ratio is 0; use
    :func:`tightness` or :func:`neural_collapse` there.

    Args:
      features: ``[N, E]`` vectors.
      labels: ``[N]`` integers in ``[0, C)``; empty classes count nothing.
      num_classes: C.

    Returns:
      A float, not negative.

    Raises:
      ValueError: if N is 0 or a feature is not finite.

    Examples:
      >>> h = [[0.0], [2.0], [10.0], [12.0]]
      >>> f"{fisher_discriminant_ratio(h, [0, 0, 1, 1], 2):.3f}"
      '25.000'

    References:
      Hasegawa and Sato, *Exploring weight balancing on long-tailed recognition
      problem*, ICLR 2024, section 4. The pseudo-inverse is ours.
    """
    h = _host.floats("features", features, shape=(None, None))
    _host.not_empty("features", h)
    h = _standardize(h)
    moments = class_moments(h, labels, num_classes)
    n = h.shape[0]
    if h.shape[1] == 0:
        return 0.0
    scatter = moments.residuals.T @ moments.residuals / n
    variances, directions = np.linalg.eigh(scatter)
    # Against rounding in the eigenvalues, and in the residuals of collapsed classes.
    kept = variances > h.shape[1] * _EPS * max(variances[-1], 16 * _EPS)
    between = (moments.means @ directions[:, kept]) ** 2 / variances[kept]
    return float((moments.counts / n) @ between.sum(axis=1))


class Tightness(NamedTuple):
    """Within-class spread over between-centre distance: small is tight."""

    overall: float  # mean over classes with at least 2 examples; 0 if none has
    per_class: np.ndarray  # [C]; 0 for a class with fewer than 2 examples


def tightness(features: ArrayLike, labels: ArrayLike, num_classes: int) -> Tightness:
    r"""Spread of each class relative to its distance from the other classes.

    .. math::
      t_c = \frac{\sigma_c}{d_c}, \quad
      \sigma_c^2 = \frac{1}{n_c - 1} \sum_{y_i = c} |h_i - m_c|^2, \quad
      d_c = \mathrm{mean}_{c' \ne c} |m_c - m_{c'}|

    The ratio does not change when all features are scaled, so shrinking everything does
    not pass for tightness; dividing by :math:`n_c - 1` lets classes of different size
    be compared. Where centres coincide, the distance is taken as machine epsilon times
    the spread.

    Args:
      features: ``[N, E]`` vectors.
      labels: ``[N]`` integers in ``[0, C)``; empty classes are left out.
      num_classes: C.

    Returns:
      The mean and the value of every class; all 0 where fewer than two classes have
      examples, because there is no distance then.

    Raises:
      ValueError: if N is 0 or a feature is not finite.

    Examples:
      >>> h = [[0.0], [2.0], [10.0], [12.0]]
      >>> f"{tightness(h, [0, 0, 1, 1], 2).overall:.3f}"
      '0.141'
    """
    moments = class_moments(normalized(features), labels, num_classes)
    counts, present = moments.counts, moments.counts > 0
    squares = np.bincount(
        moments.labels, (moments.residuals**2).sum(axis=1), num_classes
    )
    spread = np.sqrt(squares / np.maximum(counts - 1, 1))
    per_class = np.zeros(num_classes)
    if present.sum() > 1:
        centres = moments.means[present]
        distance = np.array([_mean_distance(centres, m) for m in moments.means])
        distance = np.maximum(distance, _EPS * spread)
        np.divide(spread, distance, out=per_class, where=spread > 0)
    measured = per_class[counts > 1]
    return Tightness(float(measured.mean()) if measured.size else 0.0, per_class)


def _mean_distance(centres: np.ndarray, own: np.ndarray) -> float:
    """Mean distance of one of the centres from the others."""
    return np.sqrt(((centres - own) ** 2).sum(axis=1)).sum() / (len(centres) - 1)


def _standardize(h: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance in every dimension, without the constant ones."""
    h = h[:, (h != h[:1]).any(axis=0)]
    h = h / np.abs(h).max(axis=0, initial=0.0)
    h = h - h.mean(axis=0)
    deviation = np.sqrt((h * h).mean(axis=0))
    h = h[:, deviation > 0] / deviation[deviation > 0]
    return h - h.mean(axis=0)
