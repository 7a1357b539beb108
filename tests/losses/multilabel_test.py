"""Losses of examples with any number of labels, held to float64 loops."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ltjax import losses

RNG = np.random.default_rng(0)
LOGITS = 2 * RNG.normal(size=(5, 4))
LABELS = RNG.integers(0, 2, (5, 4))
KNOWN = np.array(RNG.integers(0, 3, (5, 4)) > 0)
PRIORS = np.array([0.5, 0.2, 0.1, 0.01])
WEIGHTS = np.array([0.1, 0.4, 1.0, 2.5])


def _loop(logits, labels, known, tau, gamma):
    found = []
    for row, answers, seen in zip(logits, labels, known, strict=True):
        total = 0.0
        for c in range(4):
            z = row[c] + tau * math.log(PRIORS[c] / (1 - PRIORS[c]))
            p = 1 / (1 + math.exp(-z))
            yes = -((1 - p) ** gamma) * math.log(p)
            no = -(p**gamma) * math.log(1 - p)
            y = float(answers[c])
            total += seen[c] * WEIGHTS[c] * (y * yes + (1 - y) * no)
        found.append(total / max(sum(seen), 1))
    return np.array(found)


@pytest.mark.parametrize("kind", [np.int32, bool, np.float64])
def test_matches_a_float64_loop(kind, x64):
    settings = {"class_priors": PRIORS, "tau": 1.5, "class_weights": WEIGHTS}
    got = jax.jit(losses.multilabel_cross_entropy)(
        LOGITS, LABELS.astype(kind), gamma=2.0, where=KNOWN, **settings
    )
    expected = _loop(LOGITS, LABELS, KNOWN, 1.5, 2.0)
    np.testing.assert_allclose(got, expected, rtol=1e-10)
    soft = np.clip(LABELS * 0.8 + 0.1, 0, 1)
    got = losses.multilabel_cross_entropy(LOGITS, soft, gamma=0.5, **settings)
    expected = _loop(LOGITS, soft, np.ones((5, 4)), 1.5, 0.5)
    np.testing.assert_allclose(got, expected, rtol=1e-10)


def test_plain_is_binary_cross_entropy():
    z = jnp.asarray(LOGITS, jnp.float32)
    got = jax.jit(losses.multilabel_cross_entropy)(z, LABELS)
    expected = optax.sigmoid_binary_cross_entropy(z, LABELS.astype(np.float32))
    np.testing.assert_allclose(got, expected.mean(1), rtol=1e-5)


def test_one_label_gives_the_class_balanced_sigmoid_loss(x64):
    """Up to the weight, which is that of the label there."""
    labels = np.array([0, 1, 2, 3, 0])
    got = losses.multilabel_cross_entropy(LOGITS, jax.nn.one_hot(labels, 4))
    expected = losses.class_balanced_sigmoid(
        jnp.asarray(LOGITS), labels, class_counts=np.array([10, 10, 10, 10])
    )
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_extremes_stay_finite(dtype):
    z = jnp.array([[1e4, -1e4, 0.0, 80.0], [-1e4, 1e4, -80.0, 0.0]], dtype)
    y = jnp.array([[1, 1, 0, 0], [1, 1, 1, 0]])
    nothing = jnp.array([[True] * 4, [False] * 4])

    @jax.jit
    def total(z, priors):
        found = losses.multilabel_cross_entropy(
            z, y, class_priors=priors, gamma=2.0, where=nothing
        )
        return found.sum(), found

    priors = jnp.array([0.0, 1.0, 0.5, 0.1])  # traced: not refused
    (_, found), slopes = jax.value_and_grad(total, has_aux=True)(z, priors)
    chex.assert_tree_all_finite((found, slopes))
    chex.assert_type(slopes, dtype)
    chex.assert_type(found, jnp.float32)
    assert found[1] == 0
    assert (slopes[1] == 0).all()


@pytest.mark.parametrize("held", [jnp.nan, jnp.inf])
def test_unknown_labels_hold_anything(held):
    """Whatever unknown entries hold, the others are as they were, bit for bit."""
    z = jnp.asarray(LOGITS, jnp.float32)
    y = jnp.asarray(LABELS, jnp.float32)

    @jax.jit
    def fun(z, y):
        def loss_fn(z):
            return losses.multilabel_cross_entropy(z, y, gamma=2.0, where=KNOWN)

        value, vjp = jax.vjp(loss_fn, z)
        return value, *vjp(jnp.ones_like(value))

    held = jnp.full_like(z, held)
    got = fun(jnp.where(KNOWN, z, held), jnp.where(KNOWN, y, held))
    for a, b in zip(got, fun(z, y), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"labels": LABELS[:, :3]}, ValueError, r"labels .*\(5, 4\).*\(5, 3\)"),
        ({"class_priors": PRIORS[:3]}, ValueError, r"class_priors .*\(4,\).*\(3,\)"),
        ({"class_priors": PRIORS * 2}, ValueError, r"class_priors .*below 1.*1\.0"),
        ({"class_weights": -WEIGHTS}, ValueError, "class_weights .*not negative"),
        ({"gamma": -1.0}, ValueError, r"gamma .*-1\.0"),
        ({"tau": -1.0}, ValueError, r"tau .*-1\.0"),
        ({"where": KNOWN[0]}, ValueError, r"where .*\(5, 4\).*\(4,\)"),
        ({"where": LABELS}, TypeError, "where .*bool.*int64"),
    ],
)
def test_bad_input_is_named(given, error, match):
    given = {"labels": LABELS, **given}
    with pytest.raises(error, match=match):
        losses.multilabel_cross_entropy(jnp.asarray(LOGITS), **given)
