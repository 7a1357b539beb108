"""Absolute step times by batch size, as shares of what the device can do.

The roofline is measured, not looked up: the rate of a large matrix product in the
model's dtype, and that of a large copy. A step's FLOPs are compared with the one and
its bytes with the other, both as the compiler counts them; the larger share tells what
bounds the step. The share of bytes passes 100% where caches hold what is read.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import models, steps, timing

METHODS = ("sgd", "absgd", "gradtail-dots", "gradtail-cosine", "gdw")
_DEADLINE = 9 * 60.0  # seconds after which nothing new is compiled
_SAMPLES = 5


def measure(
    names: Sequence[str],
    dtypes: Sequence[str],
    batches: Sequence[int],
    *,
    advance: Callable[[str], None] = lambda what: None,
) -> tuple[dict[str, float], list[dict[str, Any]], list[str]]:
    """Measured roofs, a row for each step, and what was left out."""
    end = time.perf_counter() + _DEADLINE
    advance("roofs")
    roofs = measure_roofs(dtypes)
    rows, left_out = [], []
    for size in batches:
        for name in names:
            for dtype in dtypes:
                if time.perf_counter() > end:
                    left_out.append(f"{name}, {dtype}, batch {size}: out of time")
                    continue
                advance(f"{name} {dtype}, batch {size}")
                try:
                    rows += _group(name, dtype, size, roofs)
                except jax.errors.JaxRuntimeError as error:
                    if "RESOURCE_EXHAUSTED" not in str(error):
                        raise
                    left_out.append(f"{name}, {dtype}, batch {size}: out of memory")
    return roofs, rows, left_out


def _group(name, dtype, size, roofs) -> list[dict[str, Any]]:
    """All methods on one model in one dtype with one batch size."""
    spec = models.with_dtype(models.SPECS[name], dtype)
    batch = models.make_batch(spec, size, seed=0)
    meta = models.make_batch(spec, size, seed=1)
    compiled, runs = {}, {}
    for method in METHODS:
        step = steps.make_step(method, spec)
        compiled[method] = timing.compile_step(step, batch, meta)
        runs[method] = timing.stepper(compiled[method].run, step.state, batch, meta)
    timings = timing.interleave(
        runs, baselines=dict.fromkeys(runs, "sgd"), repeats=_SAMPLES, seconds=math.inf
    )
    return [
        {
            "model": name,
            "dtype": dtype,
            "batch": size,
            "method": method,
            **t._asdict(),
            "images_per_second": size / t.seconds,
            **_shares(compiled[method], dtype, t.seconds, roofs),
        }
        for method, t in timings.items()
    ]


def _shares(compiled, dtype, seconds, roofs) -> dict[str, float | None]:
    """Rates over the roofs; None where loops hide operations."""
    if compiled.has_loops:
        return {"flops_share": None, "bytes_share": None}
    return {
        "flops_share": compiled.flops / seconds / roofs[dtype],
        "bytes_share": compiled.bytes_accessed / seconds / roofs["memory"],
    }


def measure_roofs(dtypes: Sequence[str]) -> dict[str, float]:
    """FLOP/s of a large product in each dtype, and bytes/s of a large copy."""
    on_cpu = jax.default_backend() == "cpu"
    width = 1024 if on_cpu else 8192
    roofs = {}
    for dtype in dtypes:
        x = jnp.ones((width, width), dtype)
        roofs[dtype] = 2 * width**3 / _best_seconds(jax.jit(jnp.dot), x, x)
    x = jnp.ones(2**24 if on_cpu else 2**28)
    roofs["memory"] = 2 * x.nbytes / _best_seconds(jax.jit(jnp.negative), x)
    return roofs


def _best_seconds(fun: Callable[..., jax.Array], *args: jax.Array) -> float:
    fun(*args).block_until_ready()
    best = math.inf
    for _ in range(_SAMPLES):
        start = time.perf_counter()
        results = [fun(*args) for _ in range(4)]
        jax.block_until_ready(results)
        best = min(best, (time.perf_counter() - start) / len(results))
    return best
