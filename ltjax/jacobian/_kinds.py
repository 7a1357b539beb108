"""Kinds of Jacobians: intercepted, by `jax.linearize`, of a function of examples."""

import math
from collections.abc import Callable, Mapping
from typing import Any, final

import jax
import jax.numpy as jnp
from jax.extend import core

from ltjax._numerics import squared_norm, widest
from ltjax.jacobian import _ghost_norms, _trees
from ltjax.jacobian._chunks import ChunkSize, map_chunks
from ltjax.jacobian._intercept import Intercepted
from ltjax.jacobian._jaxpr import Op, Program, nested
from ltjax.jacobian._linearity import LINEAR, ZERO
from ltjax.jacobian._operator import Jacobian
from ltjax.jacobian._placement import explicit_sharding, positions, vary_leaves
from ltjax.jacobian._plan import NoDefinition, Plan, attribute, exchanges, freeze

_NO_FORWARD_MODE = (
    "jvp is not possible here: losses_fn holds a custom_vjp, which has no forward "
    "mode, and its backward rule is not known to be linear or cannot be transposed. "
    "vjp, norms and dense are possible."
)


@final
class InterceptedJacobian(Jacobian):
    """Rows of independent examples, read off one backward pass."""

    def __init__(self, params: Any, tapped: Intercepted, plan: Plan):
        losses = tapped.outputs[0]
        super().__init__(params, losses.shape, losses.dtype, "intercept", plan.reason)
        self._tapped = tapped
        self._plan = plan

    def _jvp(self, direction, definition):
        _require_definition(self._plan, definition)
        return self._tapped.dots(_trees.optional(direction))

    def _vjp(self, cotangents):
        return self._unflatten(self._tapped.gradient(cotangents.astype(self.dtype)))

    def _map_rows(self, fun, chunk_size):
        return self._tapped.rows(chunk_size, lambda row: fun(self._unflatten(row)))

    def _norms(self, mask, chunk_size, definition):
        _require_definition(self._plan, definition)
        return _tapped_norms(self._tapped, self.params, mask, chunk_size)

    def _unflatten(self, leaves):
        return jax.tree.unflatten(jax.tree.structure(self.params), leaves)


@final
class LinearizedJacobian(Jacobian):
    """Products by forward mode and by its transpose, one backward pass a row."""

    def __init__(
        self,
        params: Any,
        outputs: jax.Array,
        forward: Callable[[Any], jax.Array],
        transposed: Callable[[jax.Array], Any],
        plan: Plan | None,
        program: Program,
    ):
        shape = outputs.shape
        reason = plan.reason if plan else f"the outputs have shape {shape}, not (B,)"
        super().__init__(params, shape, outputs.dtype, "linearize", reason)
        self._outputs = outputs
        self._forward = forward
        self._transposed = transposed
        self._plan = plan
        self._row_bytes = _trees.nbytes(params) + 2 * max(
            map(_ghost_norms.working_bytes, program.ops), default=0
        )
        self._exchanges = plan.exchanges if plan else exchanges(program)
        self.convolves = "conv_general_dilated" in _primitives(program)

    @staticmethod
    def make(
        jaxpr: core.ClosedJaxpr,
        params: Any,
        program: Program,
        plan: Plan | None,
        rules: Mapping[Op, frozenset[str]],
    ) -> tuple[list[jax.Array], "LinearizedJacobian"]:
        """Outputs of a function of flat arrays, and the Jacobian of the first."""

        def fun(params):
            losses, *aux = core.jaxpr_as_fun(jaxpr)(*jax.tree.leaves(params))
            return losses, aux

        if rules:
            linear = all(kinds <= {LINEAR, ZERO} for kinds in rules.values())
            losses, forward, transposed, aux = _by_transposition(fun, params, linear)
        else:
            try:
                losses, forward, aux = jax.linearize(fun, params, has_aux=True)
                transposed = jax.linear_transpose(forward, params)
                forward = _or_refused(forward)
            except (NotImplementedError, TypeError):
                # Of a primitive whose rules are not in the jaxpr, as JAX's new ones.
                losses, forward, transposed, aux = _by_transposition(fun, params, False)
        jacobian = LinearizedJacobian(
            params,
            losses,
            lambda direction: _partial_jvp(forward, params, direction),
            lambda cotangents: transposed(cotangents)[0],
            plan,
            program,
        )
        return [losses, *aux], jacobian

    def _jvp(self, direction, definition):
        tapped = self._by_definition(definition)
        if tapped:
            return tapped.dots(_trees.optional(direction))
        return self._forward(direction)

    def _vjp(self, cotangents):
        return self._transposed(cotangents.astype(self.dtype))

    def _norms(self, mask, chunk_size, definition):
        if definition is None and self._plan is None:
            raise ValueError(
                f"norms needs a definition for outputs of shape {self.shape}, not "
                "(B,): 'row' is exact and costs one backward pass for each of the "
                f"{math.prod(self.shape)} rows. For the norm of every example, "
                "linearize losses of shape (B,), such as the means over examples."
            )
        if definition is None and self._plan and not self._plan.independent:
            raise ValueError(
                f"norms needs a definition here ({self._plan.reason}): 'row' (exact, "
                "one backward pass per example), 'frozen' (batch statistics held "
                "constant) or 'attribution' (layer by layer)."
            )
        tapped = self._by_definition(definition)
        if tapped is None:
            tapped = self._evaluated_again(_kept(self.params, mask))
        if tapped:
            return _tapped_norms(tapped, self.params, mask, chunk_size)
        return self._map_rows(_norm(mask, self.dtype), chunk_size)

    def refuse_exchanges(self) -> None:
        """Raises a ValueError where other devices have a part in an example's row."""
        if self._exchanges:
            raise ValueError(
                "inside jax.shard_map an example has no row where losses_fn exchanges "
                f"values between devices ({self._exchanges[0].where}): jvp and vjp are "
                "possible; for rows and norms use jax.jit with sharded arrays instead."
            )

    def _evaluated_again(self, keep: list[bool]) -> Intercepted | None:
        """What has norms without the rows, at the price of another forward pass."""
        plan = self._plan
        if plan is None or not (plan.independent and plan.on_one_mesh):
            return None
        tapped = Intercepted(plan, jax.tree.leaves(self.params))
        return tapped if tapped.cheap(keep) else None

    def _by_definition(self, definition: str | None) -> Intercepted | None:
        """What computes a definition of the rows, or None for the rows themselves."""
        if definition in (None, "row"):
            return None
        plan = _require_definition(self._plan, definition)
        return None if plan is None else Intercepted(plan, jax.tree.leaves(self.params))

    def _map_rows(self, fun: Callable[[Any], Any], chunk_size: ChunkSize) -> Any:
        self.refuse_exchanges()
        rows = math.prod(self.shape)

        where = positions(self._outputs)

        def one(index):
            return fun(self._transposed((where == index).astype(self.dtype)))

        indices = jnp.arange(rows, dtype=jnp.int32)
        if self.convolves and explicit_sharding(jax.typeof(self._outputs)):
            out = jax.lax.map(one, indices)  # JAX cannot vmap their kernels
        else:
            out = map_chunks(one, indices, chunk_size(self._row_bytes))
        return jax.tree.map(lambda x: x.reshape(self.shape + x.shape[1:]), out)


@final
class ExamplesJacobian(Jacobian):
    """Rows of a function of single examples, independent whatever it holds."""

    def __init__(
        self,
        jacobian: "LinearizedJacobian | VaryingJacobian",
        loss_fn: Callable[[Any, Any], jax.Array],
        batch: Any,
    ):
        super().__init__(
            jacobian.params,
            jacobian.shape,
            jacobian.dtype,
            jacobian.method,
            jacobian.reason,
        )
        self._jacobian = jacobian
        inner = jacobian.inner if isinstance(jacobian, VaryingJacobian) else jacobian
        self._linearized: LinearizedJacobian = inner
        self.axes = jacobian.axes
        self._loss_fn = loss_fn
        self._batch = batch

    def _jvp(self, direction, definition):
        return self._jacobian.jvp(direction)

    def _vjp(self, cotangents):
        return self._jacobian.vjp(cotangents)

    def _norms(self, mask, chunk_size, definition):
        return self._map_rows(_norm(mask, self.dtype), chunk_size)

    def _map_rows(self, fun: Callable[[Any], Any], chunk_size: ChunkSize) -> Any:
        self._linearized.refuse_exchanges()
        # On a sharded batch XLA may get the gradients of kernels wrong in vmap(grad).
        if self._linearized.convolves:
            return self._jacobian._map_rows(fun, chunk_size)
        gradient = jax.grad(self._loss_fn)
        params = vary_leaves(self.params, self.axes)  # or devices are summed over
        return map_chunks(
            lambda example: fun(gradient(params, example)),
            self._batch,
            chunk_size(_trees.nbytes(self.params)),
        )


@final
class VaryingJacobian(Jacobian):
    """Rows on each device of a `jax.shard_map` whose parameters are replicated.

    Rows belong to the device of their example. The weighted gradient is summed over
    all devices, as `jax.grad` does where values are known to vary.
    """

    def __init__(self, jacobian: Jacobian, params: Any, axes: frozenset[str]):
        super().__init__(
            params, jacobian.shape, jacobian.dtype, jacobian.method, jacobian.reason
        )
        self.inner: Any = jacobian
        self.axes = axes

    def _jvp(self, direction, definition):
        return self.inner.jvp(vary_leaves(direction, self.axes), definition=definition)

    def _vjp(self, cotangents):
        total = jax.linear_transpose(lambda p: vary_leaves(p, self.axes), self.params)
        return total(self.inner.vjp(vary_leaves(cotangents, self.axes)))[0]

    def _map_rows(self, fun, chunk_size):
        return self.inner._map_rows(fun, chunk_size)

    def _norms(self, mask, chunk_size, definition):
        return self.inner._norms(mask, chunk_size, definition)


def _primitives(program: Program) -> frozenset[str]:
    """Names of all operations, at any depth."""
    return frozenset(inner.name for op in program.ops for inner in nested(op))


def _by_transposition(fun: Callable[[Any], Any], params: Any, linear: bool):
    """`jax.linearize` for functions with backward rules of their own.

    These have no forward mode. The product with a direction is the transpose of the
    pullback, if the rules are linear and all that they do can be transposed.
    """
    losses, pullback, aux = jax.vjp(fun, params, has_aux=True)

    def forward(direction):
        if not linear:
            raise ValueError(_NO_FORWARD_MODE)
        try:
            return jax.linear_transpose(pullback, losses)((direction,))[0]
        except (NotImplementedError, TypeError, AssertionError) as error:
            raise ValueError(_NO_FORWARD_MODE) from error

    return losses, forward, pullback, aux


def _or_refused(forward: Callable[[Any], jax.Array]) -> Callable[[Any], jax.Array]:
    """The same map, where JAX finds out only now that a rule has no forward mode."""

    def checked(direction):
        try:
            return forward(direction)
        except TypeError as error:
            if "custom_vjp" not in str(error):
                raise
            raise ValueError(_NO_FORWARD_MODE) from error

    return checked


def _partial_jvp(forward: Callable[[Any], jax.Array], params: Any, direction: Any):
    """``forward(direction)``, spending nothing on leaves that are left out."""
    leaves, treedef = jax.tree.flatten(params)
    tangents = _trees.leaves(direction)
    if not any(map(_trees.is_masked, tangents)):
        return forward(direction)
    zeros = [jnp.zeros_like(p) for p in leaves]
    kept = [i for i, t in enumerate(tangents) if not _trees.is_masked(t)]

    def restricted(*some):
        full = list(zeros)
        for i, t in zip(kept, some, strict=True):
            full[i] = t
        return forward(jax.tree.unflatten(treedef, full))

    # A linear map is its own derivative, and derivatives skip what is constant.
    at = tuple(zeros[i] for i in kept)
    return jax.jvp(restricted, at, tuple(tangents[i] for i in kept))[1]


def _require_definition(plan: Plan | None, definition: str | None) -> Plan | None:
    """The plan that computes a definition of the rows, None for the rows themselves."""
    if definition in (None, "row"):
        return None
    try:
        if plan is None:
            raise NoDefinition("losses of shape [B] are needed")
        if plan.independent and not plan.data_ops:
            return None
        return freeze(plan) if definition == "frozen" else attribute(plan)
    except NoDefinition as error:
        raise ValueError(
            f"definition={definition!r} cannot be told here: {error}. Put "
            "jax.lax.stop_gradient around the batch statistics in losses_fn and ask "
            "for 'row', which is what 'frozen' means."
        ) from None


def _tapped_norms(tapped: Intercepted, params: Any, mask: Any, chunk_size: ChunkSize):
    return jnp.sqrt(tapped.squares(_kept(params, mask), chunk_size))


def _kept(params: Any, mask: Any) -> list[bool]:
    """Which leaves a mask selects."""
    kept = _trees.leaves(_trees.select(params, mask))
    return [not _trees.is_masked(x) for x in kept]


def _norm(mask: Any, dtype: Any) -> Callable[[Any], jax.Array]:
    """The norm of one row, over the leaves that a mask selects."""

    def norm(row):
        leaves = jax.tree.leaves(_trees.select(row, mask))
        squares = (squared_norm(g) for g in leaves)
        return jnp.sqrt(sum(squares, start=jnp.zeros((), widest(dtype))))

    return norm
