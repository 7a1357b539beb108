"""Traced functions evaluated by NumPy, which compiles nothing.

A random program is run once, so compiling it costs more than all the rest. Primitives
without a rule here are left to JAX, one by one. What NumPy finds is held to compiled
code by a test.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from tests.jacobian.programs import windows
from tests.jacobian.programs.kernels import RULES, rule

assert windows  # its rules are registered on import


def evaluate(fun: Callable[..., Any], *args: Any) -> Any:
    """``fun(*args)``."""
    closed, shapes = jax.make_jaxpr(fun, return_shape=True)(*args)
    leaves = [np.asarray(x) for x in jax.tree.leaves(args)]
    with np.errstate(all="ignore"):
        out = _run(closed.jaxpr, closed.consts, leaves)
    return jax.tree.unflatten(jax.tree.structure(shapes), out)


def _run(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, map(_plain, consts), strict=True))
    env.update(zip(jaxpr.invars, args, strict=True))
    for eqn in _needed(jaxpr):
        operands = [
            np.asarray(a.val, a.aval.dtype) if isinstance(a, core.Literal) else env[a]
            for a in eqn.invars
        ]
        out = _apply(eqn, operands)
        for var, x in zip(eqn.outvars, out, strict=True):
            if isinstance(x, np.ndarray | np.generic):
                x = np.asarray(x, var.aval.dtype)
                if x.shape != var.aval.shape:
                    raise AssertionError(f"{eqn.primitive}: {x.shape} {var.aval}")
            env[var] = x
    return [
        np.asarray(a.val, a.aval.dtype) if isinstance(a, core.Literal) else env[a]
        for a in jaxpr.outvars
    ]


def _needed(jaxpr: Any) -> list[Any]:
    """Equations that the outputs depend on: compilers drop the others."""
    used = set(filter(_is_variable, jaxpr.outvars))
    found = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or not used.isdisjoint(eqn.outvars):
            used.update(filter(_is_variable, eqn.invars))
            found.append(eqn)
    return found[::-1]


def _is_variable(atom: Any) -> bool:
    return not isinstance(atom, core.Literal)


def _apply(eqn: Any, operands: list[Any]) -> list[Any]:
    rule = RULES.get(eqn.primitive.name)
    plain = all(isinstance(x, np.ndarray) for x in operands)
    found = rule(*operands, **eqn.params) if rule and plain else NotImplemented
    if found is not NotImplemented:
        return list(found) if eqn.primitive.multiple_results else [found]
    arrays = [_device(x) for x in operands]
    bound = eqn.primitive.bind(*arrays, **eqn.primitive.get_bind_params(eqn.params))
    many = eqn.primitive.multiple_results
    return [_plain(x) for x in (bound if many else [bound])]


def _device(x: Any) -> Any:
    if isinstance(x, np.ndarray) and x.dtype != jax.dtypes.float0:
        return jnp.asarray(x)
    return x


def _plain(x: Any) -> Any:
    extended = jnp.issubdtype(getattr(x, "dtype", None), jax.dtypes.extended)
    if not extended and getattr(x, "size", 1) == 0:
        # Some that lie on two devices JAX cannot fetch.
        return np.zeros(x.shape, x.dtype)
    return x if extended else np.asarray(x)


# Functions inside.


def _closed(body: Any, args: Sequence[Any]) -> list[Any]:
    return _run(body.jaxpr, body.consts, args)


@rule(
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "remat2",
    "checkpoint",
)
def _call(*args, **params):
    body = params.get("jaxpr") or params.get("call_jaxpr")
    if isinstance(body, core.Jaxpr):
        return _run(body, getattr(body, "consts", ()), args)  # since jax 0.12
    return _closed(body, args)


@rule("cond")
def _cond(index, *args, branches, **_):
    return _closed(branches[int(np.clip(int(index), 0, len(branches) - 1))], args)


@rule("while")
def _while(*args, cond_nconsts, cond_jaxpr, body_nconsts, body_jaxpr, **_):
    test, body = args[:cond_nconsts], args[cond_nconsts : cond_nconsts + body_nconsts]
    state = list(args[cond_nconsts + body_nconsts :])
    while np.any(going := _closed(cond_jaxpr, [*test, *state])[0]):
        moved = _closed(body_jaxpr, [*body, *state])
        # Under vmap each of several loops ends by itself.
        state = [
            np.where(going.reshape(going.shape + (1,) * (x.ndim - going.ndim)), x, old)
            for x, old in zip(moved, state, strict=True)
        ]
    return state


@rule("scan")
def _scan(*args, jaxpr, length, reverse, **params):
    if "num_consts" not in params or not length:
        return NotImplemented
    n, m = params["num_consts"], params["num_consts"] + params["num_carry"]
    consts, carry, xs = args[:n], list(args[n:m]), args[m:]
    made = []
    for i in reversed(range(length)) if reverse else range(length):
        out = _closed(jaxpr, [*consts, *carry, *(x[i] for x in xs)])
        carry = out[: len(carry)]
        made.append(out[len(carry) :])
    made = made[::-1] if reverse else made
    return [*carry, *(np.stack(ys) for ys in zip(*made, strict=True))]
