"""The losses, one small config each: settings of `ltjax.losses`, and how to build it.

``Ldam(max_margin=0.3).build(context)`` is a function ``(outputs, targets, state) ->
[B]``, where ``outputs`` are a model's and ``state`` is the `State` of training.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ltjax import losses

LossFn = Callable[[Any, jax.Array, Any], jax.Array]
_config = dataclasses.dataclass(frozen=True, kw_only=True)


class Context(NamedTuple):
    """What losses and weightings are told about the run that they are built for."""

    class_counts: jax.Array | None  # [C], float, at least 1; None in regression
    learning_rate: optax.Schedule
    steps_per_epoch: int

    @property
    def class_priors(self) -> jax.Array:
        """``[C]`` class frequencies."""
        return self.class_counts / self.class_counts.sum()


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross-entropy in float32, one value per example."""
    logits = logits.astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


@_config
class CrossEntropy:
    """Softmax cross-entropy."""

    name: ClassVar[str] = "ce"
    label: ClassVar[str] = "CE"

    def build(self, context: Context) -> LossFn:
        """The loss as a function."""
        del context
        return lambda outputs, labels, state: cross_entropy(outputs.logits, labels)


@_config
class ClassBalanced:
    """Cross-entropy times the class-balanced weight of the label."""

    name: ClassVar[str] = "class_balanced"
    label: ClassVar[str] = "Class-balanced CE"

    beta: float = 0.9999
    """0 is equal weights, towards 1 weights like 1 / count."""
    start_epoch: int = 0
    """First epoch with the class weights."""

    def build(self, context: Context) -> LossFn:
        """The loss as a function."""
        plain = CrossEntropy().build(context)
        return _class_weighted(plain, self.beta, self.start_epoch, context)


@_config
class LogitAdjusted:
    """Cross-entropy on logits shifted by the class priors."""

    name: ClassVar[str] = "logit_adjusted"
    label: ClassVar[str] = "Logit adjustment"

    tau: float = 1.0
    """Strength of the prior."""

    def build(self, context: Context) -> LossFn:
        """The loss as a function."""
        return lambda outputs, labels, state: losses.logit_adjusted_cross_entropy(
            outputs.logits, labels, class_priors=context.class_priors, tau=self.tau
        )


@_config
class BalancedSoftmax:
    """Cross-entropy of a softmax that counts each class as often as it occurs."""

    name: ClassVar[str] = "balanced_softmax"
    label: ClassVar[str] = "Balanced softmax"

    def build(self, context: Context) -> LossFn:
        """The loss as a function."""
        return lambda outputs, labels, state: losses.balanced_softmax(
            outputs.logits, labels, class_counts=context.class_counts
        )


@_config
class Ldam:
    """Cross-entropy with a margin that grows with rarity."""

    name: ClassVar[str] = "ldam"
    label: ClassVar[str] = "LDAM"

    max_margin: float = 0.5
    scale: float = 30.0
    beta: float = 0.0
    """Of class-balanced weights on the loss; 0 is none. The published schedule (DRW)
    has 0.9999 from a late ``start_epoch`` on."""
    start_epoch: int = 0
    """First epoch with the class weights."""

    def build(self, context: Context) -> LossFn:
        """The loss as a function."""

        def margin_loss(outputs, labels, state):
            return losses.ldam(
                outputs.logits,
                labels,
                class_counts=context.class_counts,
                max_margin=self.max_margin,
                scale=self.scale,
            )

        return _class_weighted(margin_loss, self.beta, self.start_epoch, context)


@_config
class Focal:
    """Cross-entropy that fades as an example is learned."""

    name: ClassVar[str] = "focal"
    label: ClassVar[str] = "Focal loss"

    gamma: float = 2.0

    def build(self, context: Context) -> LossFn:
        """The loss as a function."""
        del context
        return lambda outputs, labels, state: losses.focal(
            outputs.logits, labels, gamma=self.gamma
        )


@_config
class SymmetricCrossEntropy:
    """Cross-entropy plus reverse cross-entropy."""

    name: ClassVar[str] = "sce"
    label: ClassVar[str] = "SCE"

    alpha: float = 0.1
    """Weight of cross-entropy."""
    beta: float = 1.0
    """Weight of reverse cross-entropy."""

    def build(self, context: Context) -> LossFn:
        """The loss as a function."""
        del context
        return lambda outputs, labels, state: losses.symmetric_cross_entropy(
            outputs.logits, labels, alpha=self.alpha, beta=self.beta
        )


@_config
class GeneralizedCrossEntropy:
    """A bridge from cross-entropy (q to 0) to the mean absolute error (q = 1)."""

    name: ClassVar[str] = "gce"
    label: ClassVar[str] = "GCE"

    q: float = 0.7

    def build(self, context: Context) -> LossFn:
        """The loss as a function."""
        del context
        return lambda outputs, labels, state: losses.generalized_cross_entropy(
            outputs.logits, labels, q=self.q
        )


@_config
class TruncatedGeneralizedCrossEntropy:
    """GCE, from an epoch on constant where the label is less likely than ``k``."""

    name: ClassVar[str] = "truncated_gce"
    label: ClassVar[str] = "Truncated GCE"

    q: float = 0.7
    k: float = 0.5
    start_epoch: int = 0
    """First epoch with truncation. Before training, no label is likely enough."""

    def build(self, context: Context) -> LossFn:
        """The loss as a function."""
        plain = GeneralizedCrossEntropy(q=self.q).build(context)

        def truncated(outputs, labels, state):
            return losses.truncated_generalized_cross_entropy(
                outputs.logits, labels, q=self.q, k=self.k
            )

        start_step = self.start_epoch * context.steps_per_epoch
        return lambda outputs, labels, state: jnp.where(
            state.step >= start_step,
            truncated(outputs, labels, state),
            plain(outputs, labels, state),
        )


@_config
class Elm:
    """Margins between logits, and between embeddings."""

    name: ClassVar[str] = "elm"
    label: ClassVar[str] = "ELM"

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

    def build(self, context: Context) -> LossFn:
        """The loss as a function."""
        return lambda outputs, labels, state: losses.elm(
            outputs.logits,
            outputs.embeddings,
            labels,
            class_priors=context.class_priors,
            tau=self.tau,
            weight=self.weight,
            kind=self.kind,
            margin=self.margin,
            temperature=self.temperature,
            embedding_tau=self.embedding_tau,
            centers=state.centers,
        )


@_config
class SquaredError:
    """Squared error of a single output, for regression."""

    name: ClassVar[str] = "mse"
    label: ClassVar[str] = "MSE"

    def build(self, context: Context) -> LossFn:
        """The loss as a function."""
        del context
        return lambda outputs, targets, state: jnp.square(
            outputs.logits[:, 0] - targets
        )


@_config
class Huber:
    """Squared error near the target, absolute error beyond, for regression."""

    name: ClassVar[str] = "huber"
    label: ClassVar[str] = "Huber"

    delta: float = 1.0
    """Where one becomes the other, in standard deviations of the target."""

    def build(self, context: Context) -> LossFn:
        """The loss as a function."""
        del context
        return lambda outputs, targets, state: optax.huber_loss(
            outputs.logits[:, 0], targets, delta=self.delta
        )


def _class_weighted(
    loss: LossFn, beta: float, start_epoch: int, context: Context
) -> LossFn:
    """A loss times the class-balanced weight of the label, from an epoch on."""
    weights = losses.class_balanced_weights(context.class_counts, beta=beta)
    start_step = start_epoch * context.steps_per_epoch

    def weighted(outputs, labels, state):
        current = jnp.where(state.step >= start_step, weights, 1.0)
        return current[labels] * loss(outputs, labels, state)

    return weighted


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
    | Huber
)
