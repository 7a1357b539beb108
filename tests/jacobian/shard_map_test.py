"""Models that hold a `jax.shard_map`: kernels wrapped in one, layers, whole models."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import ltjax
from tests.jacobian.reference import array, assert_products, dense, flops, jacobian

B, TIMES, HEADS, WIDTH = 8, 6, 2, 3
CHECKED = pytest.mark.parametrize("check_vma", [True, False])
EXAMPLES, LOCAL = P("data"), P("data", None, "model")


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64():
        yield


def _mesh(**sizes):
    kinds = (AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=kinds)


def _params():
    size = HEADS * WIDTH
    names = {"query": (WIDTH, size), "value": (WIDTH, size), "out": (size,)}
    return {name: array(k, *shape) for k, (name, shape) in enumerate(names.items())}


def _attend(query, value):
    """Attention ``[B, T, H, K]``."""
    scores = jax.nn.softmax(jnp.einsum("bthk,bshk->bhts", query, query))
    return jnp.einsum("bhts,bshk->bthk", scores, value)


def _losses(params, x, y, attend=_attend):
    query, value = (
        (x @ params[name]).reshape(-1, TIMES, HEADS, WIDTH)
        for name in ("query", "value")
    )
    pooled = attend(query, value).mean(1).reshape(-1, HEADS * WIDTH)
    return jnp.square(pooled @ params["out"] - y)


RNG = np.random.default_rng(7)
X, Y = RNG.normal(size=(B, TIMES, WIDTH)), RNG.normal(size=B)


def _assert_products(losses, plain, **options):
    """Every product is that of the rows, which are those of one device."""
    params = _params()
    assert_products(losses, params, **options)
    np.testing.assert_allclose(dense(losses, params), dense(plain, params), rtol=1e-9)


def _plain(params):
    return _losses(params, X, Y)


def _spread(fun, *in_specs, check_vma=True, **mesh):
    """``fun`` on each device, which returns something of its examples."""
    return jax.shard_map(
        fun,
        mesh=_mesh(**(mesh or {"data": 4})),
        in_specs=in_specs,
        out_specs=EXAMPLES,
        check_vma=check_vma,
    )


def _spread_attention(check_vma, attend=_attend, spec=LOCAL, **mesh):
    mesh = _mesh(**(mesh or {"data": 4, "model": 2}))
    wrap = functools.partial(jax.shard_map, mesh=mesh, check_vma=check_vma)
    return wrap(attend, in_specs=(spec, spec), out_specs=spec)


@CHECKED
def test_kernel_on_each_device_is_seen_through(check_vma):
    attend = _spread_attention(check_vma)
    losses = functools.partial(_losses, x=X, y=Y, attend=attend)
    assert jacobian(losses, _params()).method == "intercept"
    _assert_products(losses, _plain)


def test_blocks_may_lie_in_any_order_of_the_mesh_axes():
    attend = _spread_attention(True, spec=P(("model", "data")), data=4, model=2)
    losses = functools.partial(_losses, x=X, y=Y, attend=attend)
    assert jacobian(losses, _params()).method == "intercept"
    _assert_products(losses, _plain)


def _over_parts_of_time(query, value):
    """Attention to a sequence that is cut along ``model``: keys are sent around."""
    keys = lax.ppermute(query, "model", [(0, 1), (1, 0)])
    values = lax.ppermute(value, "model", [(0, 1), (1, 0)])
    keys, values = (
        jnp.concatenate([query, keys], 1),
        jnp.concatenate([value, values], 1),
    )
    scores = jax.nn.softmax(jnp.einsum("bthk,bshk->bhts", query, keys))
    return jnp.einsum("bhts,bshk->bthk", scores, values)


def _gathered(query, value):
    keys, values = (
        lax.all_gather(x, "model", axis=1, tiled=True) for x in (query, value)
    )
    scores = jax.nn.softmax(jnp.einsum("bthk,bshk->bhts", query, keys))
    return jnp.einsum("bhts,bshk->bthk", scores, values)


def _stacked(query, value):
    keys, values = (
        jnp.moveaxis(lax.all_gather(x, "model"), 0, 1).reshape(-1, TIMES, HEADS, WIDTH)
        for x in (query, value)
    )
    scores = jax.nn.softmax(jnp.einsum("bthk,bshk->bhts", query, keys))
    return jnp.einsum("bhts,bshk->bthk", scores, values)


@CHECKED
@pytest.mark.parametrize("attend", [_over_parts_of_time, _gathered, _stacked])
def test_devices_with_the_same_examples_may_exchange_them(attend, check_vma):
    spec = P("data", "model")
    spread = _spread_attention(check_vma, attend, spec)
    losses = functools.partial(_losses, x=X, y=Y, attend=spread)
    assert jacobian(losses, _params()).method == "intercept"
    _assert_products(losses, _plain)


def test_sum_over_parts_of_an_example():
    def attend(query, value):
        return lax.psum(_attend(query, value).sum(2, keepdims=True), "model")

    spread = _spread(attend, LOCAL, LOCAL, data=4, model=2)

    def together(query, value):
        return _attend(query, value).sum(2, keepdims=True)

    def losses(params, attend=spread):
        return _losses(
            params | {"out": jnp.ones(HEADS * WIDTH)},
            X,
            Y,
            lambda q, v: attend(q, v) + jnp.zeros((1, 1, HEADS, 1)),
        )

    assert jacobian(losses, _params()).method == "intercept"
    _assert_products(losses, lambda p: losses(p, together))


@pytest.mark.parametrize(
    "exchange",
    [
        lambda x: x - lax.pmean(x, "data"),
        lambda x: lax.ppermute(x, "data", [(i, (i + 1) % 4) for i in range(4)]),
        lambda x: lax.all_gather(x, "data")[0],
        lambda x: x - x.mean(0, keepdims=True),
        lambda x: x[::-1],
    ],
)
def test_devices_with_other_examples_may_not(exchange):
    def attend(query, value):
        return _attend(query, exchange(value))

    losses = functools.partial(
        _losses, x=X, y=Y, attend=_spread_attention(True, attend)
    )
    found = jacobian(losses, _params())
    assert found.method == "linearize"
    assert "shard_map" in found.reason
    assert_products(losses, _params(), definition="row")


def test_replicated_examples_are_not_those_of_the_device():
    """Each device pairs its own examples with the first ones of the whole batch."""

    def pair(query, value):
        return _attend(query, value[: query.shape[0]])

    spread = _spread(pair, EXAMPLES, P(), data=4, model=2)
    losses = functools.partial(_losses, x=X, y=Y, attend=spread)
    assert jacobian(losses, _params()).method == "linearize"
    assert_products(losses, _params(), definition="row")


def _tied(params, x, y):
    return _losses(params | {"value": params["query"]}, x, y)


def _layers(params, x, y, wrap=lambda layer: layer):
    layers = jnp.stack([params["query"], params["value"]]).reshape(4, WIDTH, WIDTH)

    @wrap
    def layer(h, w):
        return jnp.tanh(h @ w) + h @ params["query"][:, :WIDTH], None

    h, _ = lax.scan(layer, x, layers)
    return jnp.square(h.sum((1, 2)) * params["out"].sum() - y)


def _checkpointed_layers(params, x, y):
    return _layers(params, x, y, jax.checkpoint)


@CHECKED
@pytest.mark.parametrize("losses", [_losses, _tied, _layers, _checkpointed_layers])
def test_whole_model_on_each_device(losses, check_vma):
    spread = _spread(losses, P(), EXAMPLES, EXAMPLES, check_vma=check_vma)
    _assert_products(lambda p: spread(p, X, Y), lambda p: losses(p, X, Y))


@CHECKED
def test_norms_of_a_model_on_each_device_do_not_run_it_for_each_row(check_vma):
    def cost(losses):
        return flops(lambda p: ltjax.linearize(losses, p)[1].norms(), _params())

    spread = _spread(_losses, P(), EXAMPLES, EXAMPLES, check_vma=check_vma, data=2)
    assert cost(lambda p: spread(p, X, Y)) < 2 * cost(_plain)


MADE_OF_PARAMETERS = {
    "product": lambda w: w * 2.0,
    "relu": jax.nn.relu,
    "rows": lambda w: w[jnp.arange(WIDTH)],
    "checkpoint": lambda w: jax.checkpoint(jnp.tanh)(w),
    "scan": lambda w: lax.scan(lambda c, _: (jnp.sin(c), None), w, None, 2)[0],
    "cond": lambda w: lax.cond(w.sum() > 0, jnp.sin, jnp.cos, w),
    "map": lambda w: lax.map(jnp.sin, w),
}
MEANS_OVER_DEVICES = {  # of what is the same on all of them
    "mean": lambda w: lax.pmean(w, "data"),
    "checkpointed mean": lambda w: jax.checkpoint(lambda v: lax.pmean(v, "data"))(w),
}


@CHECKED
@pytest.mark.parametrize("name", [*MADE_OF_PARAMETERS, *MEANS_OVER_DEVICES])
def test_what_is_made_of_parameters_on_each_device(name, check_vma):
    def layer(w, x, make):
        return jnp.square(jnp.tanh(x @ make(w))).sum(1)

    on_device = (MADE_OF_PARAMETERS | MEANS_OVER_DEVICES)[name]
    together = MADE_OF_PARAMETERS.get(name, lambda w: w)
    spread = _spread(
        functools.partial(layer, make=on_device), P(), EXAMPLES, check_vma=check_vma
    )
    _assert_products(
        lambda p: spread(p["query"], X[:, 0]),
        lambda p: layer(p["query"], X[:, 0], together),
    )


@CHECKED
@pytest.mark.parametrize("in_a_loop", [False, True])
def test_parameters_gathered_from_the_devices(in_a_loop, check_vma):
    """Each device keeps a part of a layer's parameters, and gathers all when needed."""

    def layer(h, w):
        return jnp.tanh(h * lax.all_gather(w, "data", axis=1, tiled=True)), None

    def loop(w, x):
        h = x @ jnp.ones((WIDTH, 8))
        h = lax.scan(layer, h, w)[0] if in_a_loop else layer(h, w[0])[0]
        return jnp.square(h).sum(1)

    spread = _spread(loop, P(None, None, "data"), EXAMPLES, check_vma=check_vma)
    params = {"layers": array(3, 2, 1, 8)}

    def together(params):
        h = X[:, 0] @ jnp.ones((WIDTH, 8))
        for w in params["layers"][: 2 if in_a_loop else 1]:
            h = jnp.tanh(h * w)
        return jnp.square(h).sum(1)

    losses = lambda params: spread(params["layers"], X[:, 0])  # noqa: E731
    assert_products(losses, params, definition="row")
    np.testing.assert_allclose(dense(losses, params), dense(together, params))


def test_collective_over_the_axes_of_an_outer_shard_map():
    mesh = _mesh(data=2, model=2)

    def outer(h):
        inner = jax.shard_map(
            lambda h: h - lax.pmean(h, "data"),
            in_specs=P(None, "model"),
            out_specs=P(None, "model"),
            axis_names={"model"},
        )
        return inner(h)

    centred = jax.shard_map(
        outer, mesh=mesh, in_specs=EXAMPLES, out_specs=EXAMPLES, axis_names={"data"}
    )

    def losses(params):
        h = jnp.tanh(X[:, 0] @ params["query"][:, :4])
        return jnp.square(centred(h)).sum(1)

    def norms(params, **options):
        return ltjax.linearize(losses, params)[1].norms(**options)

    with pytest.raises(ValueError, match="through shard_map"):
        jax.eval_shape(norms, _params())

    def together(params):
        h = jnp.tanh(X[:, 0] @ params["query"][:, :4])
        means = h.reshape(2, 4, 4).mean(0)
        return jnp.square(h - jnp.concatenate([means, means])).sum(1)

    expected = np.linalg.norm(dense(together, _params()), axis=1)
    found = jax.jit(functools.partial(norms, definition="row"))(_params())
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("statistics", ["of a device", "of all"])
def test_batch_statistics_in_a_shard_map_couple_examples(statistics):
    def centred(h):
        mean = h.mean(0, keepdims=True)
        return h - (mean if statistics == "of a device" else lax.pmean(mean, "data"))

    spread = _spread(centred, EXAMPLES)

    def losses(params):
        h = jnp.tanh(spread(X[:, 0] @ params["query"]))
        return jnp.square(spread(h * params["out"][None])).sum(1)

    def clipped(params):
        return ltjax.clipped_sum(ltjax.linearize(losses, params)[1], 1.0)

    with pytest.raises(ValueError, match="influence each other through shard_map"):
        jax.eval_shape(clipped, _params())
    assert_products(losses, _params(), definition="row")


@CHECKED
@pytest.mark.parametrize("of", ["parameters", "activations", "data"])
def test_exchange_around_linearize(of, check_vma):
    """In a `jax.shard_map` devices are at different examples when they exchange."""

    def losses(w, x):
        w = lax.pmean(w, "data") if of == "parameters" else w
        h = jnp.tanh(x @ w)
        mean = (x if of == "data" else h).mean(0, keepdims=True).sum(1, keepdims=True)
        mean = jnp.zeros_like(mean) if of == "parameters" else lax.pmean(mean, "data")
        return jnp.square(h - mean).sum(1)

    def products(w, x):
        _, jac = ltjax.linearize(lambda w: losses(w, x), w)
        return jac.jvp(w), jac.norms(definition="row")

    spread = _spread(products, P(), EXAMPLES, check_vma=check_vma)
    w = array(0, WIDTH, 4)
    if of != "data":
        with pytest.raises(ValueError, match="an example has no row"):
            jax.eval_shape(spread, w, X[:, 0])
        return

    def together(w):
        return jnp.square(jnp.tanh(X[:, 0] @ w) - X[:, 0].mean(0).sum()).sum(1)

    rows = dense(together, w)
    dots, norms = jax.jit(spread)(w, X[:, 0])
    np.testing.assert_allclose(dots, rows @ np.ravel(w), rtol=1e-9)
    np.testing.assert_allclose(norms, np.linalg.norm(rows, axis=1), rtol=1e-9)


@CHECKED
@pytest.mark.parametrize("exchange", [False, True])
def test_single_examples_in_a_shard_map(exchange, check_vma):
    @jax.checkpoint
    def loss_fn(w, x):
        w = lax.pmean(w, "data") if exchange else w
        return jnp.square(jnp.tanh(x @ w) @ w.T).sum()

    def norms(w, x):
        _, jac = ltjax.linearize_examples(loss_fn, w, x)
        assert jac.method == "linearize"
        return jac.norms()

    spread = _spread(norms, P(), EXAMPLES, check_vma=check_vma)
    w = array(0, WIDTH, 4)
    if exchange:
        with pytest.raises(ValueError, match="an example has no row"):
            jax.eval_shape(spread, w, X[:, 0])
        return
    rows = dense(lambda w: jax.vmap(loss_fn, (None, 0))(w, X[:, 0]), w)
    found = jax.jit(spread)(w, X[:, 0])
    np.testing.assert_allclose(found, np.linalg.norm(rows, axis=1), rtol=1e-9)


def test_parameters_in_parts_on_the_devices():
    """A layer whose columns lie on ``model``: norms have no short way there."""

    def layer(w, x, out):
        return lax.psum(jnp.tanh(x @ w) @ out, "model")

    specs = P(None, "model"), EXAMPLES, P("model")
    spread = _spread(layer, *specs, data=4, model=2)

    def losses(params):
        return jnp.square(spread(params["query"], X[:, 0], params["out"]) - Y)

    def together(params):
        return jnp.square(jnp.tanh(X[:, 0] @ params["query"]) @ params["out"] - Y)

    _assert_products(losses, together)


def test_eight_devices_equal_one(eight_devices):
    spread = jax.shard_map(
        _attend, mesh=eight_devices, in_specs=(EXAMPLES,) * 2, out_specs=EXAMPLES
    )

    def step(attend, params):
        losses, jac = ltjax.linearize(lambda p: _losses(p, X, Y, attend), params)
        tx = ltjax.gradtail(burn_in=0)
        gradient, weights, _ = tx.update_with_weights(jac, tx.init(params), params)
        return losses, gradient, weights, jac.norms()

    one = jax.jit(functools.partial(step, _attend))(_params())
    eight = jax.jit(functools.partial(step, spread))(_params())
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)
