"""A padded batch gives the step of the batch without padding."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ltjax

SIZE, PADDED, CLASSES, STEPS = 11, 16, 3, 3
KEY = jax.random.key(0)

WEIGHTINGS = {
    "absgd": ltjax.absgd(0.5, erm_weight=0.5),
    "absgd late": ltjax.absgd(-0.5, start_step=1, bias_correction=False),
    "gradtail": ltjax.gradtail(burn_in=1),
    "gradtail dot": ltjax.gradtail(
        activation="bump", similarity="dot", z_score=True, burn_in=0
    ),
    "gradtail weighted": ltjax.gradtail(burn_in=1, reference="weighted"),
    "gradtail clean": ltjax.gradtail(
        activation="aligned", reference="clean", burn_in=1
    ),
    "l2rw": ltjax.l2rw(),
    "product": ltjax.product(ltjax.absgd(1.0), ltjax.gradtail(burn_in=1)),
    "gdw": ltjax.gdw(CLASSES, lookahead_lr=0.5, key=KEY),
    "gdw instance": ltjax.gdw(CLASSES, lookahead_lr=0.5, key=KEY, level="instance"),
    "own": ltjax.Weighting.from_weights(
        lambda params: (), lambda jac, state, params, **extra: (jac.outputs, state)
    ),
}
every_weighting = pytest.mark.parametrize(
    "weighting", WEIGHTINGS.values(), ids=WEIGHTINGS
)


def logits_fn(params, x):
    return jnp.tanh(x @ params["w"]) @ params["head"]


@pytest.fixture
def problem(x64):
    keys = jax.random.split(KEY, 4)
    params = {
        "w": jax.random.normal(keys[0], (5, 4), jnp.float64),
        "head": jax.random.normal(keys[1], (4, CLASSES), jnp.float64),
    }
    x = 2 * jax.random.normal(keys[2], (STEPS, PADDED, 5), jnp.float64)
    return params, x, jax.random.randint(keys[3], (STEPS, PADDED), 0, CLASSES)


def linearized(weighting, params, x, y):
    """Of logits where the weighting has a net for them, of losses elsewhere."""
    of_logits = "net" in getattr(weighting.init(params), "_fields", ())

    def fun(p):
        logits = logits_fn(p, x)
        if of_logits:
            return logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, y)

    return ltjax.linearize(fun, params)[1]


def run(weighting, params, x, y, state=None, **extra):
    def meta_grad_fn(p):
        at = jnp.eye(5, dtype=jnp.float64), jnp.arange(5) % CLASSES
        logits = logits_fn(p, at[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, at[1]).mean()

    @jax.jit
    def step(params, state, x, y):
        jac = linearized(weighting, params, x, y)
        gradient, weights, state = weighting.update_with_weights(
            jac,
            state,
            params,
            labels=y,
            meta_grad_fn=jax.grad(meta_grad_fn),
            **extra,
        )
        params = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)
        return params, state, weights

    state, found = weighting.init(params) if state is None else state, []
    for batch in zip(x, y, strict=True):
        params, state, weights = step(params, state, *batch)
        found.append(weights)
    return params, state, found


@every_weighting
def test_padding_changes_nothing(weighting, problem):
    params, x, y = problem
    where = jnp.arange(PADDED) % 3 != 1
    assert where.sum() == SIZE
    *expected, weights = run(weighting, params, x[:, where], y[:, where])
    *got, padded = run(weighting, params, x, y, where=where)
    chex.assert_trees_all_close(got, expected, rtol=1e-10, atol=1e-12)
    for short, long in zip(weights, padded, strict=True):
        np.testing.assert_allclose(long[where], short, rtol=1e-10)
        assert (long[~where] == 0).all()
    *whole, _ = run(weighting, params, x, y)
    assert not np.allclose(whole[0]["head"], got[0]["head"], rtol=1e-3)


@every_weighting
def test_nothing_but_padding_is_a_step_of_zero(weighting, problem):
    params, x, y = problem
    after, state, weights = run(
        weighting, params, x, y, where=jnp.zeros(PADDED, jnp.bool_)
    )
    chex.assert_trees_all_equal(after, params)
    assert (jnp.stack(weights) == 0).all()
    for field in ("log_u", "mean_grad", "net"):
        before = getattr(weighting.init(params), field, None)
        chex.assert_trees_all_close(getattr(state, field, None), before, rtol=1e-12)


def _means(state):
    """Running means without the bias of their start, by the number of steps."""
    found, steps = {}, float(state.step)
    if hasattr(state, "log_u"):
        found["u"] = jnp.exp(state.log_u) / (1 - 0.1**steps)
    if hasattr(state, "mean_grad"):
        found["G"] = jax.tree.map(lambda g: g / (1 - 0.99**steps), state.mean_grad)
        moments = state.similarity_mean, state.similarity_square
        if steps > 1:
            found["s"] = [m / (1 - 0.99 ** (steps - 1)) for m in moments]
    if hasattr(state, "target_weight"):
        found["w"] = state.target_weight, state.other_weight
    return found


MEANS = ("absgd", "gradtail", "gradtail dot", "gradtail weighted", "gdw")


@pytest.mark.parametrize("name", MEANS)
def test_nothing_but_padding_leaves_the_means(name, problem):
    params, x, y = problem
    params, state, _ = run(WEIGHTINGS[name], params, x, y)
    nothing = jnp.zeros(PADDED, jnp.bool_)
    same, after, _ = run(WEIGHTINGS[name], params, x, y, state, where=nothing)
    assert after.step == 2 * STEPS
    chex.assert_trees_all_equal(same, params)
    chex.assert_trees_all_close(_means(after), _means(state), rtol=1e-10)


# The weighted mean is another one after the burn-in.
@pytest.mark.parametrize("name", [m for m in MEANS if m != "gradtail weighted"])
def test_means_start_at_the_first_batch_with_examples(name, problem):
    params, x, y = problem
    nothing = jnp.zeros(PADDED, jnp.bool_)
    _, state, _ = run(WEIGHTINGS[name], params, x, y, where=nothing)
    _, late, _ = run(WEIGHTINGS[name], params, x[:1], y[:1], state)
    _, first, _ = run(WEIGHTINGS[name], params, x[:1], y[:1])
    chex.assert_tree_all_finite(late)
    got, expected = _means(late), _means(first)
    chex.assert_trees_all_close({k: got[k] for k in expected}, expected, rtol=1e-10)


@pytest.mark.parametrize("gamma", [0.1, 0.9])
def test_weights_after_a_batch_without_a_finite_loss(gamma, x64):
    """Their mean is 1 again, as it is after the first step."""
    tx = ltjax.absgd(2.0, gamma=gamma)
    params = jnp.ones(())
    losses = jnp.arange(1.0, 5.0)
    _, jac = ltjax.linearize(lambda p: p * losses, params)
    state = tx.init(params)
    for some in (losses * jnp.nan, losses, losses * jnp.nan, losses):
        weights, state = tx.weights(jac, state, params, losses=some)
        state = tx.observe(state, params)
    np.testing.assert_allclose(weights.mean(), 1.0, rtol=1e-12)


def test_pixels_are_left_out(problem):
    """As the unlabelled ones of a segmentation are."""
    params, x, _ = problem
    x = x[0].reshape(4, 4, 5)
    where = jnp.arange(16).reshape(4, 4) % 3 != 1
    tx = ltjax.gradtail(similarity="dot", activation="bump", burn_in=0)
    state = tx.init(params)._replace(mean_grad=params, step=jnp.int32(1))

    def update(x, where=None):
        _, jac = ltjax.linearize(lambda p: jnp.sum(logits_fn(p, x) ** 2, -1), params)
        return tx.update(jac, state, params, where=where)

    got = jax.jit(update)(x, where)
    chex.assert_trees_all_close(got, jax.jit(update)(x[where]), rtol=1e-10)
    rows = jax.jit(update)(x, jnp.arange(4) < 3)
    chex.assert_trees_all_close(rows, jax.jit(update)(x[:3]), rtol=1e-10)


def test_pure_functions_leave_padding_out(x64):
    z = jax.random.normal(KEY, (PADDED,), jnp.float64)
    where = jnp.arange(PADDED) % 3 != 1
    norms = jnp.exp(z)
    weights, log_u = ltjax.absgd_weights(z, -jnp.inf, temperature=0.5, where=where)
    kept, expected = ltjax.absgd_weights(z[where], -jnp.inf, temperature=0.5)
    np.testing.assert_allclose(log_u, expected, rtol=1e-12)
    pairs = [
        (weights, kept),
        (
            ltjax.gradtail_weights(jnp.tanh(z), norms=norms, where=where),
            ltjax.gradtail_weights(jnp.tanh(z[where]), norms=norms[where]),
        ),
        (ltjax.l2rw_weights(z, where=where), ltjax.l2rw_weights(z[where])),
    ]
    logits = jax.random.normal(KEY, (PADDED, CLASSES), jnp.float64)
    labels, meta = jnp.arange(PADDED) % CLASSES, jnp.sin(logits)
    pairs += [
        (
            ltjax.gdw_weights(norms, meta, logits, labels, where=where),
            ltjax.gdw_weights(norms[where], meta[where], logits[where], labels[where]),
        ),
        (
            ltjax.logit_cotangents(meta, logits, labels, where=where),
            ltjax.logit_cotangents(meta[where], logits[where], labels[where]),
        ),
    ]
    for long, short in pairs:
        np.testing.assert_allclose(long[where], short, rtol=1e-12)
        assert (long[~where] == 0).all()


@pytest.mark.parametrize(
    ("where", "error", "match"),
    [
        (np.ones(SIZE, bool), ValueError, r"where .*\(16,\).*\(11,\)"),
        (np.ones((PADDED, 2), bool), ValueError, r"where .*\(16,\).*\(16, 2\)"),
        (np.ones(PADDED), TypeError, r"where .*bool.*float64"),
        ([True] * PADDED, TypeError, r"where .*list"),
    ],
    ids=["length", "rank", "dtype", "list"],
)
@pytest.mark.parametrize("name", ["absgd", "gdw"])
def test_bad_masks_are_named(name, where, error, match, problem):
    params, x, y = problem
    with pytest.raises(error, match=match):
        run(WEIGHTINGS[name], params, x, y, where=where)


@every_weighting
def test_a_rejected_step_leaves_no_trace(weighting, problem):
    """With `optax.apply_if_finite` after the weighting."""
    params, x, y = problem
    tx = optax.chain(weighting, optax.apply_if_finite(optax.sgd(0.5), 2))

    @jax.jit
    def step(params, state, x, y):
        jac = linearized(weighting, params, x, y)
        updates, state = tx.update(
            jac, state, params, labels=y, meta_grad_fn=lambda p: p
        )
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    params, state = step(params, state, x[0], y[0])
    same, state = step(params, state, x[1].at[2].set(jnp.nan), y[1])
    chex.assert_trees_all_equal(same, params)
    after, state = step(same, state, x[2], y[2])
    chex.assert_tree_all_finite((after, state))
    assert not np.allclose(after["head"], params["head"])
