"""Comparisons of our own, small enough for two cores of a CPU.

All rows of a table have one recipe: the same split, network, augmentation, optimiser
and number of epochs, but for what the method consists of. The network is 4x4 patches
and three residual blocks of 32 channels: hundreds of runs have to fit in a day of two
cores. Settings of the methods are those of their publications, scaled to the short run.
``experiments/evidence.txt`` lists the runs in order of value.
"""

from experiments.configs.evidence import long_tail, noise, regression, scenes
from experiments.configs.presets import Preset

PRESETS: dict[str, Preset] = {
    **long_tail.PRESETS,
    **noise.PRESETS,
    **regression.PRESETS,
    **scenes.PRESETS,
}
