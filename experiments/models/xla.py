"""What XLA's CPU compiler needs to run residual networks at a good speed.

Three measures, none of which changes a result beyond rounding:

* Left alone, the CPU compiler fuses chains of residual blocks into loops that compute
  the same values again and walk memory with long strides. A `fence` behind each block
  keeps them apart, and the pass that would remove the fences is switched off.
* Convolutions stay with Eigen, which was faster than the YNNPACK library for 32
  channels and more.
* Reductions and matrix products go to YNNPACK all the same, where batch statistics
  were faster. `benchmarks.throughput` measures all three together.

The options are internal names of XLA and may vanish: they are tried once on a trivial
program, and left out where they are refused. Other devices see none of this.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

_CPU_OPTIONS: dict[str, str | bool] = {
    "xla_disable_hlo_passes": "cse_barrier_expander",
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    ),
}


def fence(x: jax.Array) -> jax.Array:
    """``x`` itself; on CPU, XLA does not fuse what comes before with what follows."""
    return jax.lax.optimization_barrier(x) if jax.default_backend() == "cpu" else x


@functools.cache
def compiler_options() -> dict[str, str | bool]:
    """Options for `jax.jit` that suit the default device; often none."""
    if jax.default_backend() != "cpu" or not _accepted(_CPU_OPTIONS):
        return {}
    return dict(_CPU_OPTIONS)


def jit(fun: Callable[..., Any], **kwargs: Any) -> jax.stages.Wrapped:
    """`jax.jit` with `compiler_options`; for outermost functions only."""
    return jax.jit(fun, compiler_options=compiler_options(), **kwargs)


def jit_once(fun: Callable[..., Any], **kwargs: Any) -> jax.stages.Wrapped:
    """`jax.jit` for a function that runs once: on CPU it is compiled quickly.

    At its usual level LLVM takes seconds over every array of random numbers; the bits
    are the same.
    """
    quickly = {"xla_backend_optimization_level": 1}
    options = quickly if jax.default_backend() == "cpu" else None
    return jax.jit(fun, compiler_options=options, **kwargs)


def _accepted(options: dict[str, str | bool]) -> bool:
    """Whether the compiler takes these options."""
    lowered = jax.jit(jnp.negative).lower(jnp.zeros(()))
    try:
        lowered.compile(compiler_options=options)
    except Exception:  # which one depends on the version of jaxlib
        return False
    return True
