"""Interception against dense rows, on models of every kind, in float64."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import ltjax
from tests.jacobian.models import (
    B,
    array,
    batch_norm,
    cholesky,
    contrastive,
    custom_backward,
    dropout,
    embedding,
    example_latents,
    group_norm,
    indexing,
    labels,
    mlp,
    nnx_model,
    positions_in_the_batch_axis,
    scanned_layers,
    solve,
    tied_weights,
    vision_transformer,
    weight_norm,
)
from tests.jacobian.reference import assert_products, flops, jacobian, side_by_side

INTERCEPTED = [
    mlp,
    group_norm,
    vision_transformer,
    embedding,
    tied_weights,
    dropout,
    weight_norm,
    example_latents,
    positions_in_the_batch_axis,
    indexing,
    nnx_model,
    scanned_layers,
    custom_backward,
    cholesky,
]
FALLING_BACK = {
    batch_norm: "influence each other through.*reduce_sum",
    contrastive: "influence each other through.*transpose",
    solve: "not known to stay apart in custom_linear_solve",
}


def _products(losses_fn, params, definition=None, method="auto", chunks=False):
    """All products, their references from dense rows, and how they were computed."""
    leaves, treedef = jax.tree.flatten(params)
    direction = [array(50 + i, *p.shape) for i, p in enumerate(leaves)]
    weights = array(99, B)
    kept = [i % 2 == 0 for i in range(len(leaves))]
    mask = jax.tree.unflatten(treedef, kept)
    partial = [
        v if k else optax.MaskedNode() for v, k in zip(direction, kept, strict=True)
    ]
    told = {}

    def products(params):
        losses, jac = ltjax.linearize(losses_fn, params, method=method)
        told.update(method=jac.method, reason=jac.reason)
        in_chunks = {
            "norms in chunks": jac.norms(definition=definition, chunk_size=3),
            "dense in chunks": jac.dense(chunk_size=3),
        }
        return (in_chunks if chunks else {}) | {
            "losses": losses,
            "vjp before": jac.vjp(weights),
            "jvp": jac.jvp(treedef.unflatten(direction)),
            "partial jvp": jac.jvp(treedef.unflatten(partial)),
            "vjp": jac.vjp(weights),
            "norms": jac.norms(definition=definition),
            "partial norms": jac.norms(definition=definition, mask=mask),
            "dense": jac.dense(),
            # Rows that the norms left behind serve the other products.
            "jvp after norms": jac.jvp(treedef.unflatten(direction)),
            "vjp after norms": jac.vjp(weights),
        }

    def reference(params):
        rows = [
            r.reshape(B, -1) for r in jax.tree.leaves(jax.jacrev(losses_fn)(params))
        ]
        dots = [r @ v.ravel() for r, v in zip(rows, direction, strict=True)]
        squares = [jnp.square(r).sum(1) for r in rows]

        def some(parts):
            return sum(x for x, k in zip(parts, kept, strict=True) if k)

        vjp = treedef.unflatten(
            [(weights @ r).reshape(p.shape) for r, p in zip(rows, leaves, strict=True)]
        )
        dense = treedef.unflatten(
            [r.reshape(B, *p.shape) for r, p in zip(rows, leaves, strict=True)]
        )
        norms = jnp.sqrt(sum(squares))
        return {
            "losses": losses_fn(params),
            "vjp before": vjp,
            "jvp": sum(dots),
            "partial jvp": some(dots),
            "vjp": vjp,
            "norms": norms,
            "norms in chunks": norms,
            "partial norms": jnp.sqrt(some(squares)),
            "dense": dense,
            "dense in chunks": dense,
            "jvp after norms": sum(dots),
            "vjp after norms": vjp,
        }

    got, expected = jax.jit(lambda p: (products(p), reference(p)))(params)
    return got, expected, told


def _assert_same(got, expected):
    for name in got:
        assert jax.tree.structure(got[name]) == jax.tree.structure(expected[name])
        for x, y in zip(
            jax.tree.leaves(got[name]), jax.tree.leaves(expected[name]), strict=True
        ):
            np.testing.assert_allclose(x, y, rtol=0, atol=1e-10, err_msg=name)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("model", INTERCEPTED, ids=lambda m: m.__name__)
def test_intercepted_products_equal_dense_rows(model):
    got, expected, told = _products(*model())
    assert told["method"] == "intercept"
    assert "examples are independent; 100%" in told["reason"]
    _assert_same(got, expected)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "model", [embedding, example_latents, positions_in_the_batch_axis, weight_norm]
)
def test_chunks_change_nothing(model):
    got, expected, _ = _products(*model(), chunks=True)
    assert "norms in chunks" in got
    _assert_same(got, expected)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("model", FALLING_BACK, ids=lambda m: m.__name__)
def test_others_fall_back_and_say_why(model):
    got, expected, told = _products(*model(), definition="row")
    assert told["method"] == "linearize"
    assert re.search(FALLING_BACK[model], told["reason"])
    _assert_same(got, expected)


@pytest.mark.usefixtures("x64")
def test_coupled_function_cannot_be_intercepted():
    losses_fn, params = batch_norm()
    with pytest.raises(ValueError, match=r"'intercept' is impossible.*reduce_sum"):
        jacobian(losses_fn, params, method="intercept")


@pytest.mark.usefixtures("x64")
def test_plain_method_can_be_asked_for():
    got, expected, told = _products(*mlp(), method="linearize")
    assert told["method"] == "linearize"
    _assert_same(got, expected)


@pytest.mark.usefixtures("x64")
def test_backward_rule_that_mixes_examples_is_noticed():
    x = array(1, B, 5)

    @jax.custom_vjp
    def centred(h):
        return h

    centred.defvjp(lambda h: (h, None), lambda _, d: (d - d.mean(0, keepdims=True),))
    told = jacobian(lambda w: centred(x @ w).sum(1), array(2, 5, 3))
    assert told.method == "linearize"
    assert "custom_vjp" in told.reason


@pytest.mark.usefixtures("x64")
def test_forward_rule_that_mixes_examples_is_noticed():
    x = array(1, B, 5)

    @jax.custom_jvp
    def centred(h):
        return h

    centred.defjvp(lambda h, t: (h[0], t[0] - t[0].mean(0, keepdims=True)))
    w = array(2, 5, 3)
    losses_fn = lambda w: jnp.square(centred(x @ w)).sum(1)  # noqa: E731

    @jax.jit
    def both(w):
        _, jac = ltjax.linearize(losses_fn, w)
        assert jac.method == "linearize"
        return jac.dense(), jax.jacrev(losses_fn)(w)

    np.testing.assert_allclose(*both(w), atol=1e-12)


@pytest.mark.parametrize(
    "mix",
    [
        lambda h: h[::-1],
        lambda h: jnp.cumsum(h, 0),
        lambda h: jnp.sort(h, 0),
        lambda h: jnp.roll(h, 1, 0),
        lambda h: h.T[:B, :].reshape(h.shape),
        lambda h: h[jnp.asarray([1, 0, 3, 2])],
        lambda h: jnp.zeros_like(h).at[jnp.asarray([1, 0, 3, 2])].set(h),
        lambda h: jax.nn.softmax(h, 0),
        lambda h: h - lax.map(lambda r: r, h).sum(0, keepdims=True),
        lambda h: lax.reduce_window(h, 0.0, lax.add, (2, 1), (1, 1), "SAME"),
        lambda h: lax.associative_scan(jnp.add, h),
        lambda h: jnp.einsum("bi,ci->bc", h, h),
    ],
)
def test_mixing_is_never_taken_for_independence(mix):
    x, w = array(1, B, 5).astype(jnp.float32), array(2, 5, B).astype(jnp.float32)

    def losses_fn(w):
        h = jnp.tanh(x @ w)
        return (h + mix(h)).sum(1)

    v = array(3, 5, B).astype(jnp.float32)

    @jax.jit
    def both(w, v):
        _, jac = ltjax.linearize(losses_fn, w)
        assert jac.method == "linearize"
        with pytest.raises(ValueError, match="norms needs a definition"):
            jac.norms()
        return jac.jvp(v), jax.jvp(losses_fn, (w,), (v,))[1]

    np.testing.assert_allclose(*both(w, v), rtol=1e-4, atol=1e-5)


def test_products_inside_cond_leave_nothing_behind():
    losses_fn, params = mlp()

    @jax.jit
    def step(params, on):
        _, jac = ltjax.linearize(losses_fn, params)
        dots = lax.cond(on, lambda: jac.jvp(params), lambda: jnp.zeros(B))
        norms = lax.cond(on, lambda: jac.norms(), lambda: jnp.zeros(B))
        return dots, norms, jac.vjp(jnp.ones(B))

    @jax.jit
    def plain(params):
        _, jac = ltjax.linearize(losses_fn, params)
        gradient = jax.grad(lambda p: losses_fn(p).sum())(params)
        return jac.jvp(params), jac.norms(), gradient

    *products, gradient = step(params, True)
    *expected, total = plain(params)
    np.testing.assert_allclose(products, expected, rtol=1e-5)
    for x, y in zip(jax.tree.leaves(gradient), jax.tree.leaves(total), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


def test_examples_mapped_one_by_one_are_intercepted():
    losses_fn, params = mlp()
    x = array(1, B, 5)

    def loss_fn(p, example):
        x, y = example
        logits = jax.nn.relu(x @ p["w"] + p["b"]) @ p["v"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y)

    @jax.jit
    def mapped(params):
        losses, jac = ltjax.linearize_examples(loss_fn, params, (x, labels()))
        assert jac.method == "intercept"
        return losses, jac.norms()

    @jax.jit
    def batched(params):
        losses, jac = ltjax.linearize(losses_fn, params)
        return losses, jac.norms()

    np.testing.assert_allclose(mapped(params), batched(params), rtol=1e-5)


def test_dots_cost_a_third_of_a_step():
    x = jnp.ones((32, 64))
    params = [jnp.ones((64, 64))] * 4

    def losses_fn(params):
        h = x
        for w in params:
            h = jnp.tanh(h @ w)
        return h.sum(1)

    def sgd(params, v):
        return jax.grad(lambda p: losses_fn(p).mean())(params)

    def weighted(params, v):
        losses, jac = ltjax.linearize(losses_fn, params)
        return jac.vjp(jax.nn.softmax(losses))

    def dots(params, v):
        _, jac = ltjax.linearize(losses_fn, params)
        return jac.vjp(jac.jvp(v))

    def cosines(params, v):
        _, jac = ltjax.linearize(losses_fn, params)
        return jac.vjp(jac.jvp(v) / jac.norms())

    def last(params, v):
        _, jac = ltjax.linearize(losses_fn, params)
        return jac.vjp(jac.jvp([optax.MaskedNode()] * 3 + v[3:]))

    step = flops(sgd, params, params)
    assert flops(weighted, params, params) <= 1.03 * step
    assert flops(dots, params, params) <= 1.43 * step
    assert flops(cosines, params, params) <= 1.5 * step
    assert flops(last, params, params) <= 1.15 * step


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_stacks_keep_examples_apart(x64, axis):
    params = {"w": array(1, 3, 3), "b": array(2, 3)}
    x = array(3, B, 3)

    def losses_fn(p):
        h, b = jnp.tanh(x @ p["w"]), p["b"][None]
        stacked = jnp.stack([h, h * b, h + b], axis)
        first, _, last = jnp.unstack(jnp.sin(stacked), axis=axis)
        return (first * last).sum(1)

    @jax.jit
    def both(params):
        _, jac = ltjax.linearize(losses_fn, params, method="intercept")
        return jac.dense(), jax.jacrev(losses_fn)(params)

    found, expected = map(jax.tree.leaves, both(params))
    for got, rows in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, rows, rtol=1e-10, atol=1e-12)


def _stacked_views(w, first, second):
    h = jnp.tanh(jnp.stack([first, second]) @ w)
    return jnp.square(h[0] - h[1]).sum(1)


def _views_side_by_side(w, first, second):
    h = jnp.tanh(jnp.stack([first, second], 1).reshape(-1, 3) @ w).reshape(-1, 2, 3)
    return jnp.square(h[:, 0] - h[:, 1]).sum(1)


@pytest.mark.parametrize("fun", [_stacked_views, _views_side_by_side])
def test_two_views_of_each_example(x64, fun):
    w, views = array(1, 3, 3), (array(2, B, 3), array(3, B, 3))
    assert jacobian(lambda w: fun(w, *views), w).method == "intercept"
    assert_products(lambda w: fun(w, *views), w)


def test_a_function_of_one_graph(x64):
    nodes = array(1, B, 4, 3)
    senders, receivers = np.random.default_rng(0).integers(0, 4, (2, B, 6))
    params = {"message": array(2, 3, 3), "out": array(3, 3, 2)}

    def loss_fn(p, graph):
        nodes, senders, receivers = graph
        messages = jnp.tanh(nodes @ p["message"])[senders]
        return jnp.square(jax.ops.segment_sum(messages, receivers, 4) @ p["out"]).sum()

    @jax.jit
    def products(params):
        batch = nodes, jnp.asarray(senders), jnp.asarray(receivers)
        _, jac = ltjax.linearize_examples(loss_fn, params, batch)
        assert jac.method == "intercept"
        gradients = jax.vmap(jax.grad(loss_fn), (None, 0))(params, batch)
        return jac.norms(), jac.jvp(params), gradients

    norms, dots, gradients = products(params)
    rows = side_by_side(gradients)
    np.testing.assert_allclose(norms, np.linalg.norm(rows, axis=1), rtol=1e-10)
    flat = np.concatenate([p.ravel() for p in jax.tree.leaves(params)])
    np.testing.assert_allclose(dots, rows @ flat, rtol=1e-10)
