"""What gradient transformations take as ``updates``."""

from collections.abc import Sequence
from typing import Any, final

import jax
import jax.numpy as jnp
import optax

from ltjax.jacobian import _trees
from ltjax.jacobian._operator import Jacobian
from ltjax.jacobian._standins import jacobian_of


def as_jacobian(updates: Any, params: Any, shape: tuple[int, ...] | None) -> Jacobian:
    """``updates`` as a Jacobian of outputs of a given shape, if it is known.

    Args:
      updates: a `Jacobian`, a tree whose leaves stand for one, or a tree of
        per-example gradients.
      params: the parameters, or None.
      shape: shape of the outputs, or None.
    """
    jacobian = _recover(updates)
    if jacobian is None:
        return _from_rows(updates, params, shape)
    if shape is not None and jacobian.shape != tuple(shape):
        raise ValueError(
            f"updates is the Jacobian of outputs of shape {jacobian.shape}, "
            f"which must be {tuple(shape)} here."
        )
    return jacobian


@final
class RearrangedJacobian(Jacobian):
    """Rows of some parameters of a Jacobian, which another tree holds."""

    def __init__(self, jacobian: Jacobian, treedef: Any, indices: Sequence[int]):
        leaves = jax.tree.leaves(jacobian.params)
        super().__init__(
            jax.tree.unflatten(treedef, [leaves[i] for i in indices]),
            jacobian.shape,
            jacobian.dtype,
            jacobian.method,
            jacobian.reason,
        )
        self.outputs = jacobian.outputs
        self._jacobian = jacobian
        self._indices = indices

    def _jvp(self, direction, definition):
        inner = self._inner(_trees.leaves(direction), optax.MaskedNode())
        return self._jacobian.jvp(inner, definition=definition)

    def _vjp(self, cotangents):
        return self._outer(self._jacobian.vjp(cotangents))

    def _map_rows(self, fun, chunk_size):
        return self._jacobian._map_rows(lambda row: fun(self._outer(row)), chunk_size)

    def _norms(self, mask, chunk_size, definition):
        keep = _trees.resolve_mask(True if mask is None else mask, self.params)
        inner = self._inner(jax.tree.leaves(keep), False)
        return self._jacobian._norms(inner, chunk_size, definition)

    def _inner(self, leaves: Sequence[Any], rest: Any) -> Any:
        treedef: Any = jax.tree.structure(self._jacobian.params)
        own = dict(zip(self._indices, leaves, strict=True))
        full = [own.get(i, rest) for i in range(treedef.num_leaves)]
        return jax.tree.unflatten(treedef, full)

    def _outer(self, tree: Any) -> Any:
        leaves = jax.tree.leaves(tree)
        treedef = jax.tree.structure(self.params)
        return jax.tree.unflatten(treedef, [leaves[i] for i in self._indices])


def _recover(updates: Any) -> Jacobian | None:
    if isinstance(updates, Jacobian):
        return updates
    found = jacobian_of(updates)
    return found and RearrangedJacobian(found[0], jax.tree.structure(updates), found[1])


def _from_rows(updates, params, shape) -> Jacobian:
    if shape is None:
        shape = _leading_axes(updates, params)
    template = _trees.drop_axes(updates, len(shape)) if params is None else params
    return Jacobian.from_rows(updates, template, shape)


def _leading_axes(updates: Any, params: Any) -> tuple[int, ...]:
    """Axes that per-example gradients have more than parameters, at least one."""
    if params is None:
        raise ValueError("params must be given with per-example gradients, got None.")
    rows, leaves = jax.tree.leaves(updates), jax.tree.leaves(params)
    if not rows or not leaves:
        raise ValueError("updates must hold at least one array, got none.")
    axes = max(jnp.ndim(rows[0]) - jnp.ndim(leaves[0]), 1)
    return jnp.shape(rows[0])[:axes]
