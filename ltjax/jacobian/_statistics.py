"""What else the rows of a Jacobian tell: clipped sums, inner products, noise."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ltjax import _validate
from ltjax._numerics import safe_divide, squared_norm
from ltjax.jacobian._operator import Jacobian
from ltjax.jacobian._placement import vary_leaves


def clipped_sum(jac: Jacobian, max_norm: float | jax.Array) -> Any:
    r"""Sum of all rows, each scaled down to a largest norm.

    .. math:: \sum_i \min(1, C / \|g_i\|)\, g_i

    Its sensitivity, the largest change in Euclidean norm, is C where one example is
    added or removed and 2C where one is replaced, for finite rows: what noise for
    differential privacy is scaled by. Examples must be independent, or one of them
    changes the rows of others; what is not proven to be so is refused. **The proof is
    about derivatives.** Statistics of the batch that have none are constants to it,
    though another example changes them: those of data alone, those of what is made in
    the same loop, checkpoint or `jax.shard_map`, those that all losses share before any
    of them sees its own example (`Jacobian.reason` says then that examples meet in
    shared values), and whatever is behind `jax.lax.stop_gradient` or in the forward
    function of a `jax.custom_vjp`. With any of these the bounds do not hold. Examples
    of `linearize_examples` are independent by construction; rows given to
    `Jacobian.from_rows` are taken as they are. In float32 both bounds hold up to the
    error of `Jacobian.norms`. One backward pass more than the norms.

    Args:
      jac: Jacobian of losses ``[B]``.
      max_norm: C, positive. May be traced.

    Returns:
      A tree like the parameters, in their dtypes; not divided by the batch size.

    Raises:
      ValueError: if examples are not known to be independent, or if outputs are not
        losses ``[B]``.

    Examples:
      >>> losses, jac = ltjax.linearize(lambda w: jnp.array([3.0, 0.5]) * w, 0.0)
      >>> print(ltjax.clipped_sum(jac, 1.0))
      1.5

    References:
      Abadi et al., *Deep learning with differential privacy*, CCS 2016, algorithm 1,
      without its noise and division.
    """
    _validate.number("max_norm", max_norm, low=0, open_low=True)
    if len(jac.shape) != 1:
        raise ValueError(
            f"jac must be of losses [B], one row an example, got shape {jac.shape}."
        )
    norms = jac.norms()
    limit = jnp.asarray(max_norm, norms.dtype)
    return jac.vjp(limit / jnp.maximum(norms, limit))


def gram(
    jac: Jacobian, other: Jacobian | None = None, *, chunk_size: int | None = None
) -> jax.Array:
    r"""Inner products of all rows with each other, or with those of another batch.

    .. math:: K_{ij} = \langle g_i, g'_j \rangle

    With itself this is the Gram matrix :math:`J J^\top`, the empirical neural tangent
    kernel of the outputs. With another batch, at the same parameters, it is the
    influence of training examples on test examples by one step of gradient descent
    (TracIn), up to the learning rate. Memory is that of the result and of a chunk of
    rows.

    Args:
      jac: Jacobian of B outputs (of any shape).
      other: Jacobian of other outputs with respect to the same parameters.
      chunk_size: rows of ``jac`` at a time; by default as many as fit 64 MiB.

    Returns:
      Products, ``[B, B']`` for two batches of losses, in the dtype of the outputs of
      ``other``.

    Raises:
      ValueError: if the parameters of the two differ in structure, shape or dtype.

    Examples:
      >>> x = jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> losses, jac = ltjax.linearize(lambda w: x @ w, jnp.zeros(2))
      >>> print(ltjax.gram(jac))
      [[1. 1.]
       [1. 2.]]

    References:
      Jacot et al., *Neural tangent kernel*, NeurIPS 2018; Pruthi et al., *Estimating
      training data influence by tracing gradient descent*, NeurIPS 2020, equation 1.
    """
    other = jac if other is None else other
    own, others = (_shapes(j.params) for j in (jac, other))
    if own != others:
        raise ValueError(f"other must have the parameters of jac, {own}, got {others}.")
    return jac.map_rows(_dots(other), chunk_size=chunk_size)


def project(jac: Jacobian, key: jax.Array, dim: int) -> jax.Array:
    r"""Rows projected to a few random directions, which keep their inner products.

    .. math:: \phi_i = \tfrac{1}{\sqrt{k}} R\, g_i, \qquad
              \mathrm{E}\, \langle \phi_i, \phi_j \rangle = \langle g_i, g_j \rangle

    with independent signs :math:`R \in \{-1, 1\}^{k \times P}`, made one row at a time.
    The standard deviation of a product is at most :math:`\sqrt{2/k}\, |g_i| |g_j|`. It
    costs k products of `Jacobian.jvp`, whose forward and backward pass are shared.

    Args:
      jac: Jacobian of B outputs (of any shape).
      key: typed PRNG key; the same one for features that are to be compared.
      dim: k.

    Returns:
      ``[B, k]`` features in the dtype of the outputs.

    Examples:
      >>> x = jnp.array([[3.0, 0.0], [0.0, 4.0]])
      >>> losses, jac = ltjax.linearize(lambda w: x @ w, jnp.zeros(2))
      >>> features = ltjax.project(jac, jax.random.key(0), 64)
      >>> print((features**2).sum(1))
      [ 9. 16.]

    References:
      Park et al., *TRAK: Attributing model behavior at scale*, ICML 2023, section 3;
      Johnson and Lindenstrauss, 1984, with the signs of Achlioptas, 2003.
    """
    _validate.key("key", key)
    _validate.integer("dim", dim, low=1)
    dots = _dots(jac)
    leaves, treedef = jax.tree.flatten(jac.params)

    def one(key):
        keys = jax.random.split(key, len(leaves))
        signs = [
            jax.random.rademacher(k, p.shape, p.dtype)
            for k, p in zip(keys, leaves, strict=True)
        ]
        return dots(jax.tree.unflatten(treedef, signs))

    features = jax.lax.map(one, jax.random.split(key, dim))
    return jnp.moveaxis(features, 0, -1) / jnp.sqrt(jnp.asarray(dim, features.dtype))


class NoiseScale(NamedTuple):
    """How much the gradients of single examples differ: see `noise_scale`."""

    variance: jax.Array  # shape=(), float; trace of the covariance of the rows
    squared_mean: jax.Array  # shape=(), float; squared norm of the true mean gradient

    @property
    def examples(self) -> jax.Array:
        """Batch size at which noise and signal are equal, 0 without a signal."""
        return safe_divide(self.variance, self.squared_mean)


def noise_scale(jac: Jacobian, *, definition: str | None = None) -> NoiseScale:
    r"""Unbiased estimates of the noise and the signal in a batch's gradient.

    .. math::

        S = \frac{B}{B - 1} \Big( \frac{1}{B} \sum_i \|g_i\|^2 - \|\bar g\|^2 \Big),
        \qquad |G|^2 = \|\bar g\|^2 - \frac{S}{B}, \qquad
        \mathcal{B}_\text{simple} = \frac{S}{|G|^2}

    Larger batches than :math:`\mathcal{B}_\text{simple}` gain little. The ratio of two
    noisy numbers is biased: average both over steps before dividing, as in
    ``NoiseScale(mean_variance, mean_squared_mean).examples``. :math:`|G|^2` of a single
    batch may be negative. Of coupled examples the estimates are not unbiased. Inside
    `jax.shard_map` they are those of the whole batch, equal on all devices.

    Args:
      jac: Jacobian of at least two losses, of any shape.
      definition: for coupled examples and losses not ``[B]``: ``"row"`` or
        ``"attribution"``, see `Jacobian.norms`; the rows of both add up to the
        gradient.

    Returns:
      ``NoiseScale(variance, squared_mean)``, scalars in at least float32.

    Raises:
      ValueError: if there is only one loss.

    Examples:
      >>> losses, jac = ltjax.linearize(lambda w: jnp.array([1.0, 3.0]) * w, 0.0)
      >>> noise = ltjax.noise_scale(jac)
      >>> print(noise.variance, noise.squared_mean, f"{noise.examples:.3f}")
      2.0 3.0 0.667

    References:
      McCandlish et al., *An empirical model of large-batch training*, 2018
      (arXiv:1812.06162), appendix A.1, with batches of 1 and B.
    """
    if definition is not None:
        _validate.choice("definition", definition, ("row", "attribution"))
    norms = jac.norms(definition=definition)
    size = _over_devices(jac, norms.size)
    if size < 2:
        raise ValueError(f"noise_scale needs at least 2 losses, got shape {jac.shape}.")
    mean = jac.vjp(jnp.full(jac.shape, 1 / size, norms.dtype))
    squares = map(squared_norm, jax.tree.leaves(mean))
    squared = sum((x.astype(norms.dtype) for x in squares), jnp.zeros((), norms.dtype))
    mean_square = _over_devices(jac, jnp.sum(jnp.square(norms))) / size
    variance = (mean_square - squared) * (size / (size - 1))
    return NoiseScale(variance, squared - variance / size)


def _over_devices(jac: Jacobian, number: Any) -> Any:
    """The sum over the devices that the rows are spread over in `jax.shard_map`."""
    return jax.lax.psum(number, tuple(jac.axes)) if jac.axes else number


def _shapes(params: Any) -> Any:
    return jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)


def _dots(jac: Jacobian) -> Callable[[Any], jax.Array]:
    """`Jacobian.jvp`, of which only what depends on the direction is mapped."""
    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), jac.params)
    dots = jax.linearize(jac.jvp, vary_leaves(zeros, jac.axes))[1]
    return lambda direction: dots(vary_leaves(direction, jac.axes))
