"""Programs of tests run once or twice: nearly all time goes into compiling them."""

import os

import jax

# Not 0: without emitters, a random program in float64 then had a gradient that was off
# by a thousandth (jaxlib 0.10.2); at level 0 with emitters it was right.
_FLAGS = "--xla_backend_optimization_level=1"
HAS_EMITTERS_FLAG = jax.__version_info__ < (0, 11)


def set_flags() -> None:
    """Has XLA compile quickly, unless the environment sets its optimisation level.

    Takes effect if nothing has run yet, and in processes started from here.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if "xla_backend_optimization_level" in given:
        return
    flags = [given, _FLAGS]
    if HAS_EMITTERS_FLAG and "xla_cpu_use_fusion_emitters" not in given:
        flags.append("--xla_cpu_use_fusion_emitters=false")
    os.environ["XLA_FLAGS"] = " ".join(flags).strip()
