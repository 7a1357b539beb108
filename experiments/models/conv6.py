"""Six convolutions and a dense layer: the small network of label-noise papers."""

from typing import Any

import jax
from flax import nnx

from experiments.models import xla
from experiments.models.layers import ConvNorm


class Conv6(nnx.Module):
    """Pairs of 3x3 convolutions, maxima over 2x2 after each, then a dense layer.

    The dense layer reads the whole map: it is a convolution of the map's own size.
    """

    def __init__(self, width: int, input_shape: tuple[int, ...], **kwargs: Any):
        height, wide, channels = input_shape
        if height != wide or height < 8:
            raise ValueError(
                "input_shape must be square, of 8 pixels or more, for conv6, "
                f"got {input_shape}."
            )
        self.layers: nnx.List[ConvNorm] = nnx.List()
        for outputs in (width, 2 * width, 3 * width + width // 16):
            self.layers.append(ConvNorm(channels, outputs, 3, **kwargs))
            self.layers.append(ConvNorm(outputs, outputs, 3, **kwargs))
            channels = outputs
        self.features = 4 * width
        self.dense = ConvNorm(channels, self.features, height // 8, padding=0, **kwargs)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i, layer in enumerate(self.layers):
            x = nnx.relu(layer(x, train))
            if i % 2:
                x = xla.fence(nnx.max_pool(x, (2, 2), strides=(2, 2)))
        return nnx.relu(self.dense(x, train)).reshape(x.shape[0], -1)
