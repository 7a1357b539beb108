"""A user's word that a function keeps examples apart, where it cannot be proved."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import source_info_util

from ltjax.jacobian._jaxpr import Op
from ltjax.jacobian._rules import SHARED, Axis

source_info_util.register_exclusion(__file__)  # messages name the user's line


class Assertion(NamedTuple):
    """Axes of the examples in flat arguments and results; None where there is none."""

    arguments: tuple[int | None, ...]
    results: tuple[int | None, ...]


def independent(
    fun: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0
) -> Callable[..., Any]:
    """``fun``, with your word that it keeps examples apart.

    For functions without parameters that `linearize` cannot look into, such as
    attention written in Pallas: examples are followed through them as you say, and
    products are intercepted, where they would be made in forward mode and norms cost
    one backward pass for each example. Values and gradients are those of ``fun``.

    **Nothing is proved.** Entry ``i`` of a result must depend on entry ``i`` of the
    arguments and on what all examples share, and its derivative must be linear in the
    cotangents. If that is not so, products with the Jacobian are wrong; `check` tells.

    A `jax.vmap` around the returned function takes the word back, so put it inside. As
    with `jax.custom_vjp`, nothing that ``fun`` closes over can have a gradient, and
    where products cannot be intercepted for another reason, ``jvp`` needs a derivative
    that JAX can transpose.

    Args:
      fun: ``(*args) -> results``, trees of arrays.
      in_axes: axis of the examples in the arguments, as in `jax.vmap`: an integer, None
        for what all examples share, or a tuple with one of these, or a tree of them,
        for each argument.
      out_axes: the same for the results. A result with None may mix examples.

    Returns:
      A function with the arguments and results of ``fun``.

    Raises:
      TypeError: if ``fun`` cannot be called.
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

    def asserted(*args):
        @jax.custom_vjp
        def call(*args):
            return fun(*args)

        def forward(*args):
            return jax.vjp(fun, *args)

        def backward(pullback, cotangents):
            return pullback(cotangents)

        out = jax.eval_shape(fun, *args)
        assertion = Assertion(
            _flat_axes("in_axes", in_axes, args), _flat_axes("out_axes", out_axes, out)
        )
        _check_sizes(assertion.arguments, args, assertion.results, out)
        backward.assertion = assertion  # type: ignore[attr-defined]
        call.defvjp(forward, backward)
        return call(*args)

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
    if any(axis is not None and axis != own for axis, own in pairs):
        return None
    captured = [None] * (len(op.inputs) - len(assertion.arguments))
    return [SHARED if k is None else k for k in (*captured, *assertion.arguments)]


def _flat_axes(name: str, axes: Any, tree: Any) -> tuple[int | None, ...]:
    """One axis, not negative, or None for each array of a tree."""
    try:
        full = jax.tree.broadcast(axes, tree, is_leaf=lambda x: x is None)
    except ValueError as error:
        structure = jax.tree.structure(tree)
        raise ValueError(
            f"{name} must be a prefix of the tree {structure}, got {axes!r}."
        ) from error
    flat = jax.tree.leaves(full, is_leaf=lambda x: x is None)
    found = []
    for axis, x in zip(flat, jax.tree.leaves(tree), strict=True):
        shape = jax.numpy.shape(x)
        if axis is not None and not -len(shape) <= axis < len(shape):
            raise ValueError(f"{name} must be axes, got {axis} for shape {shape}.")
        found.append(None if axis is None else axis % len(shape))
    return tuple(found)


def _check_sizes(
    in_axes: Sequence[int | None], args: Any, out_axes: Sequence[int | None], out: Any
) -> None:
    """One number of examples everywhere."""
    sizes = {
        jax.numpy.shape(x)[axis]
        for axes, tree in ((in_axes, args), (out_axes, out))
        for axis, x in zip(axes, jax.tree.leaves(tree), strict=True)
        if axis is not None
    }
    if all(axis is None for axis in in_axes):
        raise ValueError("in_axes must name an axis of the examples, got None alone.")
    if len(sizes) > 1:
        raise ValueError(
            f"in_axes and out_axes must be axes of one size, got sizes {sorted(sizes)}."
        )
