"""Networks for the experiments, in Flax NNX: a backbone, then a classifier.

All of them take inputs that are already normalised and return `Outputs`. Parameters,
normalisation statistics, embeddings and logits are float32; ``dtype`` is that of the
activations in between. No module holds random state: dropout takes a key.

Convolutions and the linear classifier start as in the public CIFAR ResNets that the
methods were published with: normal with variance 2 / fan-in, biases at zero. Batch norm
has momentum 0.9 (PyTorch's 0.1) and epsilon 1e-5; its running variance is biased.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments.models import xla
from ltjax import heads

he_normal = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")


class Outputs(NamedTuple):
    """What a model returns."""

    logits: jax.Array  # [B, C], float32
    embeddings: jax.Array  # [B, E], float32: what the classifier sees, before dropout


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which network, and how it ends."""

    name: Literal[
        "mlp",
        "conv6",
        "patchify",
        "resnet8",
        "resnet20",
        "resnet32",
        "resnet18",
        "resnet18_7x7",
        "resnet34",
        "resnet50",
        "vit",
    ] = "resnet32"
    norm: Literal["batch", "group"] = "batch"
    """Normalisation in the convolutional networks; group norm keeps examples apart."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the MLP's hidden layers; the other networks ignore it."""
    width: int | None = None
    """Channels of the first stage, or of a ViT token; None is the published width."""
    head: Literal["linear", "etf", "cosine"] = "linear"
    """``etf``: fixed simplex, trained bias. ``cosine``: unit weights and embeddings."""
    cosine_scale: float = 1.0
    """Factor on the cosines of the ``cosine`` head; leave 1 for a loss that scales."""
    normalize_logits: float | None = None
    """Logits become ``z / |z|^tau`` with this tau."""
    dropout: float = 0.0
    """Share of the embedding's entries dropped in front of the classifier."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations and matrix products; all else stays float32."""


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
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    return Apply(graphdef), params, rest


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


class MLP(nnx.Module):
    """Dense layers and rectifiers on the flattened input."""

    def __init__(
        self, inputs: int, hidden: Sequence[int], dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        self.layers = nnx.List(
            nnx.Linear(a, b, kernel_init=he_normal, dtype=dtype, rngs=rngs)
            for a, b in zip((inputs, *hidden), hidden, strict=False)
        )
        self.features = hidden[-1]

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        del train
        x = x.reshape(x.shape[0], -1)
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return x


class ConvNorm(nnx.Module):
    """A convolution without bias, padded as PyTorch pads, and a normalisation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        norm: str,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        padding: int | None = None,
    ):
        self.conv = nnx.Conv(
            inputs,
            outputs,
            (kernel, kernel),
            strides=stride,
            padding=kernel // 2 if padding is None else padding,
            use_bias=False,
            kernel_init=he_normal,
            dtype=dtype,
            rngs=rngs,
        )
        # In float32 whatever the activations are; XLA fuses the casts.
        self.norm: nnx.BatchNorm | nnx.GroupNorm
        if norm == "batch":
            self.norm = nnx.BatchNorm(
                outputs, momentum=0.9, epsilon=1e-5, dtype=jnp.float32, rngs=rngs
            )
        else:
            self.norm = nnx.GroupNorm(
                outputs,
                num_groups=_groups(outputs),
                epsilon=1e-5,
                dtype=jnp.float32,
                rngs=rngs,
            )

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = self.conv(x)
        if isinstance(self.norm, nnx.BatchNorm):
            return self.norm(y, use_running_average=not train).astype(y.dtype)
        return self.norm(y).astype(y.dtype)


def _groups(channels: int) -> int:
    """Of at least four channels each, 32 if possible."""
    most = min(32, channels // 4)
    return next(g for g in range(most, 0, -1) if channels % g == 0)


class Residual(nnx.Module):
    """A residual block: basic (two 3x3) or bottleneck (1x1, 3x3, 1x1 with 4x width)."""

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        *,
        bottleneck: bool,
        pad_shortcut: bool,
        **kwargs: Any,
    ):
        if bottleneck:
            shapes = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
        else:
            shapes = [(width, 3, stride), (width, 3, 1)]
        self.layers: nnx.List[ConvNorm] = nnx.List()
        channels = inputs
        for outputs, kernel, layer_stride in shapes:
            self.layers.append(
                ConvNorm(channels, outputs, kernel, layer_stride, **kwargs)
            )
            channels = outputs
        self.stride = stride
        self.new_channels = channels - inputs
        changes = stride > 1 or channels != inputs
        self.project = (
            ConvNorm(inputs, channels, 1, stride, **kwargs)
            if changes and not pad_shortcut
            else None
        )
        self.features = channels

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = x
        for layer in self.layers[:-1]:
            y = nnx.relu(layer(y, train))
        y = self.layers[-1](y, train)
        return xla.fence(nnx.relu(y + self._shortcut(x, train)))

    def _shortcut(self, x: jax.Array, train: bool) -> jax.Array:
        """The input itself, projected, or (option A) thinned out with zero channels."""
        if self.project is not None:
            return self.project(x, train)
        low = self.new_channels // 2
        channels = (low, self.new_channels - low)
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), channels))


class Stem(NamedTuple):
    """The first convolution of a residual network."""

    kernel: int
    stride: int = 1
    padding: int | None = None
    pool: bool = False  # 3x3 maxima at stride 2


class ResNetSpec(NamedTuple):
    """What tells the residual networks apart."""

    blocks: tuple[int, ...]  # per stage; each stage halves the image, doubles the width
    width: int = 16
    stem: Stem = Stem(3)
    bottleneck: bool = False
    pad_shortcut: bool = False


RESNETS = {
    "patchify": ResNetSpec((3,), 64, Stem(4, 4, padding=0)),
    "resnet8": ResNetSpec((1, 1, 1), pad_shortcut=True),
    "resnet20": ResNetSpec((3, 3, 3), pad_shortcut=True),
    "resnet32": ResNetSpec((5, 5, 5), pad_shortcut=True),
    "resnet18": ResNetSpec((2, 2, 2, 2), 64),
    "resnet18_7x7": ResNetSpec((2, 2, 2, 2), 64, Stem(7, 2, pool=True)),
    "resnet34": ResNetSpec((3, 4, 6, 3), 64),
    "resnet50": ResNetSpec((3, 4, 6, 3), 64, Stem(7, 2, pool=True), bottleneck=True),
}


class ResNet(nnx.Module):
    """A stem, stages of residual blocks, and the mean over positions."""

    def __init__(self, spec: ResNetSpec, width: int, inputs: int, **kwargs: Any):
        stem = spec.stem
        self.stem = ConvNorm(
            inputs, width, stem.kernel, stem.stride, padding=stem.padding, **kwargs
        )
        self.pool = stem.pool
        self.blocks: nnx.List[Any] = nnx.List()
        channels = width
        for stage, count in enumerate(spec.blocks):
            for i in range(count):
                block = Residual(
                    channels,
                    width * 2**stage,
                    stride=2 if stage > 0 and i == 0 else 1,
                    bottleneck=spec.bottleneck,
                    pad_shortcut=spec.pad_shortcut,
                    **kwargs,
                )
                self.blocks.append(block)
                channels = block.features
        self.features = channels

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = xla.fence(nnx.relu(self.stem(x, train)))
        if self.pool:
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for block in self.blocks:
            x = block(x, train)
        return x.mean((1, 2), dtype=jnp.float32)


class ViTBlock(nnx.Module):
    """Attention, then a two-layer perceptron, each on normalised tokens."""

    def __init__(self, width: int, heads: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        def linear(inputs, outputs):
            return nnx.Linear(
                inputs, outputs, kernel_init=_xavier, dtype=dtype, rngs=rngs
            )

        self.heads = heads
        self.norms = nnx.List(_layer_norm(width, rngs) for _ in range(2))
        self.qkv, self.out = linear(width, 3 * width), linear(width, width)
        self.up, self.down = linear(width, 4 * width), linear(4 * width, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norms[0](x).astype(x.dtype))
        q, k, v = jnp.moveaxis(qkv.reshape(batch, tokens, 3, self.heads, -1), 2, 0)
        attended = jax.nn.dot_product_attention(q, k, v)
        x = x + self.out(attended.reshape(batch, tokens, width))
        return x + self.down(nnx.gelu(self.up(self.norms[1](x).astype(x.dtype))))


class ViT(nnx.Module):
    """A small vision transformer: patches, learned positions, mean of the tokens."""

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int,
        *,
        depth: int = 6,
        patch: int = 4,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        height, wide, channels = input_shape
        self.embed = nnx.Conv(
            channels,
            width,
            (patch, patch),
            strides=patch,
            padding="VALID",
            dtype=dtype,
            rngs=rngs,
        )
        tokens = (height // patch) * (wide // patch)
        self.positions = nnx.Param(
            0.02 * jax.random.normal(rngs.params(), (1, tokens, width))
        )
        self.blocks = nnx.List(
            ViTBlock(width, max(1, width // 64), dtype, rngs) for _ in range(depth)
        )
        self.norm = _layer_norm(width, rngs)
        self.features = width

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        del train
        x = self.embed(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        x = x + self.positions[...].astype(x.dtype)
        for block in self.blocks:
            x = block(x)
        return self.norm(x).mean(1)


_xavier = nnx.initializers.xavier_uniform()


def _layer_norm(width: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Layer norm in float32."""
    return nnx.LayerNorm(width, dtype=jnp.float32, rngs=rngs)


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
        from experiments.models.conv6 import Conv6

        return Conv6(
            config.width or 64, input_shape, norm=config.norm, dtype=dtype, rngs=rngs
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
