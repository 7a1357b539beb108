"""Weights of regression examples by the rarity of their targets."""

import jax
import jax.numpy as jnp
import numpy as np


def inverse_density(
    targets: np.ndarray, *, power: float = 1.0, bins: int = 100, smoothing: float = 2.0
) -> tuple[jax.Array, jax.Array]:
    r"""Weights over the range of the targets, with mean 1 over the examples.

    .. math:: w(t) \propto \hat p(t)^{-\gamma}

    where :math:`\hat p` is a histogram smoothed by a Gaussian kernel, as in the label
    distribution smoothing of Yang et al., *Delving into deep imbalanced regression*,
    ICML 2021. Unlike there, the kernel reaches everywhere, so that no target has
    density 0.

    Args:
      targets: ``[N]`` of the training examples.
      power: :math:`\gamma`; 0 is equal weights, 1 inverse density.
      bins: of the histogram.
      smoothing: standard deviation of the kernel, in bins.

    Returns:
      Centres of the bins and the weights there, both ``[bins]`` float32.
    """
    histogram = np.histogram(np.asarray(targets, np.float64), bins)
    counts, edges = (jnp.asarray(x, jnp.float32) for x in histogram)
    place = jnp.arange(bins, dtype=jnp.float32)
    kernel = jnp.exp(-0.5 * ((place[:, None] - place[None, :]) / smoothing) ** 2)
    density = (kernel / kernel.sum(axis=0)[None, :]) @ counts
    # Where nothing is, a count of one keeps the weight finite.
    weights = jnp.maximum(density, 1.0) ** -power
    centers = (edges[1:] + edges[:-1]) / 2
    mean = jnp.interp(jnp.asarray(targets, jnp.float32), centers, weights).mean()
    return centers, weights / mean
