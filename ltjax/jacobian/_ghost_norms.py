"""Rows of single operations: from operands and cotangents to gradients per example.

Given ``y = op(a, s)``, the operands ``a`` with a batch axis and the cotangents ``d`` of
``y``, the row of example ``i`` with respect to the shared ``s`` is the product of
``d_i`` with the derivative at ``a_i``. Norms of these rows are often cheaper than they
are: for a matrix product they follow from inner products of the ``a_i`` and ``d_i``.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ltjax._numerics import at_least_float32, widest
from ltjax.jacobian._chunks import map_chunks
from ltjax.jacobian._independence import ELEMENTWISE, SHARED
from ltjax.jacobian._jaxpr import shape_of

# Operations on shared values that keep the norm of what flows back through them.
ISOMETRIES = frozenset(
    [
        *("convert_element_type", "copy", "copy_p", "neg", "rev", "transpose"),
        *("reshape", "squeeze", "broadcast_in_dim"),
    ]
)
PRODUCTS = frozenset(["dot_general", "conv_general_dilated"])
_BY_EXAMPLE = ELEMENTWISE | {"dot_general", "broadcast_in_dim", "gather"}

ChunkSize = Callable[[int], int]  # bytes of one row -> rows at a time


class Rows:
    """Rows of ``tap`` for the operand at ``position``, one example at a time.

    Attributes:
      tap: the operation.
      position: which of its operands.
      examples: what ``one`` needs of every example, with a leading batch axis.
    """

    def __init__(self, tap, position, operands, cotangents, size):
        self.tap = tap
        self.position = position
        self._operands = operands
        self._shared = operands[position]
        self._size = size
        self.examples: Any = (
            {
                j: split_examples(x, axis, size)
                for j, (x, axis) in enumerate(zip(operands, tap.axes, strict=True))
                if isinstance(axis, int)
            },
            [
                split_examples(d, axis, size)
                for d, axis in zip(cotangents, tap.results.values(), strict=True)
            ],
        )

    @property
    def small(self) -> bool:
        """Whether all rows take no more memory than what they are made of."""
        examples = jax.tree.leaves(self.examples)
        return self._shared.size * self._size <= sum(x.size for x in examples)

    def one(self, example: Any) -> jax.Array:
        """Row of one example: the operation is applied to that example alone."""
        own, cotangents = example
        op, changed = self.tap.op, {}
        if op.name == "broadcast_in_dim":
            changed["shape"] = cotangents[0].shape
        return self._pull(cotangents, own, changed)

    def squares(self, chunk_size: ChunkSize) -> jax.Array:
        """Squared norms of the rows, ``[B]``."""
        return map_chunks(
            lambda example: _square(self.one(example)),
            self.examples,
            chunk_size(self._shared.size * self._shared.dtype.itemsize),
        )

    def _pull(self, cotangents, own, changed):
        def fun(s):
            full = [own.get(j, x) for j, x in enumerate(self._operands)]
            full[self.position] = s
            results = self.tap.op.bind(*full, **changed)
            return [results[j] for j in self.tap.results]

        _, pullback = jax.vjp(fun, self._shared)
        return pullback(cotangents)[0]


class _Masked(Rows):
    """Rows of an operation that cannot be applied to one example alone."""

    def __init__(self, tap, position, operands, cotangents, size):
        super().__init__(tap, position, operands, cotangents, size)
        self._cotangents = cotangents
        self.examples = jnp.arange(size, dtype=jnp.int32)

    def one(self, example):
        def masked(d, axis):
            owner = lax.broadcasted_iota(jnp.int32, d.shape, axis)
            mine = owner // (d.shape[axis] // self._size) == example
            return jnp.where(mine, d, jnp.zeros_like(d))

        axes = self.tap.results.values()
        cotangents = [
            masked(d, axis) for d, axis in zip(self._cotangents, axes, strict=True)
        ]
        return self._pull(cotangents, {}, {})


class _Product(Rows):
    """Rows of a matrix product: ``a_i^T d_i``."""

    def squares(self, chunk_size):
        own, (d,) = self.examples
        (other,) = own
        contract, batch = (
            dims[other] for dims in self.tap.op.params["dimension_numbers"]
        )
        ndim = own[other].ndim - 1
        free = [k for k in range(ndim) if k not in (*contract, *batch)]
        heads, times = len(batch), len(free)
        # [B, H, T, K] and [B, H, T, N]: batch dimensions of the product, positions
        # of one example, and the sides of its row.
        a = _arrange(own[other], batch, free, contract)
        result = list(range(d.ndim - 1))
        if other == 0:
            where = result[heads : heads + times], result[heads + times :]
        else:
            where = result[d.ndim - 1 - times :], result[heads : d.ndim - 1 - times]
        d = _arrange(d, result[:heads], *where)
        return _product_squares([a], d, chunk_size)


class _Convolution(Rows):
    """Rows of a convolution's kernel, as products at every offset of the window."""

    def one(self, example):
        own, (d,) = example
        a, d = lax.optimization_barrier((own[0], d))  # see squares
        numbers = self.tap.op.params["dimension_numbers"]
        d = self._by_group(d, numbers.out_spec)
        taps = [
            jnp.einsum("gpc,gpo->ogc", x, d) for x in self._shifted(a)
        ]  # for each offset: [O/G, G, C/G]
        kernel = jnp.stack(taps, -1).swapaxes(0, 1)
        spec = numbers.rhs_spec
        shape = [self._shared.shape[k] for k in spec]
        return (
            kernel.reshape(shape).transpose(_inverse(spec)).astype(self._shared.dtype)
        )

    def squares(self, chunk_size):
        own, (d,) = self.examples
        # Windows are made of activations alone. The barrier keeps them from being made
        # as soon as those are there, and from waiting in memory for the backward pass.
        a, d = lax.optimization_barrier((own[0], d))
        out_spec = self.tap.op.params["dimension_numbers"].out_spec
        d = jax.vmap(lambda x: self._by_group(x, out_spec))(d)
        return _product_squares(jax.vmap(self._shifted)(a), d, chunk_size)

    def _shifted(self, a):
        """Inputs seen through every offset of the window, each ``[G, P, C/G]``."""
        params = self.tap.op.params
        numbers = params["dimension_numbers"]
        spatial = numbers.lhs_spec[2:]
        config = [(0, 0, 0)] * a.ndim
        for k, (low, high), dilation in zip(
            spatial, params["padding"], params["lhs_dilation"], strict=True
        ):
            config[k] = (low, high, dilation - 1)
        a = lax.pad(a, jnp.zeros((), a.dtype), config)
        out = [self.tap.op.outputs[0].shape[k] for k in numbers.out_spec[2:]]
        window = [self._shared.shape[k] for k in numbers.rhs_spec[2:]]
        shifted = []
        for offset in itertools.product(*map(range, window)):
            start, limit, strides = [0] * a.ndim, list(a.shape), [1] * a.ndim
            for k, o, n, step, dilation in zip(
                spatial,
                offset,
                out,
                params["window_strides"],
                params["rhs_dilation"],
                strict=True,
            ):
                start[k], strides[k] = o * dilation, step
                limit[k] = start[k] + (n - 1) * step + 1
            seen = lax.slice(a, start, limit, strides)
            shifted.append(self._by_group(seen, numbers.lhs_spec))
        return shifted

    def _by_group(self, x, spec):
        """``[G, positions, channels of a group]`` from any layout."""
        groups = self.tap.op.params["feature_group_count"]
        x = x.transpose(spec[0], *spec[2:], spec[1])
        x = x.reshape(-1, groups, x.shape[-1] // groups)
        return x.swapaxes(0, 1)


class _Embedding(Rows):
    """Rows of a table that is looked up: zero but where an example looked."""

    def squares(self, chunk_size):
        own, (d,) = self.examples
        indices = own[1].reshape(self._size, -1)
        d = at_least_float32(d.reshape(*indices.shape, -1))
        entries, (rows, width) = indices.shape[1], self._shared.shape
        if entries * entries > rows * width:
            return super().squares(chunk_size)
        mode = lax.GatherScatterMode.from_any(self.tap.op.params["mode"])
        if mode == lax.GatherScatterMode.CLIP:
            indices = jnp.clip(indices, 0, rows - 1)
        elif mode == lax.GatherScatterMode.FILL_OR_DROP:
            inside = (indices >= 0) & (indices < rows)
            d = jnp.where(inside[..., None], d, jnp.zeros_like(d))
        same = indices[:, :, None] == indices[:, None, :]
        products = jnp.einsum("btn,bsn->bts", d, d)
        return jnp.sum(jnp.where(same, products, jnp.zeros_like(products)), (1, 2))


def rows_of(tap, position, operands, cotangents, size) -> Rows:
    """Rows of ``tap`` for one operand, by the cheapest rule that holds."""
    kind: type[Rows] = _Masked
    op = tap.op
    # Every shared operand enters whole: none is cut along with the examples.
    apart = all(tap.axes[j] is SHARED for j in tap.operands)
    if apart and op.name == "conv_general_dilated" and position == 1:
        kind = _Convolution
    elif apart and op.name == "dot_general":
        kind = _Product
    elif apart and op.name == "gather" and _is_lookup(op):
        kind = _Embedding
    elif apart and op.name in _BY_EXAMPLE and len(tap.results) == 1:
        kind = Rows
    return kind(tap, position, operands, cotangents, size)


def split_examples(x: jax.Array, axis: int, size: int) -> jax.Array:
    """``x`` with a leading axis of examples, taken out of ``axis``."""
    x = x.reshape(*x.shape[:axis], size, -1, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 0)


def _is_lookup(op) -> bool:
    """Whether a gather takes whole rows of a matrix."""
    numbers = op.params["dimension_numbers"]
    table = shape_of(op.inputs[0])
    return (
        len(table) == 2
        and tuple(numbers.start_index_map) == (0,)
        and tuple(numbers.collapsed_slice_dims) == (0,)
        and tuple(op.params["slice_sizes"]) == (1, table[1])
        and tuple(numbers.offset_dims) == (len(op.outputs[0].shape) - 1,)
    )


def _arrange(x: jax.Array, *groups: Sequence[int]) -> jax.Array:
    """Axes of every example collected into groups, after the leading axis."""
    shape = [math.prod(x.shape[k + 1] for k in group) for group in groups]
    order = [k + 1 for group in groups for k in group]
    return x.transpose(0, *order).reshape(x.shape[0], *shape)


def _product_squares(parts: Sequence[jax.Array], d: jax.Array, chunk_size: ChunkSize):
    """Squared norms of ``[a_i^T d_i for a in parts]``: ``[B,H,T,K]``, ``[B,H,T,N]``.

    One position needs norms only; otherwise the smaller of the Gram matrices of the
    positions and of the rows themselves is made.
    """
    heads, times, width = d.shape[1:]
    depth = len(parts) * parts[0].shape[3]
    if times == 1:
        return sum(jnp.sum(_squares(a) * _squares(d), (1, 2)) for a in parts)
    wide = widest(d.dtype)

    def product(pattern, x, y):
        return jnp.einsum(pattern, x, y, preferred_element_type=wide)

    if times * (depth + width) <= depth * width:

        def one(example):
            parts, d = example
            gram = sum(product("htk,hsk->hts", a, a) for a in parts)
            return jnp.sum(gram * product("htn,hsn->hts", d, d))

        size = 2 * heads * times * times
    else:

        def one(example):
            parts, d = example
            return sum(_square(product("htk,htn->hkn", a, d)) for a in parts)

        size = heads * parts[0].shape[3] * width
    return map_chunks(one, (list(parts), d), chunk_size(size * wide.itemsize))


def _squares(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(at_least_float32(x)), -1)


def _square(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(at_least_float32(x)))


def _inverse(order: Sequence[int]) -> list[int]:
    return [list(order).index(k) for k in range(len(order))]
