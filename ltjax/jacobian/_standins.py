"""What stands for the rows of a Jacobian in a tree of updates.

Training loops pass gradients on as trees like the parameters. As a tree, a Jacobian
therefore has the structure of its parameters, with a handle for the rows of each one.
A handle computes nothing; `jacobian_of` finds the Jacobian behind a tree of them.
"""

from collections.abc import Iterable
from typing import Any

import jax


class PerExampleGradient:
    """Stands for the rows of one parameter, which are not computed."""

    def __init__(self, jacobian: Any, index: int):
        self.jacobian = jacobian
        self.index = index

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.jacobian.shape, *self._param.shape)

    @property
    def dtype(self) -> Any:
        return self._param.dtype

    def __repr__(self) -> str:
        return (
            f"PerExampleGradient{self.shape}: not computed, a ltjax.Weighting at the "
            "start of an optimiser makes a gradient of it"
        )

    @property
    def _param(self):
        return jax.tree.leaves(self.jacobian.params)[self.index]


def register(kind: type) -> None:
    """Makes a class of Jacobians a tree like its parameters.

    Its children are those of the parameters themselves, so that their paths are too.
    """
    jax.tree_util.register_pytree_with_keys(kind, _flatten, jax.tree.unflatten)


def jacobian_of(updates: Any) -> tuple[Any, list[int]] | None:
    """The Jacobian that all leaves of a tree stand for, and for which parameters.

    None if they do not stand for a Jacobian.

    Raises:
      ValueError: if only some do, or for several Jacobians.
    """
    leaves = jax.tree.leaves(updates)
    found = [x for x in leaves if isinstance(x, PerExampleGradient)]
    if not found:
        return None
    if len(found) < len(leaves) or len({id(x.jacobian) for x in found}) > 1:
        raise ValueError(
            "updates must stand for the rows of one Jacobian, got "
            f"{', '.join(sorted({type(x).__name__ for x in leaves}))} of several "
            "sources: put a weighting before whatever changes gradients."
        )
    return found[0].jacobian, [x.index for x in found]


def _flatten(jacobian: Any) -> tuple[Iterable[tuple[Any, Any]], Any]:
    leaves, treedef = jax.tree.flatten(jacobian.params)
    handles = [PerExampleGradient(jacobian, i) for i in range(len(leaves))]
    tree = jax.tree.unflatten(treedef, handles)
    paths, outermost = jax.tree_util.tree_flatten_with_path(
        tree, is_leaf=lambda x: x is not tree
    )
    return [(path[0] if path else None, child) for path, child in paths], outermost
