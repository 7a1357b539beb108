"""Collectives of one training step, and that weights depend on the whole batch."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import steps
from benchmarks.models import NUM_CLASSES, SPECS, Spec, make_batch
from benchmarks.timing import compile_step
from experiments.training.devices import make_mesh

DEVICE_COUNTS = (1, 2, 4, 8)

_COLLECTIVE = re.compile(
    r"= (?P<type>\([^)]*\)|\S+) (?P<kind>all-reduce|all-gather|reduce-scatter"
    r"|all-to-all|collective-permute|collective-broadcast)(-start)?\("
)
_SHAPE = re.compile(r"[a-z]+[0-9]+\[([0-9,]*)\]")


class Collective(NamedTuple):
    """One collective operation."""

    kind: str
    elements: int  # numbers in its result


def collectives(text: str) -> list[Collective]:
    """The collectives of a compiled program, from its text."""
    return [
        Collective(m["kind"], sum(map(_elements, _SHAPE.findall(m["type"]))))
        for m in _COLLECTIVE.finditer(text)
    ]


def gradients_computed(method: str) -> int:
    """Gradients that a step of a method sums over the batch."""
    if method.startswith(("gdw", "mw-net")):
        return 3  # for the look-ahead, of the meta loss, for the step
    if method in ("l2rw", "gradtail-unweighted", "gradtail-default"):
        return 2
    return 1


def compile_sharded(name: str, spec: Spec, devices: int) -> tuple[Any, tuple]:
    """A step compiled for a batch split over devices, and its arguments."""
    mesh = make_mesh(devices)
    split = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    step = steps.make_step(name, spec)
    # By way of the host, so that donation leaves the cached parameters alone.
    step = step._replace(state=jax.device_put(jax.device_get(step.state), whole))
    # The quarter of the smallest batch is still one example for each device.
    share = steps.METHODS[name].meta_share or 1.0
    meta = make_batch(spec, round(share * spec.batch_size), seed=1)
    batch = make_batch(spec, spec.batch_size, seed=0)
    batch, meta = jax.device_put((batch, meta), split)
    return compile_step(step, batch, meta), (step.state, batch, meta)


def measure(methods: Sequence[str], model: str) -> list[dict[str, Any]]:
    """Collectives of every method's step on 1, 2, 4 and 8 devices.

    A collective counts as a gradient's where it carries at least as many numbers as
    the batch has logits; all that the weights need is smaller.
    """
    spec = SPECS[model]
    alone: dict[str, Any] = {}
    rows = []
    for name in dict.fromkeys(("sgd", *methods)):
        for count in DEVICE_COUNTS[: _available()]:
            compiled, args = compile_sharded(name, spec, count)
            found = summary(collectives(compiled.text), spec)
            bound = gradients_computed(name) if count > 1 else 0
            params = jax.device_get(compiled.run(*args).params)
            alone.setdefault(name, params)
            rows.append(
                {
                    "method": name,
                    "devices": count,
                    **found,
                    "bound": bound,
                    "met": found["gradients"] <= bound,
                    "difference_to_one_device": _difference(params, alone[name]),
                }
            )
    return rows


def summary(found: Sequence[Collective], spec: Spec) -> dict[str, int]:
    """Collectives that carry gradients, and the rest."""
    logits = NUM_CLASSES * spec.batch_size
    small = [c.elements for c in found if c.elements <= logits]
    return {
        "gradients": len(found) - len(small),
        "others": len(small),
        "largest_other": max(small, default=0),
    }


def _difference(params: Any, others: Any) -> float:
    """Largest change, relative to the largest parameter."""
    pairs = list(zip(jax.tree.leaves(params), jax.tree.leaves(others), strict=True))
    largest = max(np.abs(b).max() for _, b in pairs)
    return float(max(np.abs(a - b).max() for a, b in pairs) / largest)


def _elements(shape: str) -> int:
    return math.prod(int(n) for n in shape.split(",") if n)


def _available() -> int:
    """How many of the counts there are devices for."""
    return sum(count <= len(jax.devices()) for count in DEVICE_COUNTS)
