"""The study's activations, through the weights that they lead to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ltjax
from experiments.digits import activations
from experiments.gradtail_study import Studied

K, R = 4.0, 0.3
OWN = {
    "tent": activations.tent(width=R),
    "sigmoid": activations.sigmoid(slope=K),
    "linear": activations.linear(slope=K),
}


def raw_weight(s, name):
    return {
        "tent": max(0, 1 - abs(s) / R),
        "sigmoid": 1 / (1 + np.exp(K * s)),
        "linear": max(0, 1 - K * s),
    }[name]


@pytest.mark.parametrize("name", OWN)
def test_weights_follow_the_formulas(x64, name):
    s = np.random.default_rng(0).uniform(-1, 1, 8)
    raw = np.array([raw_weight(x, name) for x in s])
    got = ltjax.gradtail_weights(
        jnp.asarray(s), norms=jnp.ones(8), activation=OWN[name]
    )
    np.testing.assert_allclose(got, np.clip(raw / raw.mean(), 0, 10), rtol=1e-12)


@pytest.mark.parametrize("name", OWN)
def test_any_shape_of_similarity(name):
    s = jax.random.normal(jax.random.key(0), (2, 3, 4))
    w = jax.jit(lambda s: ltjax.gradtail_weights(s, activation=OWN[name]))(s)
    flat = ltjax.gradtail_weights(s.ravel(), activation=OWN[name])
    np.testing.assert_allclose(w.ravel(), flat, rtol=1e-5)
    np.testing.assert_allclose(w.mean(), 1, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1e30, -1e30])
@pytest.mark.parametrize("name", OWN)
def test_extremes_stay_finite_and_the_vanished_neutral(value, name):
    s = jnp.array([value, 0.0, 1.0])
    norms = jnp.array([1e30, 0.0, 1e-30])
    w = ltjax.gradtail_weights(s, norms=norms, activation=OWN[name])
    assert np.isfinite(w).all()
    assert w.max() <= 10
    np.testing.assert_array_equal(w[1:], 1)


def test_all_weights_zero_falls_back_to_one():
    w = ltjax.gradtail_weights(jnp.array([5.0, 6.0]), activation=OWN["tent"])
    np.testing.assert_array_equal(w, 1)


@pytest.mark.parametrize(
    ("name", "constant"),
    [
        ("gated", "strength"),
        ("bump", "width"),
        ("aligned", "strength"),
        ("tent", "width"),
        ("sigmoid", "slope"),
        ("linear", "slope"),
    ],
)
def test_constants_may_be_traced(name, constant):
    """The study maps over them."""
    s, norms = jnp.array([-0.2, 0.1, 0.4]), jnp.array([1.0, 2.0, 0.5])

    def weights(value):
        config = Studied(activation=name, **{constant: value})
        return ltjax.gradtail_weights(s, norms=norms, activation=config.activation_fn)

    values = [0.5, 1.0, 2.0]
    mapped = jax.jit(jax.vmap(weights))(jnp.array(values))
    expected = np.stack([weights(value) for value in values])
    np.testing.assert_allclose(mapped, expected, rtol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.01
