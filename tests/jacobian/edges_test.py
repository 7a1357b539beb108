"""Programs at the edges of what operations allow, and places arrays can lie."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import ltjax
from tests.jacobian.reference import array, assert_products, jacobian

NWC = ("NWC", "WIO", "NWC")
B = 4


def _filter(p):
    return (jnp.convolve(jnp.arange(6.0), p, mode="same") - 1) ** 2


def _modulated(p):
    images, scales = array(1, B, 5, 2), array(2, B, 3, 2, 2)

    def loss(image, scale):
        y = lax.conv_general_dilated(
            image[None], scale * p, (1,), "SAME", dimension_numbers=NWC
        )
        return jnp.sum(y**2)

    return jax.vmap(loss)(images, scales)


def _own_kernels(p):
    images = array(1, B, 5, 2)

    def loss(image, kernel):
        y = lax.conv_general_dilated(
            image[None], kernel, (1,), "SAME", dimension_numbers=NWC
        )
        return jnp.sum(y**2)

    return jax.vmap(loss)(images, p)


def _window_of_a_table(p):
    return jnp.sum(p[jnp.array([0, 2, 1]), 1:5] ** 2, 0)


def _empty_features(p):
    return jnp.sum(array(1, B, 3)[:, :0] @ p["w"] + p["b"][None], 1)


def _empty_shift(p):
    return jnp.sum(jnp.roll(p, 1, 0) * array(1, 1, 3).sum(), 0) ** 2


def _one_example(p):
    return jnp.sum(jnp.tanh(array(1, 1, 3) @ p), 1)


PROGRAMS = {
    "filter": (_filter, lambda: array(3, 3)),
    "modulated kernels": (_modulated, lambda: array(3, 3, 2, 2)),
    "kernels as parameters": (_own_kernels, lambda: array(3, B, 3, 2, 2)),
    "window of a table": (_window_of_a_table, lambda: array(3, 6, 10)),
    "empty features": (
        _empty_features,
        lambda: {"w": jnp.zeros((0, 3)), "b": array(3, 3)},
    ),
    "empty shift": (_empty_shift, lambda: array(3, 1, 4)),
    "one example": (_one_example, lambda: array(3, 3, 2)),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("losses_fn", "make"), PROGRAMS.values(), ids=PROGRAMS)
def test_products(losses_fn, make):
    with jax.numpy_dtype_promotion("standard"):
        assert_products(losses_fn, make())


@pytest.mark.usefixtures("x64")
def test_mutable_arrays_are_refused():
    x, outer = array(1, 3, 4), jax.new_ref(jnp.zeros(()))

    def kept(w):
        total = jax.new_ref(jnp.zeros(3))
        total[...] += jnp.tanh(x @ w).sum(1)
        return total[...]

    def logged(w):
        outer[...] = jnp.sum(w)
        return jnp.tanh(x @ w).sum(1)

    for losses_fn in (kept, logged, jax.checkpoint(kept)):
        with pytest.raises(ValueError, match="new_ref"):
            ltjax.linearize(losses_fn, array(2, 4, 2))


@pytest.mark.usefixtures("x64")
def test_modulated_kernels_of_single_examples():
    batch = array(1, B, 5, 2), array(2, B, 3, 2, 2)

    def loss_fn(p, example):
        image, scale = example
        y = lax.conv_general_dilated(
            image[None], scale * p, (1,), "SAME", dimension_numbers=NWC
        )
        return jnp.sum(y**2)

    p = array(3, 3, 2, 2)

    @jax.jit
    def both(p):
        _, jac = ltjax.linearize_examples(loss_fn, p, batch)
        return (
            jac.norms(),
            jac.dense(),
            jax.vmap(jax.grad(loss_fn), (None, 0))(p, batch),
        )

    norms, dense, rows = both(p)
    expected = np.linalg.norm(np.reshape(rows, (B, -1)), axis=1)
    np.testing.assert_allclose(norms, expected, rtol=1e-10)
    np.testing.assert_allclose(dense, rows, rtol=1e-9, atol=1e-12)


def _data(batch=16):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, 3, 4)).astype(np.float32)
    w = {
        "w": rng.normal(size=(4, 5)).astype(np.float32),
        "b": rng.normal(size=(5,)).astype(np.float32),
        "v": rng.normal(size=(5, 2)).astype(np.float32),
    }
    return w, x


def _model(w, x):
    h = jnp.tanh(x @ w["w"] + w["b"][None, None])
    return jnp.sum((h @ w["v"]) ** 2, (1, 2))


def _products(w, x, direction, model=_model):
    losses, jac = ltjax.linearize(lambda w: model(w, x), w)
    dots, norms = jac.jvp(direction), jac.norms(definition="row")
    return dots, norms, jac.dense(), jac.vjp(losses)


def _in_a_loop(w, x, direction):
    """All iterations have the same parameters."""

    def model(w, x):
        step = lambda h, _: (jnp.tanh(h @ w["w"] @ w["w"].T), None)  # noqa: E731
        return _model(w, lax.scan(step, x, length=3)[0])

    return _products(w, x, direction, model)


def _checkpointed(w, x, direction):
    """Norms evaluate the function again."""

    def model(w, x):
        layer = jax.checkpoint(lambda h, w: jnp.tanh(h @ w @ w.T))
        return _model(w, layer(layer(x, w["w"]), 2 * w["w"]))

    return _products(w, x, direction, model)


def _rows_apart(w, x, direction):
    """Nothing can be intercepted: the loop changes the parameters."""

    def model(w, x):
        def step(carry, _):
            h, p = carry
            return (jnp.tanh(h @ p @ p.T), jnp.sin(p)), None

        return _model(w, lax.scan(step, (x, w["w"]), length=3)[0][0])

    return _products(w, x, direction, model)


PRODUCTS = [_products, _in_a_loop, _checkpointed, _rows_apart]


@pytest.mark.parametrize("products", PRODUCTS)
@pytest.mark.parametrize("check_vma", [False, True])
def test_inside_shard_map(products, check_vma, eight_devices):
    w, x = _data()
    expected = jax.jit(products)(w, x, w)
    rows, everywhere = P("data"), P()
    sharded = jax.jit(
        jax.shard_map(
            lambda w, x: products(w, x, w),
            mesh=eight_devices,
            in_specs=(everywhere, rows),
            out_specs=(rows, rows, rows, everywhere if check_vma else rows),
            check_vma=check_vma,
        )
    )
    dots, norms, dense, gradient = sharded(w, x)
    np.testing.assert_allclose(dots, expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(norms, expected[1], rtol=1e-4)
    for got, rows in zip(
        jax.tree.leaves(dense), jax.tree.leaves(expected[2]), strict=True
    ):
        np.testing.assert_allclose(got, rows, rtol=1e-3, atol=1e-4)
    for got, total in zip(
        jax.tree.leaves(gradient), jax.tree.leaves(expected[3]), strict=True
    ):
        if not check_vma:  # parameters are not known to be the same on all devices
            got = got.reshape(8, *total.shape).sum(0)
        np.testing.assert_allclose(got, total, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("products", PRODUCTS)
def test_explicit_mesh_axes(products):
    w, x = _data()
    expected = jax.jit(products)(w, x, w)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        put = lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec))  # noqa: E731
        placed = jax.tree.map(lambda p: put(p, P()), w)
        got = jax.jit(products)(placed, put(x, P("data")), placed)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def _embedding(w, tokens):
    place = P("data") if jax.sharding.get_abstract_mesh().axis_names else None
    return jnp.sum(w["w"].at[tokens].get(out_sharding=place) ** 2, (1, 2))


def _convolution(w, images):
    y = lax.conv_general_dilated(
        images, w["w"], (1,), "SAME", dimension_numbers=NWC, feature_group_count=2
    )
    return jnp.sum(jnp.tanh(y), (1, 2))


def _convolution_in_scan(w, images):
    step = lambda h, _: (h + _convolution(w, images), None)  # noqa: E731
    return lax.scan(step, jnp.zeros_like(images[:, 0, 0]), length=2)[0]


@pytest.mark.parametrize(
    ("model", "shape", "data"),
    [
        (_embedding, (4, 3), np.arange(24).reshape(8, 3) ** 2 % 5 % 4),
        (_convolution, (3, 2, 4), array(4, 8, 6, 4, dtype=np.float32)),
        (_convolution, (12, 2, 4), array(4, 8, 6, 4, dtype=np.float32)),
        (_convolution_in_scan, (3, 2, 4), array(4, 8, 6, 4, dtype=np.float32)),
    ],
)
def test_explicit_mesh_axes_of_lookups_and_kernels(model, shape, data):
    w = {"w": array(3, *shape, dtype=np.float32)}
    expected = _products(w, data, w, model)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        placed = jax.device_put(w, NamedSharding(mesh, P()))
        data = jax.device_put(data, NamedSharding(mesh, P("data")))
        got = jax.jit(lambda w, x: _products(w, x, w, model))(placed, data)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "mapped", [jax.vmap, lambda f: lambda x: lax.map(f, x, batch_size=2)]
)
def test_mapped_scatters_whose_axes_are_numpy_integers(mapped, x64):
    """Of parameters alone, each example with entries of its own."""

    def losses_fn(p):
        add = mapped(lambda x: jnp.zeros((B, B)).at[jnp.arange(1)].add(x))
        return jnp.square(add(p["w"] + p["shift"])).sum((0, 1))

    params = {"w": array(1, 4, 1, B), "shift": array(2)}
    assert jacobian(losses_fn, params).method == "intercept"
    assert_products(losses_fn, params)
