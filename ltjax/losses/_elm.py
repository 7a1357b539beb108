"""Margins between logits and between embeddings (ELM)."""

import jax
import jax.numpy as jnp
import optax

from ltjax import _classes, _numerics, _validate
from ltjax.losses._adjustment import logit_adjusted_cross_entropy
from ltjax.losses._margin import ldam

_KINDS = ("contrastive", "spread", "center")
_MARGINS = ("logit_adjustment", "ldam", "none")


def elm(
    logits: jax.Array,
    embeddings: jax.Array,
    labels: jax.Array,
    *,
    class_priors: jax.Array,
    tau: float | jax.Array = 1.0,
    weight: float | jax.Array = 0.1,
    kind: str = "contrastive",
    margin: str = "logit_adjustment",
    temperature: float | jax.Array = 0.1,
    embedding_tau: float | jax.Array = 0.5,
    centers: jax.Array | None = None,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Margins in logit space plus a term that tightens classes in embedding space.

    .. math::
      \ell_i = \log\Big[1 + \sum_{c \ne y_i} e^{D_{y_i c} + z_{ic} - z_{i y_i}}\Big]
        + \lambda \, \ell^{\mathrm{emb}}_i

    Logit margins ``D[y, c]``, by ``margin``:

    - ``"logit_adjustment"``: :math:`\tau \log(\pi_c / \pi_y)`
    - ``"ldam"``: :math:`\tau (\min_k \pi_k / \pi_y)^{1/4}`, so ``tau`` is the margin
      of the rarest class
    - ``"none"``: 0, plain cross-entropy

    Embedding terms, by ``kind``, on directions :math:`u = h / \|h\|` so that no term
    can be lowered by shrinking every embedding. ``P(i)`` are the other examples of
    the batch with the label of ``i``, :math:`\rho` is ``embedding_tau``, and
    :math:`r_c \propto \pi_c^{-\rho}` with mean 1 over the training distribution:

    - ``"contrastive"``: mean over ``p`` in ``P(i)`` of :math:`\log[1 + \sum_{a: y_a
      \ne y_i} e^{\rho \log(\pi_{y_a} / \pi_{y_i}) + (u_i \cdot u_a - u_i \cdot u_p) /
      T}]`: the rarer the anchor and the more common the negative, the larger the margin
    - ``"spread"``: :math:`r_{y_i}` times the mean over ``P(i)`` of
      :math:`\|u_i - u_p\|^2`
    - ``"center"``: :math:`r_{y_i} \|u_i - \mu_{y_i}\|^2` with the running class
      directions of :func:`update_centers`, through which no gradient flows

    An example without a partner (``P(i)`` empty), or of a class whose center has not
    been seen, has an embedding term of 0. In small batches this is the usual case for
    tail classes: monitor :func:`positive_share`, and either put two views of every
    image in the batch (stack them along its leading axis, with labels repeated) or use
    ``kind="center"``. The first two kinds couple the examples of a batch, so the
    gradient of one example means a row of the Jacobian of the batch's losses.

    Args:
      logits: ``[B, C]`` scores, any float dtype.
      embeddings: ``[B, E]`` features, any float dtype; all-zero rows have no direction
        and no gradient.
      labels: ``[B]`` integers in ``[0, C)``; out-of-range values are not detected.
      class_priors: ``[C]`` positive training frequencies; their sum does not matter.
        A traced zero is taken for the smallest normal number.
      tau: strength of the logit margins, at least 0. May be traced.
      weight: factor on the embedding term, at least 0; 0 leaves the logit term.
        May be traced.
      kind: ``"contrastive"``, ``"spread"`` or ``"center"``.
      margin: ``"logit_adjustment"``, ``"ldam"`` or ``"none"``.
      temperature: ``T`` of ``kind="contrastive"``, positive. May be traced.
      embedding_tau: how strongly rarity enters the embedding term, in ``[0, 1]``;
        0 treats all classes alike. May be traced.
      centers: ``[C, E]``, needed by ``kind="center"`` and refused by the others.
      where: ``[B]`` booleans, false for padding: loss 0, whatever its logits and label.
        It is no one's partner or negative.

    Returns:
      ``[B]`` losses in at least float32, not reduced.

    Examples:
      >>> z, y = jnp.array([[2.0, 0.0], [0.0, 0.0], [1.0, 0.0]]), jnp.array([0, 1, 0])
      >>> h = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
      >>> pi = jnp.array([0.9, 0.1])
      >>> loss = ltjax.losses.elm(z, h, y, class_priors=pi, weight=1.0, kind="spread")
      >>> " ".join(f"{l:.3f}" for l in loss)
      '0.503 2.303 0.528'

    References:
      Jitkrittum et al., *ELM: Embedding and logit margins for long-tail learning*,
      2022 (arXiv 2204.13208). Published: one loss that joins logit margins with a
      regulariser of the embeddings. We designed the exact form, the three embedding
      terms and all defaults; the logit margins are those of Menon et al. (ICLR 2021)
      and Cao et al. (NeurIPS 2019).
    """
    _validate.classification(logits, labels)
    batch, num_classes = logits.shape
    _validate.array("embeddings", embeddings, shape=(batch, None), kind="floating")
    _validate.class_vector("class_priors", class_priors, num_classes, positive=True)
    _validate.number("tau", tau, low=0.0)
    _validate.number("weight", weight, low=0.0)
    _validate.choice("kind", kind, _KINDS)
    _validate.choice("margin", margin, _MARGINS)
    _validate.number("temperature", temperature, low=0.0, open_low=True)
    _validate.number("embedding_tau", embedding_tau, low=0.0, high=1.0)
    if (kind == "center") != (centers is not None):
        raise ValueError(
            "centers must be given with kind='center' and only then, got "
            f"kind={kind!r} and centers={'None' if centers is None else 'an array'}."
        )

    counted = _counted(where, labels)
    logits, labels, embeddings = (
        _numerics.masked(x, where) for x in (logits, labels, embeddings)
    )
    u = _directions(embeddings)
    log_priors = _classes.log_priors(class_priors, u.dtype)
    rho = jnp.asarray(embedding_tau, u.dtype)
    if kind == "contrastive":
        temperature = jnp.asarray(temperature, u.dtype)
        embedding_term = _contrastive(u, labels, rho * log_priors, temperature, counted)
    elif kind == "spread":
        embedding_term = _rarity(log_priors, rho)[labels] * _spread(u, labels, counted)
    else:
        _validate.array(
            "centers", centers, shape=(num_classes, u.shape[1]), kind="floating"
        )
        term = _center_distance(u, labels, jax.lax.stop_gradient(centers))
        embedding_term = _rarity(log_priors, rho)[labels] * term

    logit_term = _logit_term(logits, labels, class_priors, tau, margin)
    dtype = _numerics.widest(logit_term.dtype, u.dtype)
    weight = jnp.asarray(weight, dtype)
    losses = logit_term.astype(dtype) + weight * embedding_term.astype(dtype)
    return _numerics.masked(losses, where)


def update_centers(
    centers: jax.Array,
    embeddings: jax.Array,
    labels: jax.Array,
    *,
    decay: float | jax.Array = 0.9,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Running mean direction of every class, for ``elm(..., kind="center")``.

    .. math:: \mu_c \leftarrow d \, \mu_c + (1 - d) \,
      \mathrm{mean}_{i: y_i = c} \; h_i / \|h_i\|

    A class absent from the batch keeps its center. A row of zeros marks a class not
    seen yet: its first batch is taken as it is, so no bias correction is needed.

    Args:
      centers: ``[C, E]`` running means; start from ``jnp.zeros((C, E))``.
      embeddings: ``[B, E]`` features, any float dtype.
      labels: ``[B]`` integers in ``[0, C)``; out-of-range values are left out.
      decay: in ``[0, 1)``; counts batches in which the class occurs. May be traced.
      where: ``[B]`` booleans, false for padding, which is left out.

    Returns:
      ``[C, E]`` new centers in the dtype of ``centers``.

    Examples:
      >>> h, y = jnp.array([[2.0, 0.0], [0.0, 3.0]]), jnp.array([1, 1])
      >>> print(ltjax.losses.update_centers(jnp.zeros((3, 2)), h, y)[1])
      [0.5 0.5]

    References:
      We designed this update; class centers are an idea of Wen et al., *A
      discriminative feature learning approach for deep face recognition*, ECCV 2016.
    """
    _validate.array("centers", centers, ndim=2, kind="floating")
    _validate.array(
        "embeddings", embeddings, shape=(None, centers.shape[1]), kind="floating"
    )
    _validate.array("labels", labels, shape=(embeddings.shape[0],), kind="integer")
    _validate.number("decay", decay, low=0.0, high=1.0, open_high=True)
    _validate.mask(where, labels.shape)
    u = _directions(_numerics.masked(embeddings, where))
    members = jax.nn.one_hot(labels, centers.shape[0], dtype=u.dtype)
    members = _numerics.masked(members, where).T
    counts = members.sum(axis=1, keepdims=True)
    means = jnp.matmul(members, u, precision="highest") / jnp.maximum(counts, 1)
    old = centers.astype(u.dtype)
    decay = jnp.where(_seen(old), jnp.asarray(decay, u.dtype), jnp.zeros((), u.dtype))
    new = decay[:, None] * old + (1 - decay[:, None]) * means
    return jnp.where(counts > 0, new, old).astype(centers.dtype)


def positive_share(
    labels: jax.Array,
    *,
    class_mask: jax.Array | None = None,
    where: jax.Array | None = None,
) -> jax.Array:
    """Share of a batch's anchors that have a partner of their own class in it.

    If it is near 0 for the tail, the pairwise embedding terms of :func:`elm` have no
    effect there.

    Args:
      labels: ``[B]`` integers in ``[0, C)``.
      class_mask: ``[C]`` booleans, true for the classes to look at, say the few-shot
        ones; by default all.
      where: ``[B]`` booleans, false for padding, which is left out.

    Returns:
      A float32 number in ``[0, 1]``; 0 where the batch has no such anchor.

    Examples:
      >>> labels, few = jnp.array([0, 0, 0, 1]), jnp.array([False, True])
      >>> print(ltjax.losses.positive_share(labels))
      0.75
      >>> print(ltjax.losses.positive_share(labels, class_mask=few))
      0.0
    """
    _validate.array("labels", labels, ndim=1, kind="integer")
    counted = _counted(where, labels)
    anchors = counted
    if class_mask is not None:
        _validate.array("class_mask", class_mask, ndim=1, kind="bool")
        anchors = anchors & jnp.asarray(class_mask)[labels]
    paired = _positives(labels, counted).any(axis=1) & anchors
    return paired.sum() / jnp.maximum(anchors.sum(), 1)


def _logit_term(logits, labels, class_priors, tau, margin):
    """Cross-entropy with the chosen margins, ``[B]``."""
    if margin == "logit_adjustment":
        return logit_adjusted_cross_entropy(
            logits, labels, class_priors=class_priors, tau=tau
        )
    z = _numerics.at_least_float32(logits)
    if margin == "ldam":
        priors = _classes.positive_priors(class_priors, z.dtype)
        return ldam(z, labels, class_counts=priors, max_margin=tau, scale=1.0)
    return optax.softmax_cross_entropy_with_integer_labels(z, labels)


def _counted(where, labels):
    """Which examples are not padding, ``[B]``."""
    _validate.mask(where, labels.shape)
    return jnp.ones(labels.shape, jnp.bool_) if where is None else where


def _contrastive(u, labels, scaled_log_priors, temperature, counted):
    """Mean over positives of a softplus against all negatives, ``[B]``."""
    similarity = _similarity(u) / temperature
    other = (labels[:, None] != labels[None, :]) & counted[None, :]
    at = scaled_log_priors[labels]
    margins = at[None, :] - at[:, None]
    # The sum over negatives is the same for every positive: B x B, not B x B x B.
    rest = jax.nn.logsumexp(similarity + margins, axis=1, where=other)
    pairs = jax.nn.softplus(rest[:, None] - similarity)
    return _mean_where(pairs, _positives(labels, counted))


def _spread(u, labels, counted):
    """Mean squared distance of a direction to the others of its class, ``[B]``."""
    return _mean_where(2 - 2 * _similarity(u), _positives(labels, counted))


def _center_distance(u, labels, centers):
    """Squared distance to the center of the label, 0 for a class not seen, ``[B]``."""
    centers = centers.astype(u.dtype)
    squares = jnp.sum((u - centers[labels]) ** 2, axis=1)
    return jnp.where(_seen(centers)[labels], squares, jnp.zeros_like(squares))


def _seen(centers):
    """Which classes have a center, ``[C]``."""
    return (centers != 0).any(axis=1)


def _rarity(log_priors, rho):
    """Weights ``[C]`` proportional to ``pi^-rho``, of mean 1 under the priors."""
    logsumexp = jax.nn.logsumexp
    scale = logsumexp(log_priors) - logsumexp((1 - rho) * log_priors)
    return jnp.exp(scale - rho * log_priors)


def _directions(embeddings):
    """Embeddings of length 1; zero rows stay zero, with zero gradients."""
    h = _numerics.at_least_float32(embeddings)
    return _numerics.safe_divide(h, _numerics.safe_norm(h, keepdims=True))


def _similarity(u):
    """Cosines of all pairs, ``[B, B]``."""
    return jnp.matmul(u, u.T, precision="highest")


def _positives(labels, counted):
    """Which pairs share a label, the diagonal left out, ``[B, B]``."""
    others = counted[None, :] & ~jnp.eye(len(labels), dtype=jnp.bool_)
    return (labels[:, None] == labels[None, :]) & others


def _mean_where(values, where):
    """Row means over the true entries, 0 for a row without any."""
    total = jnp.sum(values, axis=1, where=where)
    return total / jnp.maximum(where.sum(axis=1), 1).astype(values.dtype)
