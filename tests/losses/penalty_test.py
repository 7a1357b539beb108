"""The feature penalty."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltjax import losses


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_is_half_the_squared_length_and_its_gradient_the_embedding(dtype):
    h = jnp.array([[3.0, -4.0], [0.0, 0.0], [1e4, 0.0]], dtype)
    rows = np.asarray(h.astype(jnp.float32), np.float64)
    want = [0.5 * sum(v * v for v in row) for row in rows]
    got = jax.jit(losses.feature_penalty)(h)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=1e-6)
    grad = jax.grad(lambda h: losses.feature_penalty(h).sum())(h)
    assert grad.dtype == dtype
    np.testing.assert_array_equal(grad, h)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"embeddings.*2 dimensions.*\(3,\)"):
        losses.feature_penalty(jnp.zeros(3))
    with pytest.raises(TypeError, match=r"embeddings.*floating.*int32"):
        losses.feature_penalty(jnp.zeros((3, 2), jnp.int32))
