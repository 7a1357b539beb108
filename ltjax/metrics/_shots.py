"""Many, medium and few shot: regions by amount of training data."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ltjax import _host, _validate


class Shots(NamedTuple):
    """Boolean masks that together cover everything once."""

    many: np.ndarray  # [C] or [N], bool
    medium: np.ndarray  # same shape
    few: np.ndarray  # same shape


def class_shots(class_counts: ArrayLike, *, many: float, few: float) -> Shots:
    r"""Which classes are many, medium and few shot.

    .. math:: \text{many}: n_c > many \qquad \text{few}: n_c < few

    and medium is what lies between, both thresholds included. Long-tailed CIFAR-100,
    ImageNet and Places are reported at ``many=100, few=20``; CIFAR-10 at 1000 and 200.

    Args:
      class_counts: ``[C]`` training examples of each class; 0 counts as few.
      many: threshold above which a class is many-shot.
      few: threshold below which a class is few-shot, at most ``many``.

    Returns:
      Three ``[C]`` boolean masks.

    Raises:
      ValueError: if ``few`` exceeds ``many``.

    Examples:
      >>> shots = class_shots([500, 100, 20, 5], many=100, few=20)
      >>> shots.medium.tolist()
      [False, True, True, False]

    References:
      Liu et al., *Large-scale long-tailed recognition in an open world*, CVPR 2019.
    """
    counts = _host.counts(class_counts)
    _validate.number("many", many, low=0)
    _validate.number("few", few, low=0)
    if few > many:
        raise ValueError(f"few must be at most many, got few={few} and many={many}.")
    is_many, is_few = counts > many, counts < few
    return Shots(is_many, ~is_many & ~is_few, is_few)


def target_shots(
    targets: ArrayLike,
    train_targets: ArrayLike,
    *,
    bins: int | ArrayLike,
    many: float,
    few: float,
) -> Shots:
    """Which examples have a continuous target from a many, medium or few shot region.

    The training targets are counted in bins; an example belongs to the region of the
    bin its target falls in. Bins are half open, ``[edge_b, edge_{b+1})``, the last one
    closed. A target outside all bins was never seen in training: few.

    Args:
      targets: ``[N]`` targets to sort into regions.
      train_targets: ``[M]`` targets of the training set.
      bins: number of equal bins over the range of ``train_targets``, or their
        increasing edges.
      many: a bin with more training targets than this is many-shot.
      few: a bin with fewer than this is few-shot.

    Returns:
      Three ``[N]`` boolean masks.

    Raises:
      ValueError: if the edges do not increase or targets are not finite.

    Examples:
      >>> train = [0.1, 0.2, 0.3, 0.4, 1.5]
      >>> target_shots([0.5, 1.2, 9.0], train, bins=[0, 1, 2], many=3, few=1).many
      array([ True, False, False])

    References:
      Yang et al., *Delving into deep imbalanced regression*, ICML 2021, section 4.
    """
    values = _host.floats("targets", targets, shape=(None,))
    train = _host.floats("train_targets", train_targets, shape=(None,))
    _host.not_empty("train_targets", train)
    edges = _edges(bins, train)
    inside = (values >= edges[0]) & (values <= edges[-1])
    which = np.clip(np.searchsorted(edges, values, "right") - 1, 0, edges.size - 2)
    counts = np.histogram(train, edges)[0]
    return class_shots(np.where(inside, counts[which], 0), many=many, few=few)


def _edges(bins: int | ArrayLike, train: np.ndarray) -> np.ndarray:
    """The edges of the bins over the training targets."""
    if np.ndim(bins) == 0:
        _validate.integer("bins", bins, low=1)
        return np.histogram_bin_edges(train, bins)
    edges = _host.floats("bins", bins, shape=(None,))
    if edges.size < 2 or (np.diff(edges) <= 0).any():
        raise ValueError(f"bins must be at least 2 increasing edges, got {edges}.")
    return edges
