"""Bad input is refused by name; extreme input stays finite."""

import re
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ltjax

B, C, E = 4, 3, 5
Z = jnp.zeros((B, C))
Y = jnp.array([0, 1, 2, 0])
H = jnp.ones((B, E))
PRIORS = jnp.array([0.5, 0.3, 0.2])
COUNTS = jnp.array([50, 30, 20])
LABELS = np.array([0, 0, 1, 1, 2, 2])
FEATURES = np.arange(18.0).reshape(6, 3)
KEY = jax.random.key(0)
L, D, M, HD = ltjax.losses, ltjax.data, ltjax.metrics, ltjax.heads
PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
DENSE = jax.tree.map(lambda p: jnp.ones((B, *p.shape)), PARAMS)


def rng():
    return np.random.default_rng(0)


def losses_fn(p):
    return jnp.arange(1.0, B + 1) * (p["w"].sum() + p["b"].sum())


def logits_fn(p):
    return jnp.tile(p["w"].sum(0)[None] + p["b"][None], (B, 1))


def step(tx, fn=losses_fn, **extra):
    _, jac = ltjax.linearize(fn, PARAMS)
    return tx.update(jac, tx.init(PARAMS), PARAMS, **extra)


def gdw(**kwargs):
    return ltjax.gdw(C, lookahead_lr=0.1, key=KEY, **kwargs)


def meta(p):
    return jax.tree.map(jnp.ones_like, p)


class Case(NamedTuple):
    call: object
    error: type
    message: str


CASES = {
    # The core.
    "linearize scalar": Case(
        lambda: ltjax.linearize(lambda p: losses_fn(p).mean(), PARAMS),
        ValueError,
        "losses_fn .* scalar",
    ),
    "linearize nothing": Case(
        lambda: ltjax.linearize(lambda p: losses_fn(p)[:0], PARAMS),
        ValueError,
        r"losses_fn .*at least one loss.*\(0,\)",
    ),
    "linearize tuple": Case(
        lambda: ltjax.linearize(lambda p: (losses_fn(p), 1), PARAMS),
        TypeError,
        "losses_fn .* one array.*tuple",
    ),
    "linearize integer params": Case(
        lambda: ltjax.linearize(losses_fn, {**PARAMS, "b": jnp.arange(3)}),
        TypeError,
        r"params\['b'\] .*floating.*int32",
    ),
    "linearize integer losses": Case(
        lambda: ltjax.linearize(lambda p: losses_fn(p).astype(int), PARAMS),
        TypeError,
        "losses_fn .*floating.*int",
    ),
    "linearize method": Case(
        lambda: ltjax.linearize(losses_fn, PARAMS, method="magic"),
        ValueError,
        "method must be one of .*'magic'",
    ),
    "examples uneven": Case(
        lambda: ltjax.linearize_examples(
            lambda p, e: p["b"].sum(), PARAMS, (jnp.ones(3), jnp.ones(4))
        ),
        ValueError,
        r"batch .*\(3,\).*\(4,\)",
    ),
    "examples empty": Case(
        lambda: ltjax.linearize_examples(
            lambda p, e: p["b"].sum(), PARAMS, jnp.ones((0, 2))
        ),
        ValueError,
        "batch must not be empty",
    ),
    "examples nothing": Case(
        lambda: ltjax.linearize_examples(lambda p, e: p["b"].sum(), PARAMS, ()),
        ValueError,
        "batch must hold",
    ),
    "examples not scalar": Case(
        lambda: ltjax.linearize_examples(lambda p, e: p["b"], PARAMS, jnp.ones(2)),
        ValueError,
        r"loss_fn must return a scalar.*\(3,\)",
    ),
    "jvp structure": Case(
        lambda: ltjax.linearize(losses_fn, PARAMS)[1].jvp({"w": jnp.ones((2, 3))}),
        ValueError,
        "direction must have the structure",
    ),
    "jvp shape": Case(
        lambda: ltjax.linearize(losses_fn, PARAMS)[1].jvp({**PARAMS, "b": jnp.ones(4)}),
        ValueError,
        r"direction\['b'\] .*\(3,\).*\(4,\)",
    ),
    "vjp shape": Case(
        lambda: ltjax.linearize(losses_fn, PARAMS)[1].vjp(jnp.ones(B + 1)),
        ValueError,
        r"cotangents .*\(4,\).*\(5,\)",
    ),
    "vjp integers": Case(
        lambda: ltjax.linearize(losses_fn, PARAMS)[1].vjp(jnp.ones(B, int)),
        TypeError,
        "cotangents .*floating.*int",
    ),
    "chunk size": Case(
        lambda: ltjax.linearize(losses_fn, PARAMS)[1].dense(chunk_size=0),
        ValueError,
        "chunk_size must be at least 1, got 0",
    ),
    "mask values": Case(
        lambda: ltjax.linearize(losses_fn, PARAMS)[1].norms(mask={"w": 1.0, "b": True}),
        TypeError,
        "mask must hold Python booleans, got 1.0",
    ),
    "mask structure": Case(
        lambda: ltjax.linearize(losses_fn, PARAMS)[1].norms(mask={"w": True}),
        ValueError,
        "mask must have the structure",
    ),
    "averaged gradient": Case(
        lambda: ltjax.Jacobian.from_rows(PARAMS, PARAMS, (B,)),
        ValueError,
        r"updates\['b'\] .*averaged gradient.*\(4, 3\)",
    ),
    "rows of another batch": Case(
        lambda: ltjax.Jacobian.from_rows(DENSE, PARAMS, (B + 1,)),
        ValueError,
        r"updates\['b'\] .*\(5, 3\).*\(4, 3\)",
    ),
    # ABSGD.
    "absgd zero": Case(lambda: ltjax.absgd(0.0), ValueError, "temperature .* 0"),
    "absgd nan": Case(
        lambda: ltjax.absgd(float("nan")), ValueError, "temperature .*finite.*nan"
    ),
    "absgd text": Case(lambda: ltjax.absgd("hot"), TypeError, "temperature .*'hot'"),
    "absgd gamma": Case(
        lambda: ltjax.absgd(1.0, gamma=1.5), ValueError, r"gamma .*\(0, 1\].*1.5"
    ),
    "absgd alpha": Case(
        lambda: ltjax.absgd(1.0, alpha=0.0), ValueError, r"alpha .*\(0, .*0.0"
    ),
    "absgd erm_weight": Case(
        lambda: ltjax.absgd(1.0, erm_weight=-1), ValueError, r"erm_weight .*-1"
    ),
    "absgd no losses": Case(
        lambda: ltjax.absgd(1.0).update(DENSE, ltjax.absgd(1.0).init(PARAMS), PARAMS),
        TypeError,
        "missing .*'losses'.*per-example gradients",
    ),
    "gdw no logits": Case(
        lambda: gdw().update(
            jax.tree.map(lambda p: jnp.ones((B, C, *p.shape)), PARAMS),
            gdw().init(PARAMS),
            PARAMS,
            labels=Y,
            meta_grad_fn=meta,
        ),
        TypeError,
        "missing .*'logits'.*per-example gradients",
    ),
    "weighted gradient of no weighting": Case(
        lambda: ltjax.weighted_value_and_grad(losses_fn, ltjax.losses.focal),
        TypeError,
        "weighting .*ltjax.absgd.*function",
    ),
    "microbatch size": Case(
        lambda: ltjax.linearize_microbatches(
            lambda p, x: x, PARAMS, Z, microbatch_size=3
        ),
        ValueError,
        "microbatch_size .*4.*3",
    ),
    "losses of another microbatch": Case(
        lambda: ltjax.linearize_microbatches(
            lambda p, x: x[0], PARAMS, Z, microbatch_size=2
        ),
        ValueError,
        r"losses_fn .*\(2, \.\.\.\).*\(3,\)",
    ),
    "absgd other batch": Case(
        lambda: step(ltjax.absgd(1.0), losses=jnp.ones(B + 1)),
        ValueError,
        r"losses .*\(4,\).*\(5,\)",
    ),
    "absgd rows of another batch": Case(
        lambda: ltjax.absgd(1.0).update(
            DENSE,
            ltjax.absgd(1.0).init(PARAMS),
            PARAMS,
            losses=jnp.ones(B + 1),
        ),
        ValueError,
        r"updates.*\(5, 3\).*\(4, 3\)",
    ),
    "absgd integer losses": Case(
        lambda: step(ltjax.absgd(1.0), losses=jnp.ones(B, int)),
        TypeError,
        "losses .*floating",
    ),
    # GradTail.
    "gradtail activation": Case(
        lambda: ltjax.gradtail(activation="bell"), ValueError, "activation .*'bell'"
    ),
    "gradtail similarity": Case(
        lambda: ltjax.gradtail(similarity="l2"), ValueError, "similarity .*'l2'"
    ),
    "gradtail reference": Case(
        lambda: ltjax.gradtail(reference="none"), ValueError, "reference .*'none'"
    ),
    "gradtail decay": Case(
        lambda: ltjax.gradtail(decay=1.0), ValueError, r"decay .*\[0, 1\).*1.0"
    ),
    "gradtail burn-in": Case(
        lambda: ltjax.gradtail(burn_in=-1), ValueError, "burn_in .*-1"
    ),
    "gradtail width": Case(
        lambda: ltjax.transforms.bump(width=0.0), ValueError, "width .*0.0"
    ),
    "gradtail max_weight": Case(
        lambda: ltjax.gradtail(max_weight=0.5), ValueError, r"max_weight .*\[1, .*0.5"
    ),
    "gradtail mask": Case(
        lambda: ltjax.gradtail(mask={"w": True}).init(PARAMS),
        ValueError,
        "mask must have the structure",
    ),
    "gradtail mask of one boolean": Case(
        lambda: ltjax.gradtail(mask=True), TypeError, "mask .*True.*static_args"
    ),
    "gradtail empty mask": Case(
        lambda: ltjax.gradtail(mask={"w": False, "b": False}).init(PARAMS),
        ValueError,
        "mask must select .*none",
    ),
    "gradtail empty mask function": Case(
        lambda: ltjax.gradtail(mask=lambda p: jax.tree.map(lambda _: False, p)).init(
            PARAMS
        ),
        ValueError,
        "mask must select .*none",
    ),
    "gradtail gate without norms": Case(
        lambda: ltjax.gradtail_weights(jnp.ones(3)), ValueError, "norms .*gated"
    ),
    "gradtail norms shape": Case(
        lambda: ltjax.gradtail_weights(jnp.ones(3), norms=jnp.ones(4)),
        ValueError,
        r"norms .*\(3,\).*\(4,\)",
    ),
    "product of nothing": Case(lambda: ltjax.product(), ValueError, "at least one"),
    "product of optimisers": Case(
        lambda: ltjax.product(ltjax.absgd(1.0), optax.sgd(0.1)),
        TypeError,
        "weightings .*GradientTransformation",
    ),
    # GDW and its relatives.
    "gdw classes": Case(
        lambda: ltjax.gdw(1, lookahead_lr=0.1, key=KEY),
        ValueError,
        "num_classes must be at least 2, got 1",
    ),
    "gdw raw key": Case(
        lambda: ltjax.gdw(3, lookahead_lr=0.1, key=jnp.zeros(2, jnp.uint32)),
        TypeError,
        "key must be a typed key",
    ),
    "gdw lr": Case(
        lambda: ltjax.gdw(3, lookahead_lr=-0.1, key=KEY),
        ValueError,
        "lookahead_lr .*-0.1",
    ),
    "gdw level": Case(lambda: gdw(level="pixel"), ValueError, "level .*'pixel'"),
    "gdw hidden": Case(lambda: gdw(hidden=2.5), TypeError, "hidden .*integer.*2.5"),
    "gdw clip": Case(lambda: gdw(clip=-1.0), ValueError, "clip .*-1.0"),
    "gdw other classes": Case(
        lambda: step(
            ltjax.gdw(C + 1, lookahead_lr=0.1, key=KEY),
            logits_fn,
            logits=Z,
            labels=Y,
            meta_grad_fn=meta,
        ),
        ValueError,
        r"logits .*4.*\(4, 3\)",
    ),
    "gdw jacobian of losses": Case(
        lambda: step(gdw(), losses_fn, logits=Z, labels=Y, meta_grad_fn=meta),
        ValueError,
        r"updates .*\(4,\).*\(4, 3\)",
    ),
    "gdw labels": Case(
        lambda: step(gdw(), logits_fn, logits=Z, labels=Y[:2], meta_grad_fn=meta),
        ValueError,
        r"labels .*\(4,\).*\(2,\)",
    ),
    "gdw meta gradient": Case(
        lambda: step(
            gdw(), logits_fn, logits=Z, labels=Y, meta_grad_fn=lambda p: p["w"]
        ),
        ValueError,
        "meta_grad_fn .*structure",
    ),
    "gdw no function": Case(
        lambda: step(gdw(), logits_fn, logits=Z, labels=Y, meta_grad_fn=PARAMS),
        TypeError,
        "meta_grad_fn must be a function",
    ),
    "l2rw no function": Case(
        lambda: step(ltjax.l2rw(), meta_grad_fn=None),
        TypeError,
        "meta_grad_fn must be a function.*NoneType",
    ),
    # Losses.
    "logits rank": Case(
        lambda: L.focal(jnp.zeros(3), Y), ValueError, r"logits .*2 dimensions.*\(3,\)"
    ),
    "logits integers": Case(
        lambda: L.focal(Z.astype(int), Y), TypeError, "logits .*floating"
    ),
    "labels length": Case(
        lambda: L.focal(Z, Y[:3]), ValueError, r"labels .*\(4,\).*\(3,\)"
    ),
    "labels one-hot of other classes": Case(
        lambda: L.focal(Z, jax.nn.one_hot(Y, C + 1)),
        ValueError,
        r"labels .*\(4, 3\).*\(4, 4\)",
    ),
    "labels one-hot for pairs": Case(
        lambda: L.elm(Z, H, jax.nn.one_hot(Y, C), class_priors=PRIORS),
        ValueError,
        r"labels .*\(4,\).*\(4, 3\)",
    ),
    "labels one-hot integers": Case(
        lambda: L.focal(Z, jax.nn.one_hot(Y, C, dtype=int)),
        TypeError,
        "labels .*floating",
    ),
    "labels floating": Case(
        lambda: L.focal(Z, Y.astype(float)), TypeError, "labels .*integer"
    ),
    "one class": Case(
        lambda: L.focal(Z[:, :1], Y), ValueError, r"at least 2 classes.*\(4, 1\)"
    ),
    "priors length": Case(
        lambda: L.logit_adjusted_cross_entropy(Z, Y, class_priors=jnp.ones(2)),
        ValueError,
        r"class_priors .*\(3,\).*\(2,\)",
    ),
    "priors empty class": Case(
        lambda: L.logit_adjusted_cross_entropy(
            Z, Y, class_priors=jnp.array([0.5, 0.5, 0.0])
        ),
        ValueError,
        "class_priors .*positive.*class 2",
    ),
    "priors nan": Case(
        lambda: L.elm(Z, H, Y, class_priors=jnp.array([0.5, jnp.nan, 0.2])),
        ValueError,
        "class_priors .*finite.*nan.*class 1",
    ),
    "counts negative": Case(
        lambda: L.ldam(Z, Y, class_counts=jnp.array([3, -1, 2])),
        ValueError,
        "class_counts .*-1.*class 1",
    ),
    "beta": Case(
        lambda: L.class_balanced_cross_entropy(Z, Y, class_counts=COUNTS, beta=1.0),
        ValueError,
        "beta .*1.0",
    ),
    "focal gamma": Case(lambda: L.focal(Z, Y, gamma=-1.0), ValueError, "gamma .*-1.0"),
    "gce q": Case(
        lambda: L.generalized_cross_entropy(Z, Y, q=0.0), ValueError, "q .*0.0"
    ),
    "elm kind": Case(
        lambda: L.elm(Z, H, Y, class_priors=PRIORS, kind="triplet"),
        ValueError,
        "kind .*'triplet'",
    ),
    "elm margin": Case(
        lambda: L.elm(Z, H, Y, class_priors=PRIORS, margin="big"),
        ValueError,
        "margin .*'big'",
    ),
    "elm embeddings": Case(
        lambda: L.elm(Z, H[:2], Y, class_priors=PRIORS),
        ValueError,
        r"embeddings .*\(2, 5\)",
    ),
    "elm centers": Case(
        lambda: L.elm(Z, H, Y, class_priors=PRIORS, kind="center"),
        (TypeError, ValueError),
        "centers",
    ),
    # Heads.
    "etf more classes than dimensions": Case(
        lambda: HD.simplex_etf(KEY, 10, 4), ValueError, "(?s)10.*4"
    ),
    "etf key": Case(lambda: HD.simplex_etf(0, 3, 4), TypeError, "key must be a typed"),
    "adjust mode": Case(
        lambda: HD.adjust_logits(Z, PRIORS, tau=1.0, mode="power"),
        ValueError,
        "mode .*'power'",
    ),
    "adjust priors": Case(
        lambda: HD.adjust_logits(Z, PRIORS[:2], tau=1.0),
        ValueError,
        r"class_priors .*\(3,\).*\(2,\)",
    ),
    # Data.
    "factor zero": Case(
        lambda: D.exponential_counts(10, 100, 0.0), ValueError, "factor .*0"
    ),
    "factor above one": Case(
        lambda: D.step_counts(10, 100, 1.5), ValueError, "factor .*1.5"
    ),
    "counts too large": Case(
        lambda: D.subsample(LABELS, [5, 1, 1], rng()), ValueError, r"counts .*5"
    ),
    "labels negative": Case(
        lambda: D.class_counts([-1, 0, 1], 2), ValueError, "labels .*-1"
    ),
    "label too large": Case(
        lambda: D.class_counts([0, 1, 2], 2), ValueError, "labels .*2"
    ),
    "noise rate": Case(
        lambda: D.uniform_noise(10, 1.2, include_self=True), ValueError, "rate .*1.2"
    ),
    "noise matrix": Case(
        lambda: D.corrupt_labels(LABELS, np.ones((3, 3)), rng()),
        ValueError,
        "transition",
    ),
    "noise generator": Case(
        lambda: D.corrupt_labels(LABELS, np.eye(3), 0), TypeError, "rng .*Generator"
    ),
    "meta set too large": Case(
        lambda: D.meta_split(LABELS, 9, rng()), ValueError, "size .*9"
    ),
    "priors of nothing": Case(
        lambda: D.class_priors([0, 0, 0]), ValueError, "class_counts"
    ),
    # Metrics.
    "predictions length": Case(
        lambda: M.balanced_accuracy(LABELS[:2], LABELS, 3),
        ValueError,
        r"predictions|labels",
    ),
    "no examples": Case(
        lambda: M.balanced_accuracy([], [], 3),
        (TypeError, ValueError),
        "predictions|labels",
    ),
    "shots order": Case(
        lambda: M.shot_accuracy(LABELS, LABELS, [9, 5, 1], many=1, few=5),
        ValueError,
        "many|few",
    ),
    "features rank": Case(
        lambda: M.fisher_discriminant_ratio(FEATURES[0], LABELS, 3),
        ValueError,
        "features",
    ),
    "features nan": Case(
        lambda: M.tightness(np.full((6, 3), np.nan), LABELS, 3), ValueError, "features"
    ),
    "probabilities": Case(
        lambda: M.expected_calibration_error(np.full((6, 3), 2.0), LABELS),
        ValueError,
        "probabilities",
    ),
    "bins": Case(
        lambda: M.expected_calibration_error(
            np.full((6, 3), 1 / 3), LABELS, num_bins=0
        ),
        ValueError,
        "num_bins .*0",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bad_input_is_refused_by_name(case):
    with pytest.raises(case.error) as caught:
        case.call()
    assert re.search(case.message, str(caught.value)), str(caught.value)


def test_there_are_enough_cases():
    assert len(CASES) >= 60


EXTREME_LOGITS = {
    "zeros": jnp.zeros((B, C)),
    "saturated right": 1e4 * jax.nn.one_hot(Y, C),
    "saturated wrong": -1e4 * jax.nn.one_hot(Y, C),
    "huge": jnp.full((B, C), 3e38),
}


@pytest.mark.parametrize("logits", EXTREME_LOGITS.values(), ids=EXTREME_LOGITS)
@pytest.mark.parametrize("labels", [Y, jnp.zeros_like(Y)], ids=["mixed", "one class"])
@pytest.mark.parametrize("meta_scale", [0.0, 1.0, 1e30])
def test_gdw_stays_finite(logits, labels, meta_scale):
    updates, state = gdw_step(logits, labels, meta_scale)
    chex.assert_tree_all_finite((updates, jax.tree.leaves(state)))


@jax.jit
def gdw_step(logits, labels, meta_scale):
    tx = gdw()
    _, jac = ltjax.linearize(lambda p: logits + logits_fn(p), PARAMS)
    return tx.update(
        jac,
        tx.init(PARAMS),
        PARAMS,
        logits=logits,
        labels=labels,
        meta_grad_fn=lambda p: jax.tree.map(lambda x: jnp.full_like(x, meta_scale), p),
    )


def test_zero_gradients_stay_finite():
    for tx in (ltjax.absgd(0.5), ltjax.gradtail(burn_in=0)):

        @jax.jit
        def step(state, tx=tx):
            losses, jac = ltjax.linearize(lambda p: 0 * losses_fn(p), PARAMS)
            return tx.update(jac, state, PARAMS, losses=losses)

        state = tx.init(PARAMS)
        for _ in range(3):
            updates, state = step(state)
        chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, PARAMS))
        chex.assert_tree_all_finite(jax.tree.leaves(state))


def test_an_empty_class_leaves_losses_and_metrics_finite():
    counts = jnp.array([50, 30, 0])
    for loss in (
        L.ldam,
        L.balanced_softmax,
        L.class_balanced_cross_entropy,
        L.class_balanced_focal,
        L.class_balanced_sigmoid,
    ):
        assert np.isfinite(loss(Z, Y, class_counts=counts)).all()
    absent = np.zeros(6, int)
    assert np.isfinite(M.per_class_accuracy(absent, absent, 3)).all()
    assert M.balanced_accuracy(absent, absent, 3) == 1
    assert np.isfinite(M.fisher_discriminant_ratio(FEATURES, absent, 3))
    assert np.isfinite(M.tightness(FEATURES, absent, 3).overall)
