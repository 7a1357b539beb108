"""Calibration: whether a classifier is right as often as it is confident."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ltjax import _host, _validate


class ReliabilityBins(NamedTuple):
    """What a reliability diagram shows, by bin of confidence."""

    edges: np.ndarray  # [num_bins + 1], equally spaced over [0, 1]
    counts: np.ndarray  # [num_bins], examples in each bin
    confidence: np.ndarray  # [num_bins], mean confidence; 0 for an empty bin
    accuracy: np.ndarray  # [num_bins], share predicted right; 0 for an empty bin


def reliability_bins(
    probabilities: ArrayLike, labels: ArrayLike, *, num_bins: int = 15
) -> ReliabilityBins:
    r"""Confidence and accuracy in equal bins of confidence.

    Confidence is the largest probability of a row, and the prediction its class. Bin b
    holds the examples with confidence in :math:`(b/K, (b+1)/K]`.

    Args:
      probabilities: ``[N, C]`` rows in [0, 1] that sum to 1 (to 1e-2, so that
        low-precision softmax passes and logits do not).
      labels: ``[N]`` true classes, integers in ``[0, C)``.
      num_bins: number K of bins.

    Returns:
      Edges, counts, mean confidence and accuracy of each bin.

    Raises:
      ValueError: if N is 0 or a row is not a probability distribution.

    Examples:
      >>> bins = reliability_bins([[0.9, 0.1], [0.4, 0.6]], [0, 0], num_bins=2)
      >>> bins.counts, bins.confidence, bins.accuracy
      (array([0, 2]), array([0.  , 0.75]), array([0. , 0.5]))

    References:
      Guo et al., *On calibration of modern neural networks*, ICML 2017, section 2.
    """
    p = _host.floats("probabilities", probabilities, shape=(None, None))
    _host.not_empty("probabilities", p)
    y = _host.labels(labels, p.shape[1], length=p.shape[0])
    _validate.integer("num_bins", num_bins, low=1)
    _check_rows(p)
    confidence = np.minimum(p.max(axis=1), 1.0)
    right = p.argmax(axis=1) == y
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    which = np.clip(np.searchsorted(edges, confidence, "left") - 1, 0, num_bins - 1)
    counts = np.bincount(which, minlength=num_bins)
    size = np.maximum(counts, 1)
    return ReliabilityBins(
        edges=edges,
        counts=counts,
        confidence=np.bincount(which, confidence, num_bins) / size,
        accuracy=np.bincount(which, right, num_bins) / size,
    )


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, *, num_bins: int = 15
) -> float:
    r"""Mean distance between confidence and accuracy over bins of confidence.

    .. math:: \mathrm{ECE} = \sum_b \frac{n_b}{N} |\mathrm{acc}_b - \mathrm{conf}_b|

    Args:
      probabilities: ``[N, C]`` rows in [0, 1] that sum to 1.
      labels: ``[N]`` true classes, integers in ``[0, C)``.
      num_bins: number of equal bins of confidence.

    Returns:
      A float in [0, 1]; 0 is perfectly calibrated. Empty bins count nothing.

    Raises:
      ValueError: as :func:`reliability_bins`.

    Examples:
      >>> expected_calibration_error([[0.9, 0.1], [0.4, 0.6]], [0, 0], num_bins=2)
      0.25

    References:
      Guo et al., *On calibration of modern neural networks*, ICML 2017, equation 3.
    """
    bins = reliability_bins(probabilities, labels, num_bins=num_bins)
    gaps = np.abs(bins.accuracy - bins.confidence)
    return float((bins.counts * gaps).sum() / bins.counts.sum())


def _check_rows(p: np.ndarray) -> None:
    """Checks that rows are probabilities, to the rounding of a narrow dtype."""
    totals = p.sum(axis=1)
    bad = (p < 0).any(axis=1) | (p > 1.01).any(axis=1) | (np.abs(totals - 1) > 1e-2)
    if bad.any():
        i = int(np.argmax(bad))
        raise ValueError(
            "probabilities must have rows in [0, 1] that sum to 1, got row "
            f"{i} with minimum {p[i].min():.4g} and sum {totals[i]:.4g}."
        )
