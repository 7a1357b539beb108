"""The per-example Jacobian as a linear operator: the one idea under every method.

The gradients of ``B`` losses with respect to ``P`` parameters are the rows of a
``[B, P]`` matrix that is hardly ever needed itself. The methods read products with
it: ``jvp`` (one direction against every row), ``vjp`` (a weighted sum of the rows)
and, rarely, the norms of the rows. All of them share one forward pass.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend import core

from ltjax import _validate
from ltjax._numerics import at_least_float32, widest
from ltjax.jacobian._chunks import map_chunks
from ltjax.jacobian._intercept import Intercepted, Plan
from ltjax.jacobian._jaxpr import Program

_CHUNK_BYTES = 256 * 2**20
DEFINITIONS = ("row", "frozen", "attribution")


class Jacobian:
    """Rows of derivatives of an array of ``outputs`` with respect to ``params``.

    There is one row for every element of the outputs: ``[B]`` losses have ``B`` rows,
    ``[B, C]`` logits ``B * C``. Row ``i`` is the exact derivative of output ``i`` of
    the function that was given. Where examples influence each other (train-mode
    batch normalisation) there are three definitions of what belongs to example ``i``:

    - ``"row"``: that row, through the statistics of the batch;
    - ``"frozen"``: the row of the function whose statistics are constants;
    - ``"attribution"``: the part of the gradient of the summed losses that comes in
      by the example's own activations, layer by layer, as hooks in a model see it.

    They agree where examples are independent. `vjp` is always the exact weighted
    gradient, and `jvp` is that of the rows unless another definition is asked for;
    `norms` wants a choice for coupled examples, because it makes a large difference
    there. None of them is the gradient of a batch that holds example ``i`` alone.

    Objects of this class come from `linearize`, `linearize_examples` and
    `Jacobian.from_rows`. They live inside one trace: make and use them in the same
    jitted function.

    Attributes:
      shape: shape of the outputs.
      dtype: dtype of the outputs.
      params: the parameters (arrays, or their shapes and dtypes).
      method: how products are computed: ``"intercept"``, ``"linearize"`` or ``"rows"``.
      reason: why that method, in words.
    """

    def __init__(
        self,
        params: Any,
        outputs: jax.Array,
        jvp: Callable[[Any], jax.Array],
        vjp: Callable[[jax.Array], Any],
        *,
        reason: str = "",
        plan: Plan | None = None,
    ):
        self.params = params
        self.shape = outputs.shape
        self.dtype = outputs.dtype
        self.method = "linearize"
        self.reason = reason
        self._jvp = jvp
        self._vjp = vjp
        self._plan = plan

    @staticmethod
    def from_rows(rows: Any, params: Any, shape: tuple[int, ...]) -> "Jacobian":
        """The Jacobian whose rows are already there, as ``vmap(grad)`` makes them.

        Args:
          rows: tree like ``params`` with leaves ``(*shape, *param.shape)``.
          params: the parameters.
          shape: shape of the outputs, ``(B,)`` for one loss per example.

        Raises:
          ValueError: if the structure differs, or a leaf lacks the leading axes (an
            already averaged gradient, for example).
        """
        return _Rows(rows, params, shape)

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
          ValueError: if the definition has no meaning for the function.
        """
        direction = _like_params("direction", direction, self.params)
        tapped = self._by_definition(definition)
        return tapped.dots(_optional(direction)) if tapped else self._jvp(direction)

    def vjp(self, cotangents: jax.Array) -> Any:
        """``sum_i cotangents[i] * row[i]``, the weighted gradient: one backward pass.

        Args:
          cotangents: array shaped like the outputs, in any floating dtype.

        Returns:
          A tree like ``params``, in their dtypes.
        """
        _validate.array("cotangents", cotangents, shape=self.shape, kind="floating")
        return self._vjp(cotangents.astype(self.dtype))

    def dense(self, *, chunk_size: int | None = None) -> Any:
        """All rows: a tree like ``params`` with leaves ``(*shape, *param.shape)``.

        The reference that cheaper forms are tested against, and the fallback.

        Args:
          chunk_size: rows computed at a time; by default as many as fit 256 MiB.
        """
        return self._map_rows(lambda row: row, _chunks(chunk_size))

    def norms(
        self,
        *,
        mask: Any = None,
        chunk_size: int | None = None,
        definition: str | None = None,
    ) -> jax.Array:
        """Euclidean norm of every row, exact, in bounded memory.

        For independent examples the norms come from what one backward pass leaves at
        every layer. Call `norms` first, then `jvp` and `vjp`: small rows that it had to
        make serve them too.
        Otherwise the exact rows cost one backward pass each.

        Args:
          mask: tree of booleans like ``params`` (or a prefix of it); the norm is over
            the leaves where it is true. Everything by default.
          chunk_size: rows computed at a time; by default as many as fit 256 MiB.
          definition: ``"row"``, ``"frozen"`` or ``"attribution"``; needed for losses
            ``[B]`` that are not known to be independent, see `Jacobian`.

        Returns:
          An array shaped like the outputs, in at least float32.

        Raises:
          ValueError: if a definition is needed, or has no meaning for the function.
        """
        if definition is None and self._plan and not self._plan.independent:
            raise ValueError(
                f"norms needs a definition here ({self._plan.reason}): 'row' (exact, "
                "one backward pass per example), 'frozen' (batch statistics held "
                "constant) or 'attribution' (layer by layer)."
            )
        chunks = _chunks(chunk_size)
        tapped = self._by_definition(definition)
        if tapped:
            keep = [not _is_masked(x) for x in _leaves(select(self.params, mask))]
            return jnp.sqrt(tapped.squares(keep, chunks))

        def squares(row):
            leaves = jax.tree.leaves(select(row, mask))
            squares = (jnp.sum(jnp.square(at_least_float32(g))) for g in leaves)
            return sum(squares, start=jnp.zeros((), wide))

        wide = widest(self.dtype)
        return jnp.sqrt(self._map_rows(squares, chunks))

    def _by_definition(self, definition: str | None) -> Intercepted | None:
        """What computes a definition of the rows, or None for the rows themselves."""
        _check_definition(definition)
        if definition in (None, "row") or (self._plan and self._plan.independent):
            return None
        if self._plan is None or self._plan.obstacle or self._plan.mixers:
            why = self._plan.reason if self._plan else "losses of shape [B] are needed"
            raise ValueError(f"definition={definition!r} has no meaning here: {why}.")
        leaves = jax.tree.leaves(self.params)
        return Intercepted(self._plan, leaves, freeze=definition == "frozen")

    def _map_rows(
        self, fun: Callable[[Any], Any], chunk_size: Callable[[int], int]
    ) -> Any:
        """``fun(row)`` for every row, stacked to the shape of the outputs."""
        rows = math.prod(self.shape)

        def one(index):
            basis = jnp.zeros((rows,), self.dtype).at[index].set(1)
            return fun(self._vjp(basis.reshape(self.shape)))

        out = map_chunks(one, jnp.arange(rows), chunk_size(_nbytes(self.params)))
        return jax.tree.map(lambda x: x.reshape(self.shape + x.shape[1:]), out)


class _Intercepted(Jacobian):
    """Rows of independent examples, read off one backward pass."""

    def __init__(self, params: Any, tapped: Intercepted, reason: str):
        treedef = jax.tree.structure(params)
        super().__init__(
            params,
            tapped.outputs[0],
            lambda direction: tapped.dots(_optional(direction)),
            lambda weights: jax.tree.unflatten(treedef, tapped.gradient(weights)),
            reason=reason,
        )
        self.method = "intercept"
        self._tapped = tapped

    def dense(self, *, chunk_size: int | None = None) -> Any:
        rows = self._tapped.rows(_chunks(chunk_size))
        return jax.tree.unflatten(jax.tree.structure(self.params), rows)

    def _by_definition(self, definition):
        _check_definition(definition)
        return self._tapped


class _Rows(Jacobian):
    """A Jacobian held in memory."""

    def __init__(self, rows: Any, params: Any, shape: tuple[int, ...]):
        params = _as_params(params)
        rows = _rows_like_params(rows, params, shape)
        self._rows = rows
        self._plan = None
        self.method = "rows"
        self.reason = "the rows were given"
        self.params = params
        self.shape = tuple(shape)
        self.dtype = widest(*(g.dtype for g in jax.tree.leaves(rows)))

    def jvp(self, direction: Any, *, definition: str | None = None) -> jax.Array:
        _check_definition(definition)
        direction = _like_params("direction", direction, self.params)

        def dots(g, v):
            if isinstance(v, optax.MaskedNode):
                return jnp.zeros(self.shape, self.dtype)
            g, v = g.astype(self.dtype), v.astype(self.dtype)
            return jnp.tensordot(g, v, v.ndim, precision="highest")

        return sum(
            jax.tree.leaves(jax.tree.map(dots, self._rows, direction)),
            start=jnp.zeros(self.shape, self.dtype),
        )

    def vjp(self, cotangents: jax.Array) -> Any:
        _validate.array("cotangents", cotangents, shape=self.shape, kind="floating")

        def weighted(g, p):
            wide = at_least_float32(g)
            w = cotangents.astype(wide.dtype)
            return jnp.tensordot(w, wide, w.ndim, precision="highest").astype(p.dtype)

        return jax.tree.map(weighted, self._rows, self.params)

    def dense(self, *, chunk_size: int | None = None) -> Any:
        return self._rows

    def norms(
        self,
        *,
        mask: Any = None,
        chunk_size: int | None = None,
        definition: str | None = None,
    ) -> jax.Array:
        _check_definition(definition)

        def squares(g):
            axes = tuple(range(len(self.shape), g.ndim))
            return jnp.sum(jnp.square(g.astype(self.dtype)), axes)

        leaves = jax.tree.leaves(jax.tree.map(squares, select(self._rows, mask)))
        return jnp.sqrt(sum(leaves, start=jnp.zeros(self.shape, self.dtype)))


class _Examples(Jacobian):
    """Rows of a function of single examples, independent whatever it holds."""

    def _by_definition(self, definition):
        _check_definition(definition)


class _MappedExamples(_Examples):
    """The same, with dense forms by ``vmap(grad)``."""

    def __init__(self, loss_fn, batch, *args, reason):
        super().__init__(*args, reason=reason)
        self._loss_fn = loss_fn
        self._batch = batch

    def _map_rows(self, fun, chunk_size):
        gradient = jax.grad(self._loss_fn)
        return map_chunks(
            lambda example: fun(gradient(self.params, example)),
            self._batch,
            chunk_size(_nbytes(self.params)),
        )


def linearize(
    losses_fn: Callable[[Any], Any],
    params: Any,
    *,
    has_aux: bool = False,
    method: str = "auto",
) -> tuple[Any, ...]:
    r"""Outputs of a function, and their Jacobian, from one forward pass.

    .. math:: (J v)_i = \langle \nabla_\theta \ell_i, v \rangle, \qquad
              J^\top w = \sum_i w_i \nabla_\theta \ell_i

    Args:
      losses_fn: ``params -> [B]`` losses, one for each example and not reduced.
        Any other shape of at least one axis will do: ``[B, H, W]`` losses of dense
        prediction, ``[B, C]`` logits.
      params: tree of floating-point arrays or scalars.
      has_aux: whether ``losses_fn`` returns ``(losses, aux)``; ``aux`` may be any tree,
        new batch statistics for example.
      method: ``"linearize"`` has `Jacobian.jvp` push one direction through the function
        in forward mode (two forward passes' worth), which is always possible.
        ``"intercept"`` reads it off the inputs and cotangents of every layer (one),
        which is exact where examples are independent: it is proven from the traced
        function that nothing mixes them, and a ValueError says what does. ``"auto"``
        intercepts where that is proven and where at least half of the multiplications
        can be intercepted. `Jacobian.reason` tells.

    Returns:
      ``(losses, jacobian)``, or ``(losses, jacobian, aux)`` with ``has_aux``.

    Raises:
      TypeError: if a parameter or the output is not floating point.
      ValueError: if the output is a scalar (an already averaged loss), or if
        ``method="intercept"`` is impossible.

    Examples:
      >>> x, y = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([1.0, 1.0])
      >>> losses, jac = ltjax.linearize(lambda w: (x @ w - y) ** 2, jnp.zeros(2))
      >>> print(losses, jac.jvp(jnp.ones(2)), jac.vjp(jnp.ones(2) / 2), jac.norms())
      [1. 1.] [-2. -4.] [-1. -2.] [2. 4.]
    """
    _validate.choice("method", method, ("auto", "intercept", "linearize"))
    params = _as_params(params)
    jaxpr, rebuild = _trace(losses_fn, params, has_aux)
    shape = jaxpr.out_avals[0].shape
    plan: Any = Plan(Program(jaxpr)) if len(shape) == 1 and shape[0] else None
    reason = plan.reason if plan else f"there are outputs of shape {shape}, not (B,)"
    possible = plan is not None and plan.independent
    if method == "intercept" and not possible:
        raise ValueError(f"method='intercept' is impossible here: {reason}.")
    pays = plan is not None and plan.share >= 0.5
    if possible and (method == "intercept" or (method == "auto" and pays)):
        tapped = Intercepted(plan, jax.tree.leaves(params))
        jacobian: Jacobian = _Intercepted(params, tapped, reason)
        outputs = tapped.outputs
    else:
        outputs, jacobian = _plain(jaxpr, params, plan, reason)
    losses, *aux = outputs
    return (losses, jacobian, rebuild(aux)) if has_aux else (losses, jacobian)


def linearize_examples(
    loss_fn: Callable[[Any, Any], jax.Array], params: Any, batch: Any
) -> tuple[jax.Array, Jacobian]:
    """`linearize` for a function of one example, mapped over a batch.

    Row ``i`` is the gradient of ``loss_fn(params, example_i)``: that of a batch of one.
    A model with train-mode batch normalisation has no meaning here (a single
    example's own statistics cancel it); use `linearize` on the whole batch.

    Args:
      loss_fn: ``(params, example) -> scalar``.
      params: tree of floating-point arrays or scalars.
      batch: any tree whose leaves all have the same leading axis ``B``.

    Returns:
      ``([B] losses, jacobian)``.

    Raises:
      TypeError: if a parameter or a loss is not floating point.
      ValueError: if the batch is empty or its leading axes differ, or if ``loss_fn``
        returns no scalar.

    Examples:
      >>> def loss(w, example):
      ...     x, y = example
      ...     return (x @ w - y) ** 2
      >>> batch = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([1.0, 1.0])
      >>> losses, jac = ltjax.linearize_examples(loss, jnp.zeros(2), batch)
      >>> print(jac.jvp(jnp.array([1.0, 2.0])), jac.norms())
      [-2. -8.] [2. 4.]
    """
    batch = jax.tree.map(jnp.asarray, batch)
    _check_batch(batch)
    params = _as_params(params)

    def losses_fn(p):
        losses = jax.vmap(loss_fn, in_axes=(None, 0))(p, batch)
        if getattr(losses, "ndim", 1) != 1:
            raise ValueError(
                "loss_fn must return a scalar for one example, "
                f"got shape {losses.shape[1:]}."
            )
        return losses

    losses, jac = linearize(losses_fn, params)
    if jac.method == "intercept":
        return losses, jac
    # Rows belong to examples whatever could be proven. Not by vmap(grad) through a
    # convolution: on a sharded batch XLA may get its kernel's gradients wrong.
    args = params, losses, jac._jvp, jac._vjp
    if jac._plan.holds("conv_general_dilated"):
        return losses, _Examples(*args, reason=jac.reason)
    return losses, _MappedExamples(loss_fn, batch, *args, reason=jac.reason)


def as_jacobian(updates: Any, params: Any, shape: tuple[int, ...]) -> Jacobian:
    """``updates`` (a `Jacobian` or a tree of per-example gradients) as a `Jacobian`."""
    if not isinstance(updates, Jacobian):
        template = params if params is not None else _drop_axes(updates, len(shape))
        return Jacobian.from_rows(updates, template, shape)
    if updates.shape != tuple(shape):
        raise ValueError(
            f"updates is the Jacobian of outputs of shape {updates.shape}, "
            f"which must be {tuple(shape)} here."
        )
    return updates


def select(tree: Any, mask: Any) -> Any:
    """``tree`` with `optax.MaskedNode` where ``mask`` (a prefix tree) is false."""
    if mask is None:
        return tree
    keep = resolve_mask(mask, tree)
    return jax.tree.map(lambda k, x: x if k else optax.MaskedNode(), keep, tree)


def resolve_mask(mask: Any, tree: Any) -> Any:
    """``mask`` (a prefix tree of booleans, or a callable) shaped like ``tree``."""
    mask = mask(tree) if callable(mask) else mask
    for leaf in jax.tree.leaves(mask):
        if not isinstance(leaf, bool):
            raise TypeError(f"mask must hold Python booleans, got {leaf!r}.")
    try:
        return jax.tree.map(lambda m, sub: jax.tree.map(lambda _: m, sub), mask, tree)
    except ValueError:
        raise ValueError(
            "mask must have the structure of params (or a prefix of it), "
            f"{jax.tree.structure(tree)}, got {jax.tree.structure(mask)}."
        ) from None


def _trace(
    losses_fn: Callable[[Any], Any], params: Any, has_aux: bool
) -> tuple[core.ClosedJaxpr, Callable[[list[Any]], Any]]:
    """``losses_fn`` as a jaxpr of flat arrays, and what rebuilds ``aux`` from them."""
    structure, static = None, []

    def flat(params):
        nonlocal structure, static
        out = losses_fn(params) if has_aux else (losses_fn(params), None)
        if not (isinstance(out, tuple) and len(out) == 2):
            raise TypeError(
                "losses_fn must return (losses, aux) with has_aux=True, "
                f"got {type(out).__name__}."
            )
        losses, aux = out
        _check_outputs(losses)
        leaves, structure = jax.tree.flatten(aux)
        arrays = [isinstance(x, (jax.Array, np.ndarray)) for x in leaves]
        static = [None if a else x for x, a in zip(leaves, arrays, strict=True)]
        return losses, *(x for x, a in zip(leaves, arrays, strict=True) if a)

    def rebuild(arrays):
        left = iter(arrays)
        leaves = [next(left) if x is None else x for x in static]
        return jax.tree.unflatten(structure, leaves)

    return jax.make_jaxpr(flat)(params), rebuild


def _plain(
    jaxpr: core.ClosedJaxpr, params: Any, plan: Plan | None, reason: str
) -> tuple[list[jax.Array], Jacobian]:
    """Outputs of a function, and their Jacobian by `jax.linearize`."""

    def fun(params):
        losses, *aux = core.jaxpr_as_fun(jaxpr)(*jax.tree.leaves(params))
        return losses, aux

    losses, forward, aux = jax.linearize(fun, params, has_aux=True)
    transposed = jax.linear_transpose(forward, params)
    jacobian = Jacobian(
        params,
        losses,
        lambda direction: _partial_jvp(forward, params, direction),
        lambda cotangents: transposed(cotangents)[0],
        reason=reason,
        plan=plan,
    )
    return [losses, *aux], jacobian


def _partial_jvp(forward: Callable[[Any], jax.Array], params: Any, direction: Any):
    """``forward(direction)``, spending nothing on leaves that are left out."""
    leaves, treedef = jax.tree.flatten(params)
    tangents = _leaves(direction)
    if not any(map(_is_masked, tangents)):
        return forward(direction)
    zeros = [jnp.zeros_like(p) for p in leaves]
    kept = [i for i, t in enumerate(tangents) if not _is_masked(t)]

    def restricted(*some):
        full = list(zeros)
        for i, t in zip(kept, some, strict=True):
            full[i] = t
        return forward(jax.tree.unflatten(treedef, full))

    # A linear map is its own derivative, and derivatives skip what is constant.
    at = tuple(zeros[i] for i in kept)
    return jax.jvp(restricted, at, tuple(tangents[i] for i in kept))[1]


def _as_params(params: Any) -> Any:
    def check(path, leaf):
        leaf = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jnp.asarray(leaf)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"params{jax.tree_util.keystr(path)} must be floating point, "
                f"got {leaf.dtype}; close over what is not trained."
            )
        return leaf

    return jax.tree_util.tree_map_with_path(check, params)


def _check_outputs(outputs: Any) -> None:
    if not isinstance(outputs, jax.Array):
        raise TypeError(
            "losses_fn must return one array (and aux with has_aux=True), "
            f"got {type(outputs).__name__}."
        )
    if not jnp.issubdtype(outputs.dtype, jnp.floating):
        raise TypeError(f"losses_fn must return floating point, got {outputs.dtype}.")
    if outputs.ndim == 0:
        raise ValueError(
            "losses_fn must return one loss per example, shape [B], got a scalar: "
            "leave out the mean over the batch."
        )
    if outputs.size == 0:
        raise ValueError(
            f"losses_fn must return at least one loss, got shape {outputs.shape}."
        )


def _check_batch(batch: Any) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    if not leaves:
        raise ValueError("batch must hold at least one array, got none.")
    sizes = {
        f"batch{jax.tree_util.keystr(path)}": leaf.shape[:1] for path, leaf in leaves
    }
    if len(set(sizes.values())) != 1 or () in sizes.values():
        raise ValueError(
            f"batch must have one leading axis in all leaves, got {sizes}."
        )
    if (0,) in sizes.values():
        raise ValueError(f"batch must not be empty, got {sizes}.")


def _like_params(name: str, tree: Any, params: Any) -> Any:
    """``tree`` in the dtypes of ``params``, its structure and shapes checked."""

    def check(path, p, t):
        if _is_masked(t):
            return t
        leaf = f"{name}{jax.tree_util.keystr(path)}"
        t = jnp.asarray(t)
        _validate.array(leaf, t, shape=p.shape, kind="floating")
        return t.astype(p.dtype)

    return _map_against(name, check, params, tree)


def _rows_like_params(rows: Any, params: Any, shape: tuple[int, ...]) -> Any:
    def check(path, p, g):
        leaf = f"updates{jax.tree_util.keystr(path)}"
        g = jnp.asarray(g)
        if g.shape == p.shape != (*shape, *p.shape):
            raise ValueError(
                f"{leaf} has the shape {g.shape} of the parameter itself, an averaged "
                f"gradient; one row per example, {(*shape, *p.shape)}, is needed."
            )
        _validate.array(leaf, g, shape=(*shape, *p.shape), kind="floating")
        return g

    return _map_against("updates", check, params, rows)


def _map_against(name: str, check: Callable, params: Any, tree: Any) -> Any:
    """``check(path, param, leaf)`` over two trees of one structure."""
    treedef: Any = jax.tree.structure(params)
    try:
        leaves = treedef.flatten_up_to(tree)
    except ValueError:
        raise ValueError(
            f"{name} must have the structure of params, {treedef}, "
            f"got {jax.tree.structure(tree)}."
        ) from None
    paths = jax.tree_util.tree_leaves_with_path(params)
    return jax.tree.unflatten(
        treedef, [check(path, p, t) for (path, p), t in zip(paths, leaves, strict=True)]
    )


def _check_definition(definition: str | None) -> None:
    if definition is not None:
        _validate.choice("definition", definition, DEFINITIONS)


def _chunks(chunk_size: int | None) -> Callable[[int], int]:
    """Rows at a time, given the bytes of one."""
    if chunk_size is None:
        return lambda nbytes: max(1, _CHUNK_BYTES // max(nbytes, 1))
    _validate.integer("chunk_size", chunk_size, low=1)
    return lambda nbytes: chunk_size


def _nbytes(params: Any) -> int:
    return sum(p.size * p.dtype.itemsize for p in jax.tree.leaves(params))


def _leaves(tree: Any) -> list[Any]:
    """Leaves of a tree, those left out included."""
    return jax.tree.leaves(tree, is_leaf=_is_masked)


def _optional(direction: Any) -> list[jax.Array | None]:
    return [None if _is_masked(x) else x for x in _leaves(direction)]


def _drop_axes(rows: Any, ndim: int) -> Any:
    """Shapes of the parameters of a per-example tree."""

    def drop(path, g):
        if jnp.ndim(g) < ndim:
            raise ValueError(
                f"updates{jax.tree_util.keystr(path)} must have {ndim} leading axes, "
                f"got shape {jnp.shape(g)}."
            )
        return jax.ShapeDtypeStruct(jnp.shape(g)[ndim:], jnp.result_type(g))

    return jax.tree_util.tree_map_with_path(drop, rows)


def _is_masked(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)
