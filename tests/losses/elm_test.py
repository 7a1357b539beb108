"""Embedding terms of ELM against loops, and what goes with them."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ltjax import losses

PRIORS = np.array([0.75, 0.2, 0.05])
LABELS = np.array([0, 1, 0, 2, 0, 1], np.int32)  # class 2 has no partner in the batch
RHO, TEMPERATURE = 0.5, 0.3
KINDS = ["contrastive", "spread", "center"]
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 3)).astype(np.float32)
EMBEDDINGS = RNG.normal(size=(6, 4)).astype(np.float32)
CENTERS = RNG.normal(size=(3, 4)).astype(np.float32)
CENTERS[1] = 0  # a class not seen yet


@functools.partial(jax.jit, static_argnames="kind")
def _term(embeddings, kind, centers=CENTERS, labels=LABELS):
    """The embedding term as the library computes it: weight 1 minus weight 0."""

    def elm(weight):
        return losses.elm(
            jnp.zeros((len(labels), 3), embeddings.dtype),
            embeddings,
            labels,
            class_priors=PRIORS,
            weight=weight,
            kind=kind,
            temperature=TEMPERATURE,
            embedding_tau=RHO,
            centers=centers if kind == "center" else None,
        )

    return elm(1.0) - elm(0.0)


def _loop(embeddings, kind):
    """The embedding term from its equations, in float64."""
    u = [row / math.sqrt(row @ row) for row in np.asarray(embeddings, np.float64)]
    rarity = PRIORS**-RHO / sum(p * p**-RHO for p in PRIORS)
    want = np.zeros(len(u))
    for i, y in enumerate(LABELS):
        partners = [p for p, label in enumerate(LABELS) if label == y and p != i]
        if kind == "center":
            center = CENTERS[y].astype(np.float64)
            if center.any():
                want[i] = rarity[y] * ((u[i] - center) ** 2).sum()
        elif kind == "spread" and partners:
            distances = [((u[i] - u[p]) ** 2).sum() for p in partners]
            want[i] = rarity[y] * sum(distances) / len(partners)
        elif kind == "contrastive" and partners:
            for p in partners:
                rest = 0.0
                for a, label in enumerate(LABELS):
                    if label != y:
                        margin = RHO * math.log(PRIORS[label] / PRIORS[y])
                        gap = u[i] @ u[a] - u[i] @ u[p]
                        rest += math.exp(margin + gap / TEMPERATURE)
                want[i] += math.log(1 + rest) / len(partners)
    return want


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_embedding_term_matches_a_float64_loop(kind, dtype):
    h = jnp.asarray(EMBEDDINGS, dtype)
    got = _term(h, kind)
    chex.assert_shape(got, (6,))
    chex.assert_type(got, jnp.float32)
    want = _loop(h.astype(jnp.float32), kind)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_embedding_gradient_matches_differences_of_the_loop(kind, x64):
    h = EMBEDDINGS.astype(np.float64)
    got = jax.grad(lambda h: _term(h, kind).sum())(jnp.asarray(h))
    step = 1e-5
    for i, e in np.ndindex(h.shape):
        high, low = h.copy(), h.copy()
        high[i, e] += step
        low[i, e] -= step
        slope = (_loop(high, kind) - _loop(low, kind)).sum() / (2 * step)
        np.testing.assert_allclose(got[i, e], slope, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("margin", ["logit_adjustment", "ldam", "none"])
def test_without_weight_the_named_logit_margin_remains(margin):
    got = losses.elm(
        LOGITS,
        EMBEDDINGS,
        LABELS,
        class_priors=PRIORS,
        tau=0.7,
        weight=0.0,
        margin=margin,
    )
    want = {
        "logit_adjustment": losses.logit_adjusted_cross_entropy(
            LOGITS, LABELS, class_priors=PRIORS, tau=0.7
        ),
        "ldam": losses.ldam(
            LOGITS, LABELS, class_counts=PRIORS * 1000, max_margin=0.7, scale=1.0
        ),
        "none": optax.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS),
    }
    np.testing.assert_allclose(got, want[margin], rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_length_of_the_embeddings_does_not_matter(kind):
    """Shrinking all features is no way to lower the term."""
    scaled = EMBEDDINGS * np.array([[0.01, 7, 1, 3, 1e3, 1]], np.float32).T
    np.testing.assert_allclose(_term(scaled, kind), _term(EMBEDDINGS, kind), rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("embeddings", "labels"),
    [
        (np.zeros((3, 4), np.float32), [0, 0, 1]),
        (np.ones((3, 4), np.float32), [0, 1, 2]),  # no anchor has a positive
        (np.ones((3, 4), np.float32), [2, 2, 2]),  # no anchor has a negative
        (np.full((3, 4), 1e4, np.float32), [0, 0, 1]),
        (np.ones((1, 4), np.float32), [2]),  # a batch of one
    ],
    ids=["zeros", "no positive", "no negative", "large", "one"],
)
def test_degenerate_batches_stay_finite(kind, embeddings, labels):
    value, grad = jax.value_and_grad(
        lambda h: _term(h, kind, labels=np.array(labels)).sum()
    )(embeddings)
    chex.assert_tree_all_finite((value, grad))
    if len(set(labels)) == len(labels) and kind != "center":
        assert value == 0
        assert not grad.any()


def test_rare_anchors_against_common_negatives_have_the_largest_margin():
    """All similarities equal, so only the priors tell the anchors apart."""
    labels = np.array([0, 0, 1, 1, 2, 2])
    got = _term(np.ones((6, 4), np.float32), "contrastive", labels=labels)
    assert got[0] < got[2] < got[4]
    spread = _term(EMBEDDINGS[[0, 1] * 3], "spread", labels=labels)
    np.testing.assert_allclose(spread[4] / spread[0], 15**RHO, rtol=1e-5)


def test_rarity_has_mean_one_over_the_training_distribution():
    """Unit directions, opposite centers: every squared distance is 4."""
    h = np.eye(3, 4, dtype=np.float32)
    got = _term(h, "center", centers=-h, labels=np.arange(3))
    np.testing.assert_allclose((PRIORS * got).sum(), 4.0, rtol=1e-5)


def test_strengths_may_be_traced_and_centers_have_no_gradient():
    def total(strengths, centers):
        weight, tau, embedding_tau = strengths
        return losses.elm(
            LOGITS,
            EMBEDDINGS,
            LABELS,
            class_priors=PRIORS,
            tau=tau,
            weight=weight,
            embedding_tau=embedding_tau,
            kind="center",
            centers=centers,
        ).sum()

    strengths = jnp.array([0.3, 1.0, 0.5])
    slopes, by_centers = jax.jit(jax.grad(total, argnums=(0, 1)))(strengths, CENTERS)
    assert jnp.isfinite(slopes).all()
    assert (slopes != 0).all()
    assert not by_centers.any()


def test_two_views_give_every_anchor_a_partner():
    twice = np.tile(LABELS, 2)
    np.testing.assert_allclose(losses.positive_share(LABELS), 5 / 6, rtol=1e-6)
    assert losses.positive_share(twice) == 1
    few = np.array([False, True, True])
    np.testing.assert_allclose(
        losses.positive_share(LABELS, class_mask=few), 2 / 3, rtol=1e-6
    )
    assert losses.positive_share(LABELS[:1], class_mask=few) == 0  # none looked at
    term = _term(np.tile(EMBEDDINGS, (2, 1)), "contrastive", labels=twice)
    assert (term > 0).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_centers_follow_the_class_means(dtype):
    decay = 0.75
    centers = jnp.zeros((4, 4), dtype)  # class 3 never occurs
    want = np.zeros((4, 4))
    seen = set()
    update = jax.jit(losses.update_centers)
    for _ in range(3):
        h = RNG.normal(size=(6, 4)).astype(np.float32)
        centers = update(centers, h, LABELS, decay=decay)
        chex.assert_type(centers, dtype)
        u = [row / math.sqrt(row @ row) for row in h.astype(np.float64)]
        for c in range(3):
            mean = np.mean([u[i] for i in range(6) if LABELS[i] == c], axis=0)
            want[c] = decay * want[c] + (1 - decay) * mean if c in seen else mean
            seen.add(c)
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    np.testing.assert_allclose(centers.astype(jnp.float32), want, atol=tolerance)


def test_absent_classes_keep_their_centers():
    got = losses.update_centers(CENTERS, EMBEDDINGS[:2], np.array([0, 0]))
    np.testing.assert_array_equal(got[1:], CENTERS[1:])
    assert (got[0] != CENTERS[0]).all()
    chex.assert_tree_all_finite(
        losses.update_centers(CENTERS, np.zeros((2, 4), np.float32), np.array([1, 2]))
    )


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"kind": "triplet"}, r"kind must be one of 'contrastive'.*'triplet'"),
        ({"margin": "arcface"}, r"margin must be one of .*'arcface'"),
        ({"kind": "center"}, r"centers must be given with kind='center'.*None"),
        ({"centers": CENTERS}, r"centers must be given with kind='center'.*an array"),
        (
            {"kind": "center", "centers": CENTERS[:2]},
            r"centers must have shape \(3, 4\), got \(2, 4\)",
        ),
        ({"embeddings": EMBEDDINGS[:5]}, r"embeddings.*\(6, any\), got \(5, 4\)"),
        ({"tau": -1.0}, r"tau must be a finite.*got -1\.0"),
        ({"weight": np.inf}, r"weight must be a finite.*got inf"),
        ({"temperature": 0.0}, r"temperature must be a finite.*got 0\.0"),
        ({"embedding_tau": 1.5}, r"embedding_tau must be.*\[0\.0, 1\.0\], got 1\.5"),
    ],
)
def test_bad_input_is_named(given, match):
    given = {"embeddings": EMBEDDINGS, "class_priors": PRIORS} | given
    with pytest.raises(ValueError, match=match):
        losses.elm(LOGITS, labels=LABELS, **given)


def test_bad_input_of_the_helpers_is_named():
    with pytest.raises(ValueError, match=r"embeddings.*\(any, 4\), got \(6, 3\)"):
        losses.update_centers(CENTERS, LOGITS, LABELS)
    with pytest.raises(ValueError, match=r"labels.*\(6,\), got \(5,\)"):
        losses.update_centers(CENTERS, EMBEDDINGS, LABELS[:5])
    with pytest.raises(ValueError, match=r"decay.*\[0\.0, 1\.0\), got 1\.0"):
        losses.update_centers(CENTERS, EMBEDDINGS, LABELS, decay=1.0)
    with pytest.raises(TypeError, match=r"class_mask.*bool.*float32"):
        losses.positive_share(LABELS, class_mask=jnp.ones(3))
    with pytest.raises(TypeError, match=r"labels.*integer.*float32"):
        losses.positive_share(jnp.ones(3))


def test_a_traced_zero_prior_has_the_largest_ldam_margin():
    """Not the smallest, as a class of prior 1 would."""
    z, h, y = jnp.zeros((3, 3)), jnp.ones((3, 2)), jnp.array([0, 1, 2])

    def loss(priors):
        return losses.elm(
            z, h, y, class_priors=priors, margin="ldam", weight=0.0, tau=2.0
        )

    got = jax.jit(loss)(jnp.array([0.7, 0.3, 0.0]))
    np.testing.assert_allclose(got, jax.jit(loss)(jnp.array([0.7, 0.3, 1e-37])), 1e-5)
    np.testing.assert_allclose(got[2], np.log(1 + 2 * np.exp(2)), rtol=1e-6)
    assert got[2] > got[1]
    assert got[1] >= got[0]


@pytest.mark.parametrize("held", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("kind", ["contrastive", "spread", "center"])
def test_padding_is_left_out(kind, held, x64):
    rng = np.random.default_rng(0)
    z, h = jnp.asarray(rng.normal(size=(9, 3))), jnp.asarray(rng.normal(size=(9, 4)))
    where = jnp.arange(9) % 4 != 3
    labels = jnp.where(where, jnp.arange(9) % 3, 1_000_000)
    z, h = (jnp.where(where[:, None], x, held) for x in (z, h))
    centers = jnp.asarray(rng.normal(size=(3, 4)))
    settings = {"class_priors": jnp.array([0.6, 0.3, 0.1]), "kind": kind}
    if kind == "center":
        settings["centers"] = centers

    def total(inputs, labels, where=None):
        found = losses.elm(*inputs, labels, where=where, **settings)
        return found.sum(), found

    slopes_of = jax.jit(jax.grad(total, has_aux=True))
    slopes, found = slopes_of((z, h), labels, where)
    expected_slopes, expected = slopes_of((z[where], h[where]), labels[where])
    np.testing.assert_allclose(found[where], expected, rtol=1e-12)
    assert (found[~where] == 0).all()
    for got, want in zip(slopes, expected_slopes, strict=True):
        np.testing.assert_allclose(got[where], want, rtol=1e-10, atol=1e-14)
        assert (got[~where] == 0).all()
    np.testing.assert_allclose(
        losses.update_centers(centers, h, labels, where=where),
        losses.update_centers(centers, h[where], labels[where]),
        rtol=1e-12,
    )
    labels = jnp.array([0, 0, 1, 1, 2, 2, 2, 0, 1])
    for class_mask in (None, jnp.array([True, True, False])):
        assert losses.positive_share(
            labels, class_mask=class_mask, where=where
        ) == losses.positive_share(labels[where], class_mask=class_mask)
