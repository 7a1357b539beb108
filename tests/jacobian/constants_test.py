"""Indices that are evaluated while tracing, and what follows for independence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltjax.jacobian._constants import Constants
from ltjax.jacobian._jaxpr import trace
from tests.jacobian.reference import array, assert_products, jacobian

B = 4

COUNTS = {
    "arange": lambda n: jnp.arange(n),
    "wider": lambda n: jnp.arange(n, dtype=jnp.int16).astype(jnp.int32),
    "concatenated": lambda n: jnp.concatenate([jnp.arange(2), jnp.arange(2, n)]),
    "arithmetic": lambda n: (2 * jnp.arange(n) + 2) // 2 - 1,
    "reversed twice": lambda n: jnp.arange(n)[::-1][::-1],
    "numpy": lambda n: np.arange(n),
}
OTHERS = {
    "repeated": lambda n: jnp.concatenate([jnp.arange(n // 2), jnp.arange(n - n // 2)]),
    "bool": lambda n: jnp.arange(n).astype(bool).astype(jnp.int32),
    "reversed": lambda n: jnp.arange(n)[::-1],
    "shifted": lambda n: (jnp.arange(n) + 1) % n,
    "zero": lambda n: jnp.zeros(n, jnp.int32),
    "permuted": lambda n: np.roll(np.arange(n), 1),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("make", COUNTS.values(), ids=COUNTS)
def test_indices_that_count_keep_examples_apart(make):
    x, w = array(1, B, 3), array(2, 3, 3)

    def losses_fn(w):
        h = jnp.tanh(x @ w)
        return h.sum(1) + (h[make(B)] ** 2).sum(1)

    known = make is not COUNTS["arithmetic"]  # integer division is not evaluated
    told = jacobian(losses_fn, w)
    assert told.method == ("intercept" if known else "linearize")
    assert_products(losses_fn, w)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("batch", [B, 5])
def test_indices_that_do_not_count_couple_examples(make, batch):
    x, w = array(1, batch, 3), array(2, 3, 3)

    def losses_fn(w):
        h = jnp.tanh(x @ w)
        return h.sum(1) + (h[make(batch)] ** 2).sum(1)

    told = jacobian(losses_fn, w)
    assert told.method == "linearize"
    assert "influence each other" in told.reason
    assert_products(losses_fn, w)


@pytest.mark.usefixtures("x64")
def test_integers_too_small_for_the_count():
    batch = 300
    x, w = array(1, batch, 2), array(2, 2, 2)
    index = lambda: jnp.arange(batch).astype(jnp.uint8).astype(int)  # noqa: E731

    def losses_fn(w):
        h = x @ w
        return h.sum(1) + h[index()].sum(1)

    assert_products(losses_fn, w)


def _value(fun, *args):
    program, _ = trace(fun, *args)
    return Constants(program).value(program.outputs[0])


FOLDED = {
    "where": lambda: jnp.where(jnp.arange(6) < 3, jnp.arange(6), -1),
    "clip": lambda: jnp.clip(jnp.arange(6), 1, 4),
    "grid": lambda: jnp.broadcast_to(jnp.arange(2)[:, None], (2, 3)).T.reshape(-1),
    "wrapped": lambda: jnp.arange(300).astype(jnp.int8),
    "remainder": lambda: jax.lax.rem(jnp.arange(-3, 3), jnp.full(6, 2)),
    "stack": lambda: jnp.stack([jnp.arange(3), jnp.arange(3) * 2], 1),
    "compare": lambda: (jnp.arange(4) >= 2) != (jnp.arange(4) <= 1),
}


@pytest.mark.parametrize("fun", FOLDED.values(), ids=FOLDED)
def test_evaluated_as_jax_does(fun):
    found, expected = _value(fun), np.asarray(fun())
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_long_programs():
    def count():
        i = jnp.arange(3)
        for _ in range(2000):
            i = i + 1
        return i

    np.testing.assert_array_equal(_value(count), [2000, 2001, 2002])


def test_what_depends_on_arguments_or_floats_is_unknown():
    assert _value(lambda i: i + jnp.arange(3), jnp.arange(3)) is None
    assert _value(lambda: jnp.linspace(0.0, 2.0, 3).astype(jnp.int32)) is None


def test_zeros_of_any_dtype_are_recognised():
    program, _ = trace(
        lambda g: (jnp.zeros_like(g), jnp.zeros((2, 2))[0], g * 0, jnp.ones(2)),
        jnp.ones(3),
    )
    constants = Constants(program)
    assert [constants.is_zero(a) for a in program.outputs] == [True, True, False, False]
