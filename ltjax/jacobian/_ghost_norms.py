r"""Rows of single operations, and their norms without the rows (ghost norms).

Given ``y = op(a, s)``, the operands ``a`` with a batch axis and the cotangents ``d`` of
``y``, the row of example ``i`` with respect to the shared ``s`` is the product of
``d_i`` with the derivative at ``a_i``. For matrix products and convolutions it is a sum
of outer products over the positions of an example; `_gram` has its norm without it.

References:
  Goodfellow, *Efficient per-example gradient computations*, 2015 (arXiv:1510.01799);
  Li et al., *Large language models can be strong differentially private learners*,
  ICLR 2022 (arXiv:2110.05679); Bu et al., *Scalable and efficient training of large
  convolutional neural networks with differential privacy*, NeurIPS 2022
  (arXiv:2205.10683).
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ltjax._numerics import at_least_float32, squared_norm
from ltjax.jacobian._chunks import ChunkSize, map_chunks
from ltjax.jacobian._gram import Parts, product_squares, row_squares
from ltjax.jacobian._jaxpr import Value, bodies, dtype_of, scan_sizes, shape_of
from ltjax.jacobian._parts import LoopTap, Tap
from ltjax.jacobian._placement import explicit_sharding, reshape
from ltjax.jacobian._products import each_step
from ltjax.jacobian._rules import ELEMENTWISE, SHARED, Interleaved
from ltjax.jacobian._windows import Windows


class TapRows:
    """Rows of a tap for one of its operands, one example at a time.

    The operation is applied to each example alone where that is possible.

    Attributes:
      tap: the operation.
      position: which of its operands.
      examples: what `one` needs of every example, with a leading batch axis.
    """

    def __init__(self, tap: Tap, position: int, operands, cotangents, numbers):
        self.tap = tap
        self.position = position
        self._operands = operands
        self._shared = operands[position]
        self._numbers = numbers
        self._size = numbers.size
        self._cotangents = cotangents

    @functools.cached_property
    def examples(self) -> Any:
        return self._split()

    @staticmethod
    def fits(tap: Tap, position: int) -> bool:
        """Whether the operation can be applied to one example alone."""
        op, axes = tap.op, tap.axes
        if any(axes[j] is not SHARED for j in tap.operands):
            return False
        if op.name == "scan":  # one example after the other
            sizes = scan_sizes(op)
            if sizes is None or sizes[1] != 0:
                return False
            return _all_first(tap) and all(axis == 0 for axis in axes[sizes[0] :])
        if len(tap.results) != 1:
            return False
        if op.name == "gather":
            return isinstance(axes[1], int)
        if op.name == "tile":
            (axis,) = tap.results.values()
            return shape_of(op.inputs[0])[axis] == 1
        return op.name in ELEMENTWISE or op.name in ("dot_general", "broadcast_in_dim")

    @property
    def nbytes(self) -> int:
        """Memory that one row takes, with what it is made of."""
        own = sum(x.nbytes for x in jax.tree.leaves(self.examples)) // self._size
        return self._shared.nbytes + own

    @property
    def small(self) -> bool:
        """Whether all rows take no more memory than what they are made of."""
        examples = jax.tree.leaves(self.examples)
        return self._shared.size * self._size <= sum(x.size for x in examples)

    def one(self, example: Any) -> jax.Array:
        """Row of one example."""
        own, cotangents = example
        op = self.tap.op
        changed: dict[str, Any] = {}
        if op.name == "scan":
            changed["length"] = len(cotangents[0])  # iterations of one example
        if op.name == "broadcast_in_dim":
            changed["shape"] = cotangents[0].shape
        if op.name == "tile":
            (axis,) = self.tap.results.values()
            reps = list(op.params["reps"])
            reps[axis] = cotangents[0].shape[axis]
            changed["reps"] = tuple(reps)
        return self._pull(cotangents, own, changed)

    def squares(self, chunk_size: ChunkSize) -> jax.Array:
        """Squared norms of the rows, ``[B]``."""
        return map_chunks(
            lambda example: squared_norm(self.one(example)),
            self.examples,
            chunk_size(self.nbytes),
        )

    def _split(self) -> Any:
        own = {
            j: split_examples(x, axis, self._size)
            for j, (x, axis) in enumerate(
                zip(self._operands, self.tap.axes, strict=True)
            )
            if isinstance(axis, int)
        }
        axes = self.tap.results.values()
        cotangents = [
            split_examples(d, axis, self._size)
            for d, axis in zip(self._cotangents, axes, strict=True)
        ]
        return own, cotangents

    def _pull(self, cotangents, own, changed):
        def fun(s):
            full = [own.get(j, x) for j, x in enumerate(self._operands)]
            full[self.position] = s
            results = self.tap.op.bind(*full, **changed)
            return [results[j] for j in self.tap.results]

        _, pullback = jax.vjp(fun, self._shared)
        return pullback(cotangents)[0]


def _all_first(tap: Tap) -> bool:
    """Whether examples are on the first axis wherever they are."""
    return {*tap.results.values(), *tap.axes} <= {0, SHARED, None}


class MaskedRows(TapRows):
    """Rows of an operation that cannot be applied to one example alone."""

    @property
    def nbytes(self) -> int:
        return self._shared.nbytes + working_bytes(self.tap.op)

    @property
    def small(self) -> bool:
        return False

    def _split(self):
        return self._numbers

    def one(self, example):
        def masked(d, axis):
            place = explicit_sharding(jax.typeof(d))
            k, own = int(axis), d.shape[axis] // self._size
            entry = lax.broadcasted_iota(jnp.int32, d.shape, k, out_sharding=place)
            turns = isinstance(axis, Interleaved)
            mine = (entry % self._size if turns else entry // own) == example
            return jnp.where(mine, d, jnp.zeros_like(d))

        axes = self.tap.results.values()
        cotangents = [
            masked(d, axis) for d, axis in zip(self._cotangents, axes, strict=True)
        ]
        return self._pull(cotangents, {}, {})


class ProductRows(TapRows):
    """Rows of a matrix product: ``a_i^T d_i``."""

    @staticmethod
    def fits(tap, position):
        own = [j for j, axis in enumerate(tap.axes) if isinstance(axis, int)]
        return tap.op.name == "dot_general" and own == [1 - position]

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
        return product_squares(a, Parts(a.shape[3]), d, chunk_size)


class ConvolutionRows(TapRows):
    """Rows of a convolution's kernel, as products at the offsets of the window."""

    @staticmethod
    def fits(tap, position):
        op = tap.op
        if op.name != "conv_general_dilated" or op.params["batch_group_count"] != 1:
            return False
        numbers = op.params["dimension_numbers"]
        batch = numbers.lhs_spec[0]
        axes = ((batch, SHARED), (Interleaved(batch), SHARED))
        return position == 1 and tap.axes in axes

    def one(self, example):
        own, (d,) = example
        a, d = lax.optimization_barrier((own[0], d))  # see squares
        windows = Windows(self.tap.op)
        kernel = windows.kernel(a, windows.by_group(d))
        return kernel.astype(self._shared.dtype)

    def squares(self, chunk_size):
        own, (d,) = self.examples
        # Windows are made of activations alone. The barrier keeps them from being made
        # as soon as those are there, and from waiting in memory for the backward pass.
        a, d = lax.optimization_barrier((own[0], d))
        windows = Windows(self.tap.op)
        d = jax.vmap(windows.by_group)(d)
        return product_squares(a, windows.parts, d, chunk_size)


class LookupRows(TapRows):
    """Rows of a table that is looked up: zero but where an example looked."""

    @staticmethod
    def fits(tap, position):
        """Whether a gather takes whole rows of a matrix, each example its own."""
        op = tap.op
        if op.name != "gather" or position != 0 or tap.axes[0] is not SHARED:
            return False
        numbers, table = op.params["dimension_numbers"], shape_of(op.inputs[0])
        return (
            isinstance(tap.axes[1], int)
            and len(table) == 2
            and table[0] <= jnp.iinfo(dtype_of(op.inputs[1])).max
            and tuple(numbers.start_index_map) == (0,)
            and tuple(numbers.collapsed_slice_dims) == (0,)
            and tuple(op.params["slice_sizes"]) == (1, table[1])
            and tuple(numbers.offset_dims) == (len(op.outputs[0].shape) - 1,)
        )

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
        # Every look-up of an entry holds the sum over all of them.
        same = (indices[:, :, None] == indices[:, None, :]).astype(d.dtype)
        sums = jnp.einsum("bts,bsn->btn", same, d, precision="highest")
        return jnp.sum(row_squares(sums) / jnp.sum(same, 2), 1)


class LayerRows(TapRows):
    """Rows of an operation in a loop whose shared operands are those of a layer."""

    tap: LoopTap

    def one(self, example):
        def layer(xs):
            some, ds, own = xs
            return self._layer(some, ds).one(own)

        return jax.vmap(layer)((*self._stacked(), example))

    def squares(self, chunk_size):
        def layer(xs):
            operands, ds = xs
            return self._rows(operands, ds).squares(chunk_size)

        found = each_step(layer, self.tap, self._operands, list(self._cotangents))
        return jnp.sum(found, 0)

    def _split(self):
        split = jax.vmap(lambda some, ds: self._layer(some, ds).examples)
        made = split(*self._stacked())
        return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), made)

    def _stacked(self):
        return self.tap.op.slices(self._operands), list(self._cotangents)

    def _layer(self, some, ds):
        return self._rows(self.tap.op.filled(self._operands, some), ds)

    def _rows(self, operands, ds):
        return rows_of(self.tap.step, self.position, operands, ds, self._numbers)


def rows_of(tap: Tap, position: int, operands, cotangents, numbers) -> TapRows:
    """Rows of ``tap`` for one operand, by the cheapest rule that holds.

    Args:
      tap: the operation.
      position: the operand.
      operands: values of all operands.
      cotangents: of the results that are used.
      numbers: ``[B]``, the examples counted from 0.
    """
    if isinstance(tap, LoopTap):
        if tap.layered and not bodies(tap.op):
            return LayerRows(tap, position, operands, cotangents, numbers)
        if _mergeable(tap, position):
            operands, cotangents = _merged(tap, operands, cotangents, numbers.size)
            return rows_of(tap.step, position, operands, cotangents, numbers)
    kinds = _fitting(tap, position)
    return (*kinds, MaskedRows)[0](tap, position, operands, cotangents, numbers)


def apart(tap: Tap, position: int) -> bool:
    """Whether a row never runs a program inside the operation for other examples."""
    return bool(_fitting(tap, position)) or not bodies(tap.op)


def _fitting(tap: Tap, position: int) -> list[type[TapRows]]:
    """Rules for an operation outside of loops; none depends on the number of rows."""
    kinds = (ConvolutionRows, ProductRows, LookupRows, TapRows)
    loop = isinstance(tap, LoopTap)
    return [k for k in kinds if not loop and k.fits(tap, position)]


def _mergeable(tap: Tap, position: int) -> bool:
    """Whether iterations of the loops around can become positions of the examples."""
    if any(isinstance(k, Interleaved) for k in (*tap.axes, *tap.results.values())):
        return False
    if not isinstance(tap, LoopTap):
        return bool(_fitting(tap, position)) and not bodies(tap.op)
    pairs = zip(tap.op.stacked, tap.axes, strict=True)
    apart = not tap.op.stacked[position] and all(
        isinstance(axis, int) for stacked, axis in pairs if stacked
    )
    return (apart or tap.layered) and _mergeable(tap.step, position)


def _merged(tap: LoopTap, operands, cotangents, size: int):
    """Iterations of a loop as positions of the examples: one axis of both."""
    length = cotangents[0].shape[0]

    def joined(x, axis):
        own = x.shape[axis + 1] // size
        before, after = x.shape[1 : axis + 1], x.shape[axis + 2 :]
        x = x.reshape(length, *before, size, own, *after)
        x = jnp.moveaxis(x, 0, axis + 1)
        return x.reshape(*before, size * length * own, *after)

    def operand(x, stacked, axis):
        if not isinstance(axis, int):
            return x
        if stacked:
            return joined(x, axis - 1)
        return joined(jnp.broadcast_to(x[None], (length, *x.shape)), axis)

    return (
        list(map(operand, operands, tap.op.stacked, tap.axes)),
        [
            joined(d, k - 1)
            for d, k in zip(cotangents, tap.results.values(), strict=True)
        ],
    )


def split_examples(x: jax.Array, axis: int, size: int) -> jax.Array:
    """``x`` with a leading axis of examples, taken out of ``axis``."""
    k, own = int(axis), x.shape[axis] // size
    if own == 1:
        return jnp.moveaxis(jnp.expand_dims(x, k + 1), k, 0)
    turns = isinstance(axis, Interleaved)
    parts = (own, size) if turns else (size, own)
    x = x.reshape(*x.shape[:k], *parts, *x.shape[k + 1 :])
    return jnp.moveaxis(x, k + turns, 0)


def working_bytes(op: Any) -> int:
    """Memory for the largest step of a backward pass through an operation."""
    values: list[Value] = [*op.values, *op.outputs]
    inner = [working_bytes(inner) for body in bodies(op) for inner in body.ops]
    return sum(v.nbytes for v in values) + max(inner, default=0)


def _arrange(x: jax.Array, *groups: Sequence[int]) -> jax.Array:
    """Axes of every example collected into groups, after the leading axis."""
    shape = [math.prod(x.shape[k + 1] for k in group) for group in groups]
    order = [k + 1 for group in groups for k in group]
    return reshape(x.transpose(0, *order), (x.shape[0], *shape), kept=1)
