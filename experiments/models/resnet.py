"""Residual networks of basic and bottleneck blocks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models import xla
from experiments.models.layers import ConvNorm


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
