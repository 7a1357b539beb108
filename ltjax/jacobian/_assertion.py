"""Assertions of the user that a function keeps examples apart."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core, source_info_util

from ltjax.jacobian._jaxpr import Op
from ltjax.jacobian._rules import SHARED, Axis

source_info_util.register_exclusion(__file__)  # messages name the user's line


class Assertion(NamedTuple):
    """What is asserted of a function."""

    name: str
    arguments: tuple[Axis, ...]  # axes of the examples in flat arguments
    results: tuple[Axis, ...]


def independent(
    fun: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0
) -> Callable[..., Any]:
    """``fun``, with the assertion that it keeps examples apart.

    For functions that `linearize` cannot look into, such as attention written in
    Pallas. Examples are followed through them as asserted, and products are
    intercepted; otherwise they are made in forward mode, and norms cost one backward
    pass for each example. Values and gradients are those of ``fun``.

    **Nothing is proved.** Entry ``i`` of a result must depend on entry ``i`` of the
    arguments and on what all examples share. If it does not, products with the Jacobian
    are wrong; `check` detects that. `Jacobian.reason` names ``fun``.

    Outside of `jax.jit`, ``fun`` is traced in every call.

    The assertion is ignored under an outer `jax.vmap`: put ``jax.vmap`` inside. As with
    `jax.custom_vjp`, there is no forward mode: where products cannot be intercepted for
    another reason, ``jvp`` needs derivatives that JAX can transpose.

    Args:
      fun: ``(*args) -> results``, trees of arrays. Bind options that are not arrays
        with `functools.partial`.
      in_axes: axis of the examples in the arguments, as in `jax.vmap`: an integer, None
        for what all examples share, or a tuple with one of these, or a tree of them,
        for each argument. All examples share what ``fun`` closes over.
      out_axes: the same for the results. A result with None may mix examples.

    Returns:
      A function with the arguments and results of ``fun``.

    Raises:
      TypeError: if ``fun`` cannot be called, or an axis is no integer.
      ValueError: when the returned function is called, if an axis does not fit the
        arrays or their sizes along the axes differ.

    Examples:
      >>> x, a = jnp.eye(3, 2), jnp.array([[2.0, 1.0], [0.0, 1.0]])
      >>> def losses_fn(w, solve):
      ...     return jnp.square(solve(x @ w)).sum(1)
      >>> def solve(h):  # a system of equations that all examples share
      ...     return jnp.linalg.solve(a, h.T).T
      >>> losses, jac = ltjax.linearize(lambda w: losses_fn(w, solve), jnp.eye(2))
      >>> jac.method
      'linearize'
      >>> asserted = ltjax.independent(solve)
      >>> losses, jac = ltjax.linearize(lambda w: losses_fn(w, asserted), jnp.eye(2))
      >>> jac.method
      'intercept'
    """
    if not callable(fun):
        raise TypeError(f"fun must be a function, got {type(fun).__name__}.")

    @functools.wraps(fun)
    def asserted(*args):
        jaxpr, shapes = jax.make_jaxpr(fun, return_shape=True)(*args)
        arguments = _flat_axes("in_axes", in_axes, args)
        results = _flat_axes("out_axes", out_axes, shapes)
        _check_sizes(arguments, args, results, shapes)
        shared = (SHARED,) * len(jaxpr.consts)
        name = getattr(fun, "__name__", type(fun).__name__)
        call = _with_assertion(
            lambda consts, *xs: core.jaxpr_as_fun(
                core.ClosedJaxpr(jaxpr.jaxpr, consts)
            )(*xs),
            Assertion(name, (*shared, *arguments), results),
        )
        flat = call(jaxpr.consts, *jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shapes), flat)

    return asserted


def assertion_of(op: Op) -> Assertion | None:
    """What is asserted of a function with a backward rule, None if nothing is."""
    return getattr(getattr(op.params.get("bwd"), "f", None), "assertion", None)


def asserted_axes(op: Op, axes: Sequence[Axis]) -> list[Axis] | None:
    """Batch axes of the operands of a function that is asserted to keep examples apart
    on those axes of its results, None for any other function."""
    assertion = assertion_of(op)
    if assertion is None:
        return None
    pairs = zip(axes, assertion.results, strict=True)
    if any(axis not in (None, own) or axis == SHARED for axis, own in pairs):
        return None
    return list(assertion.arguments)


def _with_assertion(fun: Callable[..., Any], assertion: Assertion):
    """``fun`` with a backward rule that carries the assertion; it is JAX's own."""
    call = jax.custom_vjp(fun)

    def backward(pullback, cotangents):
        return pullback(cotangents)

    backward.assertion = assertion  # type: ignore[attr-defined]
    call.defvjp(lambda *args: jax.vjp(fun, *args), backward)
    return call


def _flat_axes(name: str, axes: Any, tree: Any) -> tuple[Axis, ...]:
    """An axis, not negative, or `SHARED` for each array of a tree."""
    axes = tuple(axes) if isinstance(axes, list) else axes
    marked = jax.tree.map(
        lambda axis: SHARED if axis is None else axis, axes, is_leaf=lambda x: x is None
    )
    try:
        flat = jax.tree.leaves(jax.tree.broadcast(marked, tree))
    except ValueError as error:
        structure = jax.tree.structure(tree)
        raise ValueError(
            f"{name} must be a prefix of the tree {structure}, got {axes!r}."
        ) from error
    return tuple(
        _axis(name, axis, jax.numpy.shape(x))
        for axis, x in zip(flat, jax.tree.leaves(tree), strict=True)
    )


def _axis(name: str, axis: Any, shape: tuple[int, ...]) -> Axis:
    if axis is SHARED:
        return SHARED
    if not isinstance(axis, int) or isinstance(axis, bool):
        raise TypeError(f"{name} must hold integers or None, got {axis!r}.")
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"{name} must be axes of the arrays, got {axis} for {shape}.")
    return axis % len(shape)


def _check_sizes(
    in_axes: Sequence[Axis], args: Any, out_axes: Sequence[Axis], out: Any
) -> None:
    """One number of examples everywhere."""
    if all(axis is SHARED for axis in in_axes):
        raise ValueError("in_axes must name an axis of the examples, got none.")
    found = [
        [
            jax.numpy.shape(x)[axis]
            for axis, x in zip(axes, jax.tree.leaves(tree), strict=True)
            if isinstance(axis, int)
        ]
        for axes, tree in ((in_axes, args), (out_axes, out))
    ]
    if len({*found[0], *found[1]}) > 1:
        raise ValueError(
            "in_axes and out_axes must be axes of one size, "
            f"got {found[0]} in arguments and {found[1]} in results."
        )
