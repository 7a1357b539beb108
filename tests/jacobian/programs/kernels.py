"""NumPy rules of primitives: numbers, shapes and reductions."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

RULES: dict[str, Callable[..., Any]] = {}


def rule(*names: str):
    def register(fun):
        RULES.update(dict.fromkeys(names, fun))
        return fun

    return register


def _ignoring(fun):
    return lambda *xs, **_: fun(*xs)


_UFUNCS = {
    **{
        n: getattr(np, n)
        for n in ("sin", "cos", "tanh", "exp", "log", "log1p", "expm1")
    },
    **{n: getattr(np, n) for n in ("sqrt", "abs", "floor", "ceil", "square", "real")},
    **{
        n: getattr(np, n)
        for n in ("imag", "conj", "sinh", "cosh", "tan", "cbrt", "exp2")
    },
    **{"add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply},
    **{"max": np.maximum, "min": np.minimum, "neg": np.negative, "pow": np.power},
    **{"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal},
    **{"gt": np.greater, "ge": np.greater_equal, "and": np.bitwise_and},
    **{"or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert},
    **{"atan2": np.arctan2, "atan": np.arctan, "is_finite": np.isfinite},
    "complex": lambda a, b: a + 1j * b,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "copy": np.array,
    "copy_p": np.array,
    "stop_gradient": np.array,
    "name": np.array,
}
RULES.update({name: _ignoring(fun) for name, fun in _UFUNCS.items()})


@rule("div")
def _div(x, y):
    return x / y if np.issubdtype(x.dtype, np.inexact) else NotImplemented


@rule("sign")
def _sign(x):
    return NotImplemented if np.iscomplexobj(x) else np.sign(x)


@rule("integer_pow")
def _integer_pow(x, y):
    return x**y if np.issubdtype(x.dtype, np.inexact) else NotImplemented


@rule("convert_element_type")
def _convert(x, new_dtype, **_):
    if jnp.issubdtype(new_dtype, jax.dtypes.extended):
        return NotImplemented
    if np.iscomplexobj(x) and not np.issubdtype(new_dtype, np.complexfloating):
        x = x.real
    return x.astype(new_dtype)


@rule("select_n")
def _select_n(which, *cases):
    return np.choose(which.astype(int), cases) if len(cases) < 30 else NotImplemented


@rule("clamp")
def _clamp(low, x, high):
    return np.minimum(np.maximum(x, low), high)


@rule("optimization_barrier")
def _barrier(*xs):
    return xs


@rule("broadcast_in_dim")
def _broadcast(x, *, shape, broadcast_dimensions, **_):
    sizes = [1] * len(shape)
    for k, d in zip(broadcast_dimensions, x.shape, strict=True):
        sizes[k] = d
    return np.broadcast_to(x.reshape(sizes), shape)


@rule("reshape")
def _reshape(x, *, new_sizes, dimensions, **_):
    return NotImplemented if dimensions is not None else x.reshape(new_sizes)


@rule("squeeze")
def _squeeze(x, *, dimensions):
    return np.squeeze(x, tuple(dimensions))


@rule("transpose")
def _transpose(x, *, permutation):
    return x.transpose(permutation)


@rule("rev")
def _rev(x, *, dimensions):
    return np.flip(x, tuple(dimensions))


@rule("concatenate")
def _concatenate(*xs, dimension):
    return np.concatenate(xs, dimension)


@rule("stack")
def _stack(*xs, axis):
    return np.stack(xs, axis)


@rule("unstack")
def _unstack(x, *, axis):
    return [np.take(x, i, axis) for i in range(x.shape[axis])]


@rule("split")
def _split(x, *, sizes, axis):
    return np.split(x, np.cumsum(sizes)[:-1], axis)


@rule("pad")
def pad(x, value, *, padding_config):
    inner = [
        d + max(d - 1, 0) * step
        for d, (_, _, step) in zip(x.shape, padding_config, strict=True)
    ]
    out = np.full(inner, value, x.dtype)
    out[tuple(slice(None, None, step + 1) for _, _, step in padding_config)] = x
    out = np.pad(
        out,
        [(max(low, 0), max(high, 0)) for low, high, _ in padding_config],
        constant_values=value,
    )
    return out[
        tuple(
            slice(max(-low, 0), d - max(-high, 0))
            for d, (low, high, _) in zip(out.shape, padding_config, strict=True)
        )
    ]


@rule("slice")
def _slice(x, *, start_indices, limit_indices, strides):
    strides = strides or (1,) * x.ndim
    parts = zip(start_indices, limit_indices, strides, strict=True)
    return x[tuple(slice(*part) for part in parts)]


def window(starts, sizes, shape):
    parts = zip(starts, sizes, shape, strict=True)
    clipped = [(int(np.clip(int(i), 0, d - n)), n) for i, n, d in parts]
    return tuple(slice(i, i + n) for i, n in clipped)


@rule("dynamic_slice")
def _dynamic_slice(x, *starts, slice_sizes):
    return x[window(starts, slice_sizes, x.shape)]


@rule("dynamic_update_slice")
def _dynamic_update_slice(x, update, *starts):
    out = x.copy()
    out[window(starts, update.shape, x.shape)] = update
    return out


@rule("iota")
def _iota(*, dtype, shape, dimension, **_):
    sizes = [-1 if k == dimension else 1 for k in range(len(shape))]
    return np.broadcast_to(np.arange(shape[dimension]).reshape(sizes), shape)


def _reduction(fun):
    def reduced(x, *, axes, **_):
        return fun(x, axis=tuple(axes))

    return reduced


for _name, _fun in {
    **{"sum": np.sum, "prod": np.prod},
    **{"and": np.logical_and.reduce, "or": np.logical_or.reduce},
}.items():
    RULES[f"reduce_{_name}"] = _reduction(_fun)


def _extreme(fun):
    def reduced(x, *, axes, **_):
        return fun(x, axis=tuple(axes)) if x.size else NotImplemented

    return reduced


RULES["reduce_max"], RULES["reduce_min"] = _extreme(np.max), _extreme(np.min)


def _cumulative(fun):
    def scanned(x, *, axis, reverse):
        if not reverse:
            return fun(x, axis)
        return np.flip(fun(np.flip(x, axis), axis), axis)

    return scanned


RULES["cumsum"], RULES["cumprod"] = _cumulative(np.cumsum), _cumulative(np.cumprod)
RULES["cummax"] = _cumulative(np.maximum.accumulate)
RULES["cummin"] = _cumulative(np.minimum.accumulate)
