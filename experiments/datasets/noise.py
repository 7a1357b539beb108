"""Training labels as they are seen in training."""

import numpy as np

from experiments.datasets.config import DataConfig
from experiments.datasets.sets import vision
from ltjax import data


def corrupt(
    labels: np.ndarray, train: np.ndarray, num_classes: int | None, config: DataConfig
) -> np.ndarray:
    """Labels of the training examples, made noisy.

    Args:
      labels: true ones of the whole training part of the source.
      train: indices of the training examples in it.
      num_classes: None in regression, which has no noise.
      config: which noise.
    """
    if config.noise == "none" or num_classes is None:
        return labels[train]
    if config.noise.startswith("human_"):
        name = config.noise.removeprefix("human_")
        return vision.human_labels(config, name, labels)[train]
    rng = config.generator("noise")
    noisy, _ = data.corrupt_labels(
        labels[train],
        _transition(config, num_classes, rng),
        rng,
        exact="class" if config.noise == "uniform_other" else False,
    )
    return noisy.astype(labels.dtype)


def _transition(
    config: DataConfig, num_classes: int, rng: np.random.Generator
) -> np.ndarray:
    """Probabilities ``[C, C]`` of every label given the true class."""
    rate = config.noise_rate
    match config.noise:
        case "uniform":
            return data.uniform_noise(num_classes, rate, include_self=True)
        case "uniform_other":
            return data.uniform_noise(num_classes, rate, include_self=False)
        case "pair":
            return data.pair_noise(num_classes, rate)
        case "flip":
            return data.flip_noise(num_classes, rate, rng)
        case "flip2":
            return data.flip_noise(num_classes, rate, rng, targets=2)
        case "asymmetric":
            return data.cifar10_asymmetric_noise(rate)
        case "block":
            return data.block_noise(data.CIFAR100_SUPERCLASSES, rate)
        case _:
            raise ValueError(f"noise={config.noise!r} has no transition matrix.")
