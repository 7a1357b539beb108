"""Jacobians of functions: which products can be intercepted, and the rest."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from ltjax import _validate
from ltjax.jacobian import _trees
from ltjax.jacobian._intercept import Intercepted
from ltjax.jacobian._jaxpr import Op, Program
from ltjax.jacobian._kinds import (
    ExamplesJacobian,
    InterceptedJacobian,
    LinearizedJacobian,
    VaryingJacobian,
)
from ltjax.jacobian._linearity import NONLINEAR
from ltjax.jacobian._operator import Jacobian
from ltjax.jacobian._placement import vary_leaves, varying_axes
from ltjax.jacobian._plan import backward_rules, make_plan


def linearize(
    losses_fn: Callable[[Any], Any],
    params: Any,
    *,
    has_aux: bool = False,
    method: str = "auto",
) -> tuple[Any, ...]:
    r"""Outputs of a function, and their Jacobian, from one forward pass.

    .. math:: (J v)_i = \langle \nabla_\theta \ell_i, v \rangle, \qquad
              J^\top w = \sum_i w_i \nabla_\theta \ell_i

    Args:
      losses_fn: ``params -> [B]`` losses, one for each example and not reduced.
        Any other shape of at least one axis will do: ``[B, H, W]`` losses of dense
        prediction, ``[B, C]`` logits.
      params: tree of floating-point arrays or scalars.
      has_aux: whether ``losses_fn`` returns ``(losses, aux)``; ``aux`` may be any tree,
        new batch statistics for example.
      method: ``"linearize"`` has `Jacobian.jvp` push one direction through the function
        in forward mode (two forward passes' worth), which is always possible.
        ``"intercept"`` reads it off the inputs and cotangents of every layer (one),
        which is exact where examples are independent: it is proven from the traced
        function that nothing mixes them, and a ValueError says what does. ``"auto"``
        intercepts where that is proven and where at least half of the multiplications
        can be intercepted. `Jacobian.reason` tells.

    Returns:
      ``(losses, jacobian)``, or ``(losses, jacobian, aux)`` with ``has_aux``.

    Raises:
      TypeError: if a parameter or the output is not floating point.
      ValueError: if the output is a scalar (an already averaged loss), or if
        ``method="intercept"`` is impossible.

    Examples:
      >>> x, y = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([1.0, 1.0])
      >>> losses, jac = ltjax.linearize(lambda w: (x @ w - y) ** 2, jnp.zeros(2))
      >>> print(losses, jac.jvp(jnp.ones(2)), jac.vjp(jnp.ones(2) / 2), jac.norms())
      [1. 1.] [-2. -4.] [-1. -2.] [2. 4.]
    """
    _validate.choice("method", method, ("auto", "intercept", "linearize"))
    params = _trees.as_params(params)
    jaxpr, rebuild = _trace(losses_fn, params, has_aux)
    replicated, axes = params, varying_axes(jaxpr.out_avals[0])
    if axes:
        params = vary_leaves(params, axes)
        jaxpr, rebuild = _trace(losses_fn, params, has_aux)
    program, shape = Program(jaxpr), jaxpr.out_avals[0].shape
    rules = backward_rules(program)
    if method != "linearize":
        _refuse_nonlinear(rules)
    plan = make_plan(program) if len(shape) == 1 else None
    reason = plan.reason if plan else f"the outputs have shape {shape}, not (B,)"
    possible = plan is not None and plan.can_be_intercepted
    if method == "intercept" and not possible:
        raise ValueError(f"method='intercept' is impossible here: {reason}.")
    pays = method == "intercept" or (plan is not None and plan.intercepted >= 0.5)
    if plan and possible and pays and method != "linearize":
        tapped = Intercepted(plan, jax.tree.leaves(params))
        jacobian: Jacobian = InterceptedJacobian(params, tapped, plan)
        outputs = tapped.outputs
    else:
        outputs, jacobian = LinearizedJacobian.make(jaxpr, params, program, plan, rules)
    if axes:
        jacobian = VaryingJacobian(jacobian, replicated, axes)
    losses, *aux = outputs
    jacobian.outputs = losses
    return (losses, jacobian, rebuild(aux)) if has_aux else (losses, jacobian)


def linearize_examples(
    loss_fn: Callable[[Any, Any], jax.Array], params: Any, batch: Any
) -> tuple[jax.Array, Jacobian]:
    """`linearize` for a function of one example, mapped over a batch.

    Row ``i`` is the gradient of ``loss_fn(params, example_i)``: that of a batch of one.
    A model with train-mode batch normalisation has no meaning here (a single
    example's own statistics cancel it); use `linearize` on the whole batch.

    Args:
      loss_fn: ``(params, example) -> scalar``.
      params: tree of floating-point arrays or scalars.
      batch: any tree whose leaves all have the same leading axis ``B``.

    Returns:
      ``([B] losses, jacobian)``.

    Raises:
      TypeError: if a parameter or a loss is not floating point.
      ValueError: if the batch is empty or its leading axes differ, or if ``loss_fn``
        returns no scalar.

    Examples:
      >>> def loss(w, example):
      ...     x, y = example
      ...     return (x @ w - y) ** 2
      >>> batch = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([1.0, 1.0])
      >>> losses, jac = ltjax.linearize_examples(loss, jnp.zeros(2), batch)
      >>> print(jac.jvp(jnp.array([1.0, 2.0])), jac.norms())
      [-2. -8.] [2. 4.]
    """
    batch = jax.tree.map(jnp.asarray, batch)
    check_batch(batch)
    params = _trees.as_params(params)

    def losses_fn(p):
        losses = jax.vmap(loss_fn, in_axes=(None, 0))(p, batch)
        if getattr(losses, "ndim", 1) != 1:
            raise ValueError(
                "loss_fn must return a scalar for one example, "
                f"got shape {losses.shape[1:]}."
            )
        return losses

    losses, jac = linearize(losses_fn, params)
    if jac.method == "intercept":
        return losses, jac
    examples = ExamplesJacobian(jac, loss_fn, batch)
    examples.outputs = losses
    return losses, examples


def _trace(
    losses_fn: Callable[[Any], Any], params: Any, has_aux: bool
) -> tuple[core.ClosedJaxpr, Callable[[list[Any]], Any]]:
    """``losses_fn`` as a jaxpr of flat arrays, and what rebuilds ``aux`` from them."""
    structure, static = None, []

    def flat(params):
        nonlocal structure, static
        out = losses_fn(params) if has_aux else (losses_fn(params), None)
        if not (isinstance(out, tuple) and len(out) == 2):
            raise TypeError(
                "losses_fn must return (losses, aux) with has_aux=True, "
                f"got {type(out).__name__}."
            )
        losses, aux = out
        check_outputs(losses)
        leaves, structure = jax.tree.flatten(aux)
        arrays = [isinstance(x, (jax.Array, np.ndarray)) for x in leaves]
        static = [None if a else x for x, a in zip(leaves, arrays, strict=True)]
        return losses, *(x for x, a in zip(leaves, arrays, strict=True) if a)

    def rebuild(arrays):
        left = iter(arrays)
        leaves = [next(left) if x is None else x for x in static]
        return jax.tree.unflatten(structure, leaves)

    return jax.make_jaxpr(flat)(params), rebuild


def check_outputs(outputs: Any) -> None:
    if not isinstance(outputs, jax.Array):
        raise TypeError(
            "losses_fn must return one array (and aux with has_aux=True), "
            f"got {type(outputs).__name__}."
        )
    if not jnp.issubdtype(outputs.dtype, jnp.floating):
        raise TypeError(f"losses_fn must return floating point, got {outputs.dtype}.")
    if outputs.ndim == 0:
        raise ValueError(
            "losses_fn must return one loss per example, shape [B], got a scalar: "
            "leave out the mean over the batch."
        )
    if outputs.size == 0:
        raise ValueError(
            f"losses_fn must return at least one loss, got shape {outputs.shape}."
        )


def check_batch(batch: Any) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    if not leaves:
        raise ValueError("batch must hold at least one array, got none.")
    sizes = {
        f"batch{jax.tree_util.keystr(path)}": leaf.shape[:1] for path, leaf in leaves
    }
    if len(set(sizes.values())) != 1 or () in sizes.values():
        raise ValueError(
            f"batch must have one leading axis in all leaves, got {sizes}."
        )
    if (0,) in sizes.values():
        raise ValueError(f"batch must not be empty, got {sizes}.")


def _refuse_nonlinear(rules: dict[Op, frozenset[str]]) -> None:
    found = sorted({op.where for op, kinds in rules.items() if NONLINEAR in kinds})
    if found:
        raise ValueError(
            "losses_fn has a custom_vjp whose backward rule is not linear in its "
            f"cotangents (it clips them, or adds a constant): {', '.join(found)}. A "
            "weighted gradient is not a sum of rows then. Write what the rule adds as "
            "a part of the losses, clip updates instead of cotangents, or ask for "
            "method='linearize', whose vjp is that of jax.vjp."
        )
