"""Random programs are exact or refused, and the search for others can find some."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltjax.jacobian._kinds import InterceptedJacobian, LinearizedJacobian
from tests.jacobian import random_programs
from tests.jacobian.programs import check, generate, networks, shrink
from tests.jacobian.programs.evaluate import evaluate
from tests.jacobian.programs.registry import OPERATIONS
from tests.jacobian.programs.source import Program, Reject, Scope

CHUNKS, SIZE = 24, 10

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def usual_promotion(strict_promotion, x64):
    """Programs are users' programs, which promote as they like."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_programs_are_exact_or_refused(chunk):
    for index in range(SIZE * chunk, SIZE * (chunk + 1)):
        result = random_programs.run(0, index, shrink_it=False)
        assert not result.report, result.report


def test_compiled_programs_give_the_same():
    """What NumPy finds about a program is what XLA finds."""
    compared = 0
    for index in range(6):
        program, params, both = _differentiable(1, index)
        got, want = evaluate(both, params), jax.jit(both)(params)
        close = 1e-4 if program.single else 1e-9
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a, b, rtol=close, atol=close)
            compared += np.size(a)
    assert compared > 50


def test_what_nothing_needs_is_not_evaluated():
    """The tangent of a constant, say, which has no meaning here."""
    half = jax.custom_vjp(lambda x: x)
    half.defvjp(lambda x: (x, None), lambda _, g: (g / 2,))
    both = jax.custom_jvp(lambda w, x: w * half(x))
    both.defjvp(lambda at, moved: jax.jvp(lambda w, x: w * half(x), at, moved))
    gradient = jax.grad(lambda w: half(both(w, jnp.ones(3))).sum())
    np.testing.assert_array_equal(evaluate(gradient, jnp.ones(3)), 0.5 * np.ones(3))


def _differentiable(seed, index):
    """The first draw of a program all of whose operations have a VJP in JAX."""
    for attempt in range(5):
        program = generate.program(seed, index, attempt)
        params, losses_fn = program.values(), program.function()
        both = jax.value_and_grad(lambda p, fun=losses_fn: fun(p).sum())
        try:
            jax.eval_shape(both, params)
        except NotImplementedError:
            continue
        return program, params, both
    raise AssertionError(f"no draw of seed {seed} index {index} has a VJP")


@pytest.mark.parametrize("seed", [1, 7, 10])
def test_examples_on_eight_devices(seed, eight_devices):
    program = networks.network(random.Random(f"sharded {seed}"), batch=8)
    outcome = check.check(program, seed, mesh=eight_devices)
    assert outcome.method.endswith(("intercept", "linearize"))
    assert not outcome.failed, f"{outcome.failed}\n{program}"


def test_a_program_is_known_by_seed_and_index():
    assert generate.program(0, 7) == generate.program(0, 7)
    assert generate.program(0, 7) != generate.program(1, 7)


def test_every_operation_can_be_drawn():
    left = set(OPERATIONS)
    for seed in range(400):
        s = Scope(random.Random(seed), 4)
        try:
            generate.begin(s)
            if seed % 2:
                OPERATIONS["to_complex"][1](s)
        except Reject:
            continue
        for name in sorted(left):
            try:
                with s.attempt():
                    OPERATIONS[name][1](s)
                left.discard(name)
            except Reject:
                pass
        if not left:
            break
    assert not left


LINES = (
    "def losses(p):",
    "    p0 = p['p0']",
    "    p1 = p['p1']",
    "    v1 = data(1, *(4, 3))  # float64[4, 3]",
    "    v2 = v1 @ p0  # float64[4, 3]",
    "    v3 = jnp.sort(v2, axis=0)  # float64[4, 3]",
    "    v4 = jnp.sin(v2) * p1  # float64[4, 3]",
    "    return (v4).sum((1,)) + (v3).sum((1,))",
)
PROGRAM = Program(4, {"p0": (3, 3), "p1": (3,)}, LINES)


def test_a_wrong_product_is_found(monkeypatch):
    right = InterceptedJacobian._jvp
    only = PROGRAM._replace(lines=(*LINES[:-1], "    return (v4).sum((1,))"))
    seeds = [i for i in range(9) if "jvp" in check.check(only, i).failed]
    assert not seeds
    monkeypatch.setattr(
        InterceptedJacobian, "_jvp", lambda self, *a: right(self, *a).at[1].set(0)
    )
    found = check.check(only, 0)
    assert found.kind == "wrong"
    assert {"jvp", "masked jvp"} >= set(found.failed) > set()


def test_what_float32_cannot_tell_is_checked_in_float64(monkeypatch):
    """Rows that are zero but for a small constant in a denominator."""
    norm = "    v3 = jax.nn.standardize(500 * v2, -1, epsilon=0.1)"
    lines = (*LINES[:2], *LINES[3:5], norm, "    return jnp.square(v3).sum(1)")
    program = Program(4, {"p0": (3, 3)}, lines, single=True)
    for seed in range(8):
        assert not check.check(program, seed).failed
    right = LinearizedJacobian._jvp
    monkeypatch.setattr(
        LinearizedJacobian, "_jvp", lambda self, *a: right(self, *a).at[1].set(0)
    )
    assert check.check(program, 5).kind == "wrong"
    monkeypatch.undo()
    monkeypatch.setattr(check, "_ill_conditioned", lambda *_: False)
    assert "jvp" in check.check(program, 5).failed


def test_a_crash_is_found_and_a_refusal_is_none(monkeypatch):
    def crash(self, *_):
        raise KeyError(0)

    monkeypatch.setattr(InterceptedJacobian, "_norms", crash)
    only = PROGRAM._replace(lines=(*LINES[:-1], "    return (v4).sum((1,))"))
    assert check.check(only, 0).kind == "crash"


def test_shrinking_keeps_what_fails():
    small = shrink.shrink(PROGRAM, lambda p: any("jnp.sort" in x for x in p.lines))
    text = str(small)
    assert "jnp.sort" in text
    assert "jnp.sin" not in text
    assert list(small.params) == ["p0"] or not jnp.size(small.params)
    assert len(small.lines) < len(LINES)
