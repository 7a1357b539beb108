"""The weightings, one small config each: arguments of an `ltjax` transformation.

``Absgd(temperature=0.5).build(context, key)`` is an `ltjax.Weighting`. Fields have the
names of the arguments; only what a run decides (steps, networks, keys) is translated.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import optax

import ltjax
from experiments.methods.losses import Context, arguments
from experiments.models.parameters import classifier_mask


class _Weighting(abc.ABC):
    """What all weightings have."""

    name: ClassVar[str]
    label: ClassVar[str]
    of_logits: ClassVar[bool] = False
    """Whether each logit has a weight, not each loss."""

    @property
    def needs_meta(self) -> bool:
        """Whether a step reads a batch of the meta set."""
        return False

    @abc.abstractmethod
    def build(self, context: Context, key: jax.Array) -> ltjax.Weighting:
        """The weighting of a run; ``key`` draws what is random at its start."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoWeighting(_Weighting):
    """Every example counts the same."""

    name = "none"
    label = ""

    def build(self, context: Context, key: jax.Array) -> ltjax.Weighting:
        return ltjax.Weighting.from_weights(
            lambda params: optax.EmptyState(),
            lambda jac, state, params=None, **extra: (jnp.ones(jac.shape), state),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Absgd(_Weighting):
    """ABSGD: weights that grow exponentially with the loss."""

    name = "absgd"
    label = "ABSGD"

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
        start_step = self.start_epoch * context.steps_per_epoch
        return ltjax.absgd(start_step=start_step, **arguments(self, "start_epoch"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradTail(_Weighting):
    """GradTail: weights by the similarity of a gradient to the prevailing one."""

    name = "gradtail"
    label = "GradTail"

    activation: Literal["gated", "bump", "aligned"] = "gated"
    similarity: Literal["cosine", "dot", "dot_unit_mean"] = "cosine"
    reference: Literal["weighted", "unweighted", "clean"] = "unweighted"
    """Mean gradient that the others are compared with; the unweighted one costs another
    backward pass, that of a clean meta set goes with aligned."""
    definition: Literal["row", "frozen", "attribution"] = "frozen"
    """What an example's gradient is under batch normalisation, see `ltjax.Jacobian`."""
    decay: float = 0.99
    burn_in: int = 20
    """First steps, in which all weights are 1."""
    z_score: bool = False
    layers: Literal["all", "classifier"] = "all"
    """Parameters whose gradients are compared."""
    strength: float = 5.0
    """Of gated and aligned."""
    slope: float = 4.0
    """Of gated."""
    center: float = 0.0
    """Of gated and bump."""
    width: float = 0.25
    """Of bump."""
    max_weight: float = 10.0
    shuffled: bool = False
    """A control: the same weights, given to random examples of the batch."""

    @property
    def needs_meta(self) -> bool:
        """Whether a step reads a batch of the meta set."""
        return self.reference == "clean"

    @property
    def activation_fn(self) -> Callable[..., jax.Array]:
        """The activation with its constants."""
        if self.activation == "aligned":
            return ltjax.transforms.aligned(strength=self.strength)
        if self.activation == "bump":
            return ltjax.transforms.bump(width=self.width, center=self.center)
        return ltjax.transforms.gated(
            strength=self.strength, slope=self.slope, center=self.center
        )

    def build(self, context: Context, key: jax.Array) -> ltjax.Weighting:
        own = ("activation", "layers", "shuffled")
        constants = ("strength", "slope", "center", "width")
        weighting = ltjax.gradtail(
            activation=self.activation_fn,
            mask=None if self.layers == "all" else classifier_mask,
            **arguments(self, *own, *constants),
        )
        return _shuffled(weighting) if self.shuffled else weighting


def _shuffled(weighting: ltjax.Weighting) -> ltjax.Weighting:
    """Its weights, given to random examples of the batch."""

    def weights(jac, state, params=None, *, key, **extra):
        own, state = weighting.weights(jac, state, params, **extra)
        return jax.random.permutation(key, own), state

    return ltjax.Weighting.from_weights(weighting.init, weights, weighting.observe)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _MetaNet(_Weighting):
    """A net from losses to weights, which a clean meta set trains."""

    of_logits = True
    needs_meta = True
    level: ClassVar[str]

    lookahead_lr: float | None = None
    """Of the virtual step; by default the learning rate."""
    hidden: int = 100
    net_learning_rate: float = 1e-3
    net_weight_decay: float = 1e-4

    def build(self, context: Context, key: jax.Array) -> ltjax.Weighting:
        own = arguments(self)
        if self.lookahead_lr is None:
            own["lookahead_lr"] = context.learning_rate
        return ltjax.gdw(len(context.counts), key=key, level=self.level, **own)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gdw(_MetaNet):
    """GDW: a clean meta set weights the gradient's flow through every logit."""

    name = "gdw"
    label = "GDW"
    level = "class"

    step_size: float | None = None
    """Length of the second stage's step; 0.1 * B * C by default."""
    clip: float = 0.2
    """Bound of a weight's change in the second stage."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MwNet(_MetaNet):
    """MW-Net: a clean meta set trains a net that gives each loss a weight."""

    name = "mw_net"
    label = "MW-Net"
    level = "instance"


@dataclasses.dataclass(frozen=True, kw_only=True)
class L2rw(_Weighting):
    """L2RW: weights by how much an example's step lowers the loss of a clean batch."""

    name = "l2rw"
    label = "L2RW"
    needs_meta = True

    def build(self, context: Context, key: jax.Array) -> ltjax.Weighting:
        return ltjax.l2rw()


Weighting = NoWeighting | Absgd | GradTail | Gdw | MwNet | L2rw
