"""Frozen and attributed rows: right, or refused with what to write instead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import ltjax
from tests.jacobian.reference import array, assert_products, jacobian

pytestmark = pytest.mark.usefixtures("x64")

B, D = 5, 4


def _params():
    return {
        "a": array(1, D, D),
        "b": array(2, D, D),
        "c": array(3, D, 3),
        "s": array(4, D),
    }


def _normalise(h, freeze, axes=(0,)):
    mean = freeze(h.mean(axes, keepdims=True))
    variance = freeze(jnp.square(h - mean).mean(axes, keepdims=True))
    return (h - mean) * lax.rsqrt(variance + 1e-3)


def _by_moments(h, freeze):
    """Variance as the mean of squares less the square of the mean."""
    mean, square = freeze(h.mean(0)), freeze((h * h).mean(0))
    return (h - mean[None]) * lax.rsqrt(square - mean**2 + 1e-2)[None]


def _whitened(h, freeze):
    covariance = freeze(jnp.einsum("bi,bj->ij", h, h) / B)
    return h @ (jnp.eye(D) + 0.1 * covariance)


def _by_max(h, freeze):
    return h / (1 + freeze(jnp.abs(h).max(0, keepdims=True)))


def _net(norm):
    def with_freeze(freeze):
        def losses_fn(p):
            h = norm(array(0, B, D) @ p["a"], freeze) * p["s"][None]
            h = h + jnp.tanh(norm(h @ p["b"], freeze))
            return jnp.sum((h @ p["c"]) ** 2, 1)

        return losses_fn

    return with_freeze


def _positions(freeze):
    """Statistics over examples and positions, in a merged layout."""

    def losses_fn(p):
        h = (array(0, B, 3, D).reshape(B * 3, D) @ p["a"]) * p["s"][None]
        h = _normalise(h, freeze).reshape(B, 3, D)
        return jnp.sum(jnp.tanh(h @ p["b"]) ** 2, (1, 2)) + p["c"].sum() * 0

    return losses_fn


STATISTICS = {
    "batch norm": _net(_normalise),
    "moments": _net(_by_moments),
    "covariance": _net(_whitened),
    "largest": _net(_by_max),
    "positions": _positions,
}


@pytest.mark.parametrize("net", STATISTICS.values(), ids=STATISTICS)
def test_frozen_rows_are_those_with_stopped_gradients(net):
    losses_fn = net(lambda m: m)
    assert jacobian(losses_fn, _params()).method == "linearize"
    assert_products(losses_fn, _params())
    assert_products(
        losses_fn, _params(), rows_of=net(lax.stop_gradient), definition="frozen"
    )


@pytest.mark.parametrize("net", STATISTICS.values(), ids=STATISTICS)
def test_attributed_rows_add_up_to_the_gradient(net):
    losses_fn, params = net(lambda m: m), _params()

    @jax.jit
    def dots(params):
        _, jac = ltjax.linearize(losses_fn, params)
        alone = {
            name: {k: v if k == name else 0 * v for k, v in params.items()}
            for name in params
        }
        return {k: jac.jvp(v, definition="attribution") for k, v in alone.items()}

    gradient = jax.jit(jax.grad(lambda p: losses_fn(p).sum()))(params)
    for name, found in dots(params).items():
        expected = np.vdot(gradient[name], params[name])
        np.testing.assert_allclose(np.sum(found), expected, rtol=1e-9, atol=1e-9)


def _wrapped(wrap):
    block = wrap(lambda h, w: jnp.tanh(_normalise(h @ w, lambda m: m)))

    def losses_fn(p):
        h = _normalise(array(0, B, D) @ p["a"], lambda m: m)
        return jnp.sum(((h + block(h, p["b"])) @ p["c"]) ** 2, 1)

    return losses_fn


def _scanned(g):
    return lambda h, w: lax.scan(lambda c, u: (g(c, u), None), h, w[None])[0]


def _conditional(g):
    return lambda h, w: lax.cond(True, g, lambda h, w: h, h, w)


def _looped(g):
    return lambda h, w: lax.fori_loop(0, 1, lambda _, c: g(c, w), h)


def _own_rule(g):
    fun = jax.custom_vjp(g)
    fun.defvjp(lambda h, w: jax.vjp(g, h, w), lambda back, d: back(d))
    return fun


def _ghost_batches(g):
    def block(h, w):
        groups = jnp.concatenate([h, h[:1]]).reshape(2, 3, D)
        return jax.vmap(lambda part: g(part, w))(groups).reshape(6, D)[:B]

    return block


def _time_major(g):
    return lambda h, w: h[None].swapaxes(0, 1).reshape(B, D) + g(h[::-1], w)


CANNOT = {
    "checkpoint": jax.checkpoint,
    "scan": _scanned,
    "cond": _conditional,
    "fori_loop": _looped,
    "custom_vjp": _own_rule,
    "ghost batches": _ghost_batches,
    "reversed": _time_major,
}


@pytest.mark.parametrize("wrap", CANNOT.values(), ids=CANNOT)
@pytest.mark.parametrize("definition", ["frozen", "attribution"])
def test_what_cannot_be_told_is_refused_by_name(wrap, definition):
    losses_fn, params = _wrapped(wrap), _params()
    with pytest.raises(ValueError, match=r"cannot be told here.*stop_gradient"):
        jacobian(losses_fn, params, lambda jac: jac.norms(definition=definition))
    with pytest.raises(ValueError, match=r"cannot be told here.*stop_gradient"):
        jacobian(losses_fn, params, lambda jac: jac.jvp(params, definition=definition))
    if wrap is not _own_rule:
        assert_products(losses_fn, params)


def test_a_layout_that_is_not_followed_is_refused():
    x, p = array(0, B, 3, 2), {"a": array(1, 2, 2), "b": array(2, 2, 2)}

    def losses_fn(p):
        h = jnp.tanh(x @ p["a"])
        merged = jnp.tanh(h.swapaxes(0, 1).reshape(-1) * p["b"][0, 0])
        g = merged.reshape(3, B, 2).swapaxes(0, 1)
        return jnp.sum((h + g) ** 2, (1, 2))

    for name in ("frozen", "attribution"):
        with pytest.raises(ValueError, match=r"examples meet in reshape"):
            jacobian(losses_fn, p, lambda jac, name=name: jac.norms(definition=name))
    assert_products(losses_fn, p)


def _elementwise(p):
    x = array(0, B, D)
    return jnp.sum((x * p["s"][None] - (x * p["s"][None]).mean(0)[None]) ** 3, 1)


def _recomputed(p):
    x = array(0, B, D)
    h = x @ p["a"] - (x @ p["a"]).mean(0)[None]
    return jnp.sum(jnp.tanh(_normalise(h, lambda m: m) @ p["c"]) ** 2, 1)


def _looked_up(p):
    tokens = jnp.asarray([0, 2, 1, 3, 3]) + 0 * jnp.argmax(array(0, B, D), 1)
    return jnp.sum((p["a"][tokens] - p["a"][tokens].mean(0)[None]) ** 2, 1)


@pytest.mark.parametrize("losses_fn", [_elementwise, _recomputed, _looked_up])
@pytest.mark.parametrize("definition", ["frozen", "attribution"])
def test_statistics_of_values_of_their_own_are_refused(losses_fn, definition):
    with pytest.raises(ValueError, match="may be a batch statistic or not"):
        jacobian(losses_fn, _params(), lambda jac: jac.norms(definition=definition))
    assert "examples are independent" not in jacobian(losses_fn, _params()).reason
    assert_products(losses_fn, _params())


def _steps():
    return jnp.stack([jnp.linspace(-1.0, 1.0, B) ** k for k in range(D)], 1)


def _drawn():
    return jax.random.normal(jax.random.key(0), (B, D))


@pytest.mark.parametrize("make", [_steps, _drawn])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("definition", ["frozen", "attribution"])
def test_data_that_the_losses_make_themselves_are_data(make, inside, definition):
    def block(x, p):
        x = make() if inside else x
        return jnp.tanh(_normalise(x @ p["a"], lambda v: v)) @ p["c"]

    def losses_fn(p):
        return jax.checkpoint(block)(make(), p).sum(1)

    _, jac = ltjax.linearize(losses_fn, _params())
    with pytest.raises(ValueError, match="stop_gradient"):
        jac.norms(definition=definition)


def test_equal_entries_are_no_data():
    def losses_fn(p):
        prior = jnp.full((B, D), 0.5) @ p["a"]
        return ((array(0, B, D) + prior[:1]) @ p["c"]).sum(1)

    assert_products(losses_fn, _params(), definition="frozen")


def test_statistics_with_parameters_of_their_own_are_not_attributed():
    x = array(0, B, D)

    def net(freeze):
        def losses_fn(p):
            h = x @ p["a"]
            h = h - freeze((h * p["s"][None]).mean(0))[None]
            return jnp.sum(jnp.tanh(h) ** 2, 1)

        return losses_fn

    params = _params()
    assert_products(
        net(lambda m: m), params, rows_of=net(lax.stop_gradient), definition="frozen"
    )
    attributed = lambda jac: jac.norms(definition="attribution")  # noqa: E731
    with pytest.raises(ValueError, match="parameters enter the statistic"):
        jacobian(net(lambda m: m), params, attributed)


def test_stopped_gradients_make_frozen_rows_the_rows():
    """What the refusal says to write."""
    block = jax.checkpoint(lambda h, w: _normalise(h @ w, lax.stop_gradient))

    def losses_fn(p):
        h = _normalise(array(0, B, D) @ p["a"], lax.stop_gradient)
        return jnp.sum((block(h, p["b"]) @ p["c"]) ** 2, 1)

    def plain(p):
        h = _normalise(array(0, B, D) @ p["a"], lax.stop_gradient)
        return jnp.sum((_normalise(h @ p["b"], lax.stop_gradient) @ p["c"]) ** 2, 1)

    assert_products(losses_fn, _params(), rows_of=plain, definition="row")
