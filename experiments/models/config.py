"""Which network, and what it returns."""

import dataclasses
from typing import Literal, NamedTuple

import jax


class Outputs(NamedTuple):
    """What a model returns."""

    logits: jax.Array  # [B, C], float32; [B, H, W, C] of a dense network
    embeddings: jax.Array  # [B, E] alike: what the classifier sees, before dropout


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which network, and which classifier."""

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
        "unet",
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
