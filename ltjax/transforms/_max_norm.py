"""Caps on the length of a classifier's weight vectors."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ltjax import _numerics, _validate


class MaxNormState(NamedTuple):
    """The caps, fixed at ``init``, and the number of steps taken."""

    step: jax.Array  # shape=(), int32
    caps: Any  # like params; shape=(), at least float32


def max_norm(
    *, share: float | jax.Array = 0.1, every: int = 1, class_axis: int = -1
) -> optax.GradientTransformationExtraArgs:
    r"""Keeps each class's weight vector within a cap found from the initial weights.

    .. math:: w_c \leftarrow w_c \min(1, \kappa / \|w_c\|), \qquad
      \kappa = \min_k \|w_k\| + s \, (\max_k \|w_k\| - \min_k \|w_k\|)

    It projects the parameters that a step would lead to and returns the update that
    ends there, so it belongs **last** in a chain. The cap of each kernel is fixed by
    the parameters given to ``init``: call that at the start of the stage to be
    balanced. A kernel that is all zero is refused, as its cap would be 0. Kernels have
    two axes; leave everything else out with ``optax.masked``::

        optax.chain(optax.sgd(0.1), optax.masked(max_norm(every=97), is_kernel))

    Args:
      share: ``s`` in ``[0, 1]``, where the cap lies between the shortest and the
        longest initial vector. May be traced.
      every: project each ``every``-th step, say the steps of an epoch; updates pass
        unchanged in between.
      class_axis: the axis along which classes are numbered: -1 for ``[E, C]`` as in
        Flax, 0 for ``[C, E]``.

    Returns:
      A transformation whose ``update`` needs ``params``; updates keep their dtypes.

    Raises:
      ValueError: in ``init``, if a leaf does not have two axes or is all zero; in
        ``update``, if ``params`` is not given.

    Examples:
      >>> params = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> tx = optax.chain(optax.sgd(1.0), ltjax.max_norm())
      >>> updates, _ = tx.update(jnp.zeros((2, 2)), tx.init(params), params)
      >>> print(optax.apply_updates(params, updates))
      [[1.  0. ]
       [0.  1.2]]

    References:
      Alshammari et al., *Long-tailed recognition via weight balancing*, CVPR 2022
      (arXiv 2203.14197); the cap and its application once per epoch are those of the
      authors' code.
    """
    _validate.number("share", share, low=0.0, high=1.0)
    _validate.integer("every", every, low=1)
    _validate.integer("class_axis", class_axis)
    if class_axis not in (-2, -1, 0, 1):
        raise ValueError(f"class_axis must be -2, -1, 0 or 1, got {class_axis!r}.")

    def lengths(kernel):
        w = _numerics.at_least_float32(kernel)
        return _numerics.safe_norm(w, axis=(class_axis + 1) % 2, keepdims=True)

    def cap(path, kernel):
        name = f"params{jax.tree_util.keystr(path)}"
        _validate.array(name, kernel, ndim=2, kind="floating")
        norms = lengths(kernel)
        if _validate.concrete(norms) and not norms.any():
            raise ValueError(f"{name} must not be all zero, as its cap would be 0.")
        shortest, longest = norms.min(), norms.max()
        spread = jnp.asarray(share, norms.dtype) * (longest - shortest)
        return shortest + spread

    def init(params):
        caps = jax.tree_util.tree_map_with_path(cap, params)
        return MaxNormState(jnp.zeros((), jnp.int32), caps)

    def update(updates, state, params=None, **extra_args):
        del extra_args
        if params is None:
            raise ValueError("params must be given to update, got None.")
        step = optax.safe_increment(state.step)
        due = step % every == 0

        def project(update, param, cap):
            new = _numerics.at_least_float32(param)
            new = new + update.astype(new.dtype)
            norms = lengths(new)
            capped = new * _numerics.safe_divide(
                jnp.broadcast_to(cap, norms.shape), norms
            )
            capped = (capped - param.astype(new.dtype)).astype(update.dtype)
            return jnp.where(due & (norms > cap), capped, update)

        updates = jax.tree.map(project, updates, params, state.caps)
        return updates, MaxNormState(step, state.caps)

    return optax.GradientTransformationExtraArgs(init, update)
