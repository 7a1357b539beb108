"""What every loss of logits and labels promises, held to float64 loops."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltjax import losses

COUNTS = np.array([60, 28, 13, 3])
PRIORS = COUNTS / COUNTS.sum()
BATCH, CLASSES = 6, len(COUNTS)
LABELS = np.array([0, 3, 1, 0, 2, 3], np.int32)
KEPT = np.array([True, False, True, True, False, True])  # the others are padding
OUTSIDE = np.array([0, -7, 0, 0, 1_000_000, 0], np.int32)
EMBEDDINGS = np.random.default_rng(1).normal(size=(BATCH, 5)).astype(np.float32)
CENTERS = np.random.default_rng(2).normal(size=(CLASSES, 5)).astype(np.float32)


def _softmax(z):
    exps = [math.exp(v - max(z)) for v in z]
    return [e / sum(exps) for e in exps]


def _sigmoid(x):
    return 1 / (1 + math.exp(-x))


def _weights(beta):
    raw = [(1 - beta) / (1 - beta**n) for n in COUNTS]
    return [w * CLASSES / sum(raw) for w in raw]


def _cross_entropy(z, y):
    return -math.log(_softmax(z)[y])


def _logit_adjusted(z, y):
    return _cross_entropy(
        [v + 1.5 * math.log(p) for v, p in zip(z, PRIORS, strict=True)], y
    )


def _balanced_softmax(z, y):
    exps = [n * math.exp(v) for v, n in zip(z, COUNTS, strict=True)]
    return -math.log(exps[y] / sum(exps))


def _ldam(z, y):
    margin = 0.5 * (COUNTS[y] ** -0.25) / max(n**-0.25 for n in COUNTS)
    return _cross_entropy([3 * (v - margin * (c == y)) for c, v in enumerate(z)], y)


def _class_balanced_cross_entropy(z, y):
    return _weights(0.99)[y] * _cross_entropy(z, y)


def _class_balanced_sigmoid(z, y):
    rights = [_sigmoid(v if c == y else -v) for c, v in enumerate(z)]
    return _weights(0.99)[y] * sum(-math.log(p) for p in rights) / CLASSES


def _class_balanced_focal(z, y):
    rights = [_sigmoid(v if c == y else -v) for c, v in enumerate(z)]
    return _weights(0.99)[y] * sum(-((1 - p) ** 1.5) * math.log(p) for p in rights)


def _focal(z, y):
    p = _softmax(z)[y]
    return -((1 - p) ** 2) * math.log(p)


def _symmetric(z, y):
    reverse = 0.0
    for c, p in enumerate(_softmax(z)):
        reverse -= min(max(p, 1e-7), 1) * math.log(min(max(c == y, 1e-4), 1))
    return 0.1 * _cross_entropy(z, y) + 2 * reverse


def _generalized(z, y):
    return (1 - _softmax(z)[y] ** 0.7) / 0.7


def _truncated(z, y):
    return (1 - max(_softmax(z)[y], 0.3) ** 0.7) / 0.7


def _elm_logit_term(z, y):
    rest = sum(
        math.exp(math.log(PRIORS[c] / PRIORS[y]) + z[c] - z[y])
        for c in range(CLASSES)
        if c != y
    )
    return math.log(1 + rest)


CASES = {
    "logit_adjusted": (
        functools.partial(
            losses.logit_adjusted_cross_entropy, class_priors=PRIORS, tau=1.5
        ),
        _logit_adjusted,
    ),
    "balanced_softmax": (
        functools.partial(losses.balanced_softmax, class_counts=COUNTS),
        _balanced_softmax,
    ),
    "ldam": (
        functools.partial(losses.ldam, class_counts=COUNTS, scale=3.0),
        _ldam,
    ),
    "class_balanced_cross_entropy": (
        functools.partial(
            losses.class_balanced_cross_entropy, class_counts=COUNTS, beta=0.99
        ),
        _class_balanced_cross_entropy,
    ),
    "class_balanced_sigmoid": (
        functools.partial(
            losses.class_balanced_sigmoid, class_counts=COUNTS, beta=0.99
        ),
        _class_balanced_sigmoid,
    ),
    "class_balanced_focal": (
        functools.partial(
            losses.class_balanced_focal, class_counts=COUNTS, beta=0.99, gamma=1.5
        ),
        _class_balanced_focal,
    ),
    "focal": (losses.focal, _focal),
    "symmetric": (
        functools.partial(losses.symmetric_cross_entropy, alpha=0.1, beta=2.0),
        _symmetric,
    ),
    "generalized": (losses.generalized_cross_entropy, _generalized),
    "truncated": (
        functools.partial(losses.truncated_generalized_cross_entropy, k=0.3),
        _truncated,
    ),
    "elm": (
        lambda z, y, **given: losses.elm(
            z, EMBEDDINGS, y, class_priors=PRIORS, weight=0.0, **given
        ),
        _elm_logit_term,
    ),
}
every_loss = pytest.mark.parametrize(
    "loss_fn", [c[0] for c in CASES.values()], ids=CASES
)
every_case = pytest.mark.parametrize(
    ("loss_fn", "reference"), CASES.values(), ids=CASES
)


soft_cases = {name: case for name, case in CASES.items() if name != "elm"}
every_soft_case = pytest.mark.parametrize(
    ("loss_fn", "reference"), soft_cases.values(), ids=soft_cases
)


def _logits(dtype=jnp.float32):
    z = jax.random.normal(jax.random.key(0), (BATCH, CLASSES), jnp.float32)
    return (2 * z).astype(dtype)


def _loop(reference, z, labels=LABELS):
    z = np.asarray(z).astype(np.float64)
    return np.array([reference(list(row), y) for row, y in zip(z, labels, strict=True)])


@every_case
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_matches_a_float64_loop(loss_fn, reference, dtype):
    z = _logits(dtype)
    got = jax.jit(loss_fn)(z, LABELS)
    chex.assert_shape(got, (BATCH,))
    chex.assert_type(got, jnp.float32)
    np.testing.assert_allclose(got, _loop(reference, z), rtol=1e-5)


@every_case
def test_gradient_matches_differences_of_the_loop(loss_fn, reference, x64):
    z = np.asarray(_logits(), np.float64)
    value = jax.jit(loss_fn)(z, LABELS)
    chex.assert_type(value, jnp.float64)
    np.testing.assert_allclose(value, _loop(reference, z), rtol=1e-12)
    got = jax.jit(jax.grad(lambda z: loss_fn(z, LABELS).sum()))(z)
    step = 1e-5
    for i, c in np.ndindex(z.shape):
        high, low = z.copy(), z.copy()
        high[i, c] += step
        low[i, c] -= step
        slope = (_loop(reference, high) - _loop(reference, low)).sum() / (2 * step)
        np.testing.assert_allclose(got[i, c], slope, rtol=1e-6, atol=1e-9)


def _probabilities(dtype=jnp.float32):
    """Smoothed, mixed and one-hot labels."""
    q = np.random.default_rng(3).dirichlet(np.ones(CLASSES), BATCH)
    q[1], q[2] = np.eye(CLASSES)[2], [0.5, 0, 0.5, 0]
    return jnp.asarray(q, dtype)


@every_soft_case
def test_soft_labels_give_the_mean_over_classes(loss_fn, reference, x64):
    z, q = np.asarray(_logits(), np.float64), _probabilities(jnp.float64)
    rows = [[reference(list(row), c) for c in range(CLASSES)] for row in z]
    got = jax.jit(loss_fn)(z, q)
    chex.assert_shape(got, (BATCH,))
    np.testing.assert_allclose(got, np.sum(q * np.array(rows), 1), rtol=1e-12)
    slopes = jax.jit(jax.grad(lambda z: loss_fn(z, q).sum()))(z)
    by_class = jax.jit(
        jax.jacrev(lambda z: jnp.stack([loss_fn(z, y) for y in _each_class()], 1))
    )(z)  # [B, C, B, C]
    expected = np.einsum("bc,bcbk->bk", q, by_class)
    np.testing.assert_allclose(slopes, expected, rtol=1e-9, atol=1e-12)


def _each_class():
    return [np.full(BATCH, c, np.int32) for c in range(CLASSES)]


@every_soft_case
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_one_hot_labels_are_labels(loss_fn, reference, dtype):
    del reference
    z = _logits(dtype)
    one_hot = jax.nn.one_hot(LABELS, CLASSES, dtype=dtype)
    got, expected = jax.jit(loss_fn)(z, one_hot), jax.jit(loss_fn)(z, LABELS)
    chex.assert_type(got, jnp.float32)
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-7)


@every_soft_case
def test_one_hot_labels_take_masked_logits(loss_fn, reference, x64):
    """A class of probability 0 whose logit is -inf, in losses and gradients."""
    del reference
    z = jax.random.normal(jax.random.key(3), (BATCH, CLASSES), jnp.float64)
    z = z.at[jnp.arange(BATCH), (LABELS + 1) % CLASSES].set(-jnp.inf)
    one_hot = jax.nn.one_hot(LABELS, CLASSES, dtype=jnp.float64)

    def both(labels):
        grad = jax.grad(lambda z: jnp.sum(loss_fn(z, labels)))(z)
        return loss_fn(z, labels), grad

    got, expected = jax.jit(both)(one_hot), jax.jit(both)(LABELS)
    chex.assert_tree_all_finite(expected)
    chex.assert_trees_all_close(got, expected, rtol=1e-12, atol=1e-15)


@every_soft_case
def test_bad_soft_labels_are_named(loss_fn, reference):
    del reference
    with pytest.raises(ValueError, match=r"labels.*\(6, 4\).*\(6, 3\)"):
        loss_fn(_logits(), jnp.ones((6, 3)))
    with pytest.raises(TypeError, match=r"labels.*floating.*int32"):
        loss_fn(_logits(), jnp.ones((6, 4), jnp.int32))


@every_loss
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_extreme_logits_stay_finite(loss_fn, dtype):
    """Saturated both ways, tied, and huge."""
    rows = [[1e4, 0, 0, 0], [-1e4, 0, 0, 0], [0, 0, 0, 0], [1e4, 1e4, -1e4, -1e4]]
    rows += [[80, 0, 0, -80], [-80, 80, 0, 0]]
    labels = jnp.zeros(len(rows), jnp.int32)
    z = jnp.array(rows, dtype)
    value, grad = jax.jit(jax.value_and_grad(lambda z: loss_fn(z, labels).sum()))(z)
    chex.assert_tree_all_finite((value, grad))
    chex.assert_type(grad, dtype)


@every_soft_case
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_extreme_logits_stay_finite_with_soft_labels(loss_fn, reference, dtype):
    del reference
    rows = [[1e4, 0, 0, 0], [-1e4, 0, 0, 0], [0, 0, 0, 0], [1e4, 1e4, -1e4, -1e4]]
    rows += [[80, 0, 0, -80], [-80, 80, 0, 0]]
    z, q = jnp.array(rows, dtype), _probabilities(dtype)
    value, grad = jax.jit(jax.value_and_grad(lambda z: loss_fn(z, q).sum()))(z)
    chex.assert_tree_all_finite((value, grad))
    chex.assert_type(grad, dtype)


@every_loss
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_padding_has_no_loss_and_no_gradient(loss_fn, dtype):
    _check_padding(loss_fn, _logits(dtype), LABELS, np.where(KEPT, LABELS, OUTSIDE))


@every_soft_case
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_padding_has_no_loss_and_no_gradient_with_soft_labels(
    loss_fn, reference, dtype
):
    del reference
    q = _probabilities(dtype)
    padded = jnp.where(KEPT[:, None], q, jnp.full_like(q, jnp.nan))
    _check_padding(loss_fn, _logits(dtype), q, padded)


def _check_padding(loss_fn, z, labels, padded_labels):
    """Whatever padding holds, the others are as they were, bit for bit.

    Operation by operation: fused ones round differently in different programs.
    """

    def fun(z, labels, where=None):
        value, vjp = jax.vjp(lambda z: loss_fn(z, labels, where=where), z)
        return value, *vjp(jnp.ones_like(value))

    whole = fun(z, labels)
    compiled = jax.jit(fun)
    for held in (jnp.nan, jnp.inf, -jnp.inf):
        padded = jnp.where(KEPT[:, None], z, jnp.full_like(z, held))
        found = fun(padded, padded_labels, KEPT)
        fused = compiled(padded, padded_labels, KEPT)
        for expected, exact, near in zip(whole, found, fused, strict=True):
            np.testing.assert_array_equal(exact[KEPT], expected[KEPT])
            rtol = max(1e-5, 2 * float(jnp.finfo(near.dtype).eps))
            np.testing.assert_allclose(near[KEPT], expected[KEPT], rtol, 1e-6)
            assert (exact[~KEPT] == 0).all()
            assert (near[~KEPT] == 0).all()


@every_loss
@pytest.mark.parametrize(
    ("where", "error", "match"),
    [
        (KEPT[:5], ValueError, r"where .*\(6,\).*\(5,\)"),
        (KEPT.astype(np.int32), TypeError, "where .*bool.*int32"),
    ],
    ids=["length", "integers"],
)
def test_bad_masks_are_named(loss_fn, where, error, match):
    with pytest.raises(error, match=match):
        loss_fn(_logits(), LABELS, where=where)


@every_loss
def test_a_better_logit_of_the_target_never_costs(loss_fn):
    grid = jnp.zeros((BATCH, CLASSES)).at[:, 0].set(jnp.linspace(-30.0, 30.0, BATCH))
    got = jax.jit(loss_fn)(grid, np.zeros(BATCH, np.int32))
    assert (jnp.diff(got) <= 1e-6).all()
    assert got[0] > got[-1]


@every_loss
def test_small_integer_labels_are_fine(loss_fn):
    z = _logits()
    fun = jax.jit(loss_fn)
    np.testing.assert_array_equal(fun(z, LABELS.astype(np.uint8)), fun(z, LABELS))


@every_loss
@pytest.mark.parametrize(
    ("logits", "labels", "error", "match"),
    [
        (jnp.zeros((6, 4, 1)), LABELS, ValueError, r"logits.*2 dim.*\(6, 4, 1\)"),
        (jnp.zeros((6, 4)), LABELS[:5], ValueError, r"labels.*\(6,\).*\(5,\)"),
        (jnp.zeros((6, 4)), jnp.zeros(6), TypeError, r"labels.*integer.*float32"),
        (jnp.zeros((6, 4), jnp.int32), LABELS, TypeError, r"logits.*floating.*int32"),
        ([[0.0, 1.0]], LABELS, TypeError, r"logits must be an array, got list"),
    ],
    ids=["rank", "length", "float labels", "integer logits", "list"],
)
def test_bad_input_is_named(loss_fn, logits, labels, error, match):
    with pytest.raises(error, match=match):
        loss_fn(logits, labels)


@pytest.mark.parametrize(
    ("name", "vector"),
    [
        ("logit_adjusted_cross_entropy", "class_priors"),
        ("balanced_softmax", "class_counts"),
        ("ldam", "class_counts"),
        ("class_balanced_cross_entropy", "class_counts"),
        ("class_balanced_sigmoid", "class_counts"),
        ("class_balanced_focal", "class_counts"),
        ("elm", "class_priors"),
    ],
)
def test_bad_class_vectors_are_named(name, vector):
    loss_fn = getattr(losses, name)
    if name == "elm":
        loss_fn = lambda z, y, **kw: losses.elm(z, EMBEDDINGS, y, **kw)  # noqa: E731
    for bad, match in [
        (np.ones(3), r"\(4,\), got \(3,\)"),
        (np.array([1.0, -2.0, 1.0, 1.0]), r"-2\.0 for class 1"),
        (np.array([1.0, 1.0, np.nan, 1.0]), r"nan for class 2"),
    ]:
        with pytest.raises(ValueError, match=rf"{vector}.*{match}"):
            loss_fn(_logits(), LABELS, **{vector: bad})


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("logit_adjusted_cross_entropy", {"class_priors": PRIORS, "tau": -1.0}),
        ("ldam", {"class_counts": COUNTS, "max_margin": -0.1}),
        ("ldam", {"class_counts": COUNTS, "scale": 0.0}),
        ("class_balanced_cross_entropy", {"class_counts": COUNTS, "beta": 1.0}),
        ("class_balanced_sigmoid", {"class_counts": COUNTS, "beta": -0.1}),
        ("class_balanced_focal", {"class_counts": COUNTS, "gamma": -1.0}),
        ("focal", {"gamma": np.nan}),
        ("symmetric_cross_entropy", {"beta": 1.0, "alpha": -1.0}),
        ("symmetric_cross_entropy", {"alpha": 1.0, "beta": -1.0}),
        ("generalized_cross_entropy", {"q": 0.0}),
        ("truncated_generalized_cross_entropy", {"q": 1.1}),
        ("truncated_generalized_cross_entropy", {"k": 1.0}),
        ("truncated_generalized_cross_entropy", {"k": -0.1}),
    ],
)
def test_numbers_out_of_range_are_named(name, given):
    argument, value = list(given.items())[-1]
    with pytest.raises(ValueError, match=rf"{argument} must be a finite.*got {value}"):
        getattr(losses, name)(_logits(), LABELS, **given)


@pytest.mark.parametrize(
    ("name", "given", "strength"),
    [
        ("logit_adjusted_cross_entropy", {"class_priors": PRIORS}, "tau"),
        ("ldam", {"class_counts": COUNTS, "scale": 1.0}, "max_margin"),
        ("ldam", {"class_counts": COUNTS}, "scale"),
        ("class_balanced_cross_entropy", {"class_counts": COUNTS}, "beta"),
        ("class_balanced_focal", {"class_counts": COUNTS}, "gamma"),
        ("focal", {}, "gamma"),
        ("symmetric_cross_entropy", {"alpha": 1.0}, "beta"),
        ("generalized_cross_entropy", {}, "q"),
        ("truncated_generalized_cross_entropy", {}, "k"),
    ],
)
def test_strengths_may_be_traced(name, given, strength):
    def loss_fn(s):
        return getattr(losses, name)(_logits(), LABELS, **given, **{strength: s})

    strengths = jnp.array([0.25, 0.5])
    got = jax.jit(jax.vmap(loss_fn))(strengths)
    want = jax.jit(lambda: jnp.stack([loss_fn(0.25), loss_fn(0.5)]))()
    np.testing.assert_allclose(got, want, rtol=1e-5)
    slope = jax.jit(jax.grad(lambda s: loss_fn(s).sum()))(strengths[0])
    assert jnp.isfinite(slope)
    assert slope != 0


def test_traced_zero_priors_and_empty_classes_stay_finite():
    """A class without examples, named by a label all the same."""
    priors, counts = jnp.array([0.6, 0.4, 0.0, 0.0]), jnp.array([60, 40, 0, 0])
    z = _logits()

    def total(z, priors, counts):
        return sum(
            loss.sum()
            for loss in (
                losses.logit_adjusted_cross_entropy(z, LABELS, class_priors=priors),
                losses.elm(z, EMBEDDINGS, LABELS, class_priors=priors),
                losses.elm(z, EMBEDDINGS, LABELS, class_priors=priors, kind="spread"),
                losses.elm(z, EMBEDDINGS, LABELS, class_priors=priors, margin="ldam"),
                losses.balanced_softmax(z, LABELS, class_counts=counts),
                losses.ldam(z, LABELS, class_counts=counts),
                losses.class_balanced_focal(z, LABELS, class_counts=counts),
            )
        )

    chex.assert_tree_all_finite(jax.jit(jax.value_and_grad(total))(z, priors, counts))
    with pytest.raises(ValueError, match=r"class_priors.*positive.*0\.0 for class 2"):
        losses.logit_adjusted_cross_entropy(z, LABELS, class_priors=priors)
