"""Numerical helpers against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltjax._numerics import power_of_two


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_power_of_two_is_near_and_has_an_inverse(dtype):
    with jax.enable_x64():
        largest = float(jnp.finfo(dtype).max)
        tiny = float(jnp.finfo(dtype).smallest_normal)
        x = jnp.array([0, tiny, 1e-2, 0.7, 1, 1.4, 3, 100, largest, np.inf], dtype)
        found = power_of_two(x)
        assert found.dtype == x.dtype
        assert (found * (1 / found) == 1).all()
        assert jnp.isfinite(1 / found).all()
        found = np.asarray(found, np.float64)
        exponent, _ = np.frexp(found)
        np.testing.assert_array_equal(exponent, 0.5)
        ratio = np.asarray(x, np.float64)[2:8] / found[2:8]
        assert (ratio > 0.7).all()
        assert (ratio <= 1.5).all()
        scaled = np.asarray(x / power_of_two(x), np.float64)
        assert scaled[1] > tiny
        assert scaled[-2] < largest / 4
