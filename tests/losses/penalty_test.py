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


def test_padding_has_no_penalty_and_no_gradient():
    h, where = jnp.array([[3.0, -4.0], [jnp.nan, jnp.inf]]), jnp.array([True, False])

    @jax.jit
    def fun(h):
        penalties, vjp = jax.vjp(lambda h: losses.feature_penalty(h, where=where), h)
        return penalties, *vjp(jnp.ones_like(penalties))

    penalties, slopes = fun(h)
    np.testing.assert_array_equal(penalties, [12.5, 0.0])
    np.testing.assert_array_equal(slopes, [[3.0, -4.0], [0.0, 0.0]])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"where.*\(3,\).*\(2,\)"):
        losses.feature_penalty(jnp.zeros((3, 2)), where=jnp.ones(2, jnp.bool_))
    with pytest.raises(ValueError, match=r"embeddings.*2 dimensions.*\(3,\)"):
        losses.feature_penalty(jnp.zeros(3))
    with pytest.raises(TypeError, match=r"embeddings.*floating.*int32"):
        losses.feature_penalty(jnp.zeros((3, 2), jnp.int32))
