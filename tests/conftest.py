"""Eight virtual devices, strict promotion, and a switch for float64."""

import os

import chex
import jax
import pytest
from jax.sharding import AxisType

os.environ.setdefault("JAX_PLATFORMS", "cpu")
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(autouse=True)
def strict_promotion():
    """Silent broadcasting and dtype promotion are errors."""
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(autouse=True)
def fresh_trace_counts():
    """`chex.assert_max_traces` counts by a function's name, here within one test."""
    chex.clear_trace_counter()


@pytest.fixture
def x64():
    """Float64 within one test; the library itself never enables it."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def eight_devices():
    """The mesh of every test that holds eight devices to one."""
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
