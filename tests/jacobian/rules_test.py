"""Every rule, one primitive at a time: what it answers, and that the answer is true.

A rule claims that a block of the result depends on one block of each operand that has a
batch axis. The claim is tested by changing all other blocks. Each primitive with a rule
has a case where examples are followed and one where the rule must refuse.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import ltjax
from ltjax.jacobian import _rules
from ltjax.jacobian._constants import Constants
from ltjax.jacobian._independence import operand_axes
from ltjax.jacobian._jaxpr import read, run, shape_of, trace
from ltjax.jacobian._rules import BOTH, ELEMENTWISE, SHARED
from tests.jacobian.reference import assert_products, jacobian
from tests.jacobian.rule_cases import FOLLOWED, REFUSED, B, S, array, integers

# With rules tested elsewhere: only in some versions of JAX, or in files of their own.
ELSEWHERE = {
    *("stack", "unstack", "custom_vjp_call", "remat", "remat2", "scatter_add"),
    *("reshard", "pvary", "pcast", "mesh_cast", "shard_map", "all_gather"),
    *("psum", "psum_invariant", "pmax", "pmin", "ppermute"),
}
# A reduction over the examples has no axis of examples to ask about.
REDUCTIONS = {n for n in FOLLOWED if n.startswith("reduce_") and "window" not in n} | {
    *("argmax", "argmin")
}


LAX_NAMES = {
    "and": lambda x, y: lax.bitwise_and(x, y),
    "or": lambda x, y: lax.bitwise_or(x, y),
    "xor": lambda x, y: lax.bitwise_xor(x, y),
    "not": lambda x: lax.bitwise_not(x),
    "convert_element_type": lambda x: lax.convert_element_type(x, jnp.int32),
    "integer_pow": lambda x: lax.integer_pow(x, 3),
    "select_n": lambda p, x, y: lax.select_n(p > 0, x, y),
    "reduce_precision": lambda x: lax.reduce_precision(x, 5, 4),
    "copy": lambda x: jnp.copy(x),
    "clamp": lambda a, x, b: lax.clamp(a, x, b),
    "regularized_incomplete_beta": lambda a, b, x: lax.betainc(a, b, x),
    "name": lambda x: checkpoint_name(x, "kept"),
}
INTEGERS = {
    *("and", "or", "xor", "not", "clz", "population_count"),
    *("shift_left", "shift_right_arithmetic", "shift_right_logical"),
}
COMPLEX = {"real", "imag", "conj"}
# Not made by any function of jax.lax, or an alias of another name here.
UNREACHABLE = {"add_any", "copy_p", "stop_gradient"}


def _operands(name):
    count = {
        **dict.fromkeys(["clamp", "select_n", "regularized_incomplete_beta"], 3),
        **dict.fromkeys(
            [
                *("add", "and", "atan2", "complex", "div", "eq", "ge", "gt", "igamma"),
                *("igammac", "le", "lt", "max", "min", "mul", "ne", "nextafter", "or"),
                *("polygamma", "pow", "rem", "shift_left", "shift_right_arithmetic"),
                *("shift_right_logical", "sub", "xor", "zeta"),
            ],
            2,
        ),
    }.get(name, 1)
    if name in INTEGERS:
        return [integers(k, B, 4) for k in range(count)]
    floats = [abs(array(k, B, 4)) for k in range(count)]
    return [lax.complex(x, x) for x in floats] if name in COMPLEX else floats


def _trace(fun, shapes, name):
    arguments = (
        list(shapes)
        if shapes and isinstance(shapes[0], jax.Array)
        else [array(k, *shape) for k, shape in enumerate(shapes)]
    )
    program, _ = trace(fun, *arguments)
    env = dict(program.consts)
    env.update(zip(program.inputs, arguments, strict=True))
    run(program.ops, env)
    aliases = {"checkpoint": ("checkpoint", "remat", "remat2")}.get(name, (name,))
    found = [op for op in program.ops if op.name in (*aliases, name.replace("-", "_"))]
    assert found, [op.name for op in program.ops]
    return program, found[-1], env


def _ask(program, op, axis):
    axes = [axis if len(v.shape) > axis else None for v in op.outputs]
    return operand_axes(op, axes, B, Constants(program))


def _blocks(x, axis):
    return np.split(np.asarray(x), B, axis)


def _assert_true(op, env, axis, answer):
    """Each block of the results stays as it is when all other blocks change."""
    operands = [np.asarray(read(env, a)) for a in op.inputs]
    results = op.bind(*map(jnp.asarray, operands))
    for example in range(B):
        changed = []
        for x, at in zip(operands, answer, strict=True):
            if isinstance(at, int):
                assert x.shape[at] % B == 0
                blocks = _blocks(x, at)
                blocks = [
                    b if k == example else _other(b) for k, b in enumerate(blocks)
                ]
                x = np.concatenate(blocks, at)
            changed.append(jnp.asarray(x))
        for old, new in zip(results, op.bind(*changed), strict=True):
            # Series that stop once all elements converge leave a rounding error.
            np.testing.assert_allclose(
                _blocks(old, axis)[example], _blocks(new, axis)[example], rtol=1e-5
            )


def _other(block):
    if block.dtype == bool:
        return ~block
    return block if np.issubdtype(block.dtype, np.integer) else 1 - block


CASES = [(name, *case) for name, cases in FOLLOWED.items() for case in cases]


@pytest.mark.parametrize(
    ("name", "fun", "shapes", "axis", "expected"),
    CASES,
    ids=[f"{case[0]}-{k}" for k, case in enumerate(CASES)],
)
def test_examples_are_followed(name, fun, shapes, axis, expected):
    program, op, env = _trace(fun, shapes, name)
    answer = _ask(program, op, axis)
    for got, wanted in zip(answer, expected, strict=True):
        assert wanted is None or got == wanted
    _assert_true(op, env, axis, answer)


@pytest.mark.parametrize(
    ("parts", "size"),
    [
        (lambda x: jnp.unstack(x, axis=2), 2),
        (lambda x: lax.split(x, (1, 1), 2), 2),
        (lambda x: lax.sort((x, x**2), dimension=2), 2),
        (lambda x: jnp.linalg.qr(x), B),
        (lambda x: lax.optimization_barrier((x, x)), 2),
    ],
    ids=["unstack", "split", "sort", "qr", "optimization_barrier"],
)
def test_results_that_are_used_along_different_axes(parts, size, x64):
    x = jnp.asarray(array(1, B, B, size), jnp.float64)

    def losses_fn(p):
        a, b = parts(x * (1 + p))
        b = jnp.moveaxis(b, 1, 0)
        return jnp.sin(a).reshape(B, -1).sum(1) + b.reshape(B, -1).sum(1)

    assert_products(losses_fn, jnp.asarray(array(2, B, 1, 1), jnp.float64))


def test_systems_of_equations(x64):
    x = jnp.asarray(array(1, B, 2, 2), jnp.float64)
    params = {k: jnp.asarray(array(i, 2, 2), jnp.float64) for i, k in enumerate("ab")}

    def own(p):
        m = jnp.tanh(x @ p["a"])
        solved = jnp.linalg.solve(m + jnp.broadcast_to(3 * jnp.eye(2), m.shape), x @ m)
        return jnp.sin(solved).reshape(B, -1).sum(1)

    def shared(p):
        m = 3 * jnp.eye(2) + jnp.tanh(p["a"])
        solved = jnp.linalg.solve(m, x.transpose(1, 0, 2).reshape(2, -1))
        return jnp.sin(solved).T.reshape(B, -1).sum(1)

    assert_products(own, params)
    assert ltjax.linearize(own, params)[1].norms().shape == (B,)
    with pytest.raises(ValueError, match="not known to stay apart in custom_linear"):
        ltjax.linearize(shared, params)[1].norms()


@pytest.mark.parametrize("name", [n for n, case in REFUSED.items() if case])
def test_examples_that_may_meet_are_refused(name):
    fun, shapes, axis = REFUSED[name]
    program, op, _ = _trace(fun, shapes, name)
    answer = _ask(program, op, axis)
    if answer is not None:
        arrays = [a for a, v in zip(answer, op.inputs, strict=True) if shape_of(v)]
        assert {SHARED, BOTH} & {*arrays}


def test_largest_of_all_examples_are_refused(x64):
    x, w = (jnp.asarray(array(*a), jnp.float64) for a in ((0, B, 3), (1, 3, 4)))

    def losses_fn(w):
        return lax.top_k(x @ w, B, axis=0)[0].sum(1)

    assert jacobian(losses_fn, w).method == "linearize"
    assert_products(losses_fn, w, definition="row")


@pytest.mark.parametrize("name", sorted(ELEMENTWISE - UNREACHABLE))
def test_elementwise(name):
    fun = LAX_NAMES.get(name) or getattr(lax, name)
    program, op, env = _trace(fun, _operands(name), name)
    answer = _ask(program, op, 0)
    assert answer == [0] * len(op.inputs)
    _assert_true(op, env, 0, answer)


def test_elementwise_scalars_are_shared():
    program, op, _ = _trace(lambda x, a: lax.clamp(0.0, x, a), [(B, 4), ()], "clamp")
    assert _ask(program, op, 0) == [S, 0, S]


def test_every_rule_is_tested():
    tested = {*FOLLOWED, *ELEMENTWISE, *ELSEWHERE}
    assert set(_rules.names()) <= tested
    assert {*FOLLOWED} - REDUCTIONS <= {*REFUSED}


def test_a_primitive_without_a_rule_is_not_followed():
    def reduced(x):
        return lax.reduce(x, jnp.float32(0), lambda a, b: a + b * b, (1,))

    program, op, _ = _trace(reduced, [(B, 2)], "reduce")
    assert _ask(program, op, 0) is None
