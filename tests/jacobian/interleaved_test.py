"""Axes on which examples take turns: views that are concatenated, time before batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ltjax.jacobian._rules import Interleaved, join
from tests.jacobian.reference import array, assert_products, jacobian

B, TIMES, WIDTH, CLASSES = 4, 3, 5, 7
RNG = np.random.default_rng(0)
VIEWS = RNG.normal(size=(2, B, WIDTH))
SERIES = RNG.normal(size=(TIMES, B, WIDTH))
IMAGES = RNG.normal(size=(2, B, 6, 6, 3))
TOKENS = RNG.integers(0, CLASSES, (TIMES, B))

pytestmark = pytest.mark.usefixtures("x64")


def _params():
    shapes = {
        "w": (WIDTH, WIDTH),
        "v": (1, WIDTH),
        "kernel": (3, 3, 3, WIDTH),
        "table": (CLASSES, WIDTH),
    }
    return {name: array(k, *shape) for k, (name, shape) in enumerate(shapes.items())}


def _two_views():
    return jnp.concatenate(list(map(jnp.asarray, VIEWS)))


def _encoded(p):
    return jnp.tanh(_two_views() @ p["w"] + p["v"])


def _slices(p):
    h = _encoded(p)
    return jnp.square(h[:B] - h[B:] * p["v"]).sum(1)


def _split(p):
    first, second = jnp.split(_encoded(p), 2)
    return (first * second * p["v"]).sum(1)


def _joined_again(p):
    h = jnp.concatenate([_encoded(p), jnp.sin(_two_views()[:B] @ p["w"])])
    h = jnp.concatenate([h[B:], h[:B]]) * p["v"]
    return jnp.square(h).reshape(3, B, WIDTH).sum((0, 2))


def _on_another_axis(p):
    h = p["w"] @ jnp.tanh(_two_views().T)
    return h[:, :B].sum(0) * h[:, B:].sum(0)


def _convolution(p):
    dims = ("NHWC", "HWIO", "NHWC")
    x = jnp.concatenate(list(map(jnp.asarray, IMAGES)))
    h = lax.conv_general_dilated(x, p["kernel"], (1, 1), "SAME", dimension_numbers=dims)
    h = jnp.tanh(h).mean((1, 2))
    return jnp.square(h[:B] - h[B:]).sum(1) + (h[B:] @ p["w"]).sum(1)


def _time_first(p):
    h = jnp.tanh(SERIES.reshape(TIMES * B, WIDTH) @ p["w"] + p["v"])
    return jnp.square(h).reshape(TIMES, B, WIDTH).sum((0, 2))


def _tokens(p):
    h = jnp.tanh(p["table"][TOKENS.reshape(-1)] @ p["w"])
    return jnp.square(h).reshape(TIMES, B, WIDTH).sum((0, 2))


def _recurrence(p):
    z = (SERIES.reshape(TIMES * B, WIDTH) @ p["w"]).reshape(TIMES, B, WIDTH)

    def step(c, u):
        return jnp.tanh(c * p["v"] + u), c

    _, hs = lax.scan(step, jnp.zeros((B, WIDTH)), z)
    logits = hs.reshape(TIMES * B, WIDTH) @ p["table"].T
    return jnp.square(logits).reshape(TIMES, B, CLASSES).sum((0, 2))


def _layers(p):
    def layer(h, w):
        return jnp.tanh(h @ w + p["v"]), None

    h, _ = lax.scan(layer, _two_views(), jnp.stack([p["w"], p["w"].T]))
    return (h[:B] * h[B:]).sum(1)


def _checkpointed(p):
    h = jax.checkpoint(lambda h: jnp.tanh(h @ p["w"]) * p["v"])(_two_views())
    return (h[:B] * h[B:]).sum(1) + (h @ p["w"])[:B].sum(1)


def _mapped(p):
    h = jax.vmap(lambda row: jnp.tanh(row @ p["w"]) @ p["v"][0])(_two_views())
    return h[:B] * h[B:]


def _grouped_features(p):
    x = jnp.asarray(IMAGES.reshape(1, 6, 6, 2 * B * 3))
    kernel = jnp.tile(p["kernel"][:, :, :, :1], (1, 1, 1, 2 * B))
    dims = ("NHWC", "HWIO", "NHWC")
    h = lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=dims, feature_group_count=2 * B
    )
    return jnp.tanh(h).sum((0, 1, 2))[:B]


FOLLOWED = (
    *(_slices, _split, _joined_again, _on_another_axis, _convolution, _time_first),
    *(_tokens, _recurrence, _layers, _checkpointed, _mapped, _grouped_features),
)


@pytest.mark.parametrize("losses_fn", FOLLOWED, ids=lambda f: f.__name__[1:])
def test_turns_are_followed(losses_fn):
    found = jacobian(losses_fn, _params())
    assert found.method == "intercept", found.reason
    assert_products(losses_fn, _params())


def _off_by_one(p):
    h = _encoded(p)
    return (h[1 : B + 1] * h[B:]).sum(1)


def _both_layouts(p):
    h = _encoded(p)
    blocks = jnp.square(h).reshape(B, 2, WIDTH).sum((1, 2))
    return blocks + h.reshape(2, B, WIDTH).sum((0, 2))


def _summed_up(p):
    return jnp.cumsum(_encoded(p), 0)[B:].sum(1)


def _every_other(p):
    return _encoded(p)[::2].sum(1)


def _backwards(p):
    return _encoded(p)[::-1][:B].sum(1)


def _ragged_parts(p):
    h = _encoded(p)
    return jnp.concatenate([h[:2], h])[:B].sum(1)


def _ragged_split(p):
    return jnp.split(_encoded(p), [1, B + 1])[1].sum(1)


def _one_after_the_other(p):
    return lax.map(lambda row: jnp.tanh(row) @ p["v"][0], _encoded(p))[:B]


REFUSED = (
    *(_off_by_one, _both_layouts, _summed_up, _every_other, _backwards),
    *(_ragged_parts, _ragged_split, _one_after_the_other),
)


@pytest.mark.parametrize("losses_fn", REFUSED, ids=lambda f: f.__name__[1:])
def test_anything_else_is_not(losses_fn):
    assert jacobian(losses_fn, _params()).method == "linearize"
    assert_products(losses_fn, _params(), definition="row")


def test_turns_and_blocks_are_not_the_same_axis():
    assert Interleaved(0) != 0
    assert Interleaved(0) != 0
    assert Interleaved(1) == Interleaved(0) + 1 == Interleaved(2) - 1
    assert len({0, Interleaved(0), Interleaved(0)}) == 2
    assert join(0, Interleaved(0)) == "shared"
