"""Traced functions evaluated by NumPy, which compiles nothing.

A random program is run once, so compiling it costs more than all the rest. Primitives
without a rule here are left to JAX, one by one. What NumPy finds is held to compiled
code by a test.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

RULES: dict[str, Callable[..., Any]] = {}


def evaluate(fun: Callable[..., Any], *args: Any) -> Any:
    """``fun(*args)``."""
    closed, shapes = jax.make_jaxpr(fun, return_shape=True)(*args)
    leaves = [np.asarray(x) for x in jax.tree.leaves(args)]
    with np.errstate(all="ignore"):
        out = _run(closed.jaxpr, closed.consts, leaves)
    return jax.tree.unflatten(jax.tree.structure(shapes), out)


def _run(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, map(_plain, consts), strict=True))
    env.update(zip(jaxpr.invars, args, strict=True))
    for eqn in jaxpr.eqns:
        operands = [
            np.asarray(a.val, a.aval.dtype) if isinstance(a, core.Literal) else env[a]
            for a in eqn.invars
        ]
        out = _apply(eqn, operands)
        for var, x in zip(eqn.outvars, out, strict=True):
            if isinstance(x, np.ndarray | np.generic):
                x = np.asarray(x, var.aval.dtype)
                if x.shape != var.aval.shape:
                    raise AssertionError(f"{eqn.primitive}: {x.shape} {var.aval}")
            env[var] = x
    return [
        np.asarray(a.val, a.aval.dtype) if isinstance(a, core.Literal) else env[a]
        for a in jaxpr.outvars
    ]


def _apply(eqn: Any, operands: list[Any]) -> list[Any]:
    rule = RULES.get(eqn.primitive.name)
    plain = all(isinstance(x, np.ndarray) for x in operands)
    found = rule(*operands, **eqn.params) if rule and plain else NotImplemented
    if found is not NotImplemented:
        return list(found) if eqn.primitive.multiple_results else [found]
    arrays = [_device(x) for x in operands]
    bound = eqn.primitive.bind(*arrays, **eqn.primitive.get_bind_params(eqn.params))
    many = eqn.primitive.multiple_results
    return [_plain(x) for x in (bound if many else [bound])]


def _device(x: Any) -> Any:
    if isinstance(x, np.ndarray) and x.dtype != jax.dtypes.float0:
        return jnp.asarray(x)
    return x


def _plain(x: Any) -> Any:
    extended = jnp.issubdtype(getattr(x, "dtype", None), jax.dtypes.extended)
    return x if extended else np.asarray(x)


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
def _pad(x, value, *, padding_config):
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


def _window(starts, sizes, shape):
    parts = zip(starts, sizes, shape, strict=True)
    clipped = [(int(np.clip(int(i), 0, d - n)), n) for i, n, d in parts]
    return tuple(slice(i, i + n) for i, n in clipped)


@rule("dynamic_slice")
def _dynamic_slice(x, *starts, slice_sizes):
    return x[_window(starts, slice_sizes, x.shape)]


@rule("dynamic_update_slice")
def _dynamic_update_slice(x, update, *starts):
    out = x.copy()
    out[_window(starts, update.shape, x.shape)] = update
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


@rule("dot_general")
def _dot_general(x, y, *, dimension_numbers, **_):
    (contract_x, contract_y), (batch_x, batch_y) = dimension_numbers
    free = iter(range(len(batch_x) + len(contract_x), 52))
    at_x, at_y = [-1] * x.ndim, [-1] * y.ndim
    for n, (i, j) in enumerate(
        [*zip(batch_x, batch_y, strict=True), *zip(contract_x, contract_y, strict=True)]
    ):
        at_x[i] = at_y[j] = n
    at_x = [next(free) if n < 0 else n for n in at_x]
    at_y = [next(free) if n < 0 else n for n in at_y]
    held = set(range(len(batch_x), len(batch_x) + len(contract_x)))
    out = [
        *range(len(batch_x)),
        *(n for n in at_x + at_y if n >= len(batch_x) and n not in held),
    ]
    return np.einsum(x, at_x, y, at_y, out)


@rule("sort")
def _sort(*xs, dimension, is_stable, num_keys):
    if num_keys != 1:
        return NotImplemented
    order = np.argsort(xs[0], axis=dimension, kind="stable")
    return [np.take_along_axis(x, order, dimension) for x in xs]


def _places(indices, depth):
    """Positions of a gather or scatter, with the start that belongs to each."""
    for place in np.ndindex(indices.shape[:-1]):
        yield place, indices[place]


def _start(numbers, targets, batching, place, index, ndim):
    start = [0] * ndim
    for k, i in zip(targets, index, strict=True):
        start[k] = int(i)
    for k, position in zip(*batching, strict=True):
        start[k] = place[position]
    return start


def _inside(start, sizes, shape):
    return all(0 <= i <= d - n for i, n, d in zip(start, sizes, shape, strict=True))


@rule("gather")
def _gather(x, indices, *, dimension_numbers, slice_sizes, mode, fill_value, **_):
    dn = dimension_numbers
    batching = dn.operand_batching_dims, dn.start_indices_batching_dims
    gone = (*dn.collapsed_slice_dims, *dn.operand_batching_dims)
    window = [n for k, n in enumerate(slice_sizes) if k not in gone]
    out = np.zeros((*indices.shape[:-1], *window), x.dtype)
    fill = mode == lax.GatherScatterMode.FILL_OR_DROP
    if fill and fill_value is None:
        fill_value = np.nan if np.issubdtype(x.dtype, np.inexact) else NotImplemented
    if fill_value is NotImplemented:
        return NotImplemented
    for place, index in _places(indices, x.ndim):
        start = _start(dn, dn.start_index_map, batching, place, index, x.ndim)
        if fill and not _inside(start, slice_sizes, x.shape):
            out[place] = fill_value
        else:
            out[place] = x[_window(start, slice_sizes, x.shape)].reshape(window)
    positions = [k for k in range(out.ndim) if k not in dn.offset_dims]
    return np.moveaxis(out, range(out.ndim), [*positions, *dn.offset_dims])


def _scatter(combine):
    def scattered(x, indices, updates, *, dimension_numbers, mode, **_):
        dn = dimension_numbers
        batching = dn.operand_batching_dims, dn.scatter_indices_batching_dims
        gone = (*dn.inserted_window_dims, *dn.operand_batching_dims)
        sizes = [1] * x.ndim
        kept = [k for k in range(x.ndim) if k not in gone]
        for k, axis in zip(kept, dn.update_window_dims, strict=True):
            sizes[k] = updates.shape[axis]
        at = [k for k in range(updates.ndim) if k not in dn.update_window_dims]
        updates = updates.transpose(*at, *dn.update_window_dims)
        out = x.copy()
        clip = mode == lax.GatherScatterMode.CLIP
        for place, index in _places(indices, x.ndim):
            start = _start(
                dn, dn.scatter_dims_to_operand_dims, batching, place, index, x.ndim
            )
            if clip or _inside(start, sizes, x.shape):
                where = _window(start, sizes, x.shape)
                out[where] = combine(out[where], updates[place].reshape(sizes))
        return out

    return scattered


RULES["scatter"] = _scatter(lambda old, new: new)
RULES["scatter-add"] = RULES["scatter_add"] = _scatter(np.add)
RULES["scatter_mul"] = RULES["scatter-mul"] = _scatter(np.multiply)
RULES["scatter_max"] = _scatter(np.maximum)
RULES["scatter_min"] = _scatter(np.minimum)


@rule("conv_general_dilated")
def _conv(
    x,
    kernel,
    *,
    window_strides,
    padding,
    lhs_dilation,
    rhs_dilation,
    dimension_numbers,
    feature_group_count,
    batch_group_count,
    **_,
):
    dn, groups = dimension_numbers, feature_group_count
    x, kernel = x.transpose(dn.lhs_spec), kernel.transpose(dn.rhs_spec)
    config = [
        (low, high, d - 1) for (low, high), d in zip(padding, lhs_dilation, strict=True)
    ]
    x = _pad(x, np.zeros((), x.dtype), padding_config=[(0, 0, 0), (0, 0, 0), *config])
    steps = zip(
        x.shape[2:], kernel.shape[2:], window_strides, rhs_dilation, strict=True
    )
    size = [max(0, (d - (k - 1) * r - 1) // s + 1) for d, k, s, r in steps]
    if batch_group_count > 1:
        x = x.reshape(batch_group_count, -1, *x.shape[1:])
        x = np.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])
        groups = batch_group_count
    n, out = x.shape[0], kernel.shape[0]
    x = x.reshape(n, groups, -1, *x.shape[2:])
    kernel = kernel.reshape(groups, out // groups, *kernel.shape[1:])
    total = np.zeros((n, groups, out // groups, *size), np.result_type(x, kernel))
    for offset in np.ndindex(kernel.shape[3:]):
        part = tuple(
            slice(o * r, o * r + (m - 1) * s + 1 if m else o * r, s)
            for o, r, m, s in zip(
                offset, rhs_dilation, size, window_strides, strict=True
            )
        )
        seen = x[(slice(None),) * 3 + part]
        total += np.einsum(
            "ngc...,goc->ngo...", seen, kernel[(slice(None),) * 3 + offset]
        )
    return np.moveaxis(total.reshape(n, out, *size), range(total.ndim - 1), dn.out_spec)


@rule("fft")
def _fft(x, *, fft_type, fft_lengths):
    axes = tuple(range(x.ndim - len(fft_lengths), x.ndim))
    kind = getattr(fft_type, "name", str(fft_type)).rpartition(".")[2]
    fun = {
        "FFT": np.fft.fftn,
        "IFFT": np.fft.ifftn,
        "RFFT": np.fft.rfftn,
        "IRFFT": np.fft.irfftn,
    }
    return fun[kind](x, fft_lengths, axes) if x.size else NotImplemented


# Functions inside.


def _closed(body: Any, args: Sequence[Any]) -> list[Any]:
    return _run(body.jaxpr, body.consts, args)


@rule(
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "remat2",
    "checkpoint",
)
def _call(*args, **params):
    body = params.get("jaxpr") or params.get("call_jaxpr")
    if isinstance(body, core.Jaxpr):
        return _run(body, (), args)
    return _closed(body, args)


@rule("cond")
def _cond(index, *args, branches, **_):
    return _closed(branches[int(np.clip(int(index), 0, len(branches) - 1))], args)


@rule("while")
def _while(*args, cond_nconsts, cond_jaxpr, body_nconsts, body_jaxpr, **_):
    test, body = args[:cond_nconsts], args[cond_nconsts : cond_nconsts + body_nconsts]
    state = list(args[cond_nconsts + body_nconsts :])
    while _closed(cond_jaxpr, [*test, *state])[0]:
        state = _closed(body_jaxpr, [*body, *state])
    return state


@rule("scan")
def _scan(*args, jaxpr, length, reverse, **params):
    if "num_consts" not in params or not length:
        return NotImplemented
    n, m = params["num_consts"], params["num_consts"] + params["num_carry"]
    consts, carry, xs = args[:n], list(args[n:m]), args[m:]
    made = []
    for i in reversed(range(length)) if reverse else range(length):
        out = _closed(jaxpr, [*consts, *carry, *(x[i] for x in xs)])
        carry = out[: len(carry)]
        made.append(out[len(carry) :])
    made = made[::-1] if reverse else made
    return [*carry, *(np.stack(ys) for ys in zip(*made, strict=True))]
