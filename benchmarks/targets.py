"""What each figure should be at most, as a ratio to plain SGD."""

from typing import NamedTuple

from benchmarks.models import SPECS


class Target(NamedTuple):
    """Upper bounds; None where no target is set."""

    flops: float | None = None
    wall: float | None = None
    memory: float | None = None


PEER_SPEEDUP = 2.0  # of GDW over a PyTorch step by double backward
HOST_OVERHEAD = 1.2  # of a step of a tiny model

LOOPS = {  # of `benchmarks.loops`
    ("scan", "weighted"): Target(flops=1.02, memory=1.05),
    ("scan", "dots"): Target(flops=1.45, memory=1.3),
    ("scan", "norms"): Target(flops=1.5, memory=1.3),
    ("checkpoint", "weighted"): Target(flops=1.02, memory=1.05),
    ("checkpoint", "dots"): Target(flops=1.7, memory=1.3),
    ("checkpoint", "norms"): Target(flops=2.4, memory=1.3),
}

_FREE = Target(1.02, 1.05, 1.05)
_NONE = Target()


def target(method: str, model: str) -> Target:
    """The bounds for a method on a model."""
    if method in ("absgd", "elm", "weight-balancing"):
        return _FREE
    coupled = SPECS[model].couples_examples
    if method == "gradtail-dots" and coupled:
        return Target(1.67, 1.5, 1.1)
    if method == "gradtail-dots":
        return Target(1.43, 1.4 if model == "mlp" else 1.25, 1.3)
    if method == "gradtail-cosine" and not coupled:
        return Target(1.5, 1.5 if model in ("mlp", "vit") else 1.6, 1.5)
    if method == "gdw":
        return Target(3.34, 3.1, 1.6)
    if method == "gdw-quarter":
        return Target(wall=2.5)
    return _NONE
