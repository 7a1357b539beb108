"""Weights by the density of regression targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.methods import Context, InverseDensity
from experiments.methods.density import inverse_density
from experiments.models import Outputs


def _targets():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(0, 1, 4000), rng.uniform(3, 12, 400)])


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_mean_weight_is_one(power):
    targets = _targets()
    centers, weights = inverse_density(targets, power=power)
    each = np.interp(targets, centers, weights)
    assert each.mean() == pytest.approx(1.0, abs=1e-5)
    assert (each > 0).all()
    if power == 0:
        np.testing.assert_allclose(weights, 1.0, rtol=1e-5)


def test_inverse_density_makes_every_region_count_the_same():
    rng = np.random.default_rng(1)
    targets = np.concatenate([rng.uniform(0, 1, 9000), rng.uniform(1, 2, 1000)])
    centers, weights = inverse_density(targets, smoothing=0.5)
    each = np.interp(targets, centers, weights)
    sums = [each[targets < 1].sum(), each[targets >= 1].sum()]
    assert sums[0] / sums[1] == pytest.approx(1.0, abs=0.1)
    ratio = each[targets > 1.2].mean() / each[targets < 0.8].mean()
    assert ratio == pytest.approx(9.0, rel=0.15)


def test_the_power_is_of_the_density():
    targets = _targets()
    _, plain = inverse_density(targets)
    _, root = inverse_density(targets, power=0.5)
    np.testing.assert_allclose((root / root[0]) ** 2, plain / plain[0], rtol=1e-5)


def test_an_empty_region_has_a_finite_weight():
    targets = np.concatenate([np.zeros(500), [100.0]])
    centers, weights = inverse_density(targets, smoothing=0.5)
    assert np.isfinite(weights).all()
    assert weights.max() <= 500 * weights.min()
    assert np.interp(100.0, centers, weights) == weights.max()


def test_the_loss_is_the_weighted_squared_error():
    targets = _targets()
    loss = InverseDensity(power=0.5).build(Context(None, lambda step: 0.1, 10, targets))
    some, predictions = targets[::500], np.arange(9.0)
    outputs = Outputs(jnp.asarray(predictions[:, None], jnp.float32), None)
    got = jax.jit(lambda o, t: loss(o, t, None))(
        outputs, jnp.asarray(some, jnp.float32)
    )
    weights = np.interp(some, *inverse_density(targets, power=0.5))
    np.testing.assert_allclose(got, weights * (predictions - some) ** 2, rtol=1e-4)


def test_the_loss_needs_the_targets():
    with pytest.raises(ValueError, match=r"targets must be given.*inverse_density"):
        InverseDensity().build(Context(None, lambda step: 0.1, 10))
