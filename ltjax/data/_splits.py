"""Long-tailed training sets cut from balanced ones, and meta sets beside them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ltjax import _host, _validate
from ltjax.data._counts import exponential_counts, step_counts


class Split(NamedTuple):
    """Indices of disjoint parts, each in ascending order; empty if there are none."""

    train: np.ndarray
    validation: np.ndarray = np.zeros(0, np.int64)
    meta: np.ndarray = np.zeros(0, np.int64)


def subsample(
    labels: ArrayLike, counts: ArrayLike, rng: np.random.Generator | None
) -> np.ndarray:
    """Indices of a given number of examples of each class.

    Args:
      labels: ``[N]`` integers in ``[0, C)``.
      counts: ``[C]`` integers, examples to take of each class.
      rng: source of a uniform draw without replacement; None takes the first examples
        of each class in the order of ``labels``.

    Returns:
      ``[sum(counts)]`` int64 indices into ``labels``, ascending.

    Raises:
      ValueError: if a class has too few examples.

    Examples:
      >>> subsample([0, 1, 0, 1, 0], [2, 1], None)
      array([0, 1, 2])
    """
    if rng is not None:
        _host.generator("rng", rng)
    wanted = np.asarray(counts)
    _validate.array("counts", wanted, ndim=1, kind="integer")
    _host.counts(wanted, name="counts")
    y = _host.labels(labels, wanted.size)
    available = np.bincount(y, minlength=wanted.size)
    if (wanted > available).any():
        c = int(np.argmax(wanted > available))
        raise ValueError(
            f"counts must be at most the examples of each class, got {wanted[c]} for "
            f"class {c}, which has {available[c]}."
        )
    order = np.arange(y.size) if rng is None else rng.permutation(y.size)
    return np.sort(order[_rank_in_class(y[order]) < wanted[y[order]]])


def meta_split(
    labels: ArrayLike,
    size: int,
    rng: np.random.Generator,
    *,
    num_classes: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Sets aside a class-balanced set: a clean meta set, or a validation set.

    The two parts are disjoint and together hold all examples. For a clean meta set
    beside noisy training data, split first, then corrupt the rest.

    Args:
      labels: ``[N]`` integers in ``[0, C)``.
      size: examples to set aside. Classes get equally many; if C does not divide
        ``size``, the first ``size % C`` classes get one more.
      rng: source of the draw, uniform without replacement within each class.
      num_classes: C; one more than the largest label by default.

    Returns:
      Indices of the rest and of the set aside, both int64 and ascending.

    Raises:
      ValueError: if a class has too few examples.

    Examples:
      >>> rng = np.random.default_rng(0)
      >>> rest, meta = meta_split([0, 0, 0, 1, 1], 2, rng)
      >>> len(rest), len(meta), sorted({*rest.tolist(), *meta.tolist()})
      (3, 2, [0, 1, 2, 3, 4])

    References:
      Chen et al., *Generalized DataWeighting via class-level gradient manipulation*,
      NeurIPS 2021. The released code leaves the meta images in the training set; here
      they are always taken out.
    """
    _host.generator("rng", rng)
    _validate.integer("size", size, low=0)
    y = _host.labels(labels, num_classes)
    num_classes = _host.infer_num_classes(y, num_classes)
    counts = np.full(num_classes, size // num_classes)
    counts[: size % num_classes] += 1
    available = np.bincount(y, minlength=num_classes)
    if (counts > available).any():
        c = int(np.argmax(counts > available))
        raise ValueError(
            f"size must leave a balanced set possible, got {size}: that is {counts[c]} "
            f"examples of class {c}, which has {available[c]}."
        )
    meta = subsample(y, counts, rng)
    return np.setdiff1d(np.arange(y.size), meta), meta


def exponential_split(
    labels: ArrayLike, factor: float, rng: np.random.Generator
) -> Split:
    r"""Long-tailed set by the convention of LDAM and its successors.

    .. math:: n_c = \lfloor n f^{c/(C-1)} \rfloor

    examples of class c, drawn at random, with n the size of the smallest class (N/C in
    a balanced set). At factor 0.01 CIFAR-10 keeps 12,406 images and CIFAR-100 10,847.

    Args:
      labels: ``[N]`` integers in ``[0, C)``; balanced for these totals.
      factor: rarest over most frequent class, in (0, 1].
      rng: source of the draw.

    Returns:
      A :class:`Split` with a training part only.

    Raises:
      ValueError: if a class has too few examples.

    Examples:
      >>> labels = np.arange(5000) % 10
      >>> len(exponential_split(labels, 0.1, np.random.default_rng(0)).train)
      2040

    References:
      Cao et al., *Learning imbalanced datasets with label-distribution-aware margin
      loss*, NeurIPS 2019.
    """
    y, num_classes, smallest = _classes(labels)
    _host.generator("rng", rng)
    counts = exponential_counts(num_classes, smallest, factor)
    return Split(subsample(y, counts, rng))


def step_split(labels: ArrayLike, factor: float, rng: np.random.Generator) -> Split:
    r"""Set with half of the classes frequent and half rare.

    .. math:: n_c = n \text{ for } c < \lfloor C/2 \rfloor,
      \quad \lfloor n f \rfloor \text{ otherwise}

    with n the size of the smallest class (N/C in a balanced set).

    Args:
      labels: ``[N]`` integers in ``[0, C)``; balanced for these totals.
      factor: rare over frequent class, in (0, 1].
      rng: source of the draw.

    Returns:
      A :class:`Split` with a training part only.

    Raises:
      ValueError: if a class has too few examples.

    Examples:
      >>> labels = np.arange(5000) % 10
      >>> len(step_split(labels, 0.1, np.random.default_rng(0)).train)
      2750

    References:
      Cao et al., *Learning imbalanced datasets with label-distribution-aware margin
      loss*, NeurIPS 2019.
    """
    y, num_classes, smallest = _classes(labels)
    _host.generator("rng", rng)
    counts = step_counts(num_classes, smallest, factor)
    return Split(subsample(y, counts, rng))


def gdw_split(
    labels: ArrayLike,
    factor: float,
    rng: np.random.Generator,
    *,
    meta_size: int = 1000,
) -> Split:
    r"""Long-tailed set beside a clean, balanced meta set, by GDW's convention.

    .. math:: n_c = \lfloor (n - \tfrac{M}{C}) f^{c/(C-1)} \rfloor

    examples of class c, drawn at random from what the meta set of M leaves, with n the
    size of the smallest class (N/C in a balanced set). At factor 0.01 CIFAR-10 keeps
    12,156 images and CIFAR-100 10,626. Factor 1 keeps everything of a balanced set, as
    the experiments with label noise do.

    Args:
      labels: ``[N]`` integers in ``[0, C)``; balanced for these totals.
      factor: rarest over most frequent class, in (0, 1].
      rng: source of both draws.
      meta_size: M, a multiple of C.

    Returns:
      A :class:`Split` with a training and a meta part.

    Raises:
      ValueError: if a class has too few examples.

    Examples:
      >>> labels = np.arange(5000) % 10
      >>> split = gdw_split(labels, 0.1, np.random.default_rng(0), meta_size=100)
      >>> len(split.train), len(split.meta)
      (1999, 100)

    References:
      Chen et al., *Generalized DataWeighting via class-level gradient manipulation*,
      NeurIPS 2021. The released code leaves most of the meta images in the training
      set; here they are taken out.
    """
    y, num_classes, smallest = _classes(labels)
    _validate.integer("meta_size", meta_size, low=0)
    if meta_size % num_classes:
        raise ValueError(
            f"meta_size must be a multiple of the {num_classes} classes, "
            f"got {meta_size}."
        )
    max_count = _left("meta_size", meta_size // num_classes, smallest)
    rest, meta = meta_split(y, meta_size, rng, num_classes=num_classes)
    counts = exponential_counts(num_classes, max_count, factor)
    return Split(rest[subsample(y[rest], counts, rng)], meta=meta)


def weight_balancing_split(
    labels: ArrayLike, factor: float, *, validation_per_class: int = 20
) -> Split:
    r"""Long-tailed set in file order, by the convention of weight balancing.

    .. math:: n_c = \mathrm{round}\big((n - V) f^{c/(C-1)}\big)

    with n the size of the smallest class (N/C in a balanced set). The first :math:`n_c`
    examples of class c are for training, the next V for validation. At factor 0.01
    CIFAR-10 keeps 12,360 images and CIFAR-100 10,457.

    Args:
      labels: ``[N]`` integers in ``[0, C)``; balanced for these totals.
      factor: rarest over most frequent class, in (0, 1].
      validation_per_class: V.

    Returns:
      A :class:`Split` with a training and a validation part.

    Raises:
      ValueError: if a class has too few examples.

    Examples:
      >>> split = weight_balancing_split(np.arange(5000) % 10, 0.1)
      >>> len(split.train), len(split.validation)
      (1963, 200)

    References:
      Hasegawa and Sato, *Exploring weight balancing on long-tailed recognition
      problem*, ICLR 2024.
    """
    y, num_classes, smallest = _classes(labels)
    _validate.integer("validation_per_class", validation_per_class, low=0)
    max_count = _left("validation_per_class", validation_per_class, smallest)
    counts = exponential_counts(num_classes, max_count, factor, rounding="nearest")
    train = subsample(y, counts, None)
    first = subsample(y, counts + validation_per_class, None)
    return Split(train, validation=np.setdiff1d(first, train))


def _rank_in_class(labels: np.ndarray) -> np.ndarray:
    """For each example, how many of its class come before it."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    rank = np.empty(labels.size, np.int64)
    rank[order] = np.arange(labels.size) - starts[labels[order]]
    return rank


def _classes(labels: ArrayLike) -> tuple[np.ndarray, int, int]:
    """Labels, number of classes, and size of the smallest class."""
    y = _host.labels(labels)
    counts = np.bincount(y, minlength=_host.infer_num_classes(y, None))
    if counts.min() == 0:
        raise ValueError(
            f"labels must have examples of every class from 0 to {counts.size - 1}, "
            f"got none of class {int(counts.argmin())}."
        )
    return y, counts.size, int(counts.min())


def _left(name: str, per_class: int, smallest: int) -> int:
    """What setting aside some of each class leaves of the smallest."""
    if per_class >= smallest:
        raise ValueError(
            f"{name} must leave examples of every class for training, got {per_class} "
            f"a class where the smallest class has {smallest}."
        )
    return smallest - per_class
