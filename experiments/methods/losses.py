"""The losses, one small config each: arguments of a function of `ltjax.losses`.

``Ldam(max_margin=0.3).build(context)`` is a function ``(outputs, targets, state) ->
[B]``, where ``outputs`` are a model's and ``state`` is the `State` of training. Fields
have the names of the function's arguments.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.methods.density import inverse_density
from ltjax import losses

LossFn = Callable[[Any, jax.Array, Any], jax.Array]


class Context(NamedTuple):
    """What losses and weightings know about their run."""

    class_counts: jax.Array | None  # [C], float, at least 1; None in regression
    learning_rate: optax.Schedule
    steps_per_epoch: int
    targets: np.ndarray | None = None  # [N] of training; None where they are classes

    @property
    def counts(self) -> jax.Array:
        """``[C]`` class counts, where targets are classes."""
        if self.class_counts is None:
            raise ValueError("class_counts must be given, got None.")
        return self.class_counts

    @property
    def class_priors(self) -> jax.Array:
        """``[C]`` class frequencies."""
        return self.counts / self.counts.sum()

    def started(self, state: Any, epoch: int) -> jax.Array:
        """Whether training has reached an epoch."""
        return state.step >= epoch * self.steps_per_epoch

    def class_weights(self, state: Any, beta: float, start_epoch: int) -> jax.Array:
        """``[C]`` class-balanced weights from an epoch on, 1 before."""
        weights = losses.class_balanced_weights(self.counts, beta=beta)
        return jnp.where(self.started(state, start_epoch), weights, 1.0)


def arguments(config: Any, *others: str) -> dict[str, Any]:
    """The fields of a config, without some, as keyword arguments."""
    names = (field.name for field in dataclasses.fields(config))
    return {name: getattr(config, name) for name in names if name not in others}


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross-entropy in float32, one value per example."""
    logits = logits.astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


class _Loss(abc.ABC):
    """What all losses have."""

    name: ClassVar[str]
    label: ClassVar[str]

    def build(self, context: Context) -> LossFn:
        """The loss as a function."""
        return functools.partial(self._losses, context)

    @abc.abstractmethod
    def _losses(self, context, outputs, targets, state):
        """One value per example."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossEntropy(_Loss):
    """Softmax cross-entropy."""

    name = "ce"
    label = "CE"

    def _losses(self, context, outputs, targets, state):
        return cross_entropy(outputs.logits, targets)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassBalanced(_Loss):
    """Cross-entropy times the class-balanced weight of the label."""

    name = "class_balanced"
    label = "Class-balanced CE"

    beta: float = 0.9999
    """0 is equal weights, towards 1 weights like 1 / count."""
    start_epoch: int = 0
    """First epoch with the class weights."""

    def _losses(self, context, outputs, targets, state):
        weights = context.class_weights(state, self.beta, self.start_epoch)
        return weights[targets] * cross_entropy(outputs.logits, targets)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogitAdjusted(_Loss):
    """Cross-entropy on logits shifted by the class priors."""

    name = "logit_adjusted"
    label = "Logit adjustment"

    tau: float = 1.0
    """Strength of the prior."""

    def _losses(self, context, outputs, targets, state):
        return losses.logit_adjusted_cross_entropy(
            outputs.logits, targets, class_priors=context.class_priors, tau=self.tau
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BalancedSoftmax(_Loss):
    """Cross-entropy of a softmax that counts each class as often as it occurs."""

    name = "balanced_softmax"
    label = "Balanced softmax"

    def _losses(self, context, outputs, targets, state):
        return losses.balanced_softmax(
            outputs.logits, targets, class_counts=context.counts
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ldam(_Loss):
    """Cross-entropy with a margin that grows with rarity."""

    name = "ldam"
    label = "LDAM"

    max_margin: float = 0.5
    scale: float = 30.0
    beta: float = 0.0
    """Of class-balanced weights on the loss; 0 is none. The published schedule (DRW)
    has 0.9999 from a late ``start_epoch`` on."""
    start_epoch: int = 0
    """First epoch with the class weights."""

    def _losses(self, context, outputs, targets, state):
        weights = context.class_weights(state, self.beta, self.start_epoch)
        return weights[targets] * losses.ldam(
            outputs.logits,
            targets,
            class_counts=context.counts,
            **arguments(self, "beta", "start_epoch"),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Focal(_Loss):
    """Cross-entropy that fades as an example is learned."""

    name = "focal"
    label = "Focal loss"

    gamma: float = 2.0

    def _losses(self, context, outputs, targets, state):
        return losses.focal(outputs.logits, targets, gamma=self.gamma)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SymmetricCrossEntropy(_Loss):
    """Cross-entropy plus reverse cross-entropy."""

    name = "sce"
    label = "SCE"

    alpha: float = 0.1
    """Weight of cross-entropy."""
    beta: float = 1.0
    """Weight of reverse cross-entropy."""

    def _losses(self, context, outputs, targets, state):
        return losses.symmetric_cross_entropy(
            outputs.logits, targets, alpha=self.alpha, beta=self.beta
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneralizedCrossEntropy(_Loss):
    """A bridge from cross-entropy (q to 0) to the mean absolute error (q = 1)."""

    name = "gce"
    label = "GCE"

    q: float = 0.7

    def _losses(self, context, outputs, targets, state):
        return losses.generalized_cross_entropy(outputs.logits, targets, q=self.q)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TruncatedGeneralizedCrossEntropy(_Loss):
    """GCE, from an epoch on constant where the label is less likely than ``k``."""

    name = "truncated_gce"
    label = "Truncated GCE"

    q: float = 0.7
    k: float = 0.5
    start_epoch: int = 0
    """First epoch with truncation. Before training, no label is likely enough."""

    def _losses(self, context, outputs, targets, state):
        z = outputs.logits
        return jnp.where(
            context.started(state, self.start_epoch),
            losses.truncated_generalized_cross_entropy(z, targets, q=self.q, k=self.k),
            losses.generalized_cross_entropy(z, targets, q=self.q),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Elm(_Loss):
    """Margins between logits, and between embeddings."""

    name = "elm"
    label = "ELM"

    tau: float = 1.0
    """Strength of the prior in the logits' margins."""
    weight: float = 0.1
    """Of the embeddings' term."""
    kind: Literal["contrastive", "spread", "center"] = "contrastive"
    margin: Literal["logit_adjustment", "ldam", "none"] = "logit_adjustment"
    temperature: float = 0.1
    """Of the contrastive term."""
    embedding_tau: float = 0.5
    """Strength of the prior in the embeddings' term."""
    center_decay: float = 0.9
    """Of the running class directions of kind center."""

    def _losses(self, context, outputs, targets, state):
        return losses.elm(
            outputs.logits,
            outputs.embeddings,
            targets,
            class_priors=context.class_priors,
            centers=state.centers,
            **arguments(self, "center_decay"),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SquaredError(_Loss):
    """Squared error of a single output, for regression."""

    name = "mse"
    label = "MSE"

    def _losses(self, context, outputs, targets, state):
        return jnp.square(outputs.logits[:, 0] - targets)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Huber(_Loss):
    """Squared error near the target, absolute error beyond, for regression."""

    name = "huber"
    label = "Huber"

    delta: float = 1.0
    """Where one becomes the other, in standard deviations of the target."""

    def _losses(self, context, outputs, targets, state):
        return optax.huber_loss(outputs.logits[:, 0], targets, delta=self.delta)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InverseDensity(_Loss):
    """Squared error times a power of the inverse density of the target."""

    name = "inverse_density"
    label = "Inverse density"

    power: float = 1.0
    """0 is plain squared error, 0.5 the inverse root."""
    bins: int = 100
    """Of the histogram of training targets."""
    smoothing: float = 2.0
    """Standard deviation of the kernel over it, in bins."""

    def build(self, context: Context) -> LossFn:
        """The loss as a function; needs the training targets."""
        if context.targets is None:
            raise ValueError(f"targets must be given with loss={self.name!r}.")
        return super().build(context)

    def _losses(self, context, outputs, targets, state):
        table = inverse_density(context.targets, **arguments(self))
        weights = jnp.interp(targets, *table)
        return weights * jnp.square(outputs.logits[:, 0] - targets)


Loss = (
    CrossEntropy
    | ClassBalanced
    | LogitAdjusted
    | BalancedSoftmax
    | Ldam
    | Focal
    | SymmetricCrossEntropy
    | GeneralizedCrossEntropy
    | TruncatedGeneralizedCrossEntropy
    | Elm
    | SquaredError
    | InverseDensity
    | Huber
)
