"""What the window of a convolution sees of one example.

A row of the kernel holds a product of inputs and output cotangents for every offset of
the window. Inputs are cut into blocks as long as the stride, so the places that one
offset sees are one slice. Where the window is a whole number of blocks, offsets within
a block are channels of one product: all of them, if windows do not overlap.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable
from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ltjax.jacobian._gram import Parts
from ltjax.jacobian._jaxpr import Op, shape_of
from ltjax.jacobian._placement import reshape

# More products than this are made in a loop: compiling each of them takes time.
_UNROLLED: Final = 9


class _Axis(NamedTuple):
    """A spatial axis of the input, in blocks."""

    padding: tuple[int, int, int]
    blocks: int
    stride: int  # length of a block
    out: int  # places of the window
    held: int  # offsets in a product
    starts: list[tuple[int, int]]  # first block and place in it, for every product


class Windows:
    """Slices of an example's input, one for every product with the cotangents.

    There are G groups of C channels, P places of the window, and O outputs.

    Args:
      op: a convolution whose batch has one group.
    """

    def __init__(self, op: Op):
        params = op.params
        self._numbers = numbers = params["dimension_numbers"]
        self._groups = params["feature_group_count"]
        sizes, kernel, out = map(shape_of, (*op.inputs, op.outputs[0]))
        self._axes = [
            _axis(sizes[i], kernel[j], out[k], *rest)
            for i, j, k, *rest in zip(
                numbers.lhs_spec[2:],
                numbers.rhs_spec[2:],
                numbers.out_spec[2:],
                params["padding"],
                params["lhs_dilation"],
                params["window_strides"],
                params["rhs_dilation"],
                strict=True,
            )
        ]
        self._channels = kernel[numbers.rhs_spec[1]]
        starts = itertools.product(*(axis.starts for axis in self._axes))
        self._starts = np.array([[0, *sum(s, ()), 0, 0] for s in starts], np.int32)

    @property
    def parts(self) -> Parts:
        """The slices as left factors ``[G, P, K]`` of products."""
        held = math.prod(axis.held for axis in self._axes)
        return Parts(held * self._channels, len(self._starts), self._total)

    def by_group(self, d: jax.Array) -> jax.Array:
        """Cotangents of an example as right factors ``[G, P, O / G]``."""
        batch, channel, *spatial = self._numbers.out_spec
        d = d.transpose(batch, *spatial, channel)
        *places, channels = d.shape
        shape = math.prod(places), self._groups, channels // self._groups
        return reshape(d, shape).swapaxes(0, 1)

    def kernel(self, a: jax.Array, d: jax.Array) -> jax.Array:
        """The row of an example: its input, and cotangents ``[G, P, O / G]``."""
        products = self._each(lambda x: jnp.einsum("gpc,gpo->gco", x, d), a)
        counts = [len(axis.starts) for axis in self._axes]
        held = [axis.held for axis in self._axes]
        groups, channels, outs = self._groups, self._channels, d.shape[2]
        products = reshape(products, (*counts, groups, *held, channels, outs))
        ndim = len(counts)
        offsets = [k + i for i in range(ndim) for k in (0, ndim + 1)]
        products = products.transpose(ndim, 2 * ndim + 2, 2 * ndim + 1, *offsets)
        window = [n * m for n, m in zip(counts, held, strict=True)]
        kernel = reshape(products, (groups * outs, channels, *window))
        return kernel.transpose(np.argsort(self._numbers.rhs_spec))

    def _each(self, fun: Callable[[jax.Array], jax.Array], a: jax.Array) -> jax.Array:
        """A function of every slice, stacked."""
        blocks = self._blocks(a)
        if len(self._starts) > _UNROLLED:
            return lax.map(lambda s: fun(self._slice(blocks, s)), self._starts)
        return jnp.stack([fun(self._slice(blocks, s)) for s in self._starts])

    def _total(self, fun: Callable[[jax.Array], jax.Array], a: jax.Array) -> jax.Array:
        """The sum of a function of every slice."""
        blocks = self._blocks(a)
        unrolled = len(self._starts) if len(self._starts) <= _UNROLLED else 1
        first, rest = np.split(self._starts, [unrolled])
        total = functools.reduce(
            operator.add, [fun(self._slice(blocks, s)) for s in first]
        )
        if not rest.size:
            return total
        step = lambda total, s: (total + fun(self._slice(blocks, s)), None)  # noqa: E731
        return lax.scan(step, total, rest)[0]

    def _blocks(self, a: jax.Array) -> jax.Array:
        """``[n, blocks, stride, ..., G, C]``, two axes for every spatial one."""
        batch, channel, *spatial = self._numbers.lhs_spec
        a = a.transpose(batch, *spatial, channel)
        padding = [(0, 0, 0), *(axis.padding for axis in self._axes), (0, 0, 0)]
        a = lax.pad(a, jnp.zeros((), a.dtype), padding)
        split = [n for axis in self._axes for n in (axis.blocks, axis.stride)]
        return reshape(a, (a.shape[0], *split, self._groups, self._channels))

    def _slice(self, blocks: jax.Array, start: np.ndarray | jax.Array) -> jax.Array:
        """What is seen through one offset, or through those that are held together."""
        seen = [n for axis in self._axes for n in (axis.out, axis.held)]
        sizes = [blocks.shape[0], *seen, self._groups, self._channels]
        if isinstance(start, np.ndarray):
            x = lax.slice(blocks, start.tolist(), (start + sizes).tolist())
        else:
            x = lax.dynamic_slice(blocks, start, sizes)
        last = 2 * len(self._axes) + 1
        order = [last, 0, *range(1, last, 2), *range(2, last, 2), last + 1]
        places = blocks.shape[0] * math.prod(axis.out for axis in self._axes)
        return reshape(x.transpose(order), (self._groups, places, self.parts.width))


def _axis(
    size: int,
    window: int,
    out: int,
    padding: tuple[int, int],
    dilation: int,
    stride: int,
    step: int,
) -> _Axis:
    """Cuts a spatial axis.

    Args:
      size: length of the input.
      window: length of the window.
      out: places of the window.
      padding: before and after the input; negative where entries are left out.
      dilation: distance of entries of the input.
      stride: distance of the places.
      step: distance of entries of the window.
    """
    if window == 1:
        step = 1
    if out == 1 and step == 1:  # any stride is that of a single place
        stride = window
    whole = step == 1 and window % stride == 0
    held = stride if whole else 1
    starts = [divmod(i * step, stride) for i in range(0, window, held)]
    blocks = starts[-1][0] + out
    dilated = (size - 1) * dilation + 1 if size else 0
    after = blocks * stride - padding[0] - dilated
    return _Axis((padding[0], after, dilation - 1), blocks, stride, out, held, starts)
