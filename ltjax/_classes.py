"""Class counts and priors in the form the formulas need, finite for empty classes."""

import jax
import jax.numpy as jnp


def occupied_counts(class_counts: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """``[C]`` counts in ``dtype``; an empty class counts as one example."""
    n = jnp.asarray(class_counts, dtype)
    return jnp.where(n > 0, n, jnp.ones_like(n))


def positive_priors(class_priors: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """``[C]`` priors in ``dtype``; zero is taken for the smallest normal number."""
    return jnp.maximum(jnp.asarray(class_priors, dtype), jnp.finfo(dtype).tiny)


def log_priors(class_priors: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """``[C]`` logarithms of `positive_priors`."""
    return jnp.log(positive_priors(class_priors, dtype))
