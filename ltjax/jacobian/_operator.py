"""The per-example Jacobian as a linear operator: the one idea under every method.

The gradients of ``B`` losses with respect to ``P`` parameters are the rows of a
``[B, P]`` matrix that is hardly ever needed itself. The methods read products with
it: ``jvp`` (one direction against every row), ``vjp`` (a weighted sum of the rows)
and, rarely, the norms of the rows. All of them share one forward pass.
"""

import abc
from collections.abc import Callable, Mapping
from typing import Any, final

import jax
import jax.numpy as jnp
import optax

from ltjax import _validate
from ltjax._numerics import at_least_float32, widest
from ltjax.jacobian import _standins, _trees
from ltjax.jacobian._chunks import ChunkSize, chunk_sizes, map_chunks

DEFINITIONS = ("row", "frozen", "attribution")


class Jacobian(abc.ABC):
    """Rows of derivatives of an array of ``outputs`` with respect to ``params``.

    There is one row for every element of the outputs: ``[B]`` losses have ``B`` rows,
    ``[B, C]`` logits ``B * C``. Row ``i`` is the exact derivative of output ``i`` of
    the function that was given. Where examples influence each other (train-mode
    batch normalisation) there are three definitions of what belongs to example ``i``:

    - ``"row"``: that row, through the statistics of the batch;
    - ``"frozen"``: the row of the function whose batch statistics are constants;
    - ``"attribution"``: the part of the gradient of the summed losses that comes in
      by the example's own activations, layer by layer, as hooks in a model see it.

    They agree where examples are independent. `vjp` is always the exact weighted
    gradient, and `jvp` is that of the rows unless another definition is asked for;
    `norms` needs a choice for coupled examples, because it makes a large difference
    there. None of them is the gradient of a batch that holds example ``i`` alone.

    A batch statistic is a sum, product, largest or smallest element over all examples,
    or a product of matrices that contracts them, of values that parameters influence.
    Where examples meet in anything else, or where a statistic is computed inside
    control flow, `jax.checkpoint` or a function with a derivative of its own, the last
    two definitions are refused. Put `jax.lax.stop_gradient` around the statistics
    then: the rows of that function are what ``"frozen"`` means.

    Objects of this class come from `linearize`, `linearize_examples` and
    `Jacobian.from_rows`. They live inside one trace: make and use them in the same
    jitted function.

    Training loops may pass a Jacobian on as a gradient, to an optimiser that starts
    with a `Weighting`: as a tree it has the structure of ``params``. Its leaves stand
    for rows that are not computed.

    Attributes:
      outputs: the outputs, None for a Jacobian `from_rows`.
      shape: shape of the outputs.
      dtype: dtype of the outputs.
      params: the parameters (arrays, or their shapes and dtypes).
      method: how products are computed: ``"intercept"``, ``"linearize"`` or ``"rows"``.
      reason: why that method, in words.
      axes: axes of the mesh that the rows are spread over inside `jax.shard_map`.
    """

    axes: frozenset[str] = frozenset()

    def __init__(
        self, params: Any, shape: tuple[int, ...], dtype: Any, method: str, reason: str
    ):
        self.params = params
        self.outputs: jax.Array | None = None
        self.shape = tuple(shape)
        self.dtype = dtype
        self.method = method
        self.reason = reason

    def __init_subclass__(cls):
        _standins.register(cls)

    def __contains__(self, name: Any) -> bool:
        """Whether ``params`` has this entry; Flax's ``TrainState`` asks gradients."""
        return isinstance(self.params, Mapping) and name in self.params

    @staticmethod
    def from_rows(rows: Any, params: Any, shape: tuple[int, ...]) -> "Jacobian":
        """The Jacobian whose rows exist already, as ``vmap(grad)`` makes them.

        Args:
          rows: tree like ``params`` with leaves ``(*shape, *param.shape)``.
          params: the parameters.
          shape: shape of the outputs, ``(B,)`` for one loss per example.

        Raises:
          ValueError: if the structure differs, or a leaf lacks the leading axes (an
            already averaged gradient, for example).
        """
        return RowsJacobian(rows, params, shape)

    @final
    def jvp(self, direction: Any, *, definition: str | None = None) -> jax.Array:
        """``<row, direction>`` for every row.

        Args:
          direction: tree like ``params``, in any floating dtype. Leaves may be
            `optax.MaskedNode()`: they are left out, and so is their cost.
          definition: ``"row"`` (default), ``"frozen"`` or ``"attribution"``. The last
            two cost another forward and backward pass where examples are coupled.

        Returns:
          An array shaped like the outputs, in their dtype.

        Raises:
          ValueError: if the definition cannot be told for the function.
        """
        _check_definition(definition)
        direction = _trees.like_params("direction", direction, self.params)
        return self._jvp(direction, definition)

    @final
    def vjp(self, cotangents: jax.Array) -> Any:
        """``sum_i cotangents[i] * row[i]``, the weighted gradient: one backward pass.

        Args:
          cotangents: array shaped like the outputs, in any floating dtype.

        Returns:
          A tree like ``params``, in their dtypes.
        """
        _validate.array("cotangents", cotangents, shape=self.shape, kind="floating")
        return self._vjp(cotangents)

    @final
    def dense(self, *, chunk_size: int | None = None) -> Any:
        """All rows: a tree like ``params`` with leaves ``(*shape, *param.shape)``.

        The reference that cheaper forms are tested against, and the fallback.

        Args:
          chunk_size: rows computed at a time; by default as many as fit 64 MiB, by an
            estimate of what they need.
        """
        return self.map_rows(lambda row: row, chunk_size=chunk_size)

    @final
    def map_rows(
        self, fun: Callable[[Any], Any], *, chunk_size: int | None = None
    ) -> Any:
        """``fun(row)`` of every row, in bounded memory.

        For what products and norms do not tell; `ltjax.gram` is made of it. Where
        examples are independent, all rows cost one backward pass and `fun`; otherwise
        one backward pass each.

        Args:
          fun: what to compute of a row, a tree like ``params``. It is mapped with
            `jax.vmap`.
          chunk_size: rows computed at a time; by default as many as fit 64 MiB.

        Returns:
          What ``fun`` returns, with the axes of the outputs in front.

        Examples:
          >>> losses, jac = ltjax.linearize(
          ...     lambda w: (w.sum() - jnp.arange(3.0)) ** 2, jnp.zeros(2))
          >>> print(jac.map_rows(lambda g: jnp.max(jnp.abs(g))))
          [0. 2. 4.]
        """
        return self._map_rows(fun, chunk_sizes(chunk_size))

    @final
    def norms(
        self,
        *,
        mask: Any = None,
        chunk_size: int | None = None,
        definition: str | None = None,
    ) -> jax.Array:
        """Euclidean norm of every row, in bounded memory.

        For independent examples the norms are computed from each layer's inputs and
        output cotangents of one backward pass (*ghost norms*). Otherwise the exact rows
        cost one backward pass each.

        In float32 and bfloat16 the relative error is that of a float32 sum over the
        parts of a row, times how much larger these are together than the row: below
        1e-3 for rows down to a thousandth of their parts.

        Args:
          mask: tree of booleans like ``params`` (or a prefix of it); the norm is over
            the leaves where it is true. Everything by default.
          chunk_size: rows computed at a time; by default as many as fit 64 MiB.
          definition: ``"row"``, ``"frozen"`` or ``"attribution"``; needed for losses
            ``[B]`` that are not known to be independent, see `Jacobian`. Outputs of any
            other shape need ``"row"``: one backward pass for every entry. Linearize a
            loss of every example, such as the mean over its pixels, for their norms.

        Returns:
          An array shaped like the outputs, in at least float32.

        Raises:
          ValueError: if a definition is needed, or cannot be told for the function.
        """
        _check_definition(definition)
        return self._norms(mask, chunk_sizes(chunk_size), definition)

    @abc.abstractmethod
    def _jvp(self, direction: Any, definition: str | None) -> jax.Array:
        """Products with a checked direction."""

    @abc.abstractmethod
    def _vjp(self, cotangents: jax.Array) -> Any:
        """The weighted gradient, of weights in any floating dtype."""

    @abc.abstractmethod
    def _map_rows(self, fun: Callable[[Any], Any], chunk_size: ChunkSize) -> Any:
        """A function of every row."""

    @abc.abstractmethod
    def _norms(
        self, mask: Any, chunk_size: ChunkSize, definition: str | None
    ) -> jax.Array:
        """Norms of all rows."""


@final
class RowsJacobian(Jacobian):
    """A Jacobian held in memory."""

    def __init__(self, rows: Any, params: Any, shape: tuple[int, ...]):
        params = _trees.as_params(params)
        self._rows = _trees.rows_like_params(rows, params, shape)
        dtype = widest(*(g.dtype for g in jax.tree.leaves(self._rows)))
        super().__init__(params, shape, dtype, "rows", "the rows were given")

    def _jvp(self, direction, definition):
        def dots(g, v):
            if isinstance(v, optax.MaskedNode):
                return jnp.zeros(self.shape, self.dtype)
            g, v = g.astype(self.dtype), v.astype(self.dtype)
            return jnp.tensordot(g, v, v.ndim, precision="highest")

        return sum(
            jax.tree.leaves(jax.tree.map(dots, self._rows, direction)),
            start=jnp.zeros(self.shape, self.dtype),
        )

    def _vjp(self, cotangents):
        def weighted(g, p):
            wide = at_least_float32(g)
            w = cotangents.astype(wide.dtype)
            return jnp.tensordot(w, wide, w.ndim, precision="highest").astype(p.dtype)

        return jax.tree.map(weighted, self._rows, self.params)

    def _map_rows(self, fun, chunk_size):
        axes = len(self.shape)
        flat = jax.tree.map(lambda g: g.reshape(-1, *g.shape[axes:]), self._rows)
        out = map_chunks(fun, flat, chunk_size(_trees.nbytes(self.params)))
        return jax.tree.map(lambda x: x.reshape(*self.shape, *x.shape[1:]), out)

    def _norms(self, mask, chunk_size, definition):
        def squares(g):
            axes = tuple(range(len(self.shape), g.ndim))
            return jnp.sum(jnp.square(g.astype(self.dtype)), axes)

        leaves = jax.tree.leaves(jax.tree.map(squares, _trees.select(self._rows, mask)))
        return jnp.sqrt(sum(leaves, start=jnp.zeros(self.shape, self.dtype)))


def _check_definition(definition: str | None) -> None:
    if definition is not None:
        _validate.choice("definition", definition, DEFINITIONS)
