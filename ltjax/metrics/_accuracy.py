"""Accuracy by class, by shot and by rank."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ltjax import _host, _validate
from ltjax.metrics._shots import class_shots


class ShotAccuracy(NamedTuple):
    """Accuracy by how many training examples a class had."""

    many: float
    medium: float
    few: float


def per_class_accuracy(
    predictions: ArrayLike, labels: ArrayLike, num_classes: int
) -> np.ndarray:
    r"""Share of each class's examples that are predicted correctly.

    .. math:: a_c = \frac{|\{i : y_i = c, \hat y_i = c\}|}{|\{i : y_i = c\}|}

    Args:
      predictions: ``[N]`` predicted classes, integers in ``[0, C)``.
      labels: ``[N]`` true classes, integers in ``[0, C)``.
      num_classes: C.

    Returns:
      ``[C]`` float64; 0 for a class without examples.

    Raises:
      ValueError: if N is 0.

    Examples:
      >>> per_class_accuracy([0, 0, 1, 0], [0, 0, 1, 1], 3)
      array([1. , 0.5, 0. ])
    """
    hits, totals = _hits(predictions, labels, num_classes)
    return hits / np.maximum(totals, 1)


def iou(predictions: ArrayLike, labels: ArrayLike, num_classes: int) -> np.ndarray:
    r"""Overlap of the predicted and the true regions of each class.

    .. math:: \frac{|\{i : y_i = c, \hat y_i = c\}|}
                   {|\{i : y_i = c\} \cup \{i : \hat y_i = c\}|}

    Args:
      predictions: predicted classes of all pixels, integers in ``[0, C)``, of any
        shape.
      labels: true classes, of the same shape.
      num_classes: C.

    Returns:
      ``[C]`` float64; 0 for a class that is neither predicted nor true.

    Raises:
      ValueError: if the shapes differ or there is no pixel.

    Examples:
      >>> print(iou([[0, 0], [1, 1]], [[0, 1], [1, 1]], 3))
      [0.5   0.667 0.   ]
    """
    if np.shape(predictions) != np.shape(labels):
        raise ValueError(
            f"predictions must have the labels' shape {np.shape(labels)}, "
            f"got {np.shape(predictions)}."
        )
    guess = np.ravel(predictions)
    hits, totals = _hits(guess, np.ravel(labels), num_classes)
    predicted = np.bincount(guess, minlength=num_classes)
    return hits / np.maximum(totals + predicted - hits, 1)


def balanced_accuracy(
    predictions: ArrayLike, labels: ArrayLike, num_classes: int
) -> float:
    r"""Mean of the per-class accuracies over the classes that have examples.

    .. math:: \frac{1}{|\{c : n_c > 0\}|} \sum_{c : n_c > 0} a_c

    Args:
      predictions: ``[N]`` predicted classes, integers in ``[0, C)``.
      labels: ``[N]`` true classes, integers in ``[0, C)``.
      num_classes: C.

    Returns:
      A float in [0, 1].

    Raises:
      ValueError: if N is 0.

    Examples:
      >>> balanced_accuracy([0, 0, 1, 0], [0, 0, 1, 1], 3)
      0.75
    """
    hits, totals = _hits(predictions, labels, num_classes)
    return _mean_accuracy(hits, totals, np.ones(num_classes, bool))


def shot_accuracy(
    predictions: ArrayLike,
    labels: ArrayLike,
    class_counts: ArrayLike,
    *,
    many: float,
    few: float,
) -> ShotAccuracy:
    r"""Balanced accuracy within the many, medium and few shot classes.

    .. math::
      a_\mathrm{many} = \mathrm{mean}\{a_c : n^\mathrm{train}_c > many\} \qquad
      a_\mathrm{few} = \mathrm{mean}\{a_c : n^\mathrm{train}_c < few\}

    and medium between, both thresholds included (see :func:`class_shots`).

    Args:
      predictions: ``[N]`` predicted classes, integers in ``[0, C)``.
      labels: ``[N]`` true classes, integers in ``[0, C)``.
      class_counts: ``[C]`` *training* examples of each class.
      many: a class with more training examples than this is many-shot.
      few: a class with fewer than this is few-shot.

    Returns:
      Three floats in [0, 1]. Classes without examples in ``labels`` are left out; a
      region without any class is 0 (``class_shots`` says which regions have classes).

    Raises:
      ValueError: if N is 0 or ``few`` exceeds ``many``.

    Examples:
      >>> shot_accuracy([0, 1, 1, 0], [0, 1, 1, 2], [900, 50, 5], many=100, few=20)
      ShotAccuracy(many=1.0, medium=1.0, few=0.0)

    References:
      Liu et al., *Large-scale long-tailed recognition in an open world*, CVPR 2019.
    """
    regions = class_shots(class_counts, many=many, few=few)
    hits, totals = _hits(predictions, labels, regions.many.size)
    return ShotAccuracy(*(_mean_accuracy(hits, totals, region) for region in regions))


def top_k_accuracy(scores: ArrayLike, labels: ArrayLike, *, k: int = 5) -> float:
    r"""Share of examples whose class is among the k highest scores.

    .. math::
      \frac1N \left|\left\{i : |\{c : z_{ic} > z_{iy_i}\}|
      + |\{c < y_i : z_{ic} = z_{iy_i}\}| < k\right\}\right|

    Of equal scores the lower class comes first, as in ``argmax``.

    Args:
      scores: ``[N, C]`` logits or probabilities, without NaN.
      labels: ``[N]`` true classes, integers in ``[0, C)``.
      k: number of highest scores that count as a hit, in ``[1, C]``.

    Returns:
      A float in [0, 1].

    Raises:
      ValueError: if N is 0 or a score is NaN.

    Examples:
      >>> top_k_accuracy([[0.1, 0.5, 0.4], [0.8, 0.1, 0.1]], [2, 2], k=2)
      0.5
    """
    z = _host.floats("scores", scores, shape=(None, None), allow_inf=True)
    _host.not_empty("scores", z)
    y = _host.labels(labels, z.shape[1], length=z.shape[0])
    _validate.integer("k", k, low=1)
    if k > z.shape[1]:
        raise ValueError(f"k must be at most the {z.shape[1]} classes, got {k}.")
    own = np.take_along_axis(z, y[:, None], axis=1)
    earlier = np.arange(z.shape[1])[None, :] < y[:, None]
    rank = ((z > own) | ((z == own) & earlier)).sum(axis=1)
    return float((rank < k).mean())


def _hits(
    predictions: ArrayLike, labels: ArrayLike, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Right predictions and examples of each class, both ``[C]``."""
    y = _host.labels(labels, num_classes)
    _host.not_empty("labels", y)
    guess = _host.labels(predictions, num_classes, name="predictions", length=y.size)
    hits = np.bincount(y[guess == y], minlength=num_classes)
    return hits, np.bincount(y, minlength=num_classes)


def _mean_accuracy(hits: np.ndarray, totals: np.ndarray, region: np.ndarray) -> float:
    """Mean accuracy of the region's classes that have examples, 0 if none has."""
    present = region & (totals > 0)
    return float((hits[present] / totals[present]).mean()) if present.any() else 0.0
