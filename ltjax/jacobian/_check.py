"""Products with the Jacobian compared with plain JAX, on the user's own function."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltjax import _validate
from ltjax._numerics import at_least_float32, widest
from ltjax.jacobian._linearize import linearize

_TOLERANCES = {"float64": 1e-9, "float32": 1e-3, "float16": 0.02, "bfloat16": 0.1}
_FLOOR = 1e-3  # rows and leaves below this part of the largest count as this part


class Check(NamedTuple):
    """Largest relative errors of the products with a Jacobian, see `check`."""

    losses: float
    jvp: float
    vjp: float
    norms: float
    tolerance: float  # what the dtype in use allows
    rows: int  # rows compared
    method: str  # as in `Jacobian`
    reason: str

    @property
    def ok(self) -> bool:
        """Whether all errors are within the tolerance; NaN is not."""
        errors = (self.losses, self.jvp, self.vjp, self.norms)
        return all(error <= self.tolerance for error in errors)

    def __str__(self) -> str:
        lines = [
            f"method: {self.method} ({self.reason})",
            f"rows compared: {self.rows}",
        ]
        lines.append("product  largest relative error")
        for name in ("losses", "jvp", "vjp", "norms"):
            error = getattr(self, name)
            verdict = "ok" if error <= self.tolerance else "WRONG"
            lines.append(f"{name:<8} {error:8.1e}  {verdict}")
        return "\n".join([*lines, f"tolerance {self.tolerance:.0e}"])


def check(
    losses_fn: Callable[[Any], Any],
    params: Any,
    *,
    key: jax.Array,
    rows: int | None = None,
    has_aux: bool = False,
    **options: Any,
) -> Check:
    r"""Compare the products of `linearize` with dense rows made by plain JAX.

    For a direction :math:`v` and cotangents :math:`w` with standard normal entries,

    .. math:: e_{jvp} = \max_i \frac{|(Jv)_i - \langle g_i, v \rangle|}{\|g_i\|},
              \qquad e_{norms} = \max_i \frac{|n_i - \|g_i\||}{\|g_i\|}, \qquad
              e_{vjp} = \max_l \frac{\|(J^\top w)_l - u_l\|}{\|u_l\|}

    where :math:`g_i` is row :math:`i` from one backward pass of `jax.vjp` and :math:`u`
    the gradient of :math:`\sum_i w_i \ell_i`, leaf by leaf. A row (or leaf) smaller
    than 0.001 of the largest is divided by 0.001 of the largest instead.

    Whatever `linearize` proves or is told about the function is thereby tested: options
    given to it here are the ones to use in training. Nothing is proven: other
    parameters or data may take other branches.

    Args:
      losses_fn: as in `linearize`; deterministic.
      params: as in `linearize`. They are used in the dtype that they have.
      key: typed key for the direction, the cotangents and the sample of rows.
      rows: how many rows to compare, drawn without replacement; all of them by
        default. Each costs a forward and a backward pass; the products always cover
        the whole batch.
      has_aux: whether ``losses_fn`` returns ``(losses, aux)``.
      **options: passed to `linearize`, ``method`` for example.

    Returns:
      A `Check`: the errors, the tolerance and the method. Its ``str`` is a table, its
      ``ok`` says whether all errors are within the tolerance: 1e-9 in float64, 1e-3 in
      float32, 0.02 in float16, 0.1 in bfloat16, by the narrowest dtype of the
      parameters and the losses. Where the device multiplies
      less precisely than that (float32 on a TPU), call it under
      ``jax.default_matmul_precision("highest")``.

    Raises:
      TypeError: if ``key`` is not a typed key, or as in `linearize`.
      ValueError: if ``rows`` is not positive, or where `linearize` and `Jacobian.norms`
        refuse the function.

    Examples:
      >>> x, y = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([1.0, 1.0])
      >>> report = ltjax.check(
      ...     lambda w: (x @ w - y) ** 2, jnp.zeros(2), key=jax.random.key(0)
      ... )
      >>> report.ok, report.rows
      (True, 2)
    """
    _validate.key("key", key)
    if rows is not None:
        _validate.integer("rows", rows, low=1)
    params = jax.tree.map(jnp.asarray, params)

    def outputs_fn(params):
        return losses_fn(params)[0] if has_aux else losses_fn(params)

    shape = jax.eval_shape(outputs_fn, params)
    keys = jax.random.split(key, 3)
    direction = _normal(keys[0], params)
    cotangents = _normal(keys[1], shape)
    told: dict[str, str] = {}

    @jax.jit
    def products(params):
        losses, jac, *_ = linearize(losses_fn, params, has_aux=has_aux, **options)
        told.update(method=jac.method, reason=jac.reason)
        norms = jac.norms(definition="row")
        return losses, jac.jvp(direction), jac.vjp(cotangents), norms

    losses, dots, gradient, norms = products(params)
    chosen = _sample(keys[2], shape.size, rows)
    wanted_dots, wanted_norms = _rows(outputs_fn, params, direction, chosen)
    wanted, wanted_gradient = jax.jit(_weighted_gradient, static_argnums=0)(
        outputs_fn, params, cotangents
    )
    flat_dots, flat_norms = (_float64(x).reshape(-1)[chosen] for x in (dots, norms))
    return Check(
        losses=_relative(_float64(losses) - _float64(wanted), np.abs(_float64(wanted))),
        jvp=_relative(flat_dots - wanted_dots, wanted_norms),
        vjp=_by_leaf(gradient, wanted_gradient),
        norms=_relative(flat_norms - wanted_norms, wanted_norms),
        tolerance=_tolerance(shape, params),
        rows=len(chosen),
        **told,
    )


def _rows(outputs_fn, params, direction, chosen):
    """Inner products with ``direction`` and norms of the chosen rows."""

    @jax.jit
    def one(params, index):
        outputs, pullback = jax.vjp(outputs_fn, params)
        basis = jnp.zeros(outputs.size, outputs.dtype).at[index].set(1)
        (row,) = pullback(basis.reshape(outputs.shape))
        wide = widest(outputs.dtype)
        return _inner(row, direction, wide), jnp.sqrt(_inner(row, row, wide))

    found = np.array([jax.device_get(one(params, i)) for i in chosen], np.float64)
    return found[:, 0], found[:, 1]


def _weighted_gradient(outputs_fn, params, cotangents):
    outputs, pullback = jax.vjp(outputs_fn, params)
    return outputs, pullback(cotangents)[0]


def _inner(a: Any, b: Any, dtype: Any) -> jax.Array:
    def one(x, y):
        return jnp.sum(at_least_float32(x) * at_least_float32(y)).astype(dtype)

    return sum(jax.tree.leaves(jax.tree.map(one, a, b)), start=jnp.zeros((), dtype))


def _normal(key: jax.Array, tree: Any) -> Any:
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, max(len(leaves), 1))
    drawn = [
        jax.random.normal(k, x.shape, x.dtype)
        for k, x in zip(keys, leaves, strict=False)
    ]
    return jax.tree.unflatten(treedef, drawn)


def _sample(key: jax.Array, size: int, rows: int | None) -> np.ndarray:
    if rows is None or rows >= size:
        return np.arange(size)
    return np.sort(np.asarray(jax.random.permutation(key, size))[:rows])


def _by_leaf(got: Any, want: Any) -> float:
    """Relative error of the worst leaf, in Euclidean norm."""
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    differences, sizes = [], []
    for g, w in pairs:
        differences.append(np.linalg.norm((_float64(g) - _float64(w)).ravel()))
        sizes.append(np.linalg.norm(_float64(w).ravel()))
    return _relative(np.array(differences), np.array(sizes))


def _relative(difference: np.ndarray, size: np.ndarray) -> float:
    """Largest ratio; what should be zero and is counts as exact."""
    size = np.maximum(size, _FLOOR * np.max(size, initial=0))
    ratios = np.abs(difference) / np.where(size == 0, 1, size)
    return float(np.max(ratios, initial=0))


def _float64(x: jax.Array) -> np.ndarray:
    return np.asarray(x.astype(widest(x.dtype)), np.float64)


def _tolerance(*trees: Any) -> float:
    dtypes = [x.dtype for x in jax.tree.leaves(trees)]
    narrowest = max(dtypes, key=lambda d: float(jnp.finfo(d).eps))
    return _TOLERANCES.get(jnp.dtype(narrowest).name, 0.1)
