"""Time to trace and to compile a step, against plain SGD's.

    python -m benchmarks.compilation mlp vit

In processor time, which other processes disturb less than wall time. Methods take
turns, and nothing is cached between two measurements. Printed are medians over the
rounds. Two steps without a method, whose weights are products with the Jacobian
themselves, tell what the rest of a method adds.
"""

import argparse
import time

import jax
import numpy as np

import ltjax
from benchmarks.models import SPECS, Spec, make_batch
from benchmarks.steps import METHODS, Step, make_step, plain_step
from experiments.methods.losses import cross_entropy
from experiments.models import xla

PRODUCTS = {
    "products with a direction": lambda jac, params: jac.jvp(params),
    "norms": lambda jac, params: jac.norms(),
}
STEPS = (
    "sgd",
    *PRODUCTS,
    "gradtail-dots",
    "gradtail-cosine",
    "gradtail-default",
    "gdw",
)


def measure(spec: Spec, names: tuple[str, ...], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of tracing and of compiling, ``[rounds, 2]`` for each method."""
    batch = make_batch(spec, spec.batch_size, seed=0)
    steps = {name: _step(name, spec) for name in names}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, step in steps.items():
            jax.clear_caches()
            start = time.process_time()
            lowered = xla.jit(step.fun).lower(step.state, batch, batch)
            traced = time.process_time()
            lowered.compile()
            found[name].append((traced - start, time.process_time() - traced))
    return {name: np.array(seconds) for name, seconds in found.items()}


def _step(name: str, spec: Spec) -> Step:
    if name not in PRODUCTS:
        return make_step(name, spec)

    def gradient_of(apply, state, batch):
        def losses_fn(params):
            outputs, rest = apply(params, state.rest, batch.inputs, train=True)
            return cross_entropy(outputs.logits, batch.targets), rest

        losses, jac, rest = ltjax.linearize(losses_fn, state.params, has_aux=True)
        return jac.vjp(PRODUCTS[name](jac, state.params) / losses.size), rest

    return plain_step(spec, gradient_of)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["mlp", "vit"], choices=[*SPECS])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for model in args.models:
        found = measure(SPECS[model], STEPS, args.rounds)
        base = found["sgd"].sum(1)
        print(f"{model:38} tracing, s  compiling, s  ratio")
        for name, seconds in found.items():
            tracing, compiling = np.median(seconds, 0)
            ratio = np.median(seconds.sum(1) / base)
            label = name if name in PRODUCTS else METHODS[name].label
            print(f"  {label:36} {tracing:10.2f} {compiling:13.2f} {ratio:6.2f}")


if __name__ == "__main__":
    main()
