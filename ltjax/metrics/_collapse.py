"""Neural collapse: how close features and classifier are to a simplex."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ltjax import _host
from ltjax.metrics._directions import unit_rows
from ltjax.metrics._moments import ClassMoments, class_moments, normalized

_EPS = float(np.finfo(np.float64).eps)
_SMALLEST = 16 * _EPS  # distance of class means, of features of order 1, above rounding


class NeuralCollapse(NamedTuple):
    """Distances from neural collapse, each 0 when collapsed."""

    nc1: float  # within-class variability relative to between-class
    nc2_norm: float  # coefficient of variation of the class means' lengths
    nc2_angle: float  # mean distance of their cosines from -1/(C-1)
    nc3: float  # distance between classifier and class means, in [0, 2]
    nc4: float  # share of examples not classified by the nearest class mean, [0, 1]


def neural_collapse(
    features: ArrayLike,
    labels: ArrayLike,
    weights: ArrayLike,
    bias: ArrayLike | None = None,
) -> NeuralCollapse:
    r"""The four signs of neural collapse of a linear classifier on its features.

    With :math:`m_c` the class means, m their mean, :math:`\mu_c = m_c - m`, and M the
    matrix of the :math:`\mu_c`,

    .. math::
      \mathrm{NC1} &= \tfrac1C \mathrm{tr}(\Sigma_W \Sigma_B^{+}) \\
      \mathrm{NC2} &= \mathrm{std}_c |\mu_c| / \mathrm{mean}_c |\mu_c|, \quad
        \mathrm{mean}_{c \ne d} \big|\cos(\mu_c, \mu_d) + \tfrac{1}{C-1}\big| \\
      \mathrm{NC3} &= \big| W / |W|_F - M / |M|_F \big|_F \\
      \mathrm{NC4} &= \tfrac1N |\{i : \arg\max_c (w_c h_i + b_c)
        \ne \arg\min_c |h_i - m_c|\}|

    where :math:`\Sigma_W` is the mean over classes of the covariance within each and
    :math:`\Sigma_B` the covariance of the class means.

    Args:
      features: ``[N, E]`` inputs of the classifier.
      labels: ``[N]`` integers in ``[0, C)``.
      weights: ``[C, E]`` classifier weights, one row per class.
      bias: ``[C]`` classifier bias; none by default.

    Returns:
      Five floats. Classes without examples are left out of NC1 to NC3 and are never
      the nearest mean in NC4. With fewer than two classes NC1 and NC2 are 0. Where all
      means are equal NC1 is large, and NC2, which is not defined there, is 0.

    Raises:
      ValueError: if N is 0 or a value is not finite.

    Examples:
      >>> h = [[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]
      >>> print(*neural_collapse(h, [0, 0, 1], [[1.0, 0.0], [-1.0, 0.0]]))
      0.0 0.0 0.0 0.0 0.0

    References:
      Papyan, Han and Donoho, *Prevalence of neural collapse during the terminal phase
      of deep learning training*, PNAS 2020. Means over examples there are means over
      classes here, so that frequent classes do not decide; on balanced data both agree.
    """
    h = _host.floats("features", features, shape=(None, None))
    w = _host.floats("weights", weights, shape=(None, h.shape[1]))
    b = (
        np.zeros(len(w))
        if bias is None
        else _host.floats("bias", bias, shape=(len(w),))
    )
    shifted = normalized(h)
    moments = class_moments(shifted, labels, len(w))
    present = moments.counts > 0
    means = moments.means[present]
    centred = means - means.mean(axis=0)
    cosines = unit_rows(centred) @ unit_rows(centred).T
    nearest = _nearest(shifted, moments.means, present)
    apart = len(means) > 1 and np.abs(centred).max(initial=0.0) > _SMALLEST
    return NeuralCollapse(
        nc1=_variability(moments, centred) if len(means) > 1 else 0.0,
        nc2_norm=_variation(np.sqrt((centred**2).sum(axis=1))) if apart else 0.0,
        nc2_angle=_distance_from_simplex(cosines) if apart else 0.0,
        nc3=float(np.linalg.norm(_unit_matrix(w[present]) - _unit_matrix(centred))),
        nc4=float((nearest != (h @ w.T + b).argmax(axis=1)).mean()),
    )


def _variability(moments: ClassMoments, centred: np.ndarray) -> float:
    """NC1, along the directions in which the class means differ."""
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    kept = lengths >= max(centred.shape) * _EPS * lengths[0]
    scales = np.maximum(lengths[kept], _SMALLEST)
    projected = (moments.residuals @ directions[kept].T) / scales
    squares = np.bincount(
        moments.labels, (projected**2).sum(axis=1), moments.counts.size
    )
    present = moments.counts > 0
    # Sigma_B is M^T M / C, so its C cancels the 1/C in front.
    return float((squares[present] / moments.counts[present]).mean())


def _variation(x: np.ndarray) -> float:
    """Standard deviation over mean."""
    return float(x.std() / x.mean())


def _distance_from_simplex(cosines: np.ndarray) -> float:
    """Mean distance of the off-diagonal cosines from those of a simplex."""
    c = len(cosines)
    return float(np.abs(cosines[~np.eye(c, dtype=bool)] + 1 / (c - 1)).mean())


def _unit_matrix(m: np.ndarray) -> np.ndarray:
    """A matrix of Frobenius norm 1; zero stays zero."""
    return unit_rows(m.reshape(1, -1)).reshape(m.shape)


def _nearest(h: np.ndarray, means: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Nearest class mean of every example, among the classes that have one."""
    scores = h @ means.T - 0.5 * (means**2).sum(axis=1)
    return np.where(present, scores, -np.inf).argmax(axis=1)
