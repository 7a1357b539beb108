"""Examples as they are stored on the device, and what a step makes of them."""

from typing import NamedTuple

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from experiments.configs import TrainConfig
from experiments.datasets import Arrays, Splits
from experiments.datasets.images import LazyImages
from experiments.training.devices import copied, place
from experiments.training.evaluation import target_groups


class Examples(NamedTuple):
    """Examples as stored, with what is known about them."""

    inputs: jax.Array  # [N, ...], uint8 images or float32 features
    targets: jax.Array  # [N]
    position: jax.Array  # [N] int32, in the training set


class Data(NamedTuple):
    """A run's data on the device; streamed examples come with each step instead."""

    train: Examples | None
    meta: Examples | None
    group: jax.Array  # [N] int32, class, or region of the target
    changed: jax.Array  # [N] int32, whether the label was changed


def place_data(config: TrainConfig, splits: Splits, mesh: Mesh) -> Data:
    """Puts everything that fits on the devices."""
    everywhere = copied(mesh)
    targets = splits.train.targets
    changed = (targets != splits.clean_targets).astype(np.int32)
    return Data(
        train=_examples(splits.train, everywhere),
        meta=_examples(splits.meta if config.method.needs_meta else None, everywhere),
        group=place(target_groups(targets, splits), everywhere),
        changed=place(changed, everywhere),
    )


def take(examples: Examples, index: jax.Array) -> Examples:
    """The examples at some positions."""
    return jax.tree.map(lambda x: x[index], examples)


def draw(key: jax.Array, examples: Examples, size: int) -> Examples:
    """Different examples at random."""
    lots = jax.random.bits(key, (len(examples.targets),))
    return take(examples, jax.lax.top_k(lots, size)[1])


def key_for(seed: jax.Array, purpose: str) -> jax.Array:
    """A separate key for each random purpose in a run."""
    purposes = ("init", "order", "step", "meta")
    return jax.random.fold_in(jax.random.key(seed), purposes.index(purpose))


def shuffled_batches(
    seed: jax.Array, epoch: jax.Array, *, count: int, size: int
) -> jax.Array:
    """``[steps, size]`` positions: a new order for each epoch, in full batches."""
    order = jax.random.permutation(
        jax.random.fold_in(key_for(seed, "order"), epoch), count
    )
    return order[: count // size * size].reshape(-1, size)


def normalise(inputs: jax.Array, splits: Splits) -> jax.Array:
    """Stored inputs as normalised floats."""
    if inputs.dtype != jnp.uint8:
        return inputs
    return (inputs.astype(jnp.float32) / 255 - splits.mean) / splits.std


def augment(key: jax.Array, images: jax.Array, config: TrainConfig) -> jax.Array:
    """Random rotations, crops and mirror images."""
    pad, mode = config.crop, {"zero": "constant"}.get(config.crop_padding, "reflect")
    if not (pad or config.flip or config.rotate):
        return images

    def one(key, image):
        crop_key, flip_key = jax.random.split(key)
        if config.rotate:
            image = _rotated(jax.random.fold_in(key, 2), image, config.rotate)
        if pad:
            shape = image.shape
            image = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode)
            image = pix.random_crop(crop_key, image, shape)
        if config.flip:
            image = pix.random_flip_left_right(flip_key, image)
        return image

    return jax.vmap(one)(jax.random.split(key, len(images)), images)


def _rotated(key: jax.Array, image: jax.Array, degrees: float) -> jax.Array:
    """Rotated by up to this angle either way; uncovered corners are black."""
    angle = jnp.deg2rad(jax.random.uniform(key, (), minval=-degrees, maxval=degrees))
    turned = pix.rotate(
        image.astype(jnp.float32),
        angle,  # type: ignore[arg-type]  # an array will do
        mode="constant",
    )
    return jnp.round(turned).astype(image.dtype)


def _examples(arrays: Arrays | None, sharding: NamedSharding) -> Examples | None:
    """On the devices; None where there are none, or they are streamed."""
    if arrays is None or isinstance(arrays.inputs, LazyImages):
        return None
    position = np.arange(len(arrays.targets), dtype=np.int32)
    stored = arrays.inputs, arrays.targets, position
    return Examples(*(place(x, sharding) for x in stored))
