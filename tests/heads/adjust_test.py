"""Post-hoc adjustment: released values, Bayes' rule, search and normalisation."""

import math
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltjax import heads

# Made by running the released PyTorch code in float64.
GOLDEN = np.load(Path(__file__).parents[1] / "fixtures" / "heads.npz")
PRIORS = np.array([0.7, 0.2, 0.1])
MODES = ["additive", "multiplicative"]
both_modes = pytest.mark.parametrize("mode", MODES)


def _loop(z, mode, tau, target=(1.0, 1.0, 1.0)):
    out = np.zeros(z.shape)
    for i, c in np.ndindex(z.shape):
        ratio = PRIORS[c] / target[c]
        if mode == "additive":
            out[i, c] = z[i, c] - tau * math.log(ratio)
        else:
            out[i, c] = z[i, c] * ratio**-tau
    return out


@both_modes
@pytest.mark.parametrize("tau", [0.65, 1.0, 1.6])
def test_matches_released_code(mode, tau, x64):
    counts = GOLDEN["class_counts"]
    got = heads.adjust_logits(
        jnp.asarray(GOLDEN["logits"]), counts / counts.sum(), tau=tau, mode=mode
    )
    np.testing.assert_allclose(got, GOLDEN[f"la_{mode}_tau{tau}"], rtol=1e-12)


@both_modes
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_matches_a_float64_loop_with_target_priors(mode, dtype):
    z = jax.random.normal(jax.random.key(0), (5, 3)).astype(dtype)
    target = np.array([0.1, 0.3, 0.6])
    adjust = jax.jit(heads.adjust_logits, static_argnames="mode")
    got = adjust(z, PRIORS, tau=1.3, mode=mode, target_priors=target)
    chex.assert_type(got, jnp.float32)
    want = _loop(np.asarray(z).astype(np.float64), mode, 1.3, target)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@both_modes
def test_zero_strength_or_unchanged_priors_leave_the_logits(mode):
    z = jax.random.normal(jax.random.key(0), (5, 3))
    np.testing.assert_array_equal(heads.adjust_logits(z, PRIORS, tau=0, mode=mode), z)
    same = heads.adjust_logits(z, PRIORS, tau=2.0, mode=mode, target_priors=PRIORS)
    np.testing.assert_array_equal(same, z)


def test_additive_adjustment_is_bayes_rule():
    """From p(c|x) under training priors to p(c|x) under the target ones."""
    likelihood = np.array([[0.2, 0.5, 0.9]], np.float32)
    target = np.array([0.1, 0.3, 0.6], np.float32)
    z = jnp.log(likelihood * PRIORS.astype(np.float32)[None, :])
    got = heads.adjust_logits(z, PRIORS, tau=1.0, target_priors=target)
    want = likelihood * target[None, :]
    np.testing.assert_allclose(jax.nn.softmax(got), want / want.sum(), rtol=1e-5)


@both_modes
def test_empty_classes_and_large_logits_stay_finite(mode):
    z = jnp.array([[0.0, 1e4, -1e4], [0.0, 0.0, 0.0]])

    def adjust(z, priors, target):
        return heads.adjust_logits(
            z, priors, tau=1.6, mode=mode, target_priors=target
        ).sum()

    value, grad = jax.jit(jax.value_and_grad(adjust))(
        z, jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, 0.5, 0.5])
    )
    chex.assert_tree_all_finite((value, grad))


@both_modes
def test_search_finds_the_best_strength(mode):
    """Against a loop over strengths, with a class that does not occur."""
    rng = np.random.default_rng(0)
    labels = rng.choice(2, size=40)  # class 2 is absent
    z = rng.normal(size=(40, 3)).astype(np.float32)
    z[np.arange(40), labels] += 1
    z[:, 0] += 2
    taus = np.array([0.0, 0.5, 1.0, 2.0, 4.0], np.float32)
    best, got = jax.jit(heads.search_tau, static_argnames="mode")(
        z, labels, PRIORS, taus, mode=mode
    )
    want = []
    for tau in taus.astype(np.float64):
        hits = _loop(z.astype(np.float64), mode, tau).argmax(axis=1) == labels
        want.append((hits[labels == 0].mean() + hits[labels == 1].mean()) / 2)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert len(set(want)) > 1
    assert best == taus[int(np.argmax(want))]


def test_search_prefers_the_first_of_equals():
    z, labels = jnp.array([[9.0, 0.0], [0.0, 9.0]]), jnp.array([0, 1])
    best, _ = heads.search_tau(z, labels, jnp.ones(2), jnp.array([0.5, 0.1, 1.0]))
    assert best == 0.5


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("class_axis", [-2, -1, 0, 1])
def test_tau_normalize_matches_a_loop(class_axis, dtype):
    kernel = jax.random.normal(jax.random.key(0), (3, 4)).astype(dtype)
    got = jax.jit(heads.tau_normalize, static_argnames="class_axis")(
        kernel, tau=0.7, class_axis=class_axis
    )
    assert got.dtype == dtype
    want = np.asarray(kernel).astype(np.float64)
    rows = want if class_axis in (0, -2) else want.T  # views
    for row in rows:
        row /= math.sqrt(row @ row) ** 0.7
    tolerance = 1e-5 if dtype == jnp.float32 else 1e-2
    np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=tolerance)


def test_tau_normalize_runs_from_unchanged_to_unit_rows_and_zero_rows_stay():
    kernel = jnp.array([[3.0, 0.0], [4.0, 0.0]])
    np.testing.assert_array_equal(heads.tau_normalize(kernel, tau=0.0), kernel)
    unit = heads.tau_normalize(kernel)
    np.testing.assert_allclose(unit, [[0.6, 0.0], [0.8, 0.0]], rtol=1e-6)
    grad = jax.grad(lambda k: heads.tau_normalize(k).sum())(kernel)
    chex.assert_tree_all_finite(grad)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"tau": -1.0}, r"tau must be a finite.*got -1\.0"),
        ({"mode": "power"}, r"mode must be one of 'additive', 'multi.*'power'"),
        ({"class_priors": np.ones(4)}, r"class_priors.*\(3,\), got \(4,\)"),
        ({"class_priors": np.array([1.0, 0, 1])}, r"class_priors.*0\.0 for class 1"),
        ({"target_priors": -PRIORS}, r"target_priors.*not negative.*class 0"),
        ({"logits": jnp.zeros(3)}, r"logits.*2 dimensions.*\(3,\)"),
    ],
)
def test_adjust_names_bad_input(given, match):
    given = {"logits": jnp.zeros((2, 3)), "class_priors": PRIORS, "tau": 1.0} | given
    with pytest.raises(ValueError, match=match):
        heads.adjust_logits(**given)


def test_search_and_normalize_name_bad_input():
    z, y = jnp.zeros((2, 3)), jnp.array([0, 1])
    with pytest.raises(ValueError, match=r"taus must hold at least one"):
        heads.search_tau(z, y, PRIORS, jnp.zeros(0))
    with pytest.raises(ValueError, match=r"taus\[1\] must be.*got -2"):
        heads.search_tau(z, y, PRIORS, np.array([1.0, -2.0]))
    with pytest.raises(ValueError, match=r"labels.*\(2,\), got \(3,\)"):
        heads.search_tau(z, jnp.zeros(3, jnp.int32), PRIORS, np.array([1.0]))
    with pytest.raises(ValueError, match=r"class_axis must be -2, -1, 0 or 1, got 2"):
        heads.tau_normalize(z, class_axis=2)
    with pytest.raises(TypeError, match=r"class_axis must be an integer.*1\.0"):
        heads.tau_normalize(z, class_axis=1.0)
    with pytest.raises(ValueError, match=r"kernel.*2 dimensions.*\(3,\)"):
        heads.tau_normalize(jnp.zeros(3))
    with pytest.raises(ValueError, match=r"tau must be.*got -1"):
        heads.tau_normalize(z, tau=-1)
