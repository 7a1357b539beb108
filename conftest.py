"""Names that every docstring example may use."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ltjax


@pytest.fixture(autouse=True)
def doctest_names(doctest_namespace):
    """The usual imports and few digits: examples start with what they are about."""
    doctest_namespace.update(jax=jax, jnp=jnp, np=np, optax=optax, ltjax=ltjax)
    with np.printoptions(precision=3, suppress=True):
        yield
