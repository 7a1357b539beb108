"""Adjustment of trained logits from the training priors to equal ones."""

import jax.numpy as jnp
import numpy as np

from ltjax import data, heads


def class_priors(class_counts: np.ndarray) -> np.ndarray:
    """``[C]`` float32 frequencies; an empty class counts as one example."""
    return data.class_priors(np.maximum(class_counts, 1)).astype(np.float32)


def adjusted(
    logits: np.ndarray, class_counts: np.ndarray, *, mode: str, tau: float
) -> np.ndarray:
    """Logits ``[N, C]`` as `ltjax.heads.adjust_logits` gives them."""
    z, priors = jnp.asarray(logits), jnp.asarray(class_priors(class_counts))
    return np.asarray(heads.adjust_logits(z, priors, tau=tau, mode=mode))
