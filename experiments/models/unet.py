"""A small network that gives every pixel an embedding."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models import xla
from experiments.models.layers import ConvNorm

_SHRINKS = 3  # halvings of the image


class UNet(nnx.Module):
    """3x3 convolutions down to an eighth of the size, and back up.

    On the way up, a 1x1 convolution of the coarse map is added to the map of the same
    size from the way down, and a 3x3 convolution follows. Widths are w, 2w, 4w, 4w.
    """

    def __init__(self, width: int, input_shape: tuple[int, ...], **kwargs: Any):
        if any(size % 2**_SHRINKS for size in input_shape[:2]):
            raise ValueError(
                f"input_shape must be multiples of {2**_SHRINKS} pixels for unet, "
                f"got {input_shape}."
            )
        widths = [width, 2 * width, 4 * width, 4 * width]
        self.features = width
        self.first = ConvNorm(input_shape[-1], width, 3, **kwargs)
        self.down: nnx.List[ConvNorm] = nnx.List()
        self.narrow: nnx.List[ConvNorm] = nnx.List()
        self.up: nnx.List[ConvNorm] = nnx.List()
        for fine, coarse in itertools.pairwise(widths):
            self.down.append(ConvNorm(fine, coarse, 3, 2, **kwargs))
            self.narrow.append(ConvNorm(coarse, fine, 1, **kwargs))
            self.up.append(ConvNorm(fine, fine, 3, **kwargs))
        self.middle = ConvNorm(widths[-1], widths[-1], 3, **kwargs)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        maps = [xla.fence(nnx.relu(self.first(x, train)))]
        for layer in self.down:
            maps.append(xla.fence(nnx.relu(layer(maps[-1], train))))
        x = nnx.relu(self.middle(maps.pop(), train))
        for narrow, up in zip(self.narrow[::-1], self.up[::-1], strict=True):
            x = nnx.relu(_doubled(narrow(x, train)) + maps.pop())
            x = xla.fence(nnx.relu(up(x, train)))
        return x


def _doubled(x: jax.Array) -> jax.Array:
    """Every pixel four times: ``[B, 2H, 2W, C]``."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
