"""Which labels are wrong: scores of suspicion, and how well they rank."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ltjax import _host


class Detection(NamedTuple):
    """How well a score ranks wrong labels before right ones."""

    auroc: float  # 0.5 for a score that knows nothing
    precision: float  # share of wrong labels among as many highest scores as there are


def detection(suspicion: ArrayLike, wrong: ArrayLike) -> Detection:
    r"""How well a score finds wrong labels.

    With W wrong and R right labels,

    .. math::
      \mathrm{AUROC} = \frac{1}{|W| |R|} \sum_{i \in W, j \in R}
          [s_i > s_j] + \tfrac12 [s_i = s_j]

    and the precision is the share of wrong labels among the W highest scores. Of equal
    scores at that place, wrong and right ones are taken in proportion.

    Args:
      suspicion: ``[N]`` scores, high where a label is probably wrong.
      wrong: ``[N]`` booleans, whether it is; some are and some are not.

    Returns:
      Two floats in [0, 1].

    Raises:
      ValueError: if a score is NaN, or all labels are wrong or right.

    Examples:
      >>> detection([0.9, 0.2, 0.4, 0.1], [True, True, False, False])
      Detection(auroc=0.75, precision=0.5)
    """
    s = _host.floats("suspicion", suspicion, shape=(None,), allow_inf=True)
    is_wrong = _host.mask("wrong", wrong, s.size)
    count = int(is_wrong.sum())
    if count in (0, s.size):
        raise ValueError(
            f"wrong must be true of some examples and false of others, got {count} of "
            f"{s.size}."
        )
    _, level, sizes = np.unique(-s, return_inverse=True, return_counts=True)
    found = np.bincount(level, is_wrong)  # by level of the score, highest first
    right = sizes - found
    later = right.sum() - np.cumsum(right)
    auroc = (found * (later + right / 2)).sum() / (count * right.sum())
    taken = np.clip(count - (np.cumsum(sizes) - sizes), 0, sizes)
    return Detection(float(auroc), float((found * taken / sizes).sum() / count))


def label_quality(probabilities: ArrayLike, labels: ArrayLike) -> np.ndarray:
    r"""Confident learning's score of each label; low where it is probably wrong.

    .. math::
      t_c = \mathrm{mean}_{y_i = c}\, p_{ic}, \qquad
      q_i = \frac{p_{iy_i} - t_{y_i} + \max_c t_c}
                 {\sum_c (p_{ic} - t_c + \max_{c'} t_{c'})}

    The probability of the given label, after every class's own usual confidence is
    taken off: a label is not suspicious because its class is hard.

    Args:
      probabilities: ``[N, C]`` predicted probabilities, best of a network that was not
        trained on these examples.
      labels: ``[N]`` given labels, integers in ``[0, C)``.

    Returns:
      ``[N]`` float64 scores in [0, 1]. A class without examples has threshold 1.

    Raises:
      ValueError: if N is 0 or the shapes disagree.

    Examples:
      >>> p = [[0.9, 0.1], [0.5, 0.5], [0.4, 0.6]]
      >>> print(label_quality(p, [0, 0, 1]).round(2))
      [0.82 0.45 0.64]

    References:
      Northcutt et al., *Confident learning: estimating uncertainty in dataset labels*,
      JAIR 2021. The adjustment is that of cleanlab's ``get_label_quality_scores`` with
      ``adjust_pred_probs=True``.
    """
    p = _host.floats("probabilities", probabilities, shape=(None, None))
    _host.not_empty("probabilities", p)
    y = _host.labels(labels, p.shape[1], length=len(p))
    counts = np.bincount(y, minlength=p.shape[1])
    own = p[np.arange(len(y)), y]
    totals = np.bincount(y, own, minlength=p.shape[1])
    thresholds = np.where(counts > 0, totals / np.maximum(counts, 1), 1.0)
    adjusted = p - thresholds + thresholds.max()
    return adjusted[np.arange(len(y)), y] / adjusted.sum(axis=1)
