"""Argument checks shared by every public function.

Shapes and dtypes are checked while tracing. Values are checked only where they are
concrete: inside ``jit`` a number may be a tracer, whose value is not checked.
"""

from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_KINDS = {
    "floating": jnp.floating,
    "integer": jnp.integer,
    "bool": jnp.bool_,
    "number": jnp.number,
}


def concrete(value: Any) -> bool:
    """Whether ``value`` can be looked at now (it is not a tracer)."""
    return not isinstance(value, jax.core.Tracer)


def array(
    name: str,
    value: Any,
    *,
    shape: Sequence[int | None] | None = None,
    ndim: int | None = None,
    kind: str | None = None,
) -> None:
    """Checks rank, shape (``None`` matches any length) and kind of dtype."""
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise TypeError(f"{name} must be an array, got {_describe(value)}.")
    if ndim is not None and len(value.shape) != ndim:
        raise ValueError(
            f"{name} must have {ndim} dimension{'s' * (ndim != 1)}, "
            f"got shape {tuple(value.shape)}."
        )
    if shape is not None and not _matches(value.shape, shape):
        expected = tuple("any" if s is None else s for s in shape)
        raise ValueError(
            f"{name} must have shape {_tuple(expected)}, got {tuple(value.shape)}."
        )
    if kind is not None and not jnp.issubdtype(value.dtype, _KINDS[kind]):
        raise TypeError(f"{name} must have {kind} dtype, got {value.dtype}.")


def classification(logits: Any, labels: Any) -> None:
    """Checks ``logits [B, C]`` (floating) against ``labels [B]`` (integers)."""
    array("logits", logits, ndim=2, kind="floating")
    array("labels", labels, shape=(logits.shape[0],), kind="integer")
    _classes(logits)


def targets(logits: Any, labels: Any) -> None:
    """Checks ``logits [B, C]`` against labels, ``[B]`` or probabilities ``[B, C]``."""
    if getattr(labels, "ndim", 1) != 2:
        classification(logits, labels)
        return
    array("logits", logits, ndim=2, kind="floating")
    array("labels", labels, shape=logits.shape, kind="floating")
    _classes(logits)


def mask(where: Any, shape: Sequence[int]) -> None:
    """Checks ``where``, a mask of examples, if there is one."""
    if where is not None:
        array("where", where, shape=shape, kind="bool")


def class_vector(name: str, value: Any, num_classes: int, *, positive: bool) -> None:
    """Checks a ``[C]`` vector of finite numbers, positive or not negative."""
    array(name, value, shape=(num_classes,), kind="number")
    if not concrete(value):
        return
    values = np.asarray(value, np.float64)
    bad = ~np.isfinite(values) | (values <= 0 if positive else values < 0)
    if bad.any():
        c = int(np.argmax(bad))
        expected = "positive" if positive else "not negative"
        raise ValueError(
            f"{name} must be finite and {expected}, got {values[c]} for class {c}."
        )


def number(
    name: str,
    value: Any,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """Checks a finite scalar in an interval; ``open_*`` leaves the end point out."""
    if isinstance(value, (bool, str)) or value is None or np.ndim(value) != 0:
        raise TypeError(f"{name} must be a number, got {_describe(value)}.")
    if not concrete(value):
        return
    x = float(value)
    above = x > low if open_low else x >= low
    below = x < high if open_high else x <= high
    if not (np.isfinite(x) and above and below):
        interval = f"{'(' if open_low else '['}{low}, {high}{')' if open_high else ']'}"
        raise ValueError(f"{name} must be a finite number in {interval}, got {value}.")


def integer(name: str, value: Any, *, low: int | None = None) -> None:
    """Checks a Python (or NumPy) integer, static while tracing."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {_describe(value)}.")
    if low is not None and value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}.")


def choice(name: str, value: Any, options: Collection[str]) -> None:
    """Checks that ``value`` is one of a few names."""
    if not isinstance(value, str) or value not in options:
        names = ", ".join(repr(o) for o in options)
        raise ValueError(f"{name} must be one of {names}, got {value!r}.")


def key(name: str, value: Any) -> None:
    """Checks a typed PRNG key, ``jax.random.key(seed)``."""
    if not (
        hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    ):
        raise TypeError(
            f"{name} must be a typed key from jax.random.key, got {_describe(value)}."
        )
    if value.shape != ():
        raise ValueError(f"{name} must be a single key, got shape {value.shape}.")


def _classes(logits: Any) -> None:
    if logits.shape[1] < 2:
        raise ValueError(f"logits must have at least 2 classes, got {logits.shape}.")


def _matches(shape: Sequence[int], expected: Sequence[int | None]) -> bool:
    return len(shape) == len(expected) and all(
        e is None or s == e for s, e in zip(shape, expected, strict=True)
    )


def _tuple(items: tuple[Any, ...]) -> str:
    return "(" + ", ".join(map(str, items)) + ("," if len(items) == 1 else "") + ")"


def _describe(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array of shape {tuple(value.shape)} and dtype {value.dtype}"
    return f"{type(value).__name__} {value!r}"
