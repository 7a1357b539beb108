"""Data sets: read, split, made long-tailed and noisy, and described.

``load(DataConfig(name="cifar10", recipe="exponential", factor=0.01))`` gives
``Splits``. The order of events is always the same: hold out clean test, validation and
meta sets, make the rest long-tailed, corrupt its labels, and compute statistics of the
result. See docs/data.md.
"""

from experiments.datasets.config import DataConfig as DataConfig
from experiments.datasets.lookup import DataNotFoundError as DataNotFoundError
from experiments.datasets.prepare import from_arrays as from_arrays
from experiments.datasets.prepare import load as load
from experiments.datasets.splits import Arrays as Arrays
from experiments.datasets.splits import Splits as Splits
from experiments.datasets.splits import describe as describe
