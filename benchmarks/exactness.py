"""How far products with the Jacobian are from the same function in float64."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

import ltjax
from benchmarks.models import Spec, make_batch, make_problem
from experiments.methods.losses import cross_entropy

_EXAMPLES = 8  # rows of the reference are computed one by one


def errors(spec: Spec) -> dict[str, float]:
    """Largest error of dots, norms and weighted gradient, over the largest value."""
    problem = make_problem(spec)
    batch = make_batch(spec, _EXAMPLES, seed=2)
    keys = jax.random.split(jax.random.key(3), len(problem.params))
    direction = [
        jax.random.normal(k, p.shape, p.dtype)
        for k, p in zip(keys, problem.params, strict=True)
    ]
    weights = jnp.linspace(0.5, 1.5, _EXAMPLES) / _EXAMPLES

    def losses_fn(params):
        outputs, _ = problem.apply(params, problem.rest, batch.inputs, train=True)
        return cross_entropy(outputs.logits, batch.targets)

    @jax.jit
    def ours(params):
        _, jac = ltjax.linearize(losses_fn, params)
        return {
            "dots": jac.jvp(direction),
            "norms": jac.norms(definition="row"),
            "gradient": jac.vjp(weights),
        }

    with jax.enable_x64(True):
        reference = _reference(losses_fn, problem.params, direction, weights)
    return {
        name: _relative_error(value, reference[name])
        for name, value in ours(problem.params).items()
    }


def _reference(losses_fn, params, direction, weights) -> dict[str, Any]:
    """Every row of the Jacobian in float64, and what follows from the rows."""
    wide = in_float64(losses_fn, params)

    @jax.jit
    def rows(params):
        losses, pullback = jax.vjp(wide, params)
        return jax.vmap(pullback)(jnp.eye(len(losses)))[0]

    matrix = np.concatenate(
        [
            np.asarray(row).reshape(len(weights), -1)
            for row in rows([jnp.asarray(p, jnp.float64) for p in params])
        ],
        axis=1,
    )
    flat = np.concatenate([np.asarray(v, np.float64).ravel() for v in direction])
    return {
        "dots": matrix @ flat,
        "norms": np.linalg.norm(matrix, axis=1),
        "gradient": np.asarray(weights, np.float64) @ matrix,
    }


def _relative_error(got: Any, want: np.ndarray) -> float:
    flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(got)])
    return float(np.abs(flat - want).max() / np.abs(want).max())


def in_float64(fun: Callable[[Any], Any], example: Any) -> Callable[[Any], Any]:
    """``fun`` with every floating-point number in float64, whatever dtypes it names.

    Call the result where float64 is enabled; ``fun`` is traced at ``example`` as it is.
    """
    with jax.enable_x64(False):
        jaxpr = jax.make_jaxpr(fun)(example)

    def wide(tree):
        (out,) = _evaluate(jaxpr, jax.tree.leaves(tree))
        return out

    return wide


def _evaluate(jaxpr: core.ClosedJaxpr, args: list[Any]) -> list[Any]:
    """The results of a program, computed in float64."""
    inner = jaxpr.jaxpr
    env = dict(zip(inner.constvars, map(_widen, jaxpr.consts), strict=True))
    env.update(zip(inner.invars, args, strict=True))

    def read(atom):
        return _widen(atom.val) if isinstance(atom, core.Literal) else env[atom]

    for eqn in inner.eqns:
        operands = [read(a) for a in eqn.invars]
        body = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        if body is not None:
            if not isinstance(body, core.ClosedJaxpr):
                body = core.ClosedJaxpr(body, ())
            results = _evaluate(body, operands)
        else:
            params = {k: _widen_dtype(v) for k, v in eqn.params.items()}
            results = eqn.primitive.bind(*operands, **params)
            if not eqn.primitive.multiple_results:
                results = [results]
        env.update(zip(eqn.outvars, results, strict=True))
    return [read(a) for a in inner.outvars]


def _widen(x: Any) -> Any:
    is_float = jnp.issubdtype(jnp.result_type(x), jnp.floating)
    return jnp.asarray(x, jnp.float64) if is_float else x


def _widen_dtype(param: Any) -> Any:
    if isinstance(param, np.dtype) and jnp.issubdtype(param, jnp.floating):
        return np.dtype(np.float64)
    return param
