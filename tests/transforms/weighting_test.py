"""One battery for all example weightings: composition, states, devices."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import ltjax

WEIGHTINGS = {
    "absgd": lambda: ltjax.absgd(0.5),
    "gradtail": lambda: ltjax.gradtail(burn_in=1),
    "gradtail_dot": lambda: ltjax.gradtail(
        activation=lambda s: jax.nn.sigmoid(-4 * s),
        similarity="dot",
        burn_in=1,
        z_score=True,
    ),
    "gradtail_clean": lambda: ltjax.gradtail(
        activation="aligned", reference="clean", burn_in=1
    ),
    "l2rw": ltjax.l2rw,
    "product": lambda: ltjax.product(
        ltjax.absgd(-0.5), ltjax.gradtail(burn_in=1, reference="weighted")
    ),
}
every_weighting = pytest.mark.parametrize("make", WEIGHTINGS.values(), ids=WEIGHTINGS)


def dense_model():
    keys = jax.random.split(jax.random.key(0), 2)
    params = {
        "layer": {"w": jax.random.normal(keys[0], (6, 8)), "b": jnp.zeros(8)},
        "head": 0.5 * jax.random.normal(keys[1], (8, 3)),
        "nothing": None,
    }

    def apply(p, x):
        h = jax.nn.relu(x @ p["layer"]["w"] + p["layer"]["b"][None, :])
        return h @ p["head"]

    return apply, params, (16, 6)


def conv_model():
    keys = jax.random.split(jax.random.key(1), 2)
    params = {
        "conv": 0.3 * jax.random.normal(keys[0], (3, 3, 2, 4)),
        "head": jax.random.normal(keys[1], (4, 3)),
    }

    def apply(p, x):
        h = jax.lax.conv_general_dilated(
            x, p["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jax.nn.relu(h).mean((1, 2)) @ p["head"]

    return apply, params, (16, 5, 5, 2)


def batches(shape, steps=3):
    keys = jax.random.split(jax.random.key(5), 2)
    x = jax.random.normal(keys[0], (steps, *shape))
    return x, jax.random.randint(keys[1], (steps, shape[0]), 0, 3)


def towards_zero(params):
    """Stands for the gradient of a clean set."""
    return params


def make_step(tx, apply):
    def step(params, state, x, y):
        losses, jac = ltjax.linearize(
            lambda p: optax.softmax_cross_entropy_with_integer_labels(apply(p, x), y),
            params,
        )
        extra = {"losses": losses, "meta_grad_fn": towards_zero, "unknown": "extra"}
        updates, state = tx.update(jac, state, params, **extra)
        return optax.apply_updates(params, updates), state

    return step


def train(tx, model, step=None):
    apply, params, shape = model
    step = jax.jit(make_step(tx, apply)) if step is None else step
    state = tx.init(params)
    for x, y in zip(*batches(shape), strict=True):
        params, state = step(params, state, x, y)
    return params, state


@every_weighting
def test_no_recompilation_and_stable_state(make):
    apply, params, shape = dense_model()
    tx = optax.chain(make(), optax.sgd(0.1, momentum=0.9))
    step = jax.jit(chex.assert_max_traces(make_step(tx, apply), n=1))
    before = tx.init(params)
    _, after = train(tx, (apply, params, shape), step)
    chex.assert_trees_all_equal_shapes_and_dtypes(before, after)
    chex.assert_tree_all_finite(jax.tree.leaves(after[1]))


@every_weighting
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_updates_keep_the_dtype_of_parameters(make, dtype):
    apply, params, shape = dense_model()
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    cast = lambda p, x: apply(p, x.astype(dtype))  # noqa: E731
    after, _ = train(optax.chain(make(), optax.sgd(0.1)), (cast, params, shape))
    chex.assert_trees_all_equal_dtypes(params, after)
    chex.assert_tree_all_finite(after)


@every_weighting
def test_bfloat16_is_close_to_float32(make):
    apply, params, shape = dense_model()
    cast = lambda p, x: apply(  # noqa: E731
        jax.tree.map(lambda a: a.astype(jnp.bfloat16), p), x.astype(jnp.bfloat16)
    ).astype(jnp.float32)
    tx = optax.chain(make(), optax.sgd(0.1))
    exact, _ = train(tx, (apply, params, shape))
    rough, _ = train(tx, (cast, params, shape))
    chex.assert_trees_all_close(rough, exact, atol=0.06)


@every_weighting
@pytest.mark.parametrize("model", [dense_model, conv_model])
def test_eight_devices_equal_one(make, model, eight_devices):
    apply, params, shape = model()
    sharded = NamedSharding(eight_devices, PartitionSpec("data"))
    everywhere = NamedSharding(eight_devices, PartitionSpec())
    tx = optax.chain(make(), optax.sgd(0.1))
    step = make_step(tx, apply)
    on_eight = jax.jit(
        step,
        in_shardings=(everywhere, everywhere, sharded, sharded),
        out_shardings=everywhere,
    )
    one = train(tx, (apply, params, shape))
    eight = train(tx, (apply, params, shape), on_eight)
    chex.assert_trees_all_close(one, eight, rtol=1e-4, atol=1e-5)


@every_weighting
def test_first_in_any_chain(make):
    model = dense_model()
    params = model[1]
    head_only = {"layer": False, "head": True, "nothing": None}
    labels = {"layer": "a", "head": "b", "nothing": None}
    chains = [
        optax.chain(make(), optax.masked(optax.add_decayed_weights(0.1), head_only)),
        optax.chain(make(), optax.clip_by_global_norm(1.0), optax.adamw(1e-2)),
        optax.chain(
            make(), optax.partition({"a": optax.sgd(0.1), "b": optax.adam(0.1)}, labels)
        ),
        optax.chain(
            make(), optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()
        ),
        optax.inject_hyperparams(lambda lr: optax.chain(make(), optax.sgd(lr)))(lr=0.1),
    ]
    for tx in chains:
        with jax.numpy_dtype_promotion("standard"):  # optax's Adam relies on it
            after, _ = train(tx, model)
        chex.assert_trees_all_equal_shapes_and_dtypes(params, after)
        chex.assert_tree_all_finite(after)
        assert not np.allclose(after["head"], params["head"])


def test_hyperparameters_may_be_injected():
    model = dense_model()
    injected = optax.chain(
        optax.inject_hyperparams(ltjax.absgd)(
            temperature=0.7, gamma=0.5, alpha=0.5, erm_weight=0.2, start_step=1
        ),
        optax.sgd(0.1),
    )
    fixed = optax.chain(
        ltjax.absgd(0.7, gamma=0.5, alpha=0.5, erm_weight=0.2, start_step=1),
        optax.sgd(0.1),
    )
    got, expected = train(injected, model)[0], train(fixed, model)[0]
    chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-6)
    strength = optax.linear_schedule(0.0, 5.0, 3)
    injected = optax.chain(
        optax.inject_hyperparams(
            lambda decay, burn_in, strength: ltjax.gradtail(
                decay=decay,
                burn_in=burn_in,
                activation=ltjax.transforms.gated(strength=strength),
            )
        )(decay=0.9, strength=strength, burn_in=0),
        optax.sgd(0.1),
    )
    train(injected, model)


@every_weighting
def test_scan_and_vmap_over_seeds(make):
    apply, params, shape = dense_model()
    tx = optax.chain(make(), optax.sgd(0.1))
    step = make_step(tx, apply)
    scales = jnp.array([0.5, 1.0])

    def run(scale):
        start = jax.tree.map(lambda p: p * scale, params)
        body = lambda c, xy: (step(*c, *xy), None)  # noqa: E731
        return jax.lax.scan(body, (start, tx.init(start)), batches(shape))[0][0]

    mapped = jax.jit(jax.vmap(run))(scales)
    for i, scale in enumerate(scales):
        start = jax.tree.map(lambda p, s=scale: p * s, params)
        single, _ = train(tx, (apply, start, shape))
        got = jax.tree.map(lambda p, i=i: p[i], mapped)
        chex.assert_trees_all_close(got, single, rtol=1e-4, atol=1e-5)


def test_product_multiplies_weights(x64):
    apply, params, shape = dense_model()
    params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    x, y = (a[0] for a in batches(shape))
    first = ltjax.absgd(0.5)
    second = ltjax.gradtail(burn_in=0, reference="weighted")
    both = ltjax.product(first, second)
    losses_fn = lambda p: optax.softmax_cross_entropy_with_integer_labels(  # noqa: E731
        apply(p, x), y
    )

    @jax.jit
    def products(params):
        losses, jac = ltjax.linearize(losses_fn, params)
        mean = jac.vjp(jnp.ones(16) / 16)
        states = first.init(params), second.observe(second.init(params), mean)
        w1, _ = first.weights(jac, states[0], params, losses=losses)
        w2, _ = second.weights(jac, states[1], params, losses=losses)
        w, _ = both.weights(jac, states, params, losses=losses)
        update = both.update(jac, states, params, losses=losses)
        return (w1, w2, w), states[1].mean_grad, update, jac.vjp(w1 * w2 / 16)

    (w1, w2, w), before, (updates, (_, after)), expected = products(params)
    assert w2.std() > 0.05
    np.testing.assert_allclose(w, w1 * w2, rtol=1e-12)
    chex.assert_trees_all_close(updates, expected, rtol=1e-12)
    # The mean gradient that GradTail keeps is that of the product's update.
    expected = jax.tree.map(lambda m, g: 0.99 * m + 0.01 * g, before, updates)
    chex.assert_trees_all_close(after.mean_grad, expected, rtol=1e-12)


def test_absgd_on_the_elm_loss(x64):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (12, 4))
    y = jax.random.randint(keys[1], (12,), 0, 3)
    params = {"w": jax.random.normal(keys[2], (4, 5)), "head": jnp.ones((5, 3)) * 0.1}
    priors = jnp.array([0.7, 0.2, 0.1])

    def losses_fn(p):
        h = jnp.tanh(x @ p["w"])
        return ltjax.losses.elm(h @ p["head"], h, y, class_priors=priors)

    tx = ltjax.absgd(1.0, gamma=1.0)

    @jax.jit
    def both(params):
        losses, jac = ltjax.linearize(losses_fn, params)
        updates, _ = tx.update(jac, tx.init(params), params, losses=losses)
        w = jax.nn.softmax(losses)
        return updates, jax.grad(lambda p: jnp.sum(w * losses_fn(p)))(params)

    chex.assert_trees_all_close(*both(params), rtol=1e-10)


@every_weighting
def test_unknown_leading_axis_is_refused(make):
    _, params, _ = dense_model()
    tx = make()
    averaged = jax.tree.map(jnp.ones_like, params)
    with pytest.raises(ValueError, match=r"updates.*(averaged|must have)"):
        tx.update(
            averaged,
            tx.init(params),
            params,
            losses=jnp.ones(16),
            meta_grad_fn=towards_zero,
        )
