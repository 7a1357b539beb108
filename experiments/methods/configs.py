"""What is minimised, how much each example counts, and how parameters move.

A method is a loss times a weighting, plus penalties and an adjustment of the trained
logits::

    MethodConfig(loss=LogitAdjusted(tau=1.5))
    MethodConfig(loss=ClassBalanced(start_epoch=160), weighting=Absgd(start_epoch=160))
    MethodConfig(feature_penalty=1e-2, post_hoc="multiplicative")
"""

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import optax

import ltjax
from experiments.methods.losses import (
    CrossEntropy,
    Huber,
    InverseDensity,
    Loss,
    SquaredError,
)
from experiments.methods.weightings import NoWeighting, Weighting
from experiments.models.parameters import classifier_mask, kernel_mask

LOSSES: dict[str, type[Loss]] = {loss.name: loss for loss in get_args(Loss)}
WEIGHTINGS: dict[str, type[Weighting]] = {w.name: w for w in get_args(Weighting)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """What is minimised, and how much each example counts."""

    loss: Loss = dataclasses.field(default_factory=CrossEntropy)
    weighting: Weighting = dataclasses.field(default_factory=NoWeighting)
    """gdw, mw_net, l2rw and gradtail with reference clean need a clean meta set; the
    first two go with ce only."""
    feature_penalty: float = 0.0
    """Adds this times half the squared length of each embedding to its loss."""
    max_norm: float | None = None
    """Caps the norms of the classifier's rows, this far from the smallest to the
    largest (0.1 in the published stage)."""
    max_norm_epochs: int = 1
    """Epochs from one cap to the next."""
    post_hoc: Literal["none", "additive", "multiplicative"] = "none"
    """Adjustment of the trained logits by the class priors."""
    post_hoc_tau: float | None = None
    """Its strength; by default that which is best on the validation set."""

    def __post_init__(self):
        if not self.weighting.of_logits:
            return
        if not isinstance(self.loss, CrossEntropy):
            raise ValueError(
                f"loss must be 'ce' with weighting={self.weighting.name!r}, "
                f"got {self.loss.name!r}."
            )
        if self.has_feature_penalty:
            raise ValueError(
                f"feature_penalty must be 0 with weighting={self.weighting.name!r}, "
                f"got {self.feature_penalty}."
            )

    @property
    def needs_meta(self) -> bool:
        """Whether a step reads a batch of the meta set."""
        return self.weighting.needs_meta

    @property
    def is_regression(self) -> bool:
        """Whether targets are numbers rather than classes."""
        return isinstance(self.loss, (SquaredError, InverseDensity, Huber))

    @property
    def has_feature_penalty(self) -> bool:
        """Whether the penalty is part of the loss (a traced strength is)."""
        return not isinstance(self.feature_penalty, (int, float)) or (
            self.feature_penalty != 0
        )

    def projection(self, steps_per_epoch: int) -> optax.GradientTransformation:
        """What caps the classifier's rows after the optimiser's step, or nothing."""
        if self.max_norm is None:
            return optax.identity()
        every = self.max_norm_epochs * steps_per_epoch
        return optax.masked(
            ltjax.max_norm(share=self.max_norm, every=every),
            lambda params: jax.tree.map(
                lambda a, b: a and b, classifier_mask(params), kernel_mask(params)
            ),
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

    def build(self, schedule: optax.Schedule) -> optax.GradientTransformation:
        """Clipping, coupled weight decay, then SGD or Adam."""
        parts = []
        if self.clip_norm is not None:
            parts.append(optax.clip_by_global_norm(self.clip_norm))
        decayed = None if self.decayed == "all" else kernel_mask
        parts.append(optax.add_decayed_weights(self.weight_decay, decayed))
        if self.name == "sgd":
            parts.append(optax.sgd(schedule, self.momentum, self.nesterov))
        else:
            parts.append(optax.adam(schedule, b1=self.momentum))
        return optax.chain(*parts)

    def learning_rates(self, *, epochs: int, steps_per_epoch: int) -> optax.Schedule:
        """Learning rate of a step, constant within an epoch."""

        def schedule(step):
            epoch = jnp.asarray(step) // steps_per_epoch
            rate = jnp.asarray(self.learning_rate, jnp.float32)
            if self.schedule == "cosine":
                rate = rate * 0.5 * (1 + jnp.cos(jnp.pi * epoch / epochs))
            elif self.schedule == "step":
                passed = sum(jnp.where(epoch >= m, 1, 0) for m in self.milestones)
                rate = rate * jnp.asarray(self.factor, jnp.float32) ** passed
            if self.warmup_epochs:
                rate = rate * jnp.minimum((epoch + 1) / self.warmup_epochs, 1.0)
            return rate

        return schedule
