"""Label noise: a transition matrix says what happens to each class.

Row c of ``transition [C, C]`` holds the probabilities that an example of class c is
labelled as each class. Named kinds of noise make the matrix; :func:`corrupt_labels`
applies it.
"""

import numpy as np
from numpy.typing import ArrayLike

from ltjax import _host, _validate
from ltjax.data._rounding import round_unbiased

# fmt: off
#: Superclass (0 to 19) of each of CIFAR-100's classes, both in alphabetical order.
CIFAR100_SUPERCLASSES = (
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11,
    6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5,
    5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17,
    10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13,
    16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
)
# fmt: on

# Truck to automobile, bird to airplane, deer to horse, cat and dog to each other.
_CIFAR10_CONFUSED = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}


def corrupt_labels(
    labels: ArrayLike,
    transition: ArrayLike,
    rng: np.random.Generator,
    *,
    exact: bool | str = False,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Draws noisy labels from a transition matrix.

    .. math:: P(\tilde y_i = c) = T_{y_i c}

    By default examples change independently of each other, so the share of changed
    labels varies a little around its mean. With ``exact="total"`` their number is that
    mean, :math:`\sum_i (1 - T_{y_i y_i})`; with ``exact="class"`` that holds in every
    class too, as in the released code of ABSGD. Numbers that are not whole are rounded
    up or down at random; each example still follows its row.

    Args:
      labels: ``[N]`` integers in ``[0, C)``.
      transition: ``[C, C]`` probabilities; rows sum to 1. See :func:`uniform_noise`,
        :func:`pair_noise`, :func:`block_noise`, :func:`cifar10_asymmetric_noise` and
        :func:`confusion_noise`.
      rng: source of the draws.
      exact: whether the number of changed labels is fixed: ``False``, ``"total"`` (or
        ``True``) or ``"class"``.

    Returns:
      ``[N]`` int64 noisy labels, and ``[N]`` booleans: where they differ from
      ``labels``.

    Examples:
      >>> rng = np.random.default_rng(0)
      >>> transition = uniform_noise(10, 0.4, include_self=False)
      >>> labels = np.arange(1000) % 10
      >>> noisy, changed = corrupt_labels(labels, transition, rng, exact="class")
      >>> np.bincount(labels[changed])
      array([40, 40, 40, 40, 40, 40, 40, 40, 40, 40])
    """
    _host.generator("rng", rng)
    if not isinstance(exact, bool):
        _validate.choice("exact", exact, ("total", "class"))
    others = _check_transition(transition).copy()
    y = _host.labels(labels, len(others))
    np.fill_diagonal(others, 0.0)
    leaving = others.sum(axis=1)
    if exact is False:
        changed = rng.random(y.size) < leaving[y]
    else:
        groups = y if exact == "class" else np.zeros_like(y)
        changed = _fixed_number(leaving[y], groups, rng)
    noisy = y.copy()
    for c in np.unique(y[changed]):
        own = changed & (y == c)
        noisy[own] = rng.choice(len(others), own.sum(), p=others[c] / leaving[c])
    return noisy, changed


def uniform_noise(num_classes: int, rate: float, *, include_self: bool) -> np.ndarray:
    r"""Labels replaced by a class drawn uniformly.

    .. math::
      T_{cd} &= (1 - r)\, \delta_{cd} + \tfrac{r}{C}
        && \text{including self} \\
      T_{cd} &= (1 - r)\, \delta_{cd} + \tfrac{r}{C-1} (1 - \delta_{cd})
        && \text{excluding self}

    Papers mean either by a noise rate. Including self, as in GDW and Meta-Weight-Net, a
    rate of 0.4 changes 36% of the labels of 10 classes; excluding self, as in ABSGD,
    it changes 40%.

    Args:
      num_classes: C, at least 2.
      rate: r, in [0, 1].
      include_self: whether the drawn class may be the example's own.

    Returns:
      ``[C, C]`` float64 transition matrix.

    Examples:
      >>> uniform_noise(3, 0.3, include_self=True).round(2)[0]
      array([0.8, 0.1, 0.1])
      >>> uniform_noise(3, 0.3, include_self=False).round(2)[0]
      array([0.7 , 0.15, 0.15])
    """
    _validate.integer("num_classes", num_classes, low=2)
    _validate.number("rate", rate, low=0, high=1)
    same = np.eye(num_classes)
    if include_self:
        return (1 - rate) * same + rate / num_classes
    return (1 - rate) * same + rate / (num_classes - 1) * (1 - same)


def pair_noise(num_classes: int, rate: float) -> np.ndarray:
    r"""Labels replaced by the next class, the last by the first.

    .. math:: T_{cc} = 1 - r, \quad T_{c, (c + 1) \bmod C} = r

    Args:
      num_classes: C, at least 2.
      rate: r, in [0, 1].

    Returns:
      ``[C, C]`` float64 transition matrix.

    Examples:
      >>> pair_noise(3, 0.25)
      array([[0.75, 0.25, 0.  ],
             [0.  , 0.75, 0.25],
             [0.25, 0.  , 0.75]])

    References:
      Han et al., *Co-teaching: robust training of deep neural networks with extremely
      noisy labels*, NeurIPS 2018.
    """
    _validate.integer("num_classes", num_classes, low=2)
    return block_noise(np.zeros(num_classes, np.int64), rate)


def block_noise(groups: ArrayLike, rate: float) -> np.ndarray:
    r"""Labels replaced by the next class of the same group, cyclically.

    .. math:: T_{cc} = 1 - r, \quad T_{c, \mathrm{next}(c)} = r

    For CIFAR-100 the groups are its superclasses, ``CIFAR100_SUPERCLASSES``; some
    released code takes five consecutive classes instead, ``np.arange(100) // 5``.

    Args:
      groups: ``[C]`` integers, the group of each class. A class alone in its group
        keeps its labels.
      rate: r, in [0, 1].

    Returns:
      ``[C, C]`` float64 transition matrix.

    Examples:
      >>> block_noise([0, 1, 0, 1], 0.4)[0]
      array([0.6, 0. , 0.4, 0. ])

    References:
      Patrini et al., *Making deep neural networks robust to label noise: a loss
      correction approach*, CVPR 2017, section 5.
    """
    group = _host.labels(groups, name="groups")
    following = np.arange(group.size)
    for g in np.unique(group):
        members = np.flatnonzero(group == g)
        following[members] = np.roll(members, -1)
    return _flip(following, rate)


def flip_noise(
    num_classes: int, rate: float, rng: np.random.Generator, *, targets: int = 1
) -> np.ndarray:
    r"""Labels replaced by one of a few other classes, drawn once for each class.

    .. math:: T_{cc} = 1 - r, \quad T_{cd} = \tfrac{r}{K}
      \text{ for } d \in S_c \subset \{0, \dots, C-1\} \setminus \{c\},
      \ |S_c| = K

    Papers call this ``flip`` with K = 1 and ``flip2`` with K = 2.

    Args:
      num_classes: C, at least 2.
      rate: r, in [0, 1].
      rng: source of the classes :math:`S_c`, each a uniform draw without replacement.
      targets: K, from 1 to C - 1.

    Returns:
      ``[C, C]`` float64 transition matrix.

    Examples:
      >>> flip_noise(3, 0.4, np.random.default_rng(0), targets=2)[0]
      array([0.6, 0.2, 0.2])

    References:
      Chen et al., *Generalized DataWeighting via class-level gradient manipulation*,
      NeurIPS 2021.
    """
    _validate.integer("num_classes", num_classes, low=2)
    _validate.number("rate", rate, low=0, high=1)
    _host.generator("rng", rng)
    _validate.integer("targets", targets, low=1)
    if targets >= num_classes:
        raise ValueError(
            f"targets must be below the {num_classes} classes, got {targets}."
        )
    transition = (1 - rate) * np.eye(num_classes)
    for c in range(num_classes):
        others = np.delete(np.arange(num_classes), c)
        transition[c, rng.choice(others, targets, replace=False)] = rate / targets
    return transition


def cifar10_asymmetric_noise(rate: float) -> np.ndarray:
    r"""CIFAR-10's classes replaced by the one they are mistaken for.

    Truck becomes automobile, bird airplane, deer horse, cat dog and dog cat, each with
    probability r; the other five classes keep their labels, so a rate of 0.4 changes
    20% of balanced labels.

    Args:
      rate: r, in [0, 1].

    Returns:
      ``[10, 10]`` float64 transition matrix, classes in the data set's order.

    Examples:
      >>> cifar10_asymmetric_noise(0.4)[9, [1, 9]]
      array([0.4, 0.6])

    References:
      Patrini et al., *Making deep neural networks robust to label noise: a loss
      correction approach*, CVPR 2017, section 5.
    """
    following = np.arange(10)
    following[list(_CIFAR10_CONFUSED)] = list(_CIFAR10_CONFUSED.values())
    return _flip(following, rate)


def confusion_noise(
    labels: ArrayLike, noisy_labels: ArrayLike, num_classes: int
) -> np.ndarray:
    r"""The noise observed in labels whose true classes are known, such as human labels.

    .. math:: T_{cd} = \frac{|\{i : y_i = c, \tilde y_i = d\}|}{|\{i : y_i = c\}|}

    Args:
      labels: ``[N]`` true classes, integers in ``[0, C)``.
      noisy_labels: ``[N]`` given classes, integers in ``[0, C)``.
      num_classes: C.

    Returns:
      ``[C, C]`` float64 transition matrix. A class without examples keeps its labels.

    Examples:
      >>> confusion_noise([0, 0, 1, 1], [0, 1, 1, 1], 2)
      array([[0.5, 0.5],
             [0. , 1. ]])
    """
    y = _host.labels(labels, num_classes)
    noisy = _host.labels(noisy_labels, num_classes, name="noisy_labels", length=y.size)
    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (y, noisy), 1.0)
    empty = counts.sum(axis=1) == 0
    counts[empty, empty] = 1.0
    return counts / counts.sum(axis=1, keepdims=True)


def _flip(following: np.ndarray, rate: float) -> np.ndarray:
    """The matrix that sends class c to ``following[c]`` with probability ``rate``."""
    _validate.number("rate", rate, low=0, high=1)
    same = np.eye(following.size)
    return (1 - rate) * same + rate * same[following]


def _fixed_number(
    probabilities: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Picks each example with its probability, a rounded number in all and by group."""
    order = rng.permutation(probabilities.size)
    order = order[np.argsort(groups[order], kind="stable")]
    picked = np.zeros(probabilities.size, bool)
    picked[order] = round_unbiased(probabilities[order], rng) > 0
    return picked


def _check_transition(transition: ArrayLike) -> np.ndarray:
    """Checks a square matrix of probabilities with rows that sum to 1."""
    t = _host.floats("transition", transition, shape=(None, None))
    if t.shape[0] != t.shape[1]:
        raise ValueError(f"transition must be square, got shape {t.shape}.")
    sums = t.sum(axis=1)
    bad = (t < 0).any(axis=1) | (np.abs(sums - 1) > 1e-4)
    if bad.any():
        c = int(np.argmax(bad))
        raise ValueError(
            "transition must have rows of probabilities that sum to 1, got row "
            f"{c} with minimum {t[c].min():.4g} and sum {sums[c]:.8g}."
        )
    return t
