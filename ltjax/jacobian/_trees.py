"""Trees of parameters and of directions, with their leaves checked."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ltjax import _validate


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


def as_params(params: Any) -> Any:
    def check(path, leaf):
        leaf = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jnp.asarray(leaf)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"params{jax.tree_util.keystr(path)} must be floating point, "
                f"got {leaf.dtype}; close over what is not trained."
            )
        return leaf

    return jax.tree_util.tree_map_with_path(check, params)


def like_params(name: str, tree: Any, params: Any) -> Any:
    """``tree`` in the dtypes of ``params``, its structure and shapes checked."""

    def check(path, p, t):
        if is_masked(t):
            return t
        leaf = f"{name}{jax.tree_util.keystr(path)}"
        t = jnp.asarray(t)
        _validate.array(leaf, t, shape=p.shape, kind="floating")
        return t.astype(p.dtype)

    return _map_against(name, check, params, tree)


def rows_like_params(rows: Any, params: Any, shape: tuple[int, ...]) -> Any:
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


def nbytes(params: Any) -> int:
    return sum(p.size * p.dtype.itemsize for p in jax.tree.leaves(params))


def leaves(tree: Any) -> list[Any]:
    """Leaves of a tree, those left out included."""
    return jax.tree.leaves(tree, is_leaf=is_masked)


def optional(direction: Any) -> list[jax.Array | None]:
    return [None if is_masked(x) else x for x in leaves(direction)]


def drop_axes(rows: Any, ndim: int) -> Any:
    """Shapes of the parameters of a per-example tree."""

    def drop(path, g):
        if jnp.ndim(g) < ndim:
            raise ValueError(
                f"updates{jax.tree_util.keystr(path)} must have {ndim} leading axes, "
                f"got shape {jnp.shape(g)}."
            )
        return jax.ShapeDtypeStruct(jnp.shape(g)[ndim:], jnp.result_type(g))

    return jax.tree_util.tree_map_with_path(drop, rows)


def is_masked(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)
