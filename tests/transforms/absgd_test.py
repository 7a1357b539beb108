"""ABSGD against the released code's numbers and its equations in float64."""

import functools
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ltjax

FIXTURE = pathlib.Path(__file__).parents[1] / "fixtures" / "absgd.npz"


def cross_entropy(z, y):
    return optax.softmax_cross_entropy_with_integer_labels(z, y)


@functools.partial(jax.jit, static_argnums=(0, 1))
def step(tx, losses_fn, state, params, batch):
    losses, jac = ltjax.linearize(lambda p: losses_fn(p, batch), params)
    return tx.update(jac, state, params, losses=losses)


def run(tx, losses_fn, params, batches):
    """Updates and states of one step per batch, parameters fixed."""
    state, out = tx.init(params), []
    for batch in batches:
        updates, state = step(tx, losses_fn, state, params, batch)
        out.append((updates, state))
    return out


def two_losses(params, batch):
    """Of one parameter each."""
    return batch + params


TWO = jnp.array([0.0, 3.0])


@pytest.mark.parametrize("temperature", ["0.5", "5.0", "-2.0"])
@pytest.mark.parametrize(
    "variant", ["imbalance", "imbalance_cb", "noise_ce", "noise_sce", "package"]
)
def test_released_code(x64, variant, temperature):
    golden = np.load(FIXTURE)
    class_weights = jnp.asarray(golden["class_weights"])

    def losses(z, y):
        if variant == "noise_sce":
            return ltjax.losses.symmetric_cross_entropy(z, y, alpha=0.1, beta=2.0)
        scale = class_weights[y] if variant == "imbalance_cb" else 1.0
        return scale * cross_entropy(z, y)

    tx = ltjax.absgd(
        float(temperature),
        gamma=float(golden["gamma"]),
        alpha=float(golden["alpha"]),
        bias_correction=False,
        erm_weight=1.0 if variant.startswith("noise") else 0.0,
    )
    # The released SCE holds float32 constants: 1e-8 of the loss, times 1/lambda in u.
    rtol = 1e-7 if variant == "noise_sce" else 1e-12

    @jax.jit
    def step(state, z, y):
        values, jac = ltjax.linearize(lambda z: losses(z, y), z)
        return tx.update(jac, state, losses=values)

    state = tx.init(jnp.zeros((8, 5)))
    for t, (z, y) in enumerate(zip(golden["logits"], golden["labels"], strict=True)):
        updates, state = step(state, z, y)
        key = f"{variant}_lam{temperature}"
        np.testing.assert_allclose(
            updates, golden[f"{key}_dlogits"][t], rtol=rtol, atol=rtol
        )
        expected = np.log(golden[f"{key}_u"][t])
        np.testing.assert_allclose(state.log_u, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("temperature", [0.7, -1.5])
@pytest.mark.parametrize("bias_correction", [True, False])
def test_equations(x64, temperature, bias_correction):
    rng = np.random.default_rng(0)
    batches = rng.uniform(0, 4, (5, 6))
    gamma, alpha = 0.3, 0.8
    given = {"temperature": temperature, "gamma": gamma, "alpha": alpha}

    @jax.jit
    def weights(losses, log_u, t):
        return ltjax.absgd_weights(
            losses, log_u, step=t, bias_correction=bias_correction, **given
        )

    log_u, u = jnp.asarray(-jnp.inf), 0.0
    for t, losses in enumerate(batches, 1):
        u = (1 - gamma) * u + gamma * alpha * np.mean(np.exp(losses / temperature))
        scale = u / (1 - (1 - gamma) ** t) if bias_correction else u
        w, log_u = weights(jnp.asarray(losses), log_u, t)
        np.testing.assert_allclose(w, np.exp(losses / temperature) / scale, rtol=1e-12)


def test_gamma_one_is_a_softmax_over_the_batch():
    losses = jnp.array([0.3, 2.0, 1.0, 0.1])
    for log_u in (-jnp.inf, 3.0):
        w, _ = ltjax.absgd_weights(losses, log_u, temperature=0.5, gamma=1.0)
        np.testing.assert_allclose(w, 4 * jax.nn.softmax(losses / 0.5), rtol=1e-6)


def test_first_step_with_bias_correction_has_mean_one_over_alpha():
    losses = jnp.array([0.3, 2.0, 1.0, 0.1])
    w, _ = ltjax.absgd_weights(losses, -jnp.inf, temperature=2.0, gamma=0.1, alpha=0.5)
    np.testing.assert_allclose(w.mean(), 2.0, rtol=1e-6)


@pytest.mark.parametrize("temperature", [1e8, -1e8])
def test_large_temperature_is_plain_sgd(temperature):
    params = jnp.array([1.0, -2.0])
    target = jnp.array([[0.0, 1.0], [3.0, 2.0]])
    losses_fn = lambda p, x: jnp.sum((p[None] - x) ** 2, axis=1)  # noqa: E731
    (updates, _), *_ = run(ltjax.absgd(temperature), losses_fn, params, [target])
    expected = jax.grad(lambda p: losses_fn(p, target).mean())(params)
    np.testing.assert_allclose(updates, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("temperature", [0.5, -0.5, 1e-3, -1e-3])
def test_extreme_losses_stay_finite(temperature, dtype):
    tx = ltjax.absgd(temperature)
    params = jnp.zeros(3, dtype)
    scales = [(0.0, 1e4, 1.0), (1e4, 1e4, 1e4), (0.0, 0.0, 0.0), (1.0, 2.0, 1e4)]
    losses_fn = lambda p, offset: offset + p * (1 + offset)  # noqa: E731
    for scale in scales:
        batches = [jnp.asarray(scale, dtype)] * 2
        for updates, state in run(tx, losses_fn, params, batches):
            chex.assert_tree_all_finite((updates, state))
            assert updates.dtype == dtype


@pytest.mark.parametrize("temperature", [1e-3, -1e-3])
def test_large_losses_cost_no_digits(temperature):
    """``losses / temperature`` are 1e7, where neighbours in float32 are 1 apart."""
    losses = 1e4 + jnp.arange(4.0) / 1024
    w, _ = ltjax.absgd_weights(losses, -jnp.inf, temperature=temperature)
    exact = np.asarray(losses, np.float64) / temperature
    exact = np.exp(exact - exact.max())
    np.testing.assert_allclose(w.mean(), 1, rtol=1e-6)
    np.testing.assert_allclose(w, exact / exact.mean(), rtol=1e-5)


@pytest.mark.parametrize("gamma", [1e-3, 1e-6, 1e-9])
def test_bias_correction_of_a_slow_mean(gamma):
    losses = jnp.array([0.0, 1.0])
    w, _ = ltjax.absgd_weights(losses, -jnp.inf, temperature=1.0, gamma=gamma)
    np.testing.assert_allclose(w, 2 * jax.nn.softmax(losses), rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"temperature": 0.0}, r"temperature must not be 0"),
        ({"temperature": -1e-30}, r"temperature must not be 0, got -1e-30"),
        ({"temperature": 1.0, "gamma": 1.5}, r"gamma must be.*\(0, 1\], got 1\.5"),
        ({"temperature": 1.0, "alpha": 0.0}, r"alpha must be.*\(0, inf\].*got 0"),
    ],
)
def test_bad_numbers_are_named(given, match):
    for call in (
        lambda: ltjax.absgd(**given),
        lambda: ltjax.absgd_weights(jnp.ones(2), -jnp.inf, **given),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_starts_at_step_with_fresh_scale():
    params = jnp.zeros(2)
    late = run(ltjax.absgd(1.0, start_step=2), two_losses, params, [TWO] * 4)
    fresh = run(ltjax.absgd(1.0), two_losses, params, [TWO] * 2)
    for updates, state in late[:2]:
        np.testing.assert_allclose(updates, [0.5, 0.5])
        assert state.log_u == -jnp.inf
        assert state.effective_size == 2
    for (got, _), (expected, _) in zip(late[2:], fresh, strict=True):
        np.testing.assert_allclose(got, expected)
        assert got[1] > got[0]


def test_erm_weight_adds_the_plain_gradient():
    params = jnp.zeros(2)
    (plain, _), *_ = run(ltjax.absgd(1.0), two_losses, params, [TWO])
    (added, _), *_ = run(ltjax.absgd(1.0, erm_weight=0.25), two_losses, params, [TWO])
    np.testing.assert_allclose(added - plain, [0.125, 0.125], rtol=1e-5)


def test_temperature_schedule_equals_constants():
    params = jnp.zeros(2)
    schedule = lambda step: jnp.where(step < 1, 4.0, 2.0)  # noqa: E731
    scheduled = run(ltjax.absgd(schedule, gamma=1.0), two_losses, params, [TWO] * 3)
    for (updates, _), value in zip(scheduled, (4.0, 2.0, 2.0), strict=True):
        (expected, _), *_ = run(
            ltjax.absgd(value, gamma=1.0), two_losses, params, [TWO]
        )
        np.testing.assert_allclose(updates, expected, rtol=1e-6)


def scheduled_weights(schedule, losses, **kwargs):
    """``[steps, B]`` weights of a schedule of temperatures."""
    schedule = jnp.asarray(schedule, jnp.float32)
    return np.asarray(_scheduled_weights(schedule, losses, **kwargs))


@functools.partial(jax.jit, static_argnames=("gamma", "bias_correction"))
def _scheduled_weights(schedule, losses, **kwargs):
    tx = ltjax.absgd(lambda step: schedule[step], **kwargs)

    def step(state, batch):
        _, jac = ltjax.linearize(lambda p: batch + p, jnp.zeros(()))
        _, w, state = tx.update_with_weights(jac, state, jnp.zeros(()), losses=batch)
        return state, w

    return jax.lax.scan(step, tx.init(jnp.zeros(())), losses)[1]


@pytest.mark.parametrize("bias_correction", [True, False])
@pytest.mark.parametrize("change", [(1000.0, 1.0), (1.0, -1.0), (-2.0, 3.0), (0.5, 5)])
def test_weights_keep_their_size_where_the_temperature_jumps(change, bias_correction):
    losses = jnp.asarray(np.random.default_rng(0).uniform(5, 7, (60, 32)), jnp.float32)
    schedule = [change[0]] * 30 + [change[1]] * 30
    w = scheduled_weights(schedule, losses, gamma=0.1, bias_correction=bias_correction)
    np.testing.assert_allclose(w[30].mean(), 1, rtol=1e-4)
    np.testing.assert_allclose(w[30:].mean(1), 1, atol=0.7)
    # Later steps average as if every step before had been like the first after it.
    constant = scheduled_weights(schedule[30:], losses[30:], gamma=0.1)
    np.testing.assert_allclose(w[-1], constant[-1], rtol=0.2)


def test_weights_keep_their_size_where_the_temperature_drifts():
    """The temperature halves in 40 steps, and u stays a mean over about 20."""
    losses = jnp.asarray(np.random.default_rng(0).uniform(5, 7, (80, 8)), jnp.float32)
    schedule = 2 * 0.5 ** (np.maximum(np.arange(80) - 20, 0) / 40)
    w = scheduled_weights(schedule, losses, gamma=0.05).mean(1)[20:]
    np.testing.assert_allclose(w.mean(), 1, rtol=0.1)
    assert w.std() > 0.1  # 0 if u were of the batch alone
    np.testing.assert_allclose(w, 1, atol=0.9)


@pytest.mark.parametrize("zero", [0.0, 1e-30, -1e-38])
def test_a_schedule_through_zero_is_plain_there(zero):
    losses = jnp.tile(jnp.array([0.0, 3.0, 1e4]), (5, 1))
    w = scheduled_weights([0.5, 0.1, zero, -0.1, -0.5], losses)
    assert np.isfinite(w).all()
    np.testing.assert_array_equal(w[2], 1)
    np.testing.assert_allclose(w.mean(1), 1, rtol=0.2)
    assert (np.diff(w[[0, 1]]) >= 0).all()
    assert (np.diff(w[[3, 4]]) <= 0).all()


def test_an_injected_temperature_may_change_too():
    injected = optax.inject_hyperparams(ltjax.absgd)(temperature=1000.0, gamma=0.1)
    losses = jnp.array([4.0, 6.0, 8.0])
    params = jnp.zeros(())

    @jax.jit
    def step(state, temperature):
        _, jac = ltjax.linearize(lambda p: losses * p, params)
        state.hyperparams["temperature"] = temperature
        return injected.update(jac, state, params, losses=losses)

    state = injected.init(params)
    for temperature in [1000.0] * 20 + [1.0]:
        updates, state = step(state, jnp.asarray(temperature))
    np.testing.assert_allclose(updates, jax.nn.softmax(losses) @ losses, rtol=1e-3)


def test_weights_carry_no_gradient():
    grad = jax.grad(
        lambda x: ltjax.absgd_weights(x, -jnp.inf, temperature=1.0)[0].sum()
    )(jnp.array([0.1, 2.0]))
    np.testing.assert_array_equal(grad, 0)


def test_dense_prediction_losses():
    params = jnp.ones((2, 2))
    scale = jnp.arange(12.0).reshape(3, 2, 2)
    losses_fn = lambda p, x: x * p[None]  # noqa: E731
    tx = ltjax.absgd(1.0, gamma=1.0)
    ((updates, _),) = run(tx, losses_fn, params, [scale])
    w = jax.nn.softmax(scale.ravel()).reshape(3, 2, 2)
    np.testing.assert_allclose(updates, (w * scale).sum(0), rtol=1e-5)


@pytest.mark.parametrize(("gamma", "steps"), [(0.9, 43), (0.5, 144), (1.0, 0)])
def test_an_outlier_silences_the_steps_that_follow(gamma, steps):
    # For about 100 / -log(1 - gamma) steps at temperature 1, as the docstring says.
    def step(log_u, losses):
        return ltjax.absgd_weights(
            losses, log_u, temperature=1.0, gamma=gamma, bias_correction=False
        )

    step = jax.jit(step)
    _, log_u = step(-jnp.inf, jnp.array([0.0, 100.0]))
    silent = 0
    while silent < 200:
        weights, log_u = step(log_u, jnp.zeros(2))
        if weights.mean() > 0.5:
            break
        silent += 1
    assert silent == pytest.approx(steps, rel=0.05)
