"""Inputs and targets in their final form, and the statistics that take them there.

Statistics come from the training examples alone, those of streamed images from the
literature.
"""

from collections.abc import Mapping

import numpy as np

from experiments.datasets.config import DataConfig
from experiments.datasets.images import LazyImages, materialise

_STREAMED = ("imagenet_lt", "inaturalist2018", "places_lt", "clothing1m")
# Mean and deviation by channel of streamed sets, as in the literature.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_KNOWN = {"clothing1m": ((0.6959, 0.6537, 0.6371), (0.3113, 0.3192, 0.3214))}

Inputs = np.ndarray | LazyImages


def prepare_inputs(
    inputs: Mapping[str, Inputs], config: DataConfig
) -> tuple[Mapping[str, Inputs], tuple[int, ...], np.ndarray, np.ndarray]:
    """Inputs by split, their shape, and mean and deviation to normalise images by."""
    if isinstance(inputs["train"], LazyImages) and _streamed(config):
        size = config.image_size or 224
        mean, std = np.asarray(_KNOWN.get(config.name, _IMAGENET), np.float32)
        return inputs, (size, size, 3), mean, std
    arrays = {
        split: materialise(x, config.image_size) if isinstance(x, LazyImages) else x
        for split, x in inputs.items()
    }
    shape = arrays["train"].shape[1:]
    if arrays["train"].dtype == np.uint8:
        return arrays, shape, *_by_channel(arrays["train"])
    arrays = _standardised(arrays)
    return arrays, shape, np.zeros(shape, np.float32), np.ones(shape, np.float32)


def _streamed(config: DataConfig) -> bool:
    return config.name in _STREAMED if config.stream is None else config.stream


def standardise_targets(
    targets: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], float, float]:
    """Targets with mean 0 and variance 1 in training, and what undoes that."""
    mean, std = float(targets["train"].mean()), float(targets["train"].std()) or 1.0
    scaled = {k: ((t - mean) / std).astype(np.float32) for k, t in targets.items()}
    return scaled, mean, std


def _by_channel(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation by channel of images scaled to [0, 1]."""
    levels = np.arange(256) / 255
    mean, std = [], []
    for channel in range(images.shape[-1]):
        share = np.bincount(images[..., channel].ravel(), minlength=256)
        share = share / share.sum()
        mean.append(share @ levels)
        std.append(np.sqrt(share @ (levels - mean[-1]) ** 2) or 1.0)
    return np.asarray(mean, np.float32), np.asarray(std, np.float32)


def _standardised(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Missing values to the median, then mean 0 and variance 1, as in training."""
    median = np.nanmedian(inputs["train"], axis=0)
    filled = {k: np.where(np.isnan(x), median, x) for k, x in inputs.items()}
    mean, std = filled["train"].mean(0), filled["train"].std(0)
    std[std == 0] = 1.0
    return {k: ((x - mean) / std).astype(np.float32) for k, x in filled.items()}
