"""Jacobians of large batches, a part of the batch at a time."""

from collections.abc import Callable
from typing import Any, final

import jax
import jax.numpy as jnp

from ltjax import _validate
from ltjax._numerics import at_least_float32
from ltjax.jacobian import _trees
from ltjax.jacobian._chunks import ChunkSize
from ltjax.jacobian._linearize import check_batch, check_outputs, linearize
from ltjax.jacobian._operator import Jacobian


def linearize_microbatches(
    losses_fn: Callable[[Any, Any], jax.Array],
    params: Any,
    batch: Any,
    *,
    microbatch_size: int,
) -> tuple[jax.Array, Jacobian]:
    """`linearize` in the memory of a microbatch: gradient accumulation.

    Every product goes through the microbatches again, forward and backward, and is
    that of the whole batch. A method that takes this Jacobian therefore gives the
    weights of the whole batch, and its update is that of one large step. ABSGD costs
    one forward pass more than without microbatches.

    Microbatches are taken with a stride, so that every device has a part of each of
    them where the batch is sharded. Where examples are coupled, they are coupled
    within their microbatch only.

    Args:
      losses_fn: ``(params, microbatch) -> [b]`` losses, or any shape that has the
        examples on its first axis.
      params: tree of floating-point arrays or scalars.
      batch: any tree whose leaves all have the same leading axis ``B``.
      microbatch_size: b, a divisor of ``B``.

    Returns:
      ``([B] losses, jacobian)``, in the order of the batch.

    Raises:
      ValueError: if ``microbatch_size`` does not divide ``B``, or if ``losses_fn`` does
        not return losses for ``b`` examples.

    Examples:
      >>> def losses_fn(w, batch):
      ...     x, y = batch
      ...     return (x @ w - y) ** 2
      >>> batch = jnp.eye(4), jnp.array([1.0, 2.0, 1.0, 2.0])
      >>> tx = optax.chain(ltjax.absgd(1.0), optax.sgd(0.1))
      >>> params = jnp.zeros(4)
      >>> losses, jac = ltjax.linearize_microbatches(
      ...     losses_fn, params, batch, microbatch_size=2)
      >>> updates, _ = tx.update(jac, tx.init(params), params)
      >>> print(losses, updates)
      [1. 4. 1. 4.] [0.005 0.191 0.005 0.191]
    """
    batch = jax.tree.map(jnp.asarray, batch)
    check_batch(batch)
    _validate.integer("microbatch_size", microbatch_size, low=1)
    size = jax.tree.leaves(batch)[0].shape[0]
    if size % microbatch_size:
        raise ValueError(
            f"microbatch_size must divide the batch of {size}, got {microbatch_size}."
        )
    params = _trees.as_params(params)
    parts = jax.tree.map(lambda x: _split(x, microbatch_size), batch)

    def checked(params, part):
        losses = losses_fn(params, part)
        check_outputs(losses)
        if losses.shape[0] != microbatch_size:
            raise ValueError(
                "losses_fn must return losses for the examples of a microbatch, shape "
                f"({microbatch_size}, ...), got {losses.shape}."
            )
        return losses

    outputs = _merge(jax.lax.map(lambda part: checked(params, part), parts))
    return outputs, MicrobatchedJacobian(checked, params, parts, outputs)


@final
class MicrobatchedJacobian(Jacobian):
    """Products that go through the microbatches one at a time."""

    def __init__(
        self,
        losses_fn: Callable[[Any, Any], jax.Array],
        params: Any,
        parts: Any,
        outputs: jax.Array,
    ):
        count, size = jax.tree.leaves(parts)[0].shape[:2]
        reason = f"{count} microbatches of {size} examples, one at a time"
        super().__init__(params, outputs.shape, outputs.dtype, "microbatches", reason)
        self.outputs = outputs
        self._losses_fn = losses_fn
        self._parts = parts
        self._size = size

    def _jvp(self, direction, definition):
        return self._map(lambda jac: jac.jvp(direction, definition=definition))

    def _vjp(self, cotangents):
        def add(total, part_and_cotangents):
            part, d = part_and_cotangents
            gradient = self._linearize(part).vjp(d)
            return jax.tree.map(lambda t, g: t + g.astype(t.dtype), total, gradient), ()

        start = jax.tree.map(lambda p: at_least_float32(jnp.zeros_like(p)), self.params)
        parts = self._parts, _split(cotangents, self._size)
        total, _ = jax.lax.scan(add, start, parts)
        return jax.tree.map(lambda t, p: t.astype(p.dtype), total, self.params)

    def _map_rows(self, fun: Callable[[Any], Any], chunk_size: ChunkSize):
        return self._map(lambda jac: jac._map_rows(fun, chunk_size))

    def _norms(self, mask, chunk_size, definition):
        return self._map(lambda jac: jac._norms(mask, chunk_size, definition))

    def _linearize(self, part: Any) -> Jacobian:
        return linearize(lambda p: self._losses_fn(p, part), self.params)[1]

    def _map(self, fun: Callable[[Jacobian], Any]) -> Any:
        """``fun`` of every microbatch's Jacobian, in the order of the batch."""
        found = jax.lax.map(lambda part: fun(self._linearize(part)), self._parts)
        return jax.tree.map(_merge, found)


def _split(x: jax.Array, size: int) -> jax.Array:
    """``[B, ...]`` as ``[B / size, size, ...]``, with a stride."""
    return jnp.swapaxes(x.reshape(size, -1, *x.shape[1:]), 0, 1)


def _merge(x: jax.Array) -> jax.Array:
    """``[B / size, size, ...]`` as ``[B, ...]``: undoes `_split`."""
    return jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])
