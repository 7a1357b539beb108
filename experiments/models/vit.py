"""A small vision transformer."""

import jax
import jax.numpy as jnp
from flax import nnx

_xavier = nnx.initializers.xavier_uniform()


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


def _layer_norm(width: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Layer norm in float32."""
    return nnx.LayerNorm(width, dtype=jnp.float32, rngs=rngs)
