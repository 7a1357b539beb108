"""What all tests share: compiled programs, and names that docstring examples use."""

import os
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ltjax
from tests import quick_compilation


def pytest_configure(config):
    """Compiles quickly, and once for all workers and the processes that tests start."""
    quick_compilation.set_flags()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="compiled-")
        config.add_cleanup(folder.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    # JAX has been imported, and read the environment before.
    folder = os.environ["JAX_COMPILATION_CACHE_DIR"]
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(autouse=True)
def doctest_names(doctest_namespace):
    """The usual imports and few digits: examples start with what they are about."""
    doctest_namespace.update(jax=jax, jnp=jnp, np=np, optax=optax, ltjax=ltjax)
    with np.printoptions(precision=3, suppress=True):
        yield
