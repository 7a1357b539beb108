"""Rotations of training images."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.training import batches


def _turned(image, degrees, count=40):
    keys = jax.random.split(jax.random.key(0), count)
    return jax.jit(
        jax.vmap(lambda key: batches._rotated(key, jnp.asarray(image), degrees))
    )(keys)


def test_images_turn_both_ways_around_their_middle():
    image = np.zeros((33, 33, 1), np.uint8)
    image[16, 16] = 200  # the middle stays
    image[16, 28:31] = 200  # three o'clock moves up and down
    turned = np.asarray(_turned(image, 20.0))[..., 0]
    assert turned.dtype == np.uint8
    np.testing.assert_array_equal(turned[:, 16, 16], 200)
    ring = turned.copy()
    ring[:, 14:19, 14:19] = 0
    rows = (ring * np.arange(33)[:, None]).sum((1, 2)) / ring.sum((1, 2)) - 16
    # At most 13.6 sin 20 degrees = 4.7, and in both directions.
    assert np.abs(rows).max() < 5
    assert rows.min() < -3
    assert rows.max() > 3


def test_corners_turn_black():
    turned = np.asarray(_turned(np.full((32, 32, 3), 100, np.uint8), 20.0))
    assert (turned[:, 16, 16] == 100).all()
    assert (turned[:, 0, 0] == 0).any()
