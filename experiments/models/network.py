"""Networks for the experiments, in Flax NNX: a backbone, then a classifier.

All of them take inputs that are already normalised and return `Outputs`. Parameters,
normalisation statistics, embeddings and logits are float32; ``dtype`` is that of the
activations in between. No module holds random state: dropout takes a key.

Convolutions and the linear classifier start as in the public CIFAR ResNets that the
methods were published with: normal with variance 2 / fan-in, biases at zero. Batch norm
has momentum 0.9 (PyTorch's 0.1) and epsilon 1e-5; its running variance is biased.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments.models.config import ModelConfig, Outputs
from experiments.models.conv6 import Conv6
from experiments.models.layers import MLP, he_normal
from experiments.models.resnet import RESNETS, ResNet
from experiments.models.unet import UNet
from experiments.models.vit import ViT
from ltjax import heads


class Fixed(nnx.Variable):
    """A weight that is neither trained nor decayed."""


def make_model(
    config: ModelConfig,
    *,
    input_shape: Sequence[int],
    num_outputs: int,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Builds a network: ``model(x, train=..., key=...) -> Outputs``.

    Args:
      config: which network.
      input_shape: shape of one example: ``(F,)``, or ``(H, W, C)``.
      num_outputs: classes, or 1 for regression.
      rngs: source of the initial weights, such as ``nnx.Rngs(0)``.

    Raises:
      ValueError: if the network needs images and ``input_shape`` is not ``(H, W, C)``.
    """
    return Network(config, tuple(input_shape), num_outputs, rngs)


class Apply:
    """A model's structure as a pure function of its parameters and its other state."""

    def __init__(self, graphdef: nnx.GraphDef):
        self._graphdef = graphdef

    def __call__(
        self,
        params: nnx.State,
        rest: nnx.State,
        x: jax.Array,
        *,
        train: bool,
        key: jax.Array | None = None,
    ) -> tuple[Outputs, nnx.State]:
        """Outputs and the new ``rest``: batch statistics; fixed weights as given."""
        # Without the copy, batch norm would write to variables of an outer trace.
        model = nnx.merge(self._graphdef, params, rest, copy=True)
        outputs = model(x, train=train, key=key)
        return outputs, nnx.state(model, nnx.Not(nnx.Param))


def functional(model: nnx.Module) -> tuple[Apply, nnx.State, nnx.State]:
    """Splits a model into ``apply``, its trained parameters and the rest of its state.

    ``apply(params, rest, x, train=..., key=...)`` may be traced by any transformation.
    Several seeds are a `jax.vmap` of initialisation, and then of ``apply``::

        init = lambda key: functional(make_model(..., rngs=nnx.Rngs(key)))[1:]
        params, rest = jax.vmap(init)(jax.random.split(key, num_seeds))
    """
    graphdef, params, *rest = nnx.split(model, nnx.Param, ...)
    return Apply(graphdef), params, rest[0]


class Network(nnx.Module):
    """A backbone and a head."""

    def __init__(
        self,
        config: ModelConfig,
        input_shape: tuple[int, ...],
        num_outputs: int,
        rngs: nnx.Rngs,
    ):
        if config.name != "mlp" and len(input_shape) != 3:
            raise ValueError(
                f"input_shape must be (H, W, C) for {config.name}, got {input_shape}."
            )
        self.backbone = _backbone(config, input_shape, rngs)
        self.dropout = nnx.Dropout(config.dropout)
        self.head = Head(config, self.backbone.features, num_outputs, rngs)
        self.dtype = jnp.dtype(config.dtype)

    def __call__(
        self, x: jax.Array, train: bool, key: jax.Array | None = None
    ) -> Outputs:
        embeddings = self.backbone(x.astype(self.dtype), train).astype(jnp.float32)
        dropped = self.dropout(embeddings, deterministic=not train, rngs=key)
        return Outputs(self.head(dropped), embeddings)


class Head(nnx.Module):
    """The classifier: ``kernel [E, C]``, trained or fixed, and ``bias [C]`` or None."""

    def __init__(
        self, config: ModelConfig, features: int, outputs: int, rngs: nnx.Rngs
    ):
        self.cosine_scale = config.cosine_scale
        self.tau = config.normalize_logits
        self.kernel: nnx.Variable[jax.Array]
        if config.head == "etf":
            self.kernel = Fixed(heads.simplex_etf(rngs.params(), outputs, features).T)
        else:
            self.kernel = nnx.Param(he_normal(rngs.params(), (features, outputs)))
        self.bias = (
            None if config.head == "cosine" else nnx.Param(jnp.zeros((outputs,)))
        )

    def __call__(self, h: jax.Array) -> jax.Array:
        kernel = self.kernel[...]
        if self.bias is None:
            z = self.cosine_scale * (
                _divide_by_norm(h) @ _divide_by_norm(kernel, axis=0)
            )
        else:
            z = h @ kernel + self.bias[...][None, :]
        return z if self.tau is None else _divide_by_norm(z, power=self.tau)


def _divide_by_norm(x: jax.Array, axis: int = -1, power: float = 1.0) -> jax.Array:
    """``x / |x|^power`` along an axis, 0 at 0."""
    return x / optax.safe_norm(x, 1e-6, axis=axis, keepdims=True) ** power


def _backbone(
    config: ModelConfig, input_shape: tuple[int, ...], rngs: nnx.Rngs
) -> Any:  # a module with ``features``, the size of its embeddings
    """The network up to its embeddings."""
    dtype = jnp.dtype(config.dtype)
    if config.name == "mlp":
        return MLP(math.prod(input_shape), config.hidden, dtype, rngs)
    if config.name == "vit":
        return ViT(input_shape, config.width or 192, dtype=dtype, rngs=rngs)
    if config.name == "conv6":
        return Conv6(
            config.width or 64, input_shape, norm=config.norm, dtype=dtype, rngs=rngs
        )
    if config.name == "unet":
        return UNet(
            config.width or 16, input_shape, norm=config.norm, dtype=dtype, rngs=rngs
        )
    spec = RESNETS[config.name]
    return ResNet(
        spec,
        config.width or spec.width,
        input_shape[-1],
        norm=config.norm,
        dtype=dtype,
        rngs=rngs,
    )
