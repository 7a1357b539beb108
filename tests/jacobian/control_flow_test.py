"""Products through loops, checkpoints and branches, against dense rows."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

import ltjax
from ltjax.jacobian._jaxpr import trace
from ltjax.jacobian._plan import multiply_adds
from tests.jacobian.loop_models import (
    LAYERS,
    B,
    D,
    T,
    branches,
    checkpointed,
    checkpointed_scan,
    convolutions,
    counted,
    dense_layer,
    gated_recurrence,
    layers_of,
    look_ups,
    loss,
    mapped,
    nested,
    one_by_one,
    one_by_one_in_every_iteration,
    recurrence,
    scanned_checkpoints,
    shared_checkpoints,
    shared_values,
    stacked,
    stacked_backwards,
    stacked_in_time,
)
from tests.jacobian.programs.evaluate import evaluate
from tests.jacobian.reference import (
    array,
    assert_products,
    dense,
    flat,
    flops,
    random_like,
)

SEEN = [
    stacked,
    stacked_backwards,
    recurrence,
    gated_recurrence,
    shared_values,
    counted,
    nested,
    stacked_in_time,
    convolutions,
    look_ups,
    mapped,
]
EVALUATED_AGAIN = [
    checkpointed,
    scanned_checkpoints,
    checkpointed_scan,
    shared_checkpoints,
    branches,
    one_by_one,
    one_by_one_in_every_iteration,
]


def _products(losses_fn, params, method="auto"):
    """All products and their errors: evaluated by NumPy, which compiles nothing."""
    direction, weights = random_like(params), jnp.linspace(-1, 1, B)
    told = []

    def both(params):
        losses, pullback = jax.vjp(losses_fn, params)
        rows = jax.vmap(pullback)(jnp.eye(B, dtype=losses.dtype))[0]
        _, jac = ltjax.linearize(losses_fn, params, method=method)
        told.append(jac)
        before = jac.vjp(weights)
        dots = jac.jvp(direction)
        got = before, dots, jac.norms(definition="row"), jac.vjp(weights), jac.dense()
        return got, rows

    got, rows = evaluate(both, params)
    rows = _by_row(rows)
    weighted = np.asarray(weights) @ rows
    norms = np.linalg.norm(rows, axis=1)
    want = weighted, rows @ flat(direction), norms, weighted, rows
    found = flat(got[0]), got[1], got[2], flat(got[3]), _by_row(got[4])
    names = "vjp before", "jvp", "norms", "vjp", "dense"
    return told[0], dict(zip(names, zip(found, want, strict=True), strict=True))


def _by_row(rows):
    return np.concatenate([np.reshape(x, (B, -1)) for x in jax.tree.leaves(rows)], 1)


def _assert_exact(products):
    for name, (got, want) in products.items():
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10, err_msg=name)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("model", SEEN, ids=lambda m: m.__name__)
def test_taps_in_loops_are_seen(model):
    jac, products = _products(*model())
    assert jac.method == "intercept"
    assert "independent; 100%" in jac.reason
    _assert_exact(products)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", ["auto", "intercept"])
@pytest.mark.parametrize("model", EVALUATED_AGAIN, ids=lambda m: m.__name__)
def test_what_is_evaluated_again_is_exact(model, method):
    jac, products = _products(*model(), method=method)
    assert jac.method == ("linearize" if method == "auto" else method)
    _assert_exact(products)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("model", [nested, scanned_checkpoints])
def test_compiled_products_are_exact(model):
    assert_products(*model(), tolerance=1e-10)


def _first_layer_coupled(h, w):
    return jnp.tanh((h - h.mean(0, keepdims=True)) @ w)


def _carried(p):
    """A parameter that the loop changes."""
    step = lambda c, _: ((jnp.tanh(c[0] @ c[1]), jnp.sin(c[1])), None)  # noqa: E731
    return lax.scan(step, (array(0, B, D), p["w"][0]), None, length=2)[0][0]


def _one_by_one(p):
    """Examples on the axis that is scanned."""
    step = lambda c, x: (c, jnp.tanh(x @ p["w"][0]))  # noqa: E731
    return lax.scan(step, 0, array(0, B, D))[1]


def _passed_on(p):
    """The state of the loop is given from one example to the next."""
    step = lambda h, x: ((h := jnp.tanh(h @ p["w"][0] + x)), h)  # noqa: E731
    return lax.scan(step, jnp.zeros(D), array(0, B, D))[1]


def _transposed(p):
    """One value on two axes, of the same length: of examples and not."""
    step = lambda h, w: (jnp.tanh(h @ w), h.T)  # noqa: E731
    h, ys = lax.scan(step, array(0, B, B), p["w"][:, :B, :B])
    return h + ys.sum(0)


def _coupled(p):
    step = lambda h, w: (_first_layer_coupled(h, w), None)  # noqa: E731
    return lax.scan(step, array(0, B, D), p["w"])[0]


def _coupled_checkpoint(p):
    return jax.checkpoint(_first_layer_coupled)(array(0, B, D) @ p["w"][0], p["w"][1])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("forward", "apart"),
    [
        (_carried, True),
        (_one_by_one, True),
        (_passed_on, False),
        (_transposed, False),
        (_coupled, False),
        (_coupled_checkpoint, False),
    ],
)
def test_what_is_not_proved_takes_the_slower_form(forward, apart):
    losses_fn, params = lambda p: loss(forward(p)), {"w": array(1, 2, D, D)}
    jac, products = _products(losses_fn, params)
    assert jac.method == "linearize"
    assert ("examples are independent" in jac.reason) == apart
    _assert_exact(products)


@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-4), ("bfloat16", 0.06)])
@pytest.mark.parametrize("model", ["layers", "recurrence", "checkpoint"])
def test_narrow_dtypes(model, dtype, close):
    x, params = array(0, B, T, D, dtype=dtype), layers_of(dtype)
    layer = jax.checkpoint(dense_layer) if model == "checkpoint" else dense_layer
    first = jax.tree.map(lambda p: p[0], params)

    def losses_fn(p):
        if model == "recurrence":
            step = lambda h, _: (layer(h, jax.tree.map(lambda q: q[0], p)), None)  # noqa: E731
            h = lax.scan(step, x, None, length=LAYERS)[0]
        else:
            h = lax.scan(lambda h, q: (layer(h, q), None), x, p)[0]
        return loss(h.astype(jnp.float32))

    assert first["w"].dtype == dtype
    _, jac = ltjax.linearize(losses_fn, params)
    wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    x = x.astype(jnp.float32)
    rows = dense(losses_fn, wide)
    norms = np.linalg.norm(rows, axis=1)
    assert jac.norms().dtype == jnp.float32
    np.testing.assert_allclose(jac.norms(), norms, rtol=close)
    direction = random_like(params)
    scale = norms.max() * np.linalg.norm(flat(direction).astype(np.float32))
    expected = rows @ flat(jax.tree.map(lambda v: v.astype(jnp.float32), direction))
    np.testing.assert_allclose(jac.jvp(direction), expected, atol=close * scale)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_eight_devices_equal_one(checkpoint, eight_devices):
    x = jax.random.normal(jax.random.key(0), (16, 3, D))
    params = {"w": jnp.stack([jnp.eye(D), 0.5 * jnp.ones((D, D))]), "u": jnp.eye(D)}
    layer = lambda h, w: jnp.tanh(h @ w)  # noqa: E731
    layer = jax.checkpoint(layer) if checkpoint else layer

    def products(params, x):
        def losses_fn(p):
            step = lambda h, w: (layer(h, w) @ p["u"], None)  # noqa: E731
            return jnp.square(lax.scan(step, x, p["w"])[0]).sum((1, 2))

        _, jac = ltjax.linearize(losses_fn, params, method="intercept")
        return jac.jvp(params), jac.norms(), jac.vjp(jnp.linspace(0, 1, 16))

    one = jax.jit(products)(params, x)
    placed = jax.device_put(x, NamedSharding(eight_devices, PartitionSpec("data")))
    whole = jax.device_put(params, NamedSharding(eight_devices, PartitionSpec()))
    eight = jax.jit(products)(whole, placed)
    chex.assert_trees_all_close(eight, one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("checkpoint", "dots", "norms"), [(False, 1.45, 1.5), (True, 1.76, 2.4)]
)
def test_price_of_products_in_loops(checkpoint, dots, norms):
    x, params = jnp.ones((32, 64)), jnp.ones((4, 64, 64))
    layer = lambda h, w: jnp.tanh(h @ w)  # noqa: E731
    layer = jax.checkpoint(layer) if checkpoint else layer

    def losses_fn(p):
        return lax.scan(lambda h, w: (layer(h, w), None), x, p)[0].sum(1)

    def sgd(p, v):
        return jax.grad(lambda p: losses_fn(p).mean())(p)

    def weighted(p, v):
        losses, jac = ltjax.linearize(losses_fn, p)
        return jac.vjp(jax.nn.softmax(losses))

    def along(p, v):
        _, jac = ltjax.linearize(losses_fn, p)
        return jac.vjp(jac.jvp(v))

    def scaled(p, v):
        _, jac = ltjax.linearize(losses_fn, p)
        return jac.vjp(1 / jac.norms())

    step = flops(sgd, params, params)
    assert flops(weighted, params, params) <= 1.03 * step
    assert flops(along, params, params) <= dots * step
    assert flops(scaled, params, params) <= norms * step


def test_norms_of_mapped_examples_are_one_backward_pass_for_all():
    """And not one for each: a loop over examples, not a loop in a loop."""
    params = {"w": jnp.ones((D, D))}

    def work(fun, size):
        x = jnp.ones((size, T, D))
        model = lambda p: lax.map(lambda h: jnp.tanh(h @ p["w"]).sum(), x)  # noqa: E731
        program, _ = trace(lambda p: fun(model, p), params)
        return sum(map(multiply_adds, program.ops))

    def gradient(model, p):
        return jax.grad(lambda p: model(p).sum())(p)

    def norms(model, p):
        return ltjax.linearize(model, p)[1].norms()

    for size in (8, 64):
        assert work(norms, size) <= 2.5 * work(gradient, size)


SEVERAL = {
    "constants": lambda p, x: lax.map(lambda h: h.sum() * p["s"], x),
    "activations": lambda p, x: lax.map(lambda h: jnp.tanh(h) * p["s"], x @ p["w"]),
    "constants in another order": lambda p, x: lax.map(
        lambda r: r[0].sum() * r[1].sum() * p["s"], (x, x[::-1])
    ),
    "parameters with activations": lambda p, x: lax.map(
        lambda r: jnp.tanh(r[0] @ p["w"]) * r[1], (x, x @ x.T @ p["q"])
    ),
    "neither": lambda p, x: lax.map(lambda _: p["s"][::-1], x),
}


@pytest.mark.parametrize("rows", [4, 1])
@pytest.mark.parametrize("layer", SEVERAL)
def test_several_iterations_of_one_example(x64, layer, rows):
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (4 * rows, 3))
    params = {
        "w": jax.random.normal(keys[1], (3, 5)),
        "q": jax.random.normal(keys[2], (4 * rows, 5)),
        "s": jax.random.normal(keys[3], (5,)),
    }

    def losses_fn(p):
        return jnp.square(SEVERAL[layer](p, x)).reshape(4, -1).sum(1)

    rows_of = jax.tree.map(lambda g: g.reshape(4, -1), jax.jacrev(losses_fn)(params))
    dense = jnp.concatenate(jax.tree.leaves(rows_of), 1)
    _, jac = ltjax.linearize(losses_fn, params)
    norms = jax.jit(lambda p: ltjax.linearize(losses_fn, p)[1].norms())(params)
    np.testing.assert_allclose(norms, jnp.linalg.norm(dense, axis=1), rtol=1e-10)
    chex.assert_trees_all_close(
        jax.tree.map(lambda g: g.reshape(4, -1), jac.dense()), rows_of, rtol=1e-10
    )
