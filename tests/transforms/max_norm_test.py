"""The cap on classifier rows."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ltjax.transforms import max_norm


def _params(dtype=jnp.float32):
    kernel = jax.random.normal(jax.random.key(0), (4, 3))
    return (kernel * jnp.array([[0.5, 1.0, 4.0]])).astype(dtype)


def _capped(kernel, start, share):
    """Columns shortened to the cap of the initial ones, in float64."""
    kernel, start = (np.array(k).astype(np.float64) for k in (kernel, start))
    norms = [np.sqrt(column @ column) for column in start.T]
    cap = min(norms) + share * (max(norms) - min(norms))
    for column in kernel.T:  # views
        column *= min(1.0, cap / np.sqrt(column @ column))
    return kernel


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("class_axis", [-1, 0])
def test_every_step_ends_on_the_projection(dtype, class_axis):
    params = start = _params(dtype)
    if class_axis == 0:
        params = start.T
    tx = optax.chain(optax.sgd(0.5), max_norm(share=0.3, class_axis=class_axis))
    state = tx.init(params)
    update = jax.jit(chex.assert_max_traces(tx.update, n=1))
    want = start
    for step in range(3):
        grads = jax.random.normal(jax.random.key(step + 1), (4, 3)).astype(dtype)
        updates, state = update(grads.T if class_axis == 0 else grads, state, params)
        chex.assert_type(updates, dtype)
        previous = params.T if class_axis == 0 else params
        want = _capped(previous - 0.5 * grads, start, 0.3)
        params = optax.apply_updates(params, updates)
        got = params.T if class_axis == 0 else params
        tolerance = 1e-5 if dtype == jnp.float32 else 4e-2
        np.testing.assert_allclose(got.astype(jnp.float32), want, atol=tolerance)


def test_short_rows_pass_bit_for_bit():
    params = _params()
    tx = max_norm(share=1.0)
    updates = -0.01 * params
    got, _ = tx.update(updates, tx.init(params), params)
    np.testing.assert_array_equal(got, updates)


def test_projects_once_per_epoch_with_caps_of_the_start():
    start = _params()
    tx = max_norm(every=3)
    state = tx.init(start)
    caps = state.caps
    params = start
    for step in range(1, 7):
        updates, state = tx.update(jnp.ones_like(params), state, params)
        if step % 3 == 0:
            want = _capped(params + 1, start, 0.1)
            got = optax.apply_updates(params, updates)
            np.testing.assert_allclose(got, want, rtol=1e-5)
        else:
            np.testing.assert_array_equal(updates, np.ones((4, 3)))
        params = optax.apply_updates(params, updates)
        assert state.step == step
        chex.assert_trees_all_equal(state.caps, caps)


def test_masked_touches_the_kernel_alone_and_swallows_extras():
    params = {"kernel": _params(), "bias": jnp.full(3, 100.0)}
    mask = {"kernel": True, "bias": False}
    tx = optax.chain(optax.sgd(0.1), optax.masked(max_norm(), mask))
    state = tx.init(params)
    updates, new_state = jax.jit(tx.update)(
        jax.tree.map(jnp.zeros_like, params), state, params, losses=jnp.ones(2)
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(state, new_state)
    got = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(got["bias"], params["bias"])
    want = _capped(params["kernel"], params["kernel"], 0.1)
    np.testing.assert_allclose(got["kernel"], want, rtol=1e-5)


def test_two_kernels_have_a_cap_each(x64):
    params = {"a": np.eye(2) * 2.0, "b": np.diag([1.0, 11.0])}
    state = max_norm().init(params)
    np.testing.assert_allclose(state.caps["a"], 2.0, rtol=1e-12)
    np.testing.assert_allclose(state.caps["b"], 2.0, rtol=1e-12)


def test_zero_rows_and_huge_updates_stay_finite():
    params = jnp.array([[0.0, 1.0], [0.0, 0.0]])
    tx = max_norm()
    state = tx.init(params)
    np.testing.assert_allclose(state.caps, 0.1, rtol=1e-6)
    for updates in (jnp.zeros((2, 2)), jnp.full((2, 2), 1e15)):
        got, _ = tx.update(updates, state, params)
        chex.assert_tree_all_finite(got)
        lengths = jnp.linalg.norm(params + got, axis=0)
        assert (lengths <= 0.1 + 1e-6).all()
    grad = jax.grad(lambda u: tx.update(u, state, params)[0].sum())(-params)
    chex.assert_tree_all_finite(grad)


@pytest.mark.parametrize("spec", [PartitionSpec("data"), PartitionSpec(None, "data")])
def test_eight_devices_equal_one(spec, eight_devices):
    """Kernels sharded by features or by classes: lengths and caps are global."""
    params = jax.random.normal(jax.random.key(0), (16, 8)) * jnp.arange(1.0, 9)[None]
    updates = jax.random.normal(jax.random.key(1), (16, 8))
    tx = max_norm(share=0.3)

    @jax.jit
    def step(params, updates):
        return tx.update(updates, tx.init(params), params)

    one = step(params, updates)
    sharding = NamedSharding(eight_devices, spec)
    eight = step(*jax.device_put((params, updates), sharding))
    chex.assert_trees_all_close(one, eight, rtol=1e-5, atol=1e-5)


def test_bad_input_is_named():
    for given, match in [
        ({"share": 1.5}, r"share must be.*\[0\.0, 1\.0\], got 1\.5"),
        ({"every": 0}, r"every must be at least 1, got 0"),
        ({"class_axis": 2}, r"class_axis must be.*got 2"),
    ]:
        with pytest.raises(ValueError, match=match):
            max_norm(**given)
    with pytest.raises(TypeError, match=r"every must be an integer.*1\.5"):
        max_norm(every=1.5)
    with pytest.raises(TypeError, match=r"class_axis must be an integer.*True"):
        max_norm(class_axis=True)
    tx = max_norm()
    with pytest.raises(ValueError, match=r"params\['bias'\].*2 dim.*\(3,\)"):
        tx.init({"bias": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"params\['kernel'\] must not be all zero"):
        tx.init({"kernel": jnp.zeros((3, 2))})
    with pytest.raises(ValueError, match=r"params must be given to update, got None"):
        tx.update(_params(), tx.init(_params()))
