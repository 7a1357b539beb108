"""Reading arguments of the host-side functions: array-like in, checked NumPy out."""

from typing import Any

import numpy as np

from ltjax import _validate


def labels(
    value: Any,
    num_classes: int | None = None,
    *,
    name: str = "labels",
    length: int | None = None,
) -> np.ndarray:
    """``[N]`` integers in ``[0, num_classes)`` as int64."""
    array = np.asarray(value)
    _validate.array(name, array, shape=(length,), kind="integer")
    if num_classes is not None:
        _validate.integer("num_classes", num_classes, low=1)
    high = np.inf if num_classes is None else num_classes
    bad = (array < 0) | (array >= high)
    if bad.any():
        i = int(np.argmax(bad))
        raise ValueError(
            f"{name} must be in [0, {high}), got {array[i]} at position {i}."
        )
    return array.astype(np.int64)


def infer_num_classes(labels: np.ndarray, num_classes: int | None) -> int:
    """The stated number of classes, or one more than the largest label."""
    if num_classes is not None:
        return num_classes
    if labels.size == 0:
        raise ValueError("labels must not be empty where num_classes is not given.")
    return int(labels.max()) + 1


def floats(
    name: str,
    value: Any,
    *,
    shape: tuple[int | None, ...] | None = None,
    allow_inf: bool = False,
) -> np.ndarray:
    """Real numbers as float64, without NaN (and infinities unless allowed)."""
    array = np.asarray(value)
    _validate.array(name, array, shape=shape, kind="number")
    if np.issubdtype(array.dtype, np.complexfloating):
        raise TypeError(f"{name} must be real, got {array.dtype}.")
    array = array.astype(np.float64)
    bad = np.isnan(array) if allow_inf else ~np.isfinite(array)
    if bad.any():
        i = tuple(int(j) for j in np.argwhere(bad)[0])
        expected = "not be NaN" if allow_inf else "be finite"
        raise ValueError(f"{name} must {expected}, got {array[i]} at position {i}.")
    return array


def counts(value: Any, *, name: str = "class_counts") -> np.ndarray:
    """``[C]`` finite numbers, not negative, as float64."""
    array = np.asarray(value)
    _validate.array(name, array, ndim=1, kind="number")
    _validate.class_vector(name, array, array.size, positive=False)
    return array.astype(np.float64)


def not_empty(name: str, array: np.ndarray) -> None:
    """Checks that there is at least one example to measure."""
    if array.shape[0] == 0:
        raise ValueError(f"{name} must have at least one example, got {array.shape}.")


def generator(name: str, value: Any) -> None:
    """Checks a NumPy random generator."""
    if not isinstance(value, np.random.Generator):
        raise TypeError(
            f"{name} must be a numpy.random.Generator (numpy.random.default_rng(seed)),"
            f" got {type(value).__name__} {value!r}."
        )


def mask(name: str, value: Any, length: int) -> np.ndarray:
    """``[N]`` booleans."""
    array = np.asarray(value)
    _validate.array(name, array, shape=(length,), kind="bool")
    return array
