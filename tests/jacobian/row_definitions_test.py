"""Which definition of a row products follow where examples influence each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import ltjax
from tests.jacobian.models import (
    CLASSES,
    B,
    array,
    cross_entropy,
    mlp,
    solve,
)
from tests.jacobian.reference import assert_products, jacobian


@pytest.mark.usefixtures("x64")
def test_definitions_of_coupled_rows():
    x = array(1, B, 5)
    params = {"w": array(2, 5, 6), "s": array(3, 1, 6), "v": array(4, 6, CLASSES)}
    v = jax.tree.map(lambda p: array(9, *p.shape), params)

    def losses_fn(p, freeze=lambda m: m):
        h = x @ p["w"]
        mean = freeze(h.mean(0, keepdims=True))
        variance = freeze(jnp.square(h - mean).mean(0, keepdims=True))
        h = (h - mean) * (lax.rsqrt(variance + 1e-5) * p["s"])
        return cross_entropy(jax.nn.relu(h) @ p["v"])

    def dots(rows):
        return sum(
            (r * t[None]).reshape(B, -1).sum(1)
            for r, t in zip(jax.tree.leaves(rows), jax.tree.leaves(v), strict=True)
        )

    def norms(rows):
        return jnp.sqrt(
            sum(jnp.square(r).reshape(B, -1).sum(1) for r in jax.tree.leaves(rows))
        )

    def attributed(p):
        """By the book: inputs and cotangents of each layer, from one backward pass."""

        def probed(t):
            h = x @ p["w"] + t["h"]
            mean, variance = h.mean(0, keepdims=True), h.var(0, keepdims=True)
            n = (h - mean) * lax.rsqrt(variance + 1e-5)
            y = n * p["s"] + t["y"]
            z = jax.nn.relu(y) @ p["v"] + t["z"]
            return cross_entropy(z).sum(), (n, jax.nn.relu(y))

        zeros = {
            "h": jnp.zeros((B, 6)),
            "y": jnp.zeros((B, 6)),
            "z": jnp.zeros((B, CLASSES)),
        }
        d, (n, r) = jax.grad(probed, has_aux=True)(zeros)
        return {
            "w": x[:, :, None] * d["h"][:, None, :],
            "s": (n * d["y"])[:, None],
            "v": r[:, :, None] * d["z"][:, None, :],
        }

    @jax.jit
    def both(p):
        _, jac = ltjax.linearize(losses_fn, p)
        rows = {
            "row": jax.jacrev(losses_fn)(p),
            "frozen": jax.jacrev(lambda p: losses_fn(p, lax.stop_gradient))(p),
            "attribution": attributed(p),
        }
        return {
            name: (
                (jac.jvp(v, definition=name), dots(r)),
                (jac.norms(definition=name), norms(r)),
            )
            for name, r in rows.items()
        }

    found = both(params)
    for name, pairs in found.items():
        for got, expected in pairs:
            np.testing.assert_allclose(got, expected, atol=1e-10, err_msg=name)
    exact = found["row"][1][1]
    for name in ("frozen", "attribution"):
        assert np.abs(found[name][1][1] - exact).max() > 1e-3

    with pytest.raises(ValueError, match=r"needs a definition here \(examples influ"):
        jacobian(losses_fn, params, lambda jac: jac.norms())
    with pytest.raises(ValueError, match=r"definition must be one of 'row'.*'ghost'"):
        jacobian(losses_fn, params, lambda jac: jac.jvp(v, definition="ghost"))


def _losses_by_pixel(p):
    return (jnp.tanh(array(1, B, 3, 2, 4) @ p["w"]) @ p["v"]) ** 2


def test_norms_of_pixels_are_asked_for(x64):
    params = {"w": array(2, 4, 5), "v": array(3, 5)}
    count = rf"shape \({B}, 3, 2\).*'row'.*one backward pass.* {6 * B} rows"
    with pytest.raises(ValueError, match=rf"needs a definition.*{count}"):
        jacobian(_losses_by_pixel, params, lambda jac: jac.norms())
    with pytest.raises(ValueError, match=rf"losses \[B\].*\({B}, 3, 2\)"):
        jacobian(_losses_by_pixel, params, lambda jac: ltjax.clipped_sum(jac, 1.0))

    @jax.jit
    def norms(p):
        _, jac = ltjax.linearize(_losses_by_pixel, p)
        return jac.norms(definition="row"), jax.jacrev(_losses_by_pixel)(p)

    found, rows = norms(params)
    squares = sum(jnp.sum(r.reshape(B, 3, 2, -1) ** 2, -1) for r in rows.values())
    np.testing.assert_allclose(found, jnp.sqrt(squares), rtol=1e-10)


def test_norms_of_images_are_those_of_their_means(x64):
    params = {"w": array(2, 4, 5), "v": array(3, 5)}

    def losses_fn(p):
        return _losses_by_pixel(p).mean((1, 2))

    assert jacobian(losses_fn, params).method == "intercept"
    assert_products(losses_fn, params, tolerance=1e-10)


def test_definitions_agree_for_independent_examples():
    losses_fn, params = mlp()

    @functools.partial(jax.jit, static_argnums=1)
    def products(params, definition):
        _, jac = ltjax.linearize(losses_fn, params)
        return jac.norms(definition=definition), jac.jvp(params, definition=definition)

    for name in ("row", "frozen", "attribution"):
        for got, expected in zip(
            products(params, name), products(params, None), strict=True
        ):
            np.testing.assert_allclose(got, expected)


def test_definitions_need_losses_and_proofs():
    logits_fn = lambda w: array(1, B, 5).astype(w.dtype) @ w  # noqa: E731
    w = array(2, 5, 3)
    assert "outputs have shape (4, 3)" in jacobian(logits_fn, w).reason
    with pytest.raises(
        ValueError, match=r"'frozen' cannot be told here: losses of shape"
    ):
        jacobian(logits_fn, w, lambda jac: jac.jvp(w, definition="frozen"))
    attributed = lambda jac: jac.norms(definition="attribution")  # noqa: E731
    with pytest.raises(ValueError, match=r"'attribution' cannot be told.*linear_solve"):
        jacobian(*solve(), attributed)


WRAPPED_WHOLE = {
    "checkpoint": jax.checkpoint,
    "scan": lambda f: (
        lambda p: lax.scan(
            lambda c, _: (f(p), None), jnp.zeros((B, CLASSES)), None, length=1
        )[0]
    ),
    "cond": lambda f: lambda p: lax.cond(p["w"].sum() < 1e9, f, lambda p: 0 * f(p), p),
    "fori_loop": lambda f: (
        lambda p: lax.fori_loop(0, 1, lambda _, h: f(p), jnp.zeros((B, CLASSES)))
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("wrap", WRAPPED_WHOLE.values(), ids=WRAPPED_WHOLE)
@pytest.mark.parametrize("concrete", [True, False])
def test_statistics_of_the_first_layer_are_found_in_control_flow(wrap, concrete):
    """The first layer's input has no derivative, its statistics have one."""
    params = {"w": array(2, 5, 6), "v": array(3, 6, CLASSES)}

    def norms(x, definition):
        def body(p):
            h = x @ p["w"]
            centred = h - h.mean(0, keepdims=True)
            return (centred * lax.rsqrt(h.var(0, keepdims=True) + 1e-3)) @ p["v"]

        def losses_fn(p):
            return cross_entropy(wrap(body)(p))

        rows = jax.tree.leaves(jax.jit(jax.jacrev(losses_fn))(params))
        expected = sum(jnp.square(r).reshape(B, -1).sum(1) for r in rows)
        _, jac = ltjax.linearize(losses_fn, params)
        return jac.norms(definition=definition), jnp.sqrt(expected)

    x = array(1, B, 5)
    call = norms if concrete else jax.jit(norms, static_argnums=1)
    np.testing.assert_allclose(*call(x, "row"), atol=1e-10)
    for definition in ("frozen", "attribution"):
        with pytest.raises(
            ValueError, match=r"for all examples at once.*stop_gradient"
        ):
            call(x, definition)


@pytest.mark.parametrize(
    "wrap", [jax.checkpoint, lambda f: lambda h: lax.cond(h.sum() < 1e9, f, jnp.sin, h)]
)
def test_statistics_in_control_flow_couple_examples(wrap, x64):
    """Those of activations that come from outside."""
    params = {"w": array(2, 5, 6), "v": array(3, 6, CLASSES)}

    @wrap
    def normalised(h):
        centred = h - h.mean(0, keepdims=True)
        return centred * lax.rsqrt(h.var(0, keepdims=True) + 1e-3)

    def losses_fn(p):
        h = normalised(array(1, B, 5) @ p["w"])
        return cross_entropy(normalised(jnp.tanh(h)) @ p["v"])

    with pytest.raises(ValueError, match=r"needs a definition here \(examples infl"):
        jacobian(losses_fn, params, lambda jac: ltjax.clipped_sum(jac, 1.0))
    assert_products(losses_fn, params, definition="row")


def test_definitions_agree_for_examples_that_cannot_be_intercepted(x64):
    """A checkpoint of most of the model falls back; examples stay independent."""
    x, params = jax.random.normal(jax.random.key(0), (4, 3)), jnp.eye(3)

    def loss_fn(p, example):
        step = jax.checkpoint(lambda h: jnp.tanh(p @ h))
        return step(step(example)).sum()

    @jax.jit
    def norms(params):
        _, jac = ltjax.linearize_examples(loss_fn, params, x)
        assert jac.method == "linearize"
        definitions = (None, "row", "frozen", "attribution")
        return [jac.norms(definition=definition) for definition in definitions]

    rows = jax.jit(jax.vmap(jax.grad(loss_fn), (None, 0)))(params, x)
    expected = np.linalg.norm(rows.reshape(4, -1), axis=1)
    for found in norms(params):
        np.testing.assert_allclose(found, expected, rtol=1e-10)
