"""One training step of every method, for any model that is a pure function.

`make_method` turns settings into an ``(init, step)`` pair that can be jitted, scanned
and mapped over seeds. Numbers in `MethodConfig` and `OptimizerConfig` may be traced, so
that hyperparameters can be mapped over as well::

    method = make_method(MethodConfig(weighting="absgd"), apply, ...)
    state = method.init(params, rest, inputs, key)
    state, metrics = method.step(state, batch, meta_batch, key)

A model is ``apply(params, rest, inputs, *, train, key) -> (outputs, rest)``, where
outputs have ``logits [B, C]`` and ``embeddings [B, E]``; `models.functional`
makes one. Parameters of the classifier have ``head`` in their path.
"""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

import ltjax

_FROM_LOGITS = ("gdw", "mw_net")
_REGRESSION = ("mse", "huber")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """What is minimised, and how much each example counts."""

    loss: Literal[
        "ce",
        "class_balanced",
        "logit_adjusted",
        "balanced_softmax",
        "ldam",
        "focal",
        "sce",
        "gce",
        "truncated_gce",
        "elm",
        "mse",
        "huber",
    ] = "ce"
    weighting: Literal["none", "absgd", "gradtail", "gdw", "mw_net", "l2rw"] = "none"
    """gdw, mw_net and l2rw need a clean meta set; the first two go with ce only."""
    start_epoch: int = 0
    """First epoch with the weighting (absgd) and the class weights (class_balanced)."""

    tau: float = 1.0
    """Strength of the prior in logit_adjusted and elm."""
    beta: float = 0.9999
    """class_balanced: 0 is equal weights, towards 1 weights like 1 / count."""
    ldam_margin: float = 0.5
    ldam_scale: float = 30.0
    focal_gamma: float = 2.0
    sce_alpha: float = 0.1
    """Weight of cross-entropy in sce."""
    sce_beta: float = 1.0
    """Weight of reverse cross-entropy in sce."""
    gce_q: float = 0.7
    elm_kind: Literal["contrastive", "spread", "center"] = "contrastive"
    elm_margin: Literal["logit_adjustment", "ldam", "none"] = "logit_adjustment"
    elm_weight: float = 0.1
    elm_temperature: float = 0.1
    feature_penalty: float = 0.0
    """Adds this times half the squared length of each embedding to its loss."""

    absgd_temperature: float = 1.0
    """Positive: hard examples count more. Negative: they count less."""
    absgd_gamma: float = 0.9
    absgd_alpha: float = 1.0
    absgd_erm_weight: float = 0.0
    absgd_bias_correction: bool = True

    gradtail_activation: Literal["gated", "bump", "tent", "sigmoid", "linear"] = "gated"
    gradtail_similarity: Literal["cosine", "dot", "dot_unit_mean"] = "cosine"
    gradtail_reference: Literal["weighted", "unweighted"] = "unweighted"
    """Mean gradient that the others are compared with; the unweighted one costs another
    backward pass."""
    gradtail_definition: Literal["row", "frozen", "attribution"] = "frozen"
    """What an example's gradient is under batch normalisation, see `ltjax.Jacobian`."""
    gradtail_decay: float = 0.99
    gradtail_burn_in: int = 20
    gradtail_strength: float = 5.0
    gradtail_slope: float = 4.0
    gradtail_z_score: bool = False
    gradtail_layers: Literal["all", "classifier"] = "all"
    """Parameters whose gradients are compared."""

    meta_step_size: float | None = None
    """gdw: length of the second stage's step; 0.1 * B * C by default."""
    meta_clip: float = 0.2
    meta_hidden: int = 100
    meta_learning_rate: float = 1e-3
    meta_weight_decay: float = 1e-4

    max_norm: float | None = None
    """Caps the classifier's rows once per epoch, this far from the smallest norm to the
    largest (0.1 in the published stage)."""
    post_hoc: Literal["none", "additive", "multiplicative"] = "none"
    """Adjustment of the trained logits by the class priors."""
    post_hoc_tau: float | None = None
    """Its strength; by default that which is best on the validation set."""

    def __post_init__(self):
        if self.weighting in _FROM_LOGITS and self.loss != "ce":
            raise ValueError(
                f"loss must be 'ce' with weighting={self.weighting!r}, "
                f"got {self.loss!r}."
            )
        if self.weighting in _FROM_LOGITS and self.has_feature_penalty:
            raise ValueError(
                f"feature_penalty must be 0 with weighting={self.weighting!r}, "
                f"got {self.feature_penalty}."
            )

    @property
    def needs_meta(self) -> bool:
        """Whether a step reads a batch of the meta set."""
        return self.weighting in (*_FROM_LOGITS, "l2rw")

    @property
    def is_regression(self) -> bool:
        """Whether targets are numbers rather than classes."""
        return self.loss in _REGRESSION

    @property
    def has_feature_penalty(self) -> bool:
        """Whether the penalty is part of the loss (a traced strength is)."""
        return not isinstance(self.feature_penalty, (int, float)) or (
            self.feature_penalty != 0
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimiser behind the weighting; the learning rate changes once per epoch."""

    name: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    """Coupled L2, added to the gradient before momentum."""
    decayed: Literal["all", "kernels"] = "all"
    """Which parameters decay: all, or those with at least two axes."""
    clip_norm: float | None = None
    """Bound of the gradient's norm, weight decay not included."""
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    milestones: tuple[int, ...] = ()
    """step: epochs at which the learning rate is multiplied by ``factor``."""
    factor: float = 0.1
    warmup_epochs: int = 0
    """First epochs, in which the learning rate rises linearly to its value."""


class Batch(NamedTuple):
    """Examples, ready for the model."""

    inputs: jax.Array  # [B, ...], float
    targets: jax.Array  # [B], int labels or float targets


class State(NamedTuple):
    """Everything a step changes."""

    step: jax.Array  # shape=(), int32; steps taken
    params: Any
    rest: Any  # the model's other state, such as batch statistics
    opt_state: optax.OptState
    centers: jax.Array | None  # [C, E], class directions of elm_kind="center"


class Method(NamedTuple):
    """A method bound to a model."""

    init: Callable[[Any, Any, jax.Array, jax.Array], State]
    """``(params, rest, inputs, key) -> state``; only the shape of ``inputs`` counts."""
    step: Callable[..., tuple[State, dict[str, jax.Array]]]
    """``(state, batch, meta_batch, key) -> (state, metrics)``; ``meta_batch`` may be
    None where `MethodConfig.needs_meta` is false. Metrics: scalars ``loss`` (raw mean),
    ``weighted_loss``, ``learning_rate``, and by example ``losses``, ``weights`` (1 is
    plain SGD) and ``predictions``, each ``[B]``."""


def make_method(
    config: MethodConfig,
    apply: Callable[..., tuple[Any, Any]],
    *,
    optimizer: OptimizerConfig,
    epochs: int,
    steps_per_epoch: int,
    class_counts: jax.Array | None = None,
) -> Method:
    """Binds a method and an optimiser to a model.

    Args:
      config: the method.
      apply: the model as a pure function, see the module's docstring.
      optimizer: what follows the weighting.
      epochs: length of the run, for the schedule.
      steps_per_epoch: steps after which the learning rate changes.
      class_counts: ``[C]`` counts of the training labels; None in regression.
    """
    if config.is_regression != (class_counts is None):
        raise ValueError(
            "class_counts must be given exactly where targets are classes, "
            f"got loss={config.loss!r} and class_counts={class_counts!r}."
        )
    schedule = learning_rate(optimizer, epochs=epochs, steps_per_epoch=steps_per_epoch)
    start_step = config.start_epoch * steps_per_epoch

    def transform(key):
        num_classes = None if class_counts is None else len(class_counts)
        return optax.chain(
            _weighting(config, num_classes, schedule, start_step, key),
            _optimizer(optimizer, schedule),
            _max_norm(config, steps_per_epoch),
        )

    def init(params, rest, inputs, key):
        centers = None
        if config.loss == "elm" and config.elm_kind == "center":
            outputs, _ = jax.eval_shape(
                lambda p, r, x: apply(p, r, x, train=False), params, rest, inputs
            )
            centers = jnp.zeros((len(class_counts), outputs.embeddings.shape[1]))
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            rest=rest,
            opt_state=transform(key).init(params),
            centers=centers,
        )

    losses_fn = _losses_fn(config, class_counts, start_step)

    def step(state, batch, meta_batch, key):
        train_key, meta_key = jax.random.split(key)

        def forward(params):
            return apply(params, state.rest, batch.inputs, train=True, key=train_key)

        def losses_and_aux(params):
            outputs, rest = forward(params)
            return losses_fn(outputs, batch.targets, state), (outputs, rest)

        def logits_and_aux(params):
            outputs, rest = forward(params)
            return outputs.logits, (outputs, rest)

        def meta_loss(params):
            # Batch statistics of this pass are its own, and are dropped.
            outputs, _ = apply(
                params, state.rest, meta_batch.inputs, train=True, key=meta_key
            )
            return _cross_entropy(outputs.logits, meta_batch.targets).mean()

        if config.weighting in _FROM_LOGITS:
            logits, jac, (outputs, rest) = ltjax.linearize(
                logits_and_aux, state.params, has_aux=True
            )
            losses = losses_fn(outputs, batch.targets, state)
            extra = {"logits": logits, "labels": batch.targets}
        else:
            losses, jac, (outputs, rest) = ltjax.linearize(
                losses_and_aux, state.params, has_aux=True
            )
            extra = {}
        if config.needs_meta:
            extra["meta_grad_fn"] = jax.grad(meta_loss)
        jac, cotangents = _recorded(jac)
        updates, opt_state = transform(key).update(
            jac, state.opt_state, state.params, losses=losses, **extra
        )
        weights = _example_weights(cotangents[-1], outputs.logits, batch.targets)
        metrics = {
            "loss": losses.mean(),
            "weighted_loss": (weights * losses).mean(),
            "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
            "losses": losses,
            "weights": weights,
            "predictions": _predictions(config, outputs.logits),
        }
        centers = state.centers
        if centers is not None:
            centers = ltjax.losses.update_centers(
                centers, jax.lax.stop_gradient(outputs.embeddings), batch.targets
            )
        new_state = State(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            rest=rest,
            opt_state=opt_state,
            centers=centers,
        )
        return new_state, metrics

    return Method(init, step)


def learning_rate(
    config: OptimizerConfig, *, epochs: int, steps_per_epoch: int
) -> optax.Schedule:
    """Learning rate of a step, constant within an epoch."""

    def schedule(step):
        epoch = jnp.asarray(step) // steps_per_epoch
        rate = jnp.asarray(config.learning_rate, jnp.float32)
        if config.schedule == "cosine":
            rate = rate * 0.5 * (1 + jnp.cos(jnp.pi * epoch / epochs))
        elif config.schedule == "step":
            passed = sum(jnp.where(epoch >= m, 1, 0) for m in config.milestones)
            rate = rate * jnp.asarray(config.factor, jnp.float32) ** passed
        if config.warmup_epochs:
            rate = rate * jnp.minimum((epoch + 1) / config.warmup_epochs, 1.0)
        return rate

    return schedule


def classifier_mask(params: Any) -> Any:
    """Which parameters are the classifier's: those with ``head`` in their path."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "head" in jax.tree_util.keystr(path), params
    )


def _losses_fn(config, class_counts, start_step):
    """``(outputs, targets, state) -> losses [B]`` of a configuration."""
    losses = ltjax.losses
    if class_counts is not None:
        class_counts = jnp.maximum(jnp.asarray(class_counts, jnp.float32), 1.0)
        class_priors = class_counts / class_counts.sum()

    def base(outputs, targets, state):
        z = outputs.logits
        match config.loss:
            case "ce":
                return _cross_entropy(z, targets)
            case "class_balanced":
                w = losses.class_balanced_weights(class_counts, beta=config.beta)
                started = state.step >= start_step
                return jnp.where(started, w, 1.0)[targets] * _cross_entropy(z, targets)
            case "logit_adjusted":
                return losses.logit_adjusted_cross_entropy(
                    z, targets, class_priors=class_priors, tau=config.tau
                )
            case "balanced_softmax":
                return losses.balanced_softmax(z, targets, class_counts=class_counts)
            case "ldam":
                return losses.ldam(
                    z,
                    targets,
                    class_counts=class_counts,
                    max_margin=config.ldam_margin,
                    scale=config.ldam_scale,
                )
            case "focal":
                return losses.focal(z, targets, gamma=config.focal_gamma)
            case "sce":
                return losses.symmetric_cross_entropy(
                    z, targets, alpha=config.sce_alpha, beta=config.sce_beta
                )
            case "gce":
                return losses.generalized_cross_entropy(z, targets, q=config.gce_q)
            case "truncated_gce":
                return losses.truncated_generalized_cross_entropy(
                    z, targets, q=config.gce_q
                )
            case "elm":
                return losses.elm(
                    z,
                    outputs.embeddings,
                    targets,
                    class_priors=class_priors,
                    tau=config.tau,
                    weight=config.elm_weight,
                    kind=config.elm_kind,
                    margin=config.elm_margin,
                    temperature=config.elm_temperature,
                    centers=state.centers,
                )
            case "mse":
                return jnp.square(z[:, 0] - targets)
            case "huber":
                return optax.huber_loss(z[:, 0], targets)

    def penalized(outputs, targets, state):
        value = base(outputs, targets, state)
        if config.has_feature_penalty:
            penalty = losses.feature_penalty(outputs.embeddings)
            value = value + config.feature_penalty * penalty
        return value

    return penalized


def _weighting(config, num_classes, schedule, start_step, key):
    """The transformation from a Jacobian to one gradient."""
    match config.weighting:
        case "none":
            return ltjax.Weighting.from_weights(
                lambda params: optax.EmptyState(),
                lambda jac, state, params=None, **_: (jnp.ones(jac.shape), state),
            )
        case "absgd":
            return ltjax.absgd(
                config.absgd_temperature,
                gamma=config.absgd_gamma,
                alpha=config.absgd_alpha,
                bias_correction=config.absgd_bias_correction,
                erm_weight=config.absgd_erm_weight,
                start_step=start_step,
            )
        case "gradtail":
            return ltjax.gradtail(
                activation=config.gradtail_activation,
                similarity=config.gradtail_similarity,
                reference=config.gradtail_reference,
                definition=config.gradtail_definition,
                decay=config.gradtail_decay,
                burn_in=config.gradtail_burn_in,
                strength=config.gradtail_strength,
                slope=config.gradtail_slope,
                z_score=config.gradtail_z_score,
                mask=None if config.gradtail_layers == "all" else classifier_mask,
            )
        case "l2rw":
            return ltjax.l2rw()
        case "gdw" | "mw_net":
            return ltjax.gdw(
                num_classes,
                lookahead_lr=schedule,
                key=key,
                step_size=config.meta_step_size,
                clip=config.meta_clip,
                hidden=config.meta_hidden,
                net_learning_rate=config.meta_learning_rate,
                net_weight_decay=config.meta_weight_decay,
                level="class" if config.weighting == "gdw" else "instance",
            )


def _optimizer(config, schedule):
    """Clipping, coupled weight decay, then SGD or Adam."""
    parts = []
    if config.clip_norm is not None:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    kernels = None if config.decayed == "all" else _kernels
    parts.append(optax.add_decayed_weights(config.weight_decay, kernels))
    if config.name == "sgd":
        parts.append(optax.sgd(schedule, config.momentum, config.nesterov))
    else:
        parts.append(optax.adam(schedule, b1=config.momentum))
    return optax.chain(*parts)


def _max_norm(config, steps_per_epoch):
    """The projection of the classifier's rows, or nothing."""
    if config.max_norm is None:
        return optax.identity()
    return optax.masked(
        ltjax.max_norm(share=config.max_norm, every=steps_per_epoch),
        lambda params: jax.tree.map(
            lambda a, b: a and b, classifier_mask(params), _kernels(params)
        ),
    )


def _kernels(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)


def _recorded(jac):
    """A copy of a Jacobian, and the list of cotangents that it will be given."""
    cotangents = []
    recorded = copy.copy(jac)

    def vjp(c):
        cotangents.append(c)
        return jac.vjp(c)

    recorded.vjp = vjp
    return recorded, cotangents


def _example_weights(cotangents, logits, targets):
    """``[B]`` weights behind the last weighted gradient; 1 is plain SGD's.

    Where a method weights logits one by one, that is the part of the logits' gradient
    that points along the plain one.
    """
    size = jnp.float32(cotangents.shape[0])
    if cotangents.ndim == 1:
        return size * cotangents.astype(jnp.float32)
    onehot = jax.nn.one_hot(targets, logits.shape[1])
    plain = jax.nn.softmax(logits.astype(jnp.float32)) - onehot
    along = jnp.sum(cotangents * plain, axis=1)
    return size * along / jnp.maximum(jnp.sum(plain * plain, axis=1), 1e-12)


def _predictions(config, logits):
    return logits[:, 0] if config.is_regression else jnp.argmax(logits, axis=1)


def _cross_entropy(logits, labels):
    logits = logits.astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
