"""Class means and what is left around them, shared by the geometry of features."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ltjax import _host


class ClassMoments(NamedTuple):
    """Features split into class means and residuals, in float64."""

    labels: np.ndarray  # [N], int64
    counts: np.ndarray  # [C], int64
    means: np.ndarray  # [C, E]; 0 for an empty class
    residuals: np.ndarray  # [N, E], feature minus its class mean


def class_moments(
    features: np.ndarray, labels: ArrayLike, num_classes: int
) -> ClassMoments:
    """Means and residuals of checked ``features [N, E]``."""
    y = _host.labels(labels, num_classes, length=features.shape[0])
    counts = np.bincount(y, minlength=num_classes)
    sums = np.zeros((num_classes, features.shape[1]))
    np.add.at(sums, y, features)
    means = sums / np.maximum(counts, 1)[:, None]
    return ClassMoments(y, counts, means, features - means[y])


def normalized(features: ArrayLike) -> np.ndarray:
    """Features shifted and scaled to be of order 1; exactly 0 if all are equal."""
    h = _host.floats("features", features, shape=(None, None))
    _host.not_empty("features", h)
    h = h / max(np.abs(h).max(initial=0.0), np.finfo(np.float64).tiny)
    return h - h[0]
