"""Functions with derivatives of their own: the rule is what counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import ltjax
from ltjax.jacobian._calls import backward
from ltjax.jacobian._jaxpr import trace
from ltjax.jacobian._linearity import LINEAR, NONLINEAR, UNKNOWN, ZERO, linearity
from tests.jacobian.reference import array, assert_products, jacobian

pytestmark = pytest.mark.usefixtures("x64")

B = 4


def _custom(forward, back):
    """A function of two arguments with a backward rule that keeps nothing."""
    fun = jax.custom_vjp(forward)
    fun.defvjp(lambda *args: (forward(*args), None), lambda _, g: back(g))
    return fun


straight_through = _custom(lambda z, q: q, lambda g: (g, jnp.zeros_like(g)))
scaled = _custom(lambda z, q: z + q, lambda g: (2 * g, -3 * g))
first_only = _custom(lambda z, q: z * q, lambda g: (g, jnp.zeros_like(g)))


@pytest.mark.parametrize("fun", [straight_through, scaled, first_only])
def test_operands_that_the_rule_reaches(fun):
    x, w = array(1, B, 3), array(2, 3, 3)

    def losses_fn(w):
        z = x @ w
        return jnp.sum(fun(z, jnp.round(z)) ** 2, 1)

    assert jacobian(losses_fn, w).method == "intercept"
    assert_products(losses_fn, w)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.checkpoint], ids=["", "checkpoint"])
def test_rules_that_only_empty_parameters_reach(wrap):
    x, params = array(1, B, 3), {"none": array(2, 0, 3), "w": array(3, 3, 3)}

    def losses_fn(p):
        data = wrap(lambda p: scaled(x + p["none"].sum(), x + p["w"][:0].sum()))(p)
        return jnp.sum((data @ p["w"]) ** 2, 1)

    for method in ("auto", "linearize"):
        assert_products(losses_fn, params, method=method)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.checkpoint], ids=["", "checkpoint"])
def test_numbers_among_the_operands(wrap):
    scale = jax.custom_vjp(lambda z, s: z * s)
    scale.defvjp(
        lambda z, s: (z * s, (z, s)), lambda r, g: (g * r[1], (g * r[0]).sum())
    )
    x, w = array(1, B, 3), array(2, 3, 3)
    layer = wrap(lambda z, s: scale(jnp.tanh(z), s))

    def losses_fn(w):
        return jnp.sum(layer(x @ w, 2.0) ** 2, 1)

    for method in ("auto", "linearize"):
        assert_products(losses_fn, w, method=method)


def _by_tangents(fun):
    """The same function, whose rule differentiates it."""
    rule = jax.custom_jvp(fun)
    rule.defjvp(lambda at, moved: jax.jvp(fun, at, moved))
    return rule


@pytest.mark.parametrize("wrap", [lambda f: f, jax.checkpoint], ids=["", "checkpoint"])
def test_backward_rule_within_a_rule_for_tangents(wrap):
    x, w = array(1, B, 3), array(2, 3, 3)
    layer = wrap(_by_tangents(lambda w, x: scaled(x @ w, x)))

    def losses_fn(w):
        return jnp.sum(layer(w, jnp.tanh(x @ w)) ** 2, 1)

    for method in ("auto", "linearize"):
        assert_products(losses_fn, w, method=method)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.checkpoint], ids=["", "checkpoint"])
def test_rule_that_closes_over_traced_data(wrap):
    w = array(2, 3, 3)

    @jax.jit
    def check(x):
        def losses_fn(w):
            fun = jax.custom_vjp(lambda z: z * jnp.tanh(x))
            fun.defvjp(lambda z: (fun(z), None), lambda _, g: (2 * g * jnp.tanh(x),))
            return wrap(lambda w: jnp.sum(fun(x @ w) ** 2, 1))(w)

        _, jac = ltjax.linearize(losses_fn, w)
        rows = jax.jacrev(losses_fn)(w)
        return jac.dense(), jac.norms(definition="row"), rows

    dense, norms, rows = check(array(1, B, 3))
    np.testing.assert_allclose(dense, rows, rtol=1e-12)
    np.testing.assert_allclose(norms, jnp.linalg.norm(rows, axis=(1, 2)), rtol=1e-12)


key = jax.random.key(3)
BACKWARD = {
    "stop_gradient": lambda g: 2 * lax.stop_gradient(g),
    "random mask": lambda g: jnp.where(jax.random.bernoulli(key, 0.5, g.shape), g, 0.0),
    "gather": lambda g: g.at[:, np.array([2, 0, 5])].get(mode="fill", fill_value=0.0),
}


@pytest.mark.parametrize("back", BACKWARD.values(), ids=BACKWARD)
def test_rules_that_are_linear_in_their_cotangents(back):
    fun = _custom(lambda z, q: z, lambda g: (back(g), jnp.zeros_like(g)))
    x, w = array(1, B, 3), array(2, 3, 3)

    def losses_fn(w):
        z = x @ w
        return jnp.sum(fun(z, z) ** 2, 1)

    assert ltjax.linearize(losses_fn, w)[1].method == "intercept"
    assert_products(losses_fn, w)


def test_gather_that_fills_in_a_number_is_not_linear():
    fun = _custom(
        lambda z, q: z,
        lambda g: (
            g.at[:, np.array([2, 0, 5])].get(mode="fill", fill_value=1.0),
            jnp.zeros_like(g),
        ),
    )
    x, w = array(1, B, 3), array(2, 3, 3)
    with pytest.raises(ValueError, match="not linear in its cotangents"):
        ltjax.linearize(lambda w: jnp.sum(fun(x @ w, x @ w) ** 2, 1), w)


def test_rules_that_no_derivative_goes_through():
    clipped = _custom(lambda z, q: z, lambda g: (jnp.clip(g, -1, 1), g))
    outer = _custom(lambda z, q: clipped(z, q), lambda g: (2 * g, jnp.zeros_like(g)))
    x, w = array(1, B, 3), array(2, 3, 3)

    def losses_fn(w):
        z = x @ w
        held = lax.stop_gradient(clipped(z, z))
        return jnp.sum(outer(z, z) ** 2 + z * held, 1)

    assert_products(losses_fn, w)


def test_rule_that_sends_cotangents_to_other_examples():
    x, w = array(1, B, 3), array(2, 3, 3)

    def losses_fn(w):
        z = x @ w
        return jnp.sum(straight_through(z[::-1], z) ** 2, 1)

    assert jacobian(losses_fn, w).method == "linearize"
    assert_products(losses_fn, w)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda f: f,
        jax.checkpoint,
        lambda f: lambda h: lax.scan(lambda c, _: (f(c), None), h, length=1)[0],
    ],
)
def test_shared_cotangents_reach_examples(wrap):
    """A rule with a shared and a per-example output mixes the two."""
    two = jax.custom_vjp(lambda a, c: (a * 2, c))
    two.defvjp(
        lambda a, c: ((a * 2, c), None),
        lambda _, g: (jnp.zeros_like(g[0]), g[1] + g[0]),
    )
    x, w = array(1, B, 3), array(2, 3, 3)

    def inner(h):
        s, c = two(x, h)
        return c - s.mean(0)[None]

    def losses_fn(w):
        return jnp.sum(wrap(inner)(x @ w) ** 2, 1)

    assert jacobian(losses_fn, w).method == "linearize"
    assert_products(losses_fn, w)


NOT_LINEAR = {
    "constant": lambda g: (g, jnp.ones_like(g)),
    "clipped": lambda g: (jnp.clip(g, -0.1, 0.1), g),
    "normalised": lambda g: (g / jnp.linalg.norm(g), g),
    "sign": lambda g: (jnp.sign(g), g),
    "chosen": lambda g: (jnp.where(g > 0, g, 2 * g), g),
    "relu": lambda g: (jax.nn.relu(g), g),
}


@pytest.mark.parametrize("back", NOT_LINEAR.values(), ids=NOT_LINEAR)
@pytest.mark.parametrize("nested", [False, True])
def test_rules_that_are_not_linear_are_refused(back, nested):
    x, w = array(1, B, 3), array(2, 3, 3)
    fun = _custom(lambda z, q: z, back)
    fun = jax.checkpoint(fun) if nested else fun

    def losses_fn(w):
        return jnp.sum(fun(x @ w, x @ w) ** 2, 1)

    with pytest.raises(
        ValueError, match=r"not linear in its cotangents.*custom_vjp_call"
    ):
        jacobian(losses_fn, w)
    weights = jnp.arange(1.0, B + 1)

    @jax.jit
    def products(w):
        _, jac = ltjax.linearize(losses_fn, w, method="linearize")
        before, norms = jac.vjp(weights), jac.norms(definition="row")
        with pytest.raises(ValueError, match="jvp is not possible here"):
            jac.jvp(w)
        return before, norms, jac.vjp(weights)

    @jax.jit
    def reference(w):
        return jax.vjp(losses_fn, w)[1](weights)[0], jax.jacrev(losses_fn)(w)

    before, norms, after = products(w)
    expected, rows = reference(w)
    np.testing.assert_allclose(before, expected, rtol=1e-12)
    np.testing.assert_allclose(after, expected, rtol=1e-12)
    rows = np.reshape(rows, (B, -1))
    np.testing.assert_allclose(norms, np.linalg.norm(rows, axis=1), rtol=1e-10)


def test_a_rule_that_is_not_linear_does_not_matter_where_no_parameter_is():
    x, w = array(1, B, 3), array(2, 3, 3)
    fun = _custom(lambda z, q: z, NOT_LINEAR["clipped"])
    assert_products(lambda w: jnp.sum((fun(x, x) @ w) ** 2, 1), w)


@pytest.mark.parametrize("rule", ["raises", "clips"])
def test_a_rule_inside_a_function_with_its_own_does_not_matter(rule):
    def back(g):
        if rule == "raises":
            raise NotImplementedError("never used")
        return jnp.clip(g, -0.1, 0.1), g

    inner = _custom(lambda z, q: z * 2, back)
    outer = _custom(lambda z, q: inner(z, q), lambda g: (2 * g, jnp.zeros_like(g)))
    x, w = array(1, B, 3), array(2, 3, 3)
    assert_products(lambda w: jnp.sum(outer(x @ w, x @ w) ** 2, 1), w)


@jax.custom_jvp
def _forward_rule(data, h):
    return data * h


def _forward_rule_jvp(primals, tangents):
    if type(tangents[0]) is not jax.custom_derivatives.SymbolicZero:
        raise NotImplementedError("no derivative of data")
    return _forward_rule(*primals), primals[0] * tangents[1]


_forward_rule.defjvp(_forward_rule_jvp, symbolic_zeros=True)


@jax.custom_vjp
def _backward_rule(data, h):
    return data * h


def _backward_rule_fwd(data, h):
    if data.perturbed:
        raise NotImplementedError("no derivative of data")
    return data.value * h.value, data.value


_backward_rule.defvjp(
    _backward_rule_fwd, lambda data, g: (None, data * g), symbolic_zeros=True
)


@pytest.mark.parametrize("fun", [_forward_rule, _backward_rule])
def test_rules_that_see_which_operands_are_perturbed(fun):
    x, w = array(1, B, 3), array(2, 3, 3)

    def losses_fn(w):
        return jnp.sum(fun(x, x @ w) ** 2, 1)

    _, jac = ltjax.linearize(losses_fn, w)
    assert jac.method == "linearize"
    assert_products(losses_fn, w)
    with pytest.raises(NotImplementedError, match="no derivative of data"):
        ltjax.linearize(lambda w: jnp.sum(fun(x @ w, x) ** 2, 1), w)


def test_symbolic_zeros_that_mix_examples():
    """The rule keeps examples apart only where data are perturbed as well."""
    fun = jax.custom_jvp(lambda data, h: h)

    def rule(primals, tangents):
        zero = type(tangents[0]) is jax.custom_derivatives.SymbolicZero
        return primals[1], tangents[1][::-1] if zero else tangents[1]

    fun.defjvp(rule, symbolic_zeros=True)
    x, w = array(1, B, 3), array(2, 3, 3)
    assert_products(lambda w: jnp.sum(fun(x, x @ w) ** 2, 1), w)


def test_auxiliary_loss_added_by_a_rule_is_refused():
    add = jax.custom_vjp(lambda y, aux: y)
    add.defvjp(lambda y, aux: (y, None), lambda _, g: (g, jnp.ones(())))
    x, w = array(1, B, 3), array(2, 3, 3)
    with pytest.raises(ValueError, match="part of the losses"):
        jacobian(lambda w: jnp.sum(add(x @ w, 0.1 * jnp.sum(w**2)) ** 2, 1), w)


def test_parameters_inside_a_rule_have_products_by_transposition():
    @jax.custom_vjp
    def dense(x, w):
        return x @ w

    dense.defvjp(lambda x, w: (x @ w, (x, w)), lambda r, g: (g @ r[1].T, r[0].T @ g))
    x, w = array(1, B, 3), array(2, 3, 3)

    def losses_fn(w):
        return jnp.sum(jnp.tanh(dense(jnp.tanh(dense(x, w)), w)) ** 2, 1)

    assert "custom_vjp of parameters" in jacobian(losses_fn, w).reason
    assert_products(losses_fn, w)


LINEARITY = {
    "linear": (lambda g: (2 * g[::-1], jnp.sum(g, keepdims=True)[0]), [LINEAR, LINEAR]),
    "zero": (lambda g: (jnp.zeros_like(g), g.at[0].set(0)), [ZERO, LINEAR]),
    "constant": (lambda g: (jnp.ones_like(g), g + 1), [NONLINEAR, NONLINEAR]),
    "scattered": (
        lambda g: (jnp.zeros_like(g).at[1].add(g[0]), g * g),
        [LINEAR, NONLINEAR],
    ),
    "padded": (
        lambda g: (jnp.pad(g, (1, 0)), jnp.pad(g, (1, 0), constant_values=1.0)),
        [LINEAR, NONLINEAR],
    ),
    "loop": (
        lambda g: (lax.fori_loop(0, 2, lambda _, c: c * g, g), g.astype(jnp.int32)),
        [NONLINEAR, UNKNOWN],
    ),
    "recurrence": (
        lambda g: lax.scan(lambda c, x: (0.5 * c + x, c), jnp.zeros(()), g),
        [LINEAR, LINEAR],
    ),
    "recurrence from one": (
        lambda g: lax.scan(lambda c, x: (0.5 * c + x, x), jnp.ones(()), g),
        [NONLINEAR, LINEAR],
    ),
    "while": (
        lambda g: (lax.while_loop(lambda c: c[0] < 1, lambda c: 2 * c, g),),
        [UNKNOWN],
    ),
}


@pytest.mark.parametrize(("fun", "expected"), LINEARITY.values(), ids=LINEARITY)
def test_linearity_of_programs(fun, expected):
    program, _ = trace(fun, jnp.ones(3))
    assert linearity(program, 0) == expected


def test_inputs_that_are_skipped_count_as_constants():
    program, _ = trace(lambda a, g: (a * g, a * a, a + g), jnp.ones(3), jnp.ones(3))
    assert linearity(program, 1) == [LINEAR, NONLINEAR, NONLINEAR]


def test_backward_rule_of_integers_is_zero():
    fun = jax.custom_vjp(lambda x, i: x * i.astype(x.dtype))
    fun.defvjp(lambda x, i: (x * i.astype(x.dtype), i), lambda i, g: (g * 2, None))
    program, _ = trace(fun, jnp.ones(3), jnp.arange(3))
    (op,) = [op for op in program.ops if op.name == "custom_vjp_call"]
    assert linearity(backward(op), 2) == [LINEAR, ZERO]
