"""A model's arrays: which are trained, where they start, and their names."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.configs import TrainConfig
from experiments.training.errors import RunError


def initial_arrays(config: TrainConfig) -> dict[str, np.ndarray] | None:
    """The arrays that training starts from, by path, if they are given."""
    if config.init_from is None:
        if config.trained == "classifier":
            raise RunError(
                "init_from must be given to train the classifier alone: "
                "best.npz or last.npz of the run whose other "
                "layers it is to use."
            )
        return None
    try:
        return dict(np.load(config.init_from))
    except OSError as error:
        raise RunError(f"init_from cannot be read: {error}") from error


# Training the classifier alone: the other parameters count as the model's other state.


def partition(params: Any, rest: Any, config: TrainConfig) -> tuple[Any, Any]:
    """``(trained, everything else)``."""
    if config.trained == "all":
        return params, rest
    head, body = nnx.split_state(params, nnx.PathContains("head"), ...)
    return head, (body, rest)


def whole(params: Any, rest: Any, config: TrainConfig) -> tuple[Any, Any]:
    """The inverse of `partition`."""
    if config.trained == "all":
        return params, rest
    body, rest = rest
    return nnx.merge_state(body, params), rest


def partly_trained(apply: Callable, config: TrainConfig) -> Callable:
    """``apply`` for parameters that went through `partition`."""
    if config.trained == "all":
        return apply

    def apply_head(head, others, x, **kwargs):
        outputs, rest = apply(*whole(head, others, config), x, **kwargs)
        return outputs, (others[0], rest)

    return apply_head


def named(*trees: Any) -> dict[str, jax.Array]:
    """Leaves by path, such as ``head.kernel``."""
    return {
        jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value"): x
        for tree in trees
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def replaced(tree: Any, initial: Mapping[str, np.ndarray]) -> Any:
    """``tree`` with its leaves from ``initial``, all of which must fit."""
    leaves = named(tree)
    different = {
        name: (initial[name].shape if name in initial else None, leaf.shape)
        for name, leaf in leaves.items()
        if name not in initial or initial[name].shape != leaf.shape
    }
    if different:
        raise ValueError(
            "init_from must hold parameters of this model, got other shapes (found, "
            f"expected) for {different}."
        )
    new = [jnp.asarray(initial[name], leaf.dtype) for name, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(tree), new)


def all_finite(params: Any) -> jax.Array:
    """Whether every parameter is finite."""
    leaves = jax.tree.leaves(params)
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in leaves]))
