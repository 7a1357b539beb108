"""Layers that several networks share."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

he_normal = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")


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
