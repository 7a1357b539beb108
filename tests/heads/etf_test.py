"""The simplex equiangular tight frame."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltjax import heads

GOLDEN = np.load(Path(__file__).parents[1] / "fixtures" / "heads.npz")


@pytest.mark.parametrize("embed_dim", [5, 16])
def test_gram_is_that_of_the_released_frame(embed_dim, x64):
    frame = GOLDEN["etf_standard"]
    got = heads.simplex_etf(jax.random.key(3), 5, embed_dim)
    assert got.shape == (5, embed_dim)
    np.testing.assert_allclose(got @ got.T, frame @ frame.T, atol=1e-12)


@pytest.mark.parametrize(("num_classes", "embed_dim"), [(2, 2), (10, 64), (100, 128)])
def test_rows_have_length_one_equal_angles_and_sum_zero(num_classes, embed_dim):
    draw = jax.jit(heads.simplex_etf, static_argnums=(1, 2))
    got = np.asarray(draw(jax.random.key(0), num_classes, embed_dim))
    assert got.dtype == np.float32
    want = np.full((num_classes, num_classes), -1 / (num_classes - 1))
    np.fill_diagonal(want, 1)
    np.testing.assert_allclose(got @ got.T, want, atol=2e-6)
    np.testing.assert_allclose(got.sum(axis=0), np.zeros(embed_dim), atol=2e-6)


def test_orientation_is_uniform():
    """Haar: coordinates have mean 0, variance 1/E and no preferred sign.

    Without the sign fix of QR the first column of ``U`` would lie in one half-space.
    """
    keys = jax.random.split(jax.random.key(0), 4000)
    draws = np.asarray(jax.vmap(lambda k: heads.simplex_etf(k, 2, 3))(keys))
    standard_error = (1 / 3 / len(draws)) ** 0.5
    np.testing.assert_allclose(draws.mean(axis=0), 0, atol=4 * standard_error)
    np.testing.assert_allclose((draws**2).mean(axis=0), 1 / 3, atol=0.02)


def test_bad_input_is_named():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"num_classes=10 and embed_dim=9"):
        heads.simplex_etf(key, 10, 9)
    with pytest.raises(ValueError, match=r"num_classes must be at least 2, got 1"):
        heads.simplex_etf(key, 1, 9)
    with pytest.raises(TypeError, match=r"embed_dim must be an integer.*4\.0"):
        heads.simplex_etf(key, 3, 4.0)
    with pytest.raises(TypeError, match=r"key must be a typed key"):
        heads.simplex_etf(jnp.zeros(2, jnp.uint32), 3, 4)
