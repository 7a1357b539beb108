"""GradTail: weights from the agreement of each gradient with the prevailing one."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ltjax import _validate
from ltjax._numerics import (
    at_least_float32,
    masked,
    power_of_two,
    safe_divide,
    squared_norm,
)
from ltjax.jacobian._operator import DEFINITIONS
from ltjax.jacobian._placement import explicit_sharding
from ltjax.jacobian._trees import resolve_mask, select
from ltjax.transforms._gdw import check_meta
from ltjax.transforms._gradtail_weights import (
    Activation,
    aligned,
    bump,
    gated,
    resolve_activation,
    uses_norms,
    vanishing_share,
    weigh,
)
from ltjax.transforms._weighting import (
    Weighting,
    count_step,
    effective_size,
    size_of,
    state_dtype,
)

SIMILARITIES = ("cosine", "dot", "dot_unit_mean")
REFERENCES = ("weighted", "unweighted", "clean")

_SMALL = 4096  # entries of a leaf


class GradTailState(NamedTuple):
    """State of `gradtail`."""

    step: jax.Array  # shape=(), int32; steps taken
    mean_grad: Any  # tree like params; running mean gradient, biased towards 0
    similarity_mean: jax.Array  # shape=(), float; running mean, biased towards 0
    similarity_square: jax.Array  # shape=(), float; that of the square
    effective_size: jax.Array  # shape=(), float; of the last batch's weights


def gradtail(
    *,
    activation: Activation = "gated",
    similarity: str = "cosine",
    decay: float | jax.Array = 0.99,
    burn_in: int | jax.Array = 20,
    mask: Any = None,
    z_score: bool = False,
    reference: str = "unweighted",
    definition: str | None = None,
    max_weight: float | jax.Array = 10.0,
) -> Weighting:
    r"""Weights every example by how far its gradient leaves the prevailing one.

    With G the running mean of the gradients of earlier steps, each example's
    similarity s is

    .. math::

        \frac{\langle g_i, G \rangle}{|g_i|\,|G|} \ (\texttt{cosine}), \qquad
        \langle g_i, G \rangle \ (\texttt{dot}), \qquad
        \frac{\langle g_i, G \rangle}{|G|} \ (\texttt{dot\_unit\_mean})

    and its weight is `gradtail_weights` of s. No class labels are needed, so it serves
    classification, regression and dense prediction (losses ``[B, H, W]``) alike.
    ``update`` needs nothing but the Jacobian, except with ``reference="clean"``.

    Not for wrong labels without clean data: their gradients disagree as those of rare
    examples do, and no form that was tried tells the two apart. ``gated`` gives wrong
    labels more weight than right ones, ``bump`` the same.

    With ``reference="clean", activation="aligned"``, G is the running mean of the
    gradient of a small clean, balanced set, and the weight rises with agreement:
    :math:`1 + a \max(s, 0)`, with mean 1. This form is not in the paper. It gives rare
    examples more weight and wrong labels less (docs/gradtail.md). ``update`` then also
    needs ``params`` and ``meta_grad_fn``, as that of `l2rw`: ``params -> gradient`` of
    the mean loss on a batch of clean, balanced data. Train on the clean examples too:
    what they are worth as training data is more than what the weights add. Cost over
    plain SGD: one forward-mode pass, norms, and the gradient of the clean batch.

    Cosines and ``gated`` need the norm of every row. ``dot`` and ``dot_unit_mean``
    with another activation cost one forward-mode pass instead; use these for dense
    prediction, where norms cost a backward pass for each pixel and are refused unless
    ``definition="row"`` asks for them.

    One infinite or huge gradient does not spoil G and the statistics of s: with d the
    ``decay``, a step enters them with at most :math:`3 \sqrt{(1 + d) / (1 - d)}` times
    their running size, and not at all if it is not finite or 0, as that of a batch of
    padding is.

    Args:
      activation: see `gradtail_weights`.
      similarity: ``"cosine"``, ``"dot"`` or ``"dot_unit_mean"``.
      decay: of the running means, in [0, 1).
      burn_in: first steps, in which all weights are 1 while G forms.
      mask: tree of booleans like the parameters (or a prefix, or a function of them):
        the parameters that define similarity, all by default. The update is always on
        all. The last layer alone makes similarity nearly free.
      z_score: standardise s by its running mean and standard deviation. In high
        dimension cosines concentrate; and in the last layer of a model with one output
        they are little more than the sign of the error.
      reference: ``"unweighted"`` makes G of the plain mean gradients, which costs
        another backward pass; ``"weighted"`` of the weighted ones, which costs nothing,
        but then the weights shift the mean that they depend on. The first did better
        where both were tried (docs/gradtail.md). ``"clean"`` makes it of the gradients
        of clean data, for ``activation="aligned"`` or a function of your own.
      definition: what an example's gradient is where examples are coupled by batch
        normalisation: ``"row"``, ``"frozen"`` or ``"attribution"``, see
        `ltjax.Jacobian`. Coupled examples need it wherever norms are taken, and so do
        losses that are not ``[B]``.
      max_weight: see `gradtail_weights`.

    Returns:
      A `Weighting`, to be used as the first transformation of a chain. With
      `optax.inject_hyperparams`, which takes every function for a schedule, name
      ``static_args=("activation", "mask")`` if either is a function.

    Raises:
      TypeError: if ``mask`` is a single boolean; in ``update``, if ``meta_grad_fn`` is
        needed and not given.
      ValueError: if ``"clean"`` goes with ``gated`` or ``bump``, which would favour
        wrong labels, or ``aligned`` with another reference, where it would favour
        common examples; in ``init``, if ``mask`` selects nothing; in ``update``, if
        norms are needed and ``definition`` is not given, where examples are coupled or
        losses are not ``[B]``.

    Examples:
      >>> tx = optax.chain(ltjax.gradtail(burn_in=1), optax.sgd(0.1))
      >>> params = jnp.zeros(2)
      >>> state = tx.init(params)
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
      >>> for _ in range(2):
      ...     losses, jac = ltjax.linearize(lambda w: (x @ w - 1.0) ** 2, params)
      ...     updates, state = tx.update(jac, state, params)
      >>> print(updates)
      [0.116 0.089]

    References:
      Chen et al., *GradTail*, 2022 (arXiv:2201.05938): the agreement with the
      prevailing gradient, early in training, with weights that change as examples are
      learned. No code was released; we designed the activations, the constants, the
      choice of parameters and ``reference``.
    """
    activate = resolve_activation(activation)
    _validate.choice("similarity", similarity, SIMILARITIES)
    _validate.choice("reference", reference, REFERENCES)
    _check_pair(activate, reference)
    if definition is not None:
        _validate.choice("definition", definition, DEFINITIONS)
    _validate.number("decay", decay, low=0, high=1, open_high=True)
    _validate.number("burn_in", burn_in, low=0)
    _validate.number("max_weight", max_weight, low=1)
    _check_mask(mask)
    needs_norms = similarity == "cosine" or uses_norms(activate)

    def init(params):
        dtype = state_dtype(params)
        if mask is not None and not any(jax.tree.leaves(resolve_mask(mask, params))):
            raise ValueError("mask must select at least one parameter, got none.")

        def zeros(p):
            return jnp.zeros(jnp.shape(p), at_least_float32(jnp.asarray(p)).dtype)

        return GradTailState(
            step=jnp.zeros((), jnp.int32),
            mean_grad=jax.tree.map(zeros, select(params, mask)),
            similarity_mean=jnp.zeros((), dtype),
            similarity_square=jnp.zeros((), dtype),
            effective_size=jnp.zeros((), dtype),
        )

    def weights(
        jac, state, params=None, *, where=None, meta_grad_fn=None, **extra_args
    ):
        del extra_args
        dtype = state.similarity_mean.dtype
        keep = None if mask is None else resolve_mask(mask, jac.params)
        norms = None
        if needs_norms:
            norms = _norms(jac, keep, definition).astype(dtype)
        dots = functools.partial(jac.jvp, definition=definition)
        s = _similarity(similarity, dots, state, decay, norms)
        sizes = jnp.abs(s) if norms is None else norms
        state = _update_statistics(state, s, decay, where)
        if z_score:
            s = _standardise(s, state, decay)
        w = weigh(s, sizes, vanishing_share(jac.dtype), activate, max_weight, where)
        w = masked(jnp.where(state.step >= burn_in, w, jnp.ones_like(w)), where)
        state = state._replace(effective_size=effective_size(w).astype(dtype))
        if reference == "unweighted":
            ones = masked(jnp.ones_like(w), where)
            mean = jac.vjp(ones / size_of(w, where))
            state = _update_mean(state, select(mean, mask), decay)
        if reference == "clean":
            clean = _clean_gradient(jac, params, meta_grad_fn)
            if where is not None:  # a batch of nothing but padding is no step
                clean = jax.tree.map(
                    lambda g: jnp.where(jnp.any(where), g, jnp.zeros_like(g)), clean
                )
            state = _update_mean(state, select(clean, mask), decay)
        return w, state

    def observe(state, gradient):
        if reference == "weighted":
            state = _update_mean(state, select(gradient, mask), decay)
        return count_step(state, gradient)

    return Weighting.from_weights(init, weights, observe)


def _norms(jac, mask, definition):
    """Norms of all rows; a refusal says how to do without."""
    try:
        return jac.norms(mask=mask, definition=definition)
    except ValueError as error:
        error.add_note(
            "GradTail needs norms for cosines and for 'gated'. similarity='dot' or "
            "'dot_unit_mean' with activation='bump' needs none."
        )
        raise


def _clean_gradient(jac, params, meta_grad_fn):
    """Gradient of the clean batch, which has no part in this step's weights."""
    check_meta(params, meta_grad_fn)
    gradient = meta_grad_fn(params)
    found, expected = (jax.tree.map(jnp.shape, t) for t in (gradient, jac.params))
    if found != expected:
        raise ValueError(
            "meta_grad_fn must return a gradient like params, with shapes "
            f"{expected}, got {found}."
        )
    return gradient


def _similarity(kind, dots, state, decay, norms):
    """Similarity of every row with the bias-corrected mean gradient."""
    dtype = state.similarity_mean.dtype
    scale, norm = _scaled_norm(state.mean_grad, dtype)
    inverse, length = 1 / scale, safe_divide(jnp.ones_like(norm), norm)
    # Products with a direction of length 1 neither underflow nor overflow.
    direction = jax.tree.map(
        lambda g: length * (inverse * g.astype(dtype)), state.mean_grad
    )
    s = dots(direction).astype(dtype)
    if kind == "cosine":
        return safe_divide(s, norms)
    if kind == "dot":
        return s * safe_divide(scale * norm, _bias(decay, state.step, dtype))
    return s


def _update_mean(state, gradient, decay):
    """The running mean with one more gradient.

    One that is 0, as that of padding alone, or not finite has no part.
    """
    dtype = state.similarity_mean.dtype
    size, usual = _norm(gradient, dtype), _norm(state.mean_grad, dtype)
    correction = _bias(decay, state.step, dtype)
    largest = _ceiling(safe_divide(usual, correction), decay)
    factor = safe_divide(jnp.minimum(size, largest), size)
    counts = jnp.isfinite(size) & (size > 0)
    share = _share(decay, state.step, usual > 0, dtype)
    # Without a gradient the mean itself takes its share.
    old = jnp.asarray(decay, dtype) + jnp.where(
        counts, 0, safe_divide(share, correction)
    )
    new = jnp.where(counts, share * factor, 0)

    def step(mean, g):
        g = jnp.where(counts, g.astype(mean.dtype), jnp.zeros_like(mean))
        return old.astype(mean.dtype) * mean + new.astype(mean.dtype) * g

    mean_grad = jax.tree.map(step, state.mean_grad, gradient)
    return state._replace(mean_grad=mean_grad)


def _update_statistics(state, s, decay, where):
    """Running moments of the similarity, from the second step on (G is 0 before)."""
    steps = jnp.maximum(state.step - 1, 0)
    correction = _bias(decay, steps, s.dtype)
    square = safe_divide(state.similarity_square, correction)
    largest = float(jnp.finfo(s.dtype).max) ** 0.5 / (1 + s.size)
    largest = jnp.minimum(_ceiling(jnp.sqrt(square), decay), largest)
    finite = masked(jnp.isfinite(s), where)
    s = jnp.where(finite, jnp.clip(s, -largest, largest), jnp.zeros_like(s))
    count = jnp.maximum(jnp.sum(finite), 1).astype(s.dtype)
    share = _share(decay, steps, square > 0, s.dtype)

    def step(moment, found):
        found = jnp.where(jnp.any(finite), found, safe_divide(moment, correction))
        d = jnp.asarray(decay, s.dtype)
        return jnp.where(state.step > 0, d * moment + share * found, moment)

    return state._replace(
        similarity_mean=step(state.similarity_mean, jnp.sum(s) / count),
        similarity_square=step(state.similarity_square, jnp.sum(s**2) / count),
    )


def _ceiling(usual, decay):
    """Largest size that enters a running mean of size ``usual``.

    A mean of nothing but noise is sqrt((1 - d) / (1 + d)) times as large as its terms,
    so three times what that would make of a term is unusual.
    """
    d = jnp.asarray(decay, usual.dtype)
    return jnp.where(usual > 0, 3 * jnp.sqrt((1 + d) / (1 - d)) * usual, jnp.inf)


def _standardise(s, state, decay):
    correction = _bias(decay, state.step, s.dtype)
    mean = safe_divide(state.similarity_mean, correction)
    square = safe_divide(state.similarity_square, correction)
    variance = jnp.maximum(square - mean**2, 0)
    return safe_divide(s - mean, jnp.full_like(s, jnp.sqrt(variance)))


def _bias(decay, steps, dtype):
    """``1 - decay^steps``: 0 before the first step."""
    return 1 - jnp.asarray(decay, dtype) ** steps.astype(dtype)


def _share(decay, steps, started, dtype):
    """Of a new term in a running mean: ``1 - decay``, but the first one is all of it.

    The first term may come late, after steps that had none.
    """
    usual = 1 - jnp.asarray(decay, dtype)
    return jnp.where(started, usual, _bias(decay, steps + 1, dtype))


def _norm(tree, dtype):
    scale, norm = _scaled_norm(tree, dtype)
    return scale * norm


def _scaled_norm(tree, dtype):
    """A scale, and the norm of a tree over it; neither overflows."""
    leaves = _merge_small([g.astype(dtype) for g in jax.tree.leaves(tree)])
    largest = [jnp.max(jnp.abs(g), initial=0) for g in leaves]
    scale = power_of_two(functools.reduce(jnp.maximum, largest))
    # The barriers keep the compiler from repeating the sums over leaves for each leaf.
    scale, inverse = lax.optimization_barrier((scale, 1 / scale))
    squares = [squared_norm(g * inverse) for g in leaves]
    norm = jnp.sqrt(functools.reduce(jnp.add, squares))
    return scale, lax.optimization_barrier(norm)


def _merge_small(leaves):
    """Leaves with the small ones joined: two sums over each take long to compile."""
    merge = [g.size <= _SMALL and not explicit_sharding(jax.typeof(g)) for g in leaves]
    small = [g.ravel() for g, m in zip(leaves, merge, strict=True) if m]
    large = [g for g, m in zip(leaves, merge, strict=True) if not m]
    return [*large, jnp.concatenate(small)] if small else large


def _check_pair(activation, reference):
    if reference == "clean" and isinstance(activation, gated | bump):
        raise ValueError(
            "activation must be 'aligned' or a function of your own with "
            f"reference='clean', got {activation}, which favours wrong labels there."
        )
    if reference != "clean" and isinstance(activation, aligned):
        raise ValueError(
            f"reference must be 'clean' with activation={activation}, got "
            f"{reference!r}, where it favours common examples."
        )


def _check_mask(mask):
    if isinstance(mask, bool):
        raise TypeError(
            "mask must be a tree of booleans like the parameters, or a function of "
            f"them, got {mask}; with optax.inject_hyperparams, which calls every "
            "function, name static_args=('activation', 'mask')."
        )
