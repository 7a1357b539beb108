"""Steps of other libraries beside ours, timed in turns.

Those in PyTorch materialise per-example gradients for GradTail's step, or take GDW's.
Those in JAX clip by example.
"""

import functools
import importlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks import clipping, models, steps, timing, torch_steps
from benchmarks.models import Spec
from experiments.methods import Batch
from experiments.records.environment import cores

PACKAGES = ("torch", "opacus", "backpack-for-pytorch", "jax-privacy")

_SGD = "SGD"
_GRADTAIL = "GradTail, gated cosines"
_GDW = "GDW"
_CLIPPED = "clipped by example"
_OURS: dict[str, Callable[[Spec], steps.Step]] = {
    _SGD: functools.partial(steps.make_step, "sgd"),
    _GRADTAIL: functools.partial(steps.make_step, "gradtail-cosine"),
    _GDW: functools.partial(steps.make_step, "gdw"),
    _CLIPPED: functools.partial(clipping.make_step, clipping.ours),
}


class Run(NamedTuple):
    """A step that is ready to be taken."""

    step: Callable[[], None]
    temporary_bytes: int | None  # None in PyTorch, which plans no memory ahead


class Peer(NamedTuple):
    """A step of another library."""

    framework: str
    step: str  # a key of _OURS
    make: Callable[[str, Batch, Batch], Run]  # name of the model, batch, meta batch
    packages: tuple[str, ...]
    models: tuple[str, ...]
    baseline: str = "PyTorch"  # the framework whose plain step it is compared with


def measure(
    names: Sequence[str],
    *,
    repeats: int,
    seconds: float,
    advance: Callable[[str], None] = lambda what: None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Step times of the installed peers and of ltjax, and which peers are missing."""
    available, missing = _importable(PEERS)
    rows = []
    for name in names:
        spec = models.SPECS[name]
        batch = models.make_batch(spec, spec.batch_size, seed=0)
        meta = models.make_batch(spec, spec.batch_size, seed=1)
        runs, baselines = {}, {}
        for peer in available:
            if name in peer.models:
                key = (peer.framework, peer.step)
                advance(f"{name}: {peer.framework}")
                runs[key] = peer.make(name, batch, meta)
                baselines[key] = (peer.baseline, _SGD)
        for step in dict.fromkeys([_SGD, *(step for _, step in runs)]):
            advance(f"{name}: compiling {step}")
            runs["ltjax", step] = _in_jax(_OURS[step])(name, batch, meta)
            baselines["ltjax", step] = ("ltjax", _SGD)
        timings = timing.interleave(
            {key: run.step for key, run in runs.items()},
            baselines=baselines,
            repeats=repeats,
            seconds=seconds,
            advance=functools.partial(advance, f"{name}: timing"),
        )
        for (framework, step), t in timings.items():
            speedup = t.seconds / timings["ltjax", step].seconds
            own, base = (
                runs[key].temporary_bytes
                for key in ((framework, step), baselines[framework, step])
            )
            rows.append(
                {
                    "model": name,
                    "framework": framework,
                    "step": step,
                    **t._asdict(),
                    "memory_ratio": own / base if own and base else None,
                    "speedup_of_ltjax": None if framework == "ltjax" else speedup,
                }
            )
    return rows, missing


def _in_torch(make: Callable[[Any, Any, Any], Callable[[], None]]):
    """A step of `torch_steps`: ``(model, batch, meta batch) -> step``."""

    def run(name, batch, meta):
        import torch

        torch.set_num_threads(cores())
        model = torch_steps.torch_model(name)
        batches = map(torch_steps.torch_batch, (batch, meta))
        return Run(make(model, *batches), None)

    return run


def _in_jax(make: Callable[[Spec], steps.Step]):
    """A step that is compiled."""

    def run(name, batch, meta):
        step = make(models.SPECS[name])
        compiled = timing.compile_step(step, batch, meta)
        stepper = timing.stepper(compiled.run, step.state, batch, meta)
        return Run(stepper, compiled.temporary_bytes)

    return run


def _importable(peers: Sequence[Peer]) -> tuple[list[Peer], list[str]]:
    """The peers whose packages are installed, and messages about the others."""
    found, missing = [], {}
    for peer in peers:
        try:
            for package in peer.packages:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    importlib.import_module(package)
        except ImportError as error:
            missing[peer.framework] = f"{peer.framework} ({error})"
        else:
            found.append(peer)
    return found, list(missing.values())


def _clipping(framework: str, package: str, clipped_sum: Callable) -> list[Peer]:
    """All examples at once, and few at a time."""
    size = clipping.MICROBATCH
    named: dict[str, Callable] = {
        framework: clipped_sum,
        f"{framework}, {size} at a time": functools.partial(
            clipped_sum, microbatch_size=size
        ),
    }
    return [
        Peer(
            name,
            _CLIPPED,
            _in_jax(functools.partial(clipping.make_step, fun)),
            (package,),
            _INDEPENDENT,
            "ltjax",
        )
        for name, fun in named.items()
    ]


_ALL = ("mlp", "resnet32-bn", "resnet32-gn")
_INDEPENDENT = ("mlp", "resnet32-gn")
_TORCH = ("torch",)

PEERS = (
    Peer("PyTorch", _SGD, _in_torch(torch_steps.sgd), _TORCH, _ALL),
    Peer("torch.func", _GRADTAIL, _in_torch(torch_steps.vmap), _TORCH, _INDEPENDENT),
    Peer(
        "Opacus",
        _GRADTAIL,
        _in_torch(torch_steps.opacus),
        (*_TORCH, "opacus"),
        _INDEPENDENT,
    ),
    # BackPACK has neither group norm nor residual blocks.
    Peer(
        "BackPACK",
        _GRADTAIL,
        _in_torch(torch_steps.backpack),
        (*_TORCH, "backpack"),
        ("mlp",),
    ),
    Peer("PyTorch", _GDW, _in_torch(torch_steps.gdw), _TORCH, ("mlp", "resnet32-bn")),
    *_clipping("jax_privacy", "jax_privacy", clipping.by_jax_privacy),
    *_clipping("optax.microbatching", "optax", clipping.by_optax),
)
