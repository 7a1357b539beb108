"""Images per second of a training epoch, beside PyTorch on the same machine.

    python -m benchmarks.throughput --peers --out throughput.json

Random images of CIFAR's shape, SGD with momentum, float32. Every way of running the
epoch takes its turn in each round, so that a busy machine slows all of them alike:

* ``loop``: the compiled step, called from the host (what `experiments.train` does for
  convolutional networks on a CPU);
* ``untuned``: the same without the compiler options of `experiments.models.xla`;
* ``scan``: the whole epoch in one `jax.lax.scan` (what it does on accelerators; very
  slow for convolutions on a CPU, so only there by default);
* ``torch``: PyTorch's eager loop, channels last, with as many threads.
"""

import dataclasses
import functools
import os
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx

from experiments import methods, models
from experiments.models import xla
from experiments.records.environment import environment
from experiments.records.files import plain, write_json

SHAPE, CLASSES = (32, 32, 3), 10
OPTIMIZER = methods.OptimizerConfig(weight_decay=0.0, schedule="constant")

Model = Literal["patchify", "resnet8", "resnet20", "resnet32"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure."""

    models: tuple[Model, ...] = ("patchify", "resnet20", "resnet32")
    batch: int = 128
    steps: int = 4
    """Steps in an epoch."""
    rounds: int = 7
    """Epochs of each kind, interleaved, after one that is not counted."""
    scan: bool | None = None
    """Whether to measure the scanned epoch; None: except on a CPU."""
    untuned: bool = True
    """Whether to measure the step without the compiler options; CPU only."""
    peers: bool = False
    """Whether to measure PyTorch."""
    threads: int = 2
    """Cores that JAX and PyTorch may use; CPU only."""
    out: pathlib.Path | None = None
    """Where to write the figures as JSON."""


def main(config: Config) -> dict[str, Any]:
    """Measures every model in every way, prints a table and returns the figures."""
    if hasattr(os, "sched_setaffinity"):
        # JAX sizes its pool by this when it first meets a device.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: config.threads])
    rows: list[dict[str, Any]] = []
    report = {
        "environment": environment(*(["torch"] if config.peers else [])),
        "compiler_options": xla.compiler_options(),
        "config": plain(dataclasses.replace(config, out=None)),
        "results": rows,
    }
    print(f"{'model':<10}{'epoch':<10}{'images/s':>9}  (slowest to fastest)  of torch")
    for name in config.models:
        rates = measure(_epochs(name, config), config)
        for kind, values in rates.items():
            row = _row(name, kind, values, rates.get("torch"))
            rows.append(row)
            print(_line(row), flush=True)
    if config.out is not None:
        write_json(config.out, report)
    return report


def measure(
    epochs: dict[str, Callable[[], float]], config: Config
) -> dict[str, list[float]]:
    """Images per second of each kind of epoch, one value a round."""
    for epoch in epochs.values():
        epoch()
    rates: dict[str, list[float]] = {kind: [] for kind in epochs}
    for _ in range(config.rounds):
        for kind, epoch in epochs.items():
            start = time.perf_counter()
            loss = epoch()
            seconds = time.perf_counter() - start
            if not np.isfinite(loss):
                raise FloatingPointError(f"The loss of {kind} became {loss}.")
            rates[kind].append(config.batch * config.steps / seconds)
    return rates


def _epochs(name: Model, config: Config) -> dict[str, Callable[[], float]]:
    """The ways to run an epoch of a model, each returning its last loss."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(config.steps, config.batch, *SHAPE)).astype(np.float32)
    labels = rng.integers(0, CLASSES, (config.steps, config.batch)).astype(np.int32)
    on_cpu = jax.default_backend() == "cpu"
    kinds: dict[str, Callable[..., Callable[[], float]]] = {
        "loop": functools.partial(_loop, xla.jit)
    }
    if on_cpu and config.untuned:
        kinds["untuned"] = functools.partial(_loop, jax.jit)
    if not on_cpu if config.scan is None else config.scan:
        kinds["scan"] = _scan
    if config.peers:
        kinds["torch"] = functools.partial(_torch, threads=config.threads)
    return {kind: make(name, images, labels) for kind, make in kinds.items()}


def _step(name: Model) -> tuple[Callable[..., Any], methods.State]:
    """A plain SGD step, ``(state, batch) -> (state, loss)``, and a state."""
    model = models.make_model(
        models.ModelConfig(name=name),
        input_shape=SHAPE,
        num_outputs=CLASSES,
        rngs=nnx.Rngs(0),
    )
    apply, params, rest = models.functional(model)
    method = methods.make_method(
        methods.MethodConfig(),
        apply,
        optimizer=OPTIMIZER,
        epochs=1,
        steps_per_epoch=1,
        class_counts=jnp.ones(CLASSES),
    )
    key = jax.random.key(0)

    def step(state, batch):
        state, metrics = method.step(state, batch, None, key)
        return state, metrics["loss"]

    return step, method.init(params, rest, jnp.zeros((1, *SHAPE)), key)


def _loop(
    jit: Callable[..., Any], name: Model, images: np.ndarray, labels: np.ndarray
) -> Callable[[], float]:
    """An epoch of calls to the compiled step."""
    step, state = _step(name)
    step = jit(step, donate_argnums=0)
    batches = [
        methods.Batch(jnp.asarray(x), jnp.asarray(y))
        for x, y in zip(images, labels, strict=True)
    ]

    def epoch():
        nonlocal state
        for batch in batches:
            state, loss = step(state, batch)
        return float(loss)

    return epoch


def _scan(name: Model, images: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """An epoch compiled as a whole."""
    step, state = _step(name)
    scan = xla.jit(functools.partial(jax.lax.scan, step), donate_argnums=0)
    batches = methods.Batch(jnp.asarray(images), jnp.asarray(labels))

    def epoch():
        nonlocal state
        state, losses = scan(state, batches)
        return float(losses[-1])

    return epoch


def _torch(
    name: str, images: np.ndarray, labels: np.ndarray, *, threads: int
) -> Callable[[], float]:
    """An epoch of PyTorch's eager steps."""
    import torch

    from benchmarks import torch_resnet

    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = torch_resnet.resnet(models.RESNETS[name], CLASSES).to(device)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=OPTIMIZER.learning_rate, momentum=OPTIMIZER.momentum
    )
    batches = [
        (torch.tensor(x, device=device).permute(0, 3, 1, 2), torch.tensor(y).to(device))
        for x, y in zip(images, labels.astype(np.int64), strict=True)
    ]

    def epoch():
        for x, y in batches:
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        return loss.item()

    return epoch


def _row(
    name: str, kind: str, rates: list[float], reference: list[float] | None
) -> dict[str, Any]:
    """Median and spread, and the median over rounds of the ratio to PyTorch."""
    row = {
        "model": name,
        "epoch": kind,
        "median": statistics.median(rates),
        "slowest": min(rates),
        "fastest": max(rates),
        "rates": rates,
    }
    if reference is not None:
        ratios = [a / b for a, b in zip(rates, reference, strict=True)]
        row["of_torch"] = statistics.median(ratios)
    return row


def _line(row: dict[str, Any]) -> str:
    """One line of the table."""
    spread = f"({row['slowest']:.0f} to {row['fastest']:.0f})"
    ratio = f"{row['of_torch']:.2f}" if "of_torch" in row else ""
    return (
        f"{row['model']:<10}{row['epoch']:<10}{row['median']:>9.0f}"
        f"  {spread:<20}  {ratio:>8}"
    )


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
