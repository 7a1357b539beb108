"""Data sets: read, split, made long-tailed and noisy, and described.

``load(DataConfig(name="cifar10", recipe="exponential", factor=0.01))`` gives
``Splits``. The order of events is always the same: hold out what is to stay clean
and untouched (test, validation, meta), make the rest long-tailed, make its labels
noisy, and take the statistics of what is left. See docs/data.md.
"""

from experiments.datasets.config import DataConfig as DataConfig
from experiments.datasets.lookup import DataNotFoundError as DataNotFoundError
from experiments.datasets.prepare import from_arrays as from_arrays
from experiments.datasets.prepare import load as load
from experiments.datasets.splits import Arrays as Arrays
from experiments.datasets.splits import Splits as Splits
from experiments.datasets.splits import describe as describe
