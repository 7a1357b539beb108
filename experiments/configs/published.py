"""Published results, by the preset that follows them.

Test accuracy in percent on balanced test sets, where accuracy and balanced accuracy are
the same number. A preset that is not here has no published number: reports leave its
place blank.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """A row of a publication."""

    accuracy: float
    network: str
    chosen: str  # which epoch the number is of; "" where that is not said
    source: str


_LAST5 = "mean of the last 5 epochs"
_GDW = "arXiv 2111.00056, log of the authors' run"
_ABSGD = "arXiv 2012.06951, authors' code and logs"
_BALANCING = "arXiv 2305.16573, log of the authors' run"
_ADJUSTMENT = "arXiv 2007.07314"
_BLOCKS = "residual net of 1x1-3x3-1x1 blocks"

PUBLISHED: dict[str, Published] = {
    "mwnet-cifar10-unif40": Published(86.62, "ResNet-32", _LAST5, _GDW),
    "gdw-cifar10-unif40": Published(87.97, "ResNet-32", _LAST5, _GDW),
    "ce-cifar10-lt10-resnet18": Published(77.45, "ResNet-18", "", _ABSGD),
    "absgd-cifar10-lt10-resnet18": Published(77.98, "ResNet-18", "", _ABSGD),
    "ce-cifar10-lt100-resnet18": Published(61.89, "ResNet-18", "", _ABSGD),
    "absgd-cifar10-lt100-resnet18": Published(62.84, "ResNet-18", "", _ABSGD),
    "ce-cifar100-sym20": Published(68.21, "ResNet-34", "", _ABSGD),
    "ce-cifar100-sym40": Published(56.29, "ResNet-34", "", _ABSGD),
    "ce-normalized-cifar100-sym20": Published(72.13, "ResNet-34", "", _ABSGD),
    "ce-normalized-cifar100-sym40": Published(67.02, "ResNet-34", "", _ABSGD),
    "absgd-cifar100-sym20": Published(72.21, "ResNet-34", "", _ABSGD),
    "absgd-cifar100-sym40": Published(67.59, "ResNet-34", "", _ABSGD),
    "wb-naive-cifar100-lt100": Published(
        39.62, "ResNet-34", "best on validation", _BALANCING
    ),
    "wb-wd-cifar100-lt100": Published(
        47.18, "ResNet-34", "best on validation", _BALANCING
    ),
    "wb-two-stage-cifar100-lt100": Published(
        51.98, "ResNet-34", "best on validation", _BALANCING
    ),
    "erm-cifar10-lt100": Published(71.36, _BLOCKS, "", _ADJUSTMENT),
    "posthoc-cifar10-lt100": Published(77.32, _BLOCKS, "", _ADJUSTMENT),
    "la-cifar10-lt100": Published(77.89, _BLOCKS, "", _ADJUSTMENT),
    "erm-cifar100-lt100": Published(39.87, _BLOCKS, "", _ADJUSTMENT),
    "posthoc-cifar100-lt100": Published(44.07, _BLOCKS, "", _ADJUSTMENT),
    "la-cifar100-lt100": Published(44.06, _BLOCKS, "", _ADJUSTMENT),
}
