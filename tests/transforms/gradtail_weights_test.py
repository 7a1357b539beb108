"""GradTail's pure part: which similarity gets which weight, and which gets none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ltjax
from ltjax.transforms import aligned, bump, gated


def even(s):
    """An activation of a user's own."""
    return jnp.square(s) + 0.1


ACTIVATIONS = {"gated": "gated", "bump": "bump", "aligned": "aligned", "own": even}
every_activation = pytest.mark.parametrize(
    "activation", ACTIVATIONS.values(), ids=ACTIVATIONS
)


def raw_weights(s, norms, activation, *, a=5.0, k=4.0, c=0.1, r=0.3):
    """The formulas of `gated` and `bump`, one similarity at a time."""
    mean = np.mean(norms)
    gates = [min(n / mean, 3) for n in norms]
    if activation == "gated":
        raw = [
            1 + a / (1 + np.exp(k * (x - c))) * g for x, g in zip(s, gates, strict=True)
        ]
    else:
        raw = [np.exp(-((x - c) ** 2) / (2 * r**2)) for x in s]
    return np.array(raw)


@pytest.mark.parametrize(
    ("name", "activation"),
    [("gated", gated(center=0.1)), ("bump", bump(center=0.1, width=0.3))],
    ids=["gated", "bump"],
)
def test_weights_follow_the_formulas(x64, name, activation):
    rng = np.random.default_rng(0)
    s, norms = rng.uniform(-1, 1, 8), rng.uniform(0.01, 6, 8)
    raw = raw_weights(s, norms, name)
    got = ltjax.gradtail_weights(
        jnp.asarray(s), norms=jnp.asarray(norms), activation=activation
    )
    np.testing.assert_allclose(got, np.clip(raw / raw.mean(), 0, 10), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "made"), [("gated", gated()), ("bump", bump()), ("aligned", aligned())]
)
def test_names_stand_for_the_usual_constants(name, made):
    s, norms = jnp.array([0.3, -0.2, 0.7]), jnp.array([1.0, 2.0, 0.5])
    by_name = ltjax.gradtail_weights(s, norms=norms, activation=name)
    made = ltjax.gradtail_weights(s, norms=norms, activation=made)
    np.testing.assert_array_equal(by_name, made)


@pytest.mark.parametrize("activation", ["bump", even], ids=["bump", "own"])
def test_any_shape_of_similarity(activation):
    s = jax.random.normal(jax.random.key(0), (2, 3, 4))
    w = jax.jit(lambda s: ltjax.gradtail_weights(s, activation=activation))(s)
    flat_w = ltjax.gradtail_weights(s.ravel(), activation=activation)
    np.testing.assert_allclose(w.ravel(), flat_w, rtol=1e-5)
    np.testing.assert_allclose(w.mean(), 1, rtol=1e-5)


def test_activation_may_be_a_function():
    w = ltjax.gradtail_weights(jnp.array([1.0, 3.0]), activation=lambda s: s)
    np.testing.assert_allclose(w, [0.5, 1.5])


def test_a_function_may_use_the_relative_norms():
    def longest(s, relative_norms):
        return s * relative_norms

    longest.uses_norms = True
    s, norms = jnp.array([1.0, 3.0]), jnp.array([1.0, 3.0])
    w = ltjax.gradtail_weights(s, norms=norms, activation=longest)
    np.testing.assert_allclose(w, [0.2, 1.8], rtol=1e-6)
    with pytest.raises(ValueError, match=r"norms must be given.*longest"):
        ltjax.gradtail_weights(s, activation=longest)


@every_activation
def test_vanishing_gradients_are_neutral(activation):
    s, norms = jnp.array([-1.0, 0.5, 1.0]), jnp.array([0.0, 1.0, 2.0])
    w = ltjax.gradtail_weights(s, norms=norms, activation=activation)
    assert w[0] == 1
    w = ltjax.gradtail_weights(s, norms=jnp.zeros(3), activation=activation)
    np.testing.assert_array_equal(w, 1)


@every_activation
def test_the_mean_is_over_gradients_that_have_not_vanished(activation):
    """90 of 100 gradients are zero: the other ten have mean weight 1."""
    rng = np.random.default_rng(0)
    s = np.zeros(100, np.float32)
    norms = np.zeros(100, np.float32)
    s[:10], norms[:10] = rng.uniform(-1, 1, 10), rng.uniform(0.5, 2, 10)
    w = ltjax.gradtail_weights(
        jnp.asarray(s), norms=jnp.asarray(norms), activation=activation
    )
    np.testing.assert_allclose(w[:10].mean(), 1, rtol=1e-5)
    assert w[:10].std() > 0.05
    np.testing.assert_array_equal(w[10:], 1)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_similarities_alone_tell_what_has_vanished(dtype):
    """`bump` is largest for a dot product of 0, which a vanished gradient has."""
    live = jnp.array([0.1, 0.3, -0.2, 0.5, 1.0, 0.2, 0.4, 0.7], dtype)
    fitted = jnp.full(56, jnp.finfo(dtype).eps / 8, dtype)
    s = jnp.concatenate([fitted, live])
    w = ltjax.gradtail_weights(s, activation="bump")
    np.testing.assert_array_equal(w[:56], 1)
    np.testing.assert_allclose(w[56:].mean(), 1, rtol=1e-5)
    alone = ltjax.gradtail_weights(live, activation="bump")
    np.testing.assert_allclose(w[56:], alone, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@every_activation
def test_what_is_not_finite_is_neutral_and_alone_in_it(activation, bad):
    s = jnp.array([0.9, 0.3, -0.2, -0.9])
    norms = jnp.array([1.0, 2.0, 0.5, 1.5])
    expected = ltjax.gradtail_weights(s, norms=norms, activation=activation)
    assert expected.std() > 0.05
    more = jnp.append(s, 0.1), jnp.append(norms, 1.0)
    for similarity, sizes in (
        (jnp.append(s, bad), more[1]),
        (more[0], jnp.append(norms, bad)),
        (jnp.append(s, bad), jnp.append(norms, bad)),
    ):
        w = ltjax.gradtail_weights(similarity, norms=sizes, activation=activation)
        assert w[-1] == 1
        if not np.isfinite(sizes[-1]):
            np.testing.assert_allclose(w[:-1], expected, rtol=1e-5)
        assert w[:-1].std() > 0.05


def test_an_activation_that_overflows_is_neutral_there():
    s, ones = jnp.array([1.0, 2.0, 200.0]), jnp.ones(3)
    w = ltjax.gradtail_weights(s, norms=ones, activation=jnp.exp)
    raw = np.exp([1.0, 2.0])
    np.testing.assert_allclose(w, [*(raw / raw.mean()), 1], rtol=1e-5)


def test_all_weights_zero_falls_back_to_one():
    w = ltjax.gradtail_weights(
        jnp.array([5.0, 6.0]), activation=lambda s: jnp.maximum(1 - s, 0)
    )
    np.testing.assert_array_equal(w, 1)


@pytest.mark.parametrize("value", [0.0, 1e30, -1e30])
@every_activation
def test_extremes_stay_finite(value, activation):
    s = jnp.array([value, 0.0, 1.0])
    w = ltjax.gradtail_weights(
        s, norms=jnp.array([1e30, 0.0, 1e-30]), activation=activation
    )
    assert np.isfinite(w).all()
    assert w.max() <= 10


def test_norms_near_the_largest_number_keep_their_ratios():
    s, norms = jnp.array([0.5, -0.5, 0.0]), jnp.array([1.0, 2.0, 3.0])
    expected = ltjax.gradtail_weights(s, norms=norms)
    got = ltjax.gradtail_weights(s, norms=1e38 * norms)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gated(strength=-1.0), ValueError, r"strength .*-1\.0"),
        (lambda: gated(slope=0.0), ValueError, r"slope .*0\.0"),
        (lambda: gated(center=np.nan), ValueError, r"center .*nan"),
        (lambda: bump(width=0.0), ValueError, r"width .*0\.0"),
        (lambda: bump(center="0"), TypeError, r"center .*'0'"),
        (lambda: bump(slope=1.0), TypeError, r"slope"),
        (
            lambda: ltjax.gradtail_weights(jnp.ones(2), activation="tent"),
            ValueError,
            r"activation must be one of 'gated', 'bump', 'aligned', got 'tent'",
        ),
        (
            lambda: ltjax.gradtail(activation=jnp.ones(())),
            TypeError,
            r"activation .*static_args",
        ),
    ],
)
def test_bad_constants_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
