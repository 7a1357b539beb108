"""The weightings, one small config each: settings of an `ltjax` transformation.

``Absgd(temperature=0.5).build(context, key)`` is an `ltjax.Weighting`.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import optax

import ltjax
from experiments.methods.losses import Context
from experiments.models.parameters import classifier_mask

_config = dataclasses.dataclass(frozen=True, kw_only=True)


@_config
class NoWeighting:
    """Every example counts the same."""

    name: ClassVar[str] = "none"
    label: ClassVar[str] = ""
    of_logits: ClassVar[bool] = False
    needs_meta: ClassVar[bool] = False

    def build(self, context: Context, key: jax.Array) -> ltjax.Weighting:
        """The weighting with weights 1."""
        del context, key
        return ltjax.Weighting.from_weights(
            lambda params: optax.EmptyState(),
            lambda jac, state, params=None, **extra: (jnp.ones(jac.shape), state),
        )


@_config
class Absgd:
    """ABSGD: weights that grow exponentially with the loss."""

    name: ClassVar[str] = "absgd"
    label: ClassVar[str] = "ABSGD"
    of_logits: ClassVar[bool] = False
    needs_meta: ClassVar[bool] = False

    temperature: float = 1.0
    """Positive: hard examples count more. Negative: they count less."""
    gamma: float = 0.9
    alpha: float = 1.0
    bias_correction: bool = True
    """False is the released behaviour."""
    erm_weight: float = 0.0
    start_epoch: int = 0
    """First epoch with weights other than 1."""

    def build(self, context: Context, key: jax.Array) -> ltjax.Weighting:
        """The weighting of a run."""
        del key
        return ltjax.absgd(
            self.temperature,
            gamma=self.gamma,
            alpha=self.alpha,
            bias_correction=self.bias_correction,
            erm_weight=self.erm_weight,
            start_step=self.start_epoch * context.steps_per_epoch,
        )


@_config
class GradTail:
    """GradTail: weights by how far a gradient leaves the prevailing one."""

    name: ClassVar[str] = "gradtail"
    label: ClassVar[str] = "GradTail"
    of_logits: ClassVar[bool] = False
    needs_meta: ClassVar[bool] = False

    activation: Literal["gated", "bump"] = "gated"
    similarity: Literal["cosine", "dot", "dot_unit_mean"] = "cosine"
    reference: Literal["weighted", "unweighted"] = "unweighted"
    """Mean gradient that the others are compared with; the unweighted one costs another
    backward pass."""
    definition: Literal["row", "frozen", "attribution"] = "frozen"
    """What an example's gradient is under batch normalisation, see `ltjax.Jacobian`."""
    decay: float = 0.99
    burn_in: int = 20
    """First steps, in which all weights are 1."""
    z_score: bool = False
    layers: Literal["all", "classifier"] = "all"
    """Parameters whose gradients are compared."""
    strength: float = 5.0
    """Of gated."""
    slope: float = 4.0
    """Of gated."""
    center: float = 0.0
    """Of gated and bump."""
    width: float = 0.25
    """Of bump."""
    max_weight: float = 10.0

    @property
    def activation_fn(self) -> Callable[..., jax.Array]:
        """The activation with its constants."""
        if self.activation == "bump":
            return ltjax.transforms.bump(width=self.width, center=self.center)
        return ltjax.transforms.gated(
            strength=self.strength, slope=self.slope, center=self.center
        )

    def build(self, context: Context, key: jax.Array) -> ltjax.Weighting:
        """The weighting of a run."""
        del context, key
        return ltjax.gradtail(
            activation=self.activation_fn,
            similarity=self.similarity,
            reference=self.reference,
            definition=self.definition,
            decay=self.decay,
            burn_in=self.burn_in,
            z_score=self.z_score,
            mask=None if self.layers == "all" else classifier_mask,
            max_weight=self.max_weight,
        )


@_config
class Gdw:
    """GDW: a clean meta set weights the gradient's flow through every logit."""

    name: ClassVar[str] = "gdw"
    label: ClassVar[str] = "GDW"
    of_logits: ClassVar[bool] = True
    needs_meta: ClassVar[bool] = True

    lookahead_lr: float | None = None
    """Of the virtual step; by default the learning rate."""
    step_size: float | None = None
    """Length of the second stage's step; 0.1 * B * C by default."""
    clip: float = 0.2
    """Bound of a weight's change in the second stage."""
    hidden: int = 100
    net_learning_rate: float = 1e-3
    net_weight_decay: float = 1e-4

    def build(self, context: Context, key: jax.Array) -> ltjax.Weighting:
        """The weighting of a run; ``key`` draws the weighting net."""
        return ltjax.gdw(
            len(context.class_counts),
            lookahead_lr=_or(self.lookahead_lr, context.learning_rate),
            key=key,
            step_size=self.step_size,
            clip=self.clip,
            hidden=self.hidden,
            net_learning_rate=self.net_learning_rate,
            net_weight_decay=self.net_weight_decay,
            level="class",
        )


@_config
class MwNet:
    """MW-Net: a clean meta set trains a net that gives each loss a weight."""

    name: ClassVar[str] = "mw_net"
    label: ClassVar[str] = "MW-Net"
    of_logits: ClassVar[bool] = True
    needs_meta: ClassVar[bool] = True

    lookahead_lr: float | None = None
    """Of the virtual step; by default the learning rate."""
    hidden: int = 100
    net_learning_rate: float = 1e-3
    net_weight_decay: float = 1e-4

    def build(self, context: Context, key: jax.Array) -> ltjax.Weighting:
        """The weighting of a run; ``key`` draws the weighting net."""
        return ltjax.gdw(
            len(context.class_counts),
            lookahead_lr=_or(self.lookahead_lr, context.learning_rate),
            key=key,
            hidden=self.hidden,
            net_learning_rate=self.net_learning_rate,
            net_weight_decay=self.net_weight_decay,
            level="instance",
        )


@_config
class L2rw:
    """L2RW: weights by how much an example's step lowers the loss of a clean batch."""

    name: ClassVar[str] = "l2rw"
    label: ClassVar[str] = "L2RW"
    of_logits: ClassVar[bool] = False
    needs_meta: ClassVar[bool] = True

    def build(self, context: Context, key: jax.Array) -> ltjax.Weighting:
        """The weighting of a run."""
        del context, key
        return ltjax.l2rw()


def _or(value, default):
    return default if value is None else value


Weighting = NoWeighting | Absgd | GradTail | Gdw | MwNet | L2rw
