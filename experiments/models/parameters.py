"""Which parameters are kernels, and which are the classifier's."""

from typing import Any

import jax


def classifier_mask(params: Any) -> Any:
    """Which parameters are the classifier's: those with ``head`` in their path."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "head" in jax.tree_util.keystr(path), params
    )


def kernel_mask(params: Any) -> Any:
    """Which parameters have at least two axes: kernels, not biases or scales."""
    return jax.tree.map(lambda p: p.ndim > 1, params)
