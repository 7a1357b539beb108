"""Learning from long-tailed and noisily labelled data in JAX."""
