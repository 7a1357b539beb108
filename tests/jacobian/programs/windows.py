"""NumPy rules of primitives: products, sorts, gathers, scatters, convolutions."""

import numpy as np
from jax import lax

from tests.jacobian.programs.kernels import RULES, pad, rule, window


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


def _places(indices):
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
    kept = [n for k, n in enumerate(slice_sizes) if k not in gone]
    out = np.zeros((*indices.shape[:-1], *kept), x.dtype)
    fill = mode == lax.GatherScatterMode.FILL_OR_DROP
    if fill and fill_value is None:
        fill_value = np.nan if np.issubdtype(x.dtype, np.inexact) else NotImplemented
    if fill_value is NotImplemented:
        return NotImplemented
    for place, index in _places(indices):
        start = _start(dn, dn.start_index_map, batching, place, index, x.ndim)
        if fill and not _inside(start, slice_sizes, x.shape):
            out[place] = fill_value
        else:
            out[place] = x[window(start, slice_sizes, x.shape)].reshape(kept)
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
        for place, index in _places(indices):
            start = _start(
                dn, dn.scatter_dims_to_operand_dims, batching, place, index, x.ndim
            )
            if clip or _inside(start, sizes, x.shape):
                where = window(start, sizes, x.shape)
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
    x = pad(x, np.zeros((), x.dtype), padding_config=[(0, 0, 0), (0, 0, 0), *config])
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
