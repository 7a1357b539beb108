"""The check that users run on their own functions: right, wrong and refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ltjax

B = 6


def _array(seed, *shape, dtype=np.float32):
    values = np.random.default_rng(seed).normal(size=shape) / 2
    return jnp.asarray(values).astype(dtype)


def _params(dtype=np.float32):
    return {"w": _array(1, 4, 5, dtype=dtype), "v": _array(2, 5, 3, dtype=dtype)}


def _losses(params):
    x = _array(0, B, 4, dtype=params["w"].dtype)
    logits = jnp.tanh(x @ params["w"]) @ params["v"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(B) % 3)


def _coupled(params):
    h = _array(0, B, 4) @ params["w"]
    h = h - h.mean(0, keepdims=True)
    return jnp.square(h @ params["v"]).sum(1)


def _logits(params):
    return jnp.tanh(_array(0, B, 4) @ params["w"]) @ params["v"]


@pytest.mark.parametrize("fun", [_losses, _coupled, _logits])
def test_good_functions_are_exact_to_rounding(fun):
    report = ltjax.check(fun, _params(), key=jax.random.key(0))
    assert report.ok
    assert max(report.jvp, report.vjp, report.norms) < 1e-4
    assert report.rows == fun(_params()).size


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_tolerance_is_that_of_the_narrowest_dtype(dtype):
    report = ltjax.check(_losses, _params(dtype), key=jax.random.key(0))
    assert report.ok
    expected = {jnp.bfloat16: 0.1, jnp.float16: 0.02, jnp.float32: 1e-3}
    assert report.tolerance == expected[dtype]


@pytest.mark.usefixtures("x64")
def test_float64_agrees_to_its_own_precision():
    report = ltjax.check(_losses, _params(np.float64), key=jax.random.key(0))
    assert report.ok
    assert report.tolerance == 1e-9


def test_a_sample_of_rows_and_aux():
    report = ltjax.check(
        lambda p: (_losses(p), {"extra": 1}),
        _params(),
        key=jax.random.key(0),
        rows=2,
        has_aux=True,
    )
    assert report.ok
    assert report.rows == 2


def test_options_reach_linearize():
    report = ltjax.check(_losses, _params(), key=jax.random.key(0), method="linearize")
    assert report.method == "linearize"
    with pytest.raises(ValueError, match="intercept"):
        ltjax.check(_coupled, _params(), key=jax.random.key(0), method="intercept")


@pytest.mark.parametrize("product", ["jvp", "vjp", "norms"])
def test_a_broken_product_is_found_and_named(product, monkeypatch):
    """One example's share is dropped, as a wrong proof of independence would."""
    kind = type(ltjax.linearize(_losses, _params())[1])
    right = getattr(kind, product)

    def wrong(self, *args, **kwargs):
        if product == "vjp":
            return right(self, args[0].at[1].set(0))
        return right(self, *args, **kwargs).at[1].set(0)

    monkeypatch.setattr(kind, product, wrong)
    report = ltjax.check(_losses, _params(), key=jax.random.key(0))
    assert not report.ok
    assert getattr(report, product) > 0.1
    (line,) = [x for x in str(report).splitlines() if "WRONG" in x]
    assert line.startswith(product)
    others = {"jvp", "vjp", "norms", "losses"} - {product}
    assert all(getattr(report, name) <= report.tolerance for name in others)


def test_nan_is_not_ok(monkeypatch):
    kind = type(ltjax.linearize(_losses, _params())[1])
    monkeypatch.setattr(kind, "norms", lambda self, **_: jnp.full(B, jnp.nan))
    report = ltjax.check(_losses, _params(), key=jax.random.key(0))
    assert np.isnan(report.norms)
    assert not report.ok
    assert "WRONG" in str(report)


def test_zero_rows_are_exact():
    report = ltjax.check(
        lambda p: jnp.where(jnp.arange(B) > 2, _losses(p), jnp.zeros(B)),
        _params(),
        key=jax.random.key(0),
    )
    assert report.ok


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match="key"):
        ltjax.check(_losses, _params(), key=jax.random.PRNGKey(0))
    with pytest.raises(ValueError, match="rows"):
        ltjax.check(_losses, _params(), key=jax.random.key(0), rows=0)
