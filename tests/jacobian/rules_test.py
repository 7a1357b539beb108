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

from ltjax.jacobian import _rules
from ltjax.jacobian._constants import Constants
from ltjax.jacobian._independence import operand_axes
from ltjax.jacobian._jaxpr import read, run, shape_of, trace
from ltjax.jacobian._rules import ELEMENTWISE, SHARED
from tests.jacobian.reference import assert_products

B = 3
S = SHARED

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
        return [_integers(k, B, 4) for k in range(count)]
    floats = [abs(_array(k, B, 4)) for k in range(count)]
    return [lax.complex(x, x) for x in floats] if name in COMPLEX else floats


def _array(seed, *shape):
    values = np.random.default_rng(seed).uniform(0.1, 0.9, size=shape)
    return jnp.asarray(values, jnp.float32)


def _integers(seed, *shape):
    values = np.random.default_rng(seed).integers(1, 9, size=shape)
    return jnp.asarray(values, jnp.int32)


def _window(shape, window, strides=(1, 1), padding=((0, 0), (0, 0))):
    return lambda x: lax.reduce_window(x, 0.0, lax.add, window, strides, padding)


def _conv(numbers, groups=1, batch_groups=1):
    return lambda x, k: lax.conv_general_dilated(
        x,
        k,
        (1,),
        "SAME",
        dimension_numbers=numbers,
        feature_group_count=groups,
        batch_group_count=batch_groups,
    )


_NWC = ("NWC", "WIO", "NWC")
_COUNT = np.arange(B)
_PLACE = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
_TWICE = np.array([0, 1, 1])


def _put(method, index):
    return lambda x, u: getattr(x.at[index], method)(u)


# primitive: (function, shapes of its arguments, axis of the result, axes of operands)
FOLLOWED = {
    "optimization_barrier": [
        (lambda x: lax.optimization_barrier((x, x)), [(B, 2)], 0, [0, 0])
    ],
    "broadcast_in_dim": [
        (lambda x: jnp.broadcast_to(x[:, None], (B, 2)), [(B,)], 0, [0]),
        (lambda x: jnp.broadcast_to(x[None], (2, B)), [(B,)], 1, [1]),
    ],
    "reshape": [
        (lambda x: x.reshape(B, 8), [(B, 2, 4)], 0, [0]),
        (lambda x: x.reshape(2 * B, 4), [(B, 2, 4)], 0, [0]),
        (lambda x: x.reshape(B, 2, 4), [(2 * B, 4)], 0, [0]),
        (lambda x: x.reshape(2, B, 2, 2), [(2, B, 4)], 1, [1]),
    ],
    "squeeze": [(lambda x: lax.squeeze(x, (0,)), [(1, B, 2)], 0, [1])],
    "transpose": [(lambda x: x.transpose(1, 2, 0), [(B, 2, 4)], 2, [0])],
    **{
        name: [(fun, [(2, B, 4)], 0, [1])]
        for name, fun in {
            "reduce_sum": lambda x: x.sum((0, 2)),
            "reduce_max": lambda x: x.max((0, 2)),
            "reduce_min": lambda x: x.min((0, 2)),
            "reduce_prod": lambda x: x.prod((0, 2)),
            "reduce_and": lambda x: jnp.all(x > 0.5, (0, 2)),
            "reduce_or": lambda x: jnp.any(x > 0.5, (0, 2)),
            "reduce_xor": lambda x: lax.reduce_xor(_bits(x), (0, 2)),
        }.items()
    },
    "argmax": [(lambda x: jnp.argmax(x, 1), [(B, 4)], 0, [0])],
    "argmin": [(lambda x: jnp.argmin(x, 0), [(4, B)], 0, [1])],
    **{
        name: [(fun, [(B, 4)], 0, [0])]
        for name, fun in {
            "cumsum": lambda x: lax.cumsum(x, 1),
            "cumprod": lambda x: lax.cumprod(x, 1),
            "cummax": lambda x: lax.cummax(x, 1),
            "cummin": lambda x: lax.cummin(x, 1),
            "cumlogsumexp": lambda x: lax.cumlogsumexp(x, 1),
        }.items()
    },
    "sort": [
        (lambda x: jnp.sort(x, 1), [(B, 4)], 0, [0]),
        (lambda x, y: lax.sort((x, y), dimension=0), [(4, B), (4, B)], 1, [1, 1]),
    ],
    "top_k": [(lambda x: lax.top_k(x, 2), [(B, 4)], 0, [0])],
    "split": [(lambda x: jnp.split(x, 2, 1), [(B, 4)], 0, [0])],
    "dot_general": [
        (lambda x, w: x @ w, [(B, 4), (4, 2)], 0, [0, S]),
        (lambda w, x: w @ x, [(2, 4), (4, B)], 1, [S, 1]),
        (
            lambda x, y: jnp.einsum("bij,bjk->bik", x, y),
            [(B, 2, 4), (B, 4, 2)],
            0,
            [0, 0],
        ),
        (lambda x, w: x.reshape(-1, 4) @ w, [(B, 2, 4), (4, 2)], 0, [0, S]),
    ],
    "conv_general_dilated": [
        (_conv(_NWC), [(B, 5, 2), (3, 2, 4)], 0, [0, S]),
        (_conv(_NWC, groups=2), [(B, 5, 4), (3, 2, 4)], 0, [0, S]),
        (_conv(("WNC", "WIO", "WNC")), [(5, B, 2), (3, 2, 4)], 1, [1, S]),
        (_conv(_NWC), [(2, 5, 2), (3, 2, 2 * B)], 2, [S, 2]),
        (_conv(_NWC, groups=B), [(2, 5, 2 * B), (3, 2, 4 * B)], 2, [2, 2]),
    ],
    "pad": [(lambda x: lax.pad(x, 0.0, ((0, 0, 0), (1, 2, 1))), [(B, 4)], 0, [0, S])],
    "slice": [(lambda x: x[:, 1:3], [(B, 4)], 0, [0])],
    "dynamic_slice": [
        (
            lambda x, i: lax.dynamic_slice(x, (_index(i), _index(i)), (B, 2)),
            [(B, 4), ()],
            0,
            [0, S, S],
        )
    ],
    "dynamic_update_slice": [
        (
            lambda x, u, i: lax.dynamic_update_slice(x, u, (_index(i), _index(i))),
            [(B, 4), (B, 2), ()],
            0,
            [0, 0, S, S],
        )
    ],
    "concatenate": [
        (lambda x, y: jnp.concatenate([x, y], 1), [(B, 4), (B, 2)], 0, [0, 0])
    ],
    "rev": [(lambda x: x[:, ::-1], [(B, 4)], 0, [0])],
    "reduce_window_sum": [(_window((B, 4), (1, 2)), [(B, 4)], 0, [0])],
    "reduce_window_max": [
        (
            lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2), (1, 2), "VALID"),
            [(B, 4)],
            0,
            [0],
        )
    ],
    "reduce_window_min": [
        (
            lambda x: lax.reduce_window(x, jnp.inf, lax.min, (1, 2), (1, 2), "VALID"),
            [(B, 4)],
            0,
            [0],
        )
    ],
    "fft": [(lambda x: jnp.fft.rfft(x, axis=1).real, [(B, 4)], 0, [0])],
    "gather": [
        (lambda t: t[jnp.array([[0, 2], [1, 1], [0, 0]])], [(5, 2)], 0, [S, 0]),
        (lambda x: x[_COUNT, jnp.array([1, 0, 2])], [(B, 4)], 0, [0, 0]),
        (lambda x: x[jnp.arange(B), jnp.array([1, 0, 2])], [(B, 4)], 0, [0, 0]),
        (lambda x: x[:, jnp.array([1, 1])], [(B, 4)], 0, [0, S]),
        (
            lambda x, i: jnp.take_along_axis(x, _index(i)[:, None], 1),
            [(B, 4), (B,)],
            0,
            [0, 0],
        ),
    ],
    "scatter": [
        (_put("set", (_COUNT, np.array([1, 0, 2]))), [(B, 4), (B,)], 0, [0, 0, 0]),
        (_put("set", (slice(None), np.array([1, 0]))), [(B, 4), (B, 2)], 0, [0, S, 0]),
    ],
    "scatter-add": [
        (_put("add", (_COUNT, np.array([1, 0, 2]))), [(B, 4), (B,)], 0, [0, 0, 0]),
        (_put("add", (slice(None), np.array([1, 0]))), [(B, 4), (B, 2)], 0, [0, S, 0]),
        (
            lambda x, u: jax.vmap(lambda x, u: x.at[jnp.array([0, 0])].add(u))(x, u),
            [(B, 4), (B, 2)],
            0,
            [0, None, 0],
        ),
    ],
    **{
        f"scatter-{name}": [
            (_put(method, (_COUNT, np.array([1, 0, 2]))), [(B, 4), (B,)], 0, [0, 0, 0])
        ]
        for name, method in {
            "sub": "subtract",
            "mul": "multiply",
            "min": "min",
            "max": "max",
        }.items()
    },
    "tile": [
        (lambda x: jnp.tile(x, (1, 2)), [(B, 4)], 0, [0]),
        (lambda x: jnp.tile(x, (2, 1)), [(2, B)], 1, [1]),
    ],
    "approx_top_k": [(lambda x: lax.approx_max_k(x, 2), [(B, 4)], 0, [0])],
    **{
        name: [(fun, [(B, 2, 2)], 0, [0])]
        for name, fun in {
            "cholesky": lambda x: lax.linalg.cholesky(_definite(x)),
            "eigh": lambda x: lax.linalg.eigh(_definite(x)),
            "eig": lambda x: lax.linalg.eig(x),
            "lu": lambda x: lax.linalg.lu(x),
            "qr": lambda x: lax.linalg.qr(x),
            "svd": lambda x: lax.linalg.svd(x),
        }.items()
    },
    "householder_product": [
        (lax.linalg.householder_product, [(B, 2, 2), (B, 2)], 0, [0, 0])
    ],
    "triangular_solve": [
        (
            lambda a, b: lax.linalg.triangular_solve(a, b, left_side=True),
            [(B, 2, 2), (B, 2, 3)],
            0,
            [0, 0],
        )
    ],
    "tridiagonal_solve": [
        (
            lambda d, b: lax.linalg.tridiagonal_solve(d, d + 4, d, b),
            [(B, 3), (B, 3, 2)],
            0,
            [0, 0, 0, 0],
        )
    ],
    "sharding_constraint": [
        (lambda x: lax.with_sharding_constraint(x, _PLACE), [(B, 4)], 0, [0])
    ],
    "checkpoint": [
        (jax.checkpoint(lambda x, w: jnp.tanh(x @ w)), [(B, 4), (4, 2)], 0, [0, S])
    ],
    "cond": [
        (
            lambda i, x: lax.cond(i > 0, jnp.sin, lambda y: 2 * y, x),
            [(), (B, 4)],
            0,
            [S, 0],
        )
    ],
    "scan": [
        (
            lambda x, w: lax.scan(lambda h, v: (jnp.tanh(h @ v), None), x, w)[0],
            [(B, 4), (2, 4, 4)],
            0,
            [0, S],
        ),
        (lambda x: lax.map(lambda r: jnp.cumsum(r), x), [(B, 4)], 0, [0]),
    ],
    "custom_jvp_call": [(jax.nn.relu, [(B, 4)], 0, [0])],
}


def _definite(x):
    return x @ x.swapaxes(1, 2) + jnp.eye(2)[None]


def _bits(x):
    return (x > 0.5).astype(jnp.int32)


def _index(i):
    return i.astype(jnp.int32)


_SCRAMBLED = np.array([2, 0, 1])
# The same, where the axis of the examples cannot be followed.
REFUSED = {
    "broadcast_in_dim": (lambda x: jnp.broadcast_to(x, (B, B)), [(B,)], 0),
    "reshape": (lambda x: x.reshape(2 * B, 4), [(2, B, 4)], 0),
    "squeeze": None,  # moves axes only
    "transpose": None,
    "optimization_barrier": None,
    "cumsum": (lambda x: lax.cumsum(x, 0), [(B, 4)], 0),
    "cumprod": (lambda x: lax.cumprod(x, 0), [(B, 4)], 0),
    "cummax": (lambda x: lax.cummax(x, 0), [(B, 4)], 0),
    "cummin": (lambda x: lax.cummin(x, 0), [(B, 4)], 0),
    "cumlogsumexp": (lambda x: lax.cumlogsumexp(x, 0), [(B, 4)], 0),
    "sort": (lambda x: jnp.sort(x, 0), [(B, 4)], 0),
    "top_k": (lambda x: lax.top_k(x, B), [(2, 2 * B)], 1),
    "split": (lambda x: jnp.split(x, 2, 0), [(2 * B, 4)], 0),
    "dot_general": (lambda x: x @ x.T, [(B, 4)], 0),
    "conv_general_dilated": (_conv(_NWC), [(2, B, 2), (3, 2, 4)], 1),
    "pad": (lambda x: lax.pad(x, 0.0, ((1, -1, 0), (0, 0, 0))), [(B, 4)], 0),
    "slice": (lambda x: x[:B], [(2 * B, 4)], 0),
    "dynamic_slice": (
        lambda x, i: lax.dynamic_slice(x, (_index(i), _index(i)), (B, 2)),
        [(2 * B, 4), ()],
        0,
    ),
    "dynamic_update_slice": (
        lambda x, u, i: lax.dynamic_update_slice(x, u, (_index(i), _index(i))),
        [(B, 4), (2, 4), ()],
        0,
    ),
    "concatenate": (
        lambda x, y: jnp.concatenate([x, y], 0),
        [(1, 4), (2, 4)],
        0,
    ),
    "rev": (lambda x: x[::-1], [(B, 4)], 0),
    "reduce_window_sum": (
        _window((B, 4), (2, 1), padding=((1, 0), (0, 0))),
        [(B, 4)],
        0,
    ),
    "reduce_window_max": (
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 1), (2, 1), "VALID"),
        [(2 * B, 4)],
        0,
    ),
    "reduce_window_min": (
        lambda x: lax.reduce_window(x, jnp.inf, lax.min, (3, 1), (1, 1), "SAME"),
        [(B, 4)],
        0,
    ),
    "fft": (lambda x: jnp.fft.fft(x, axis=-1).real, [(4, B)], 1),
    "gather": (lambda x: x[jnp.array([1, 0, 2])], [(B, 4)], 0),
    "scatter": (_put("set", np.array([1, 0, 2])), [(B, 4), (B, 4)], 0),
    "scatter-add": (_put("add", _TWICE), [(B, 4), (B, 4)], 0),
    **{
        f"scatter-{name}": (_put(method, _SCRAMBLED), [(B, 4), (B, 4)], 0)
        for name, method in {
            "sub": "subtract",
            "mul": "multiply",
            "min": "min",
            "max": "max",
        }.items()
    },
    "tile": (lambda x: jnp.tile(x, (B, 1)), [(2, 4)], 0),
    "approx_top_k": (
        lambda x: lax.approx_max_k(x, B, reduction_dimension=0),
        [(2 * B, 4)],
        0,
    ),
    "cholesky": (lax.linalg.cholesky, [(2, B, B)], 1),
    "eigh": (lax.linalg.eigh, [(2, B, B)], 1),
    "eig": (lax.linalg.eig, [(2, B, B)], 1),
    "lu": (lax.linalg.lu, [(2, B, B)], 1),
    "qr": (lax.linalg.qr, [(2, B, B)], 1),
    "svd": (lax.linalg.svd, [(2, B, B)], 1),
    "householder_product": (lax.linalg.householder_product, [(2, B, B), (2, B)], 1),
    "triangular_solve": (lax.linalg.triangular_solve, [(2, B, B), (2, B, B)], 1),
    "tridiagonal_solve": (
        lambda d, b: lax.linalg.tridiagonal_solve(d, d + 4, d, b),
        [(2, B), (2, B, 2)],
        1,
    ),
    "sharding_constraint": None,
    "checkpoint": (jax.checkpoint(lambda x: x - x.sum(0)[None]), [(B, 4)], 0),
    "cond": (
        lambda i, x: lax.cond(i > 0, jnp.sin, lambda y: y[::-1], x),
        [(), (B, 4)],
        0,
    ),
    "scan": (
        lambda x: lax.scan(lambda h, _: (h - h.sum(0)[None], None), x, length=2)[0],
        [(B, 4)],
        0,
    ),
    "custom_jvp_call": (
        jax.custom_jvp(lambda x: x - x.sum(0)[None]),
        [(B, 4)],
        0,
    ),
}
REFUSED["custom_jvp_call"][0].defjvp(lambda x, t: (x[0] - x[0].sum(0)[None], t[0]))
# With rules tested elsewhere: only in some versions of JAX, or in files of their own.
ELSEWHERE = {
    *("stack", "unstack", "custom_vjp_call", "remat", "remat2", "scatter_add"),
    *("reshard", "pvary", "pcast", "mesh_cast"),
}
# A reduction over the examples has no axis of examples to ask about.
REDUCTIONS = {n for n in FOLLOWED if n.startswith("reduce_") and "window" not in n} | {
    *("argmax", "argmin")
}


def _trace(fun, shapes, name):
    arguments = (
        list(shapes)
        if shapes and isinstance(shapes[0], jax.Array)
        else [_array(k, *shape) for k, shape in enumerate(shapes)]
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
    x = jnp.asarray(_array(1, B, B, size), jnp.float64)

    def losses_fn(p):
        a, b = parts(x * (1 + p))
        b = jnp.moveaxis(b, 1, 0)
        return jnp.sin(a).reshape(B, -1).sum(1) + b.reshape(B, -1).sum(1)

    assert_products(losses_fn, jnp.asarray(_array(2, B, 1, 1), jnp.float64))


@pytest.mark.parametrize("name", [n for n, case in REFUSED.items() if case])
def test_examples_that_may_meet_are_refused(name):
    fun, shapes, axis = REFUSED[name]
    program, op, _ = _trace(fun, shapes, name)
    answer = _ask(program, op, axis)
    if answer is not None:
        arrays = [a for a, v in zip(answer, op.inputs, strict=True) if shape_of(v)]
        assert SHARED in arrays


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
    solve = "custom_linear_solve"
    program, op, _ = _trace(jnp.linalg.solve, [(B, 2, 2), (B, 2, 1)], solve)
    assert _ask(program, op, 0) is None
