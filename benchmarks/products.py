"""FLOPs of what is made of a Jacobian's rows, against a plain gradient.

Counted by XLA, so the machine does not matter: ``python -m benchmarks.products``.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import ltjax
from benchmarks.models import SPECS, Spec, make_batch, make_problem
from experiments.methods.losses import cross_entropy

MODELS = ("mlp", "vit", "resnet32-gn")


def measure(spec: Spec) -> dict[str, float]:
    """FLOPs of every product over those of the mean's gradient."""
    problem = make_problem(spec)
    batch = make_batch(spec, spec.batch_size, seed=0)

    def losses_fn(params, batch):
        outputs, _ = problem.apply(params, problem.rest, batch.inputs, train=True)
        return cross_entropy(outputs.logits, batch.targets)

    def of_rows(fun: Callable[[ltjax.Jacobian], Any]):
        def run(params, batch):
            losses, jac = ltjax.linearize(lambda p: losses_fn(p, batch), params)
            return losses, fun(jac)

        return run

    # In one chunk and along one direction: XLA counts the body of a loop once.
    programs = {
        "gradient": jax.grad(lambda p, batch: losses_fn(p, batch).mean()),
        "clipped_sum": of_rows(lambda jac: ltjax.clipped_sum(jac, 1.0)),
        "noise_scale": of_rows(ltjax.noise_scale),
        "project": of_rows(lambda jac: ltjax.project(jac, jax.random.key(0), 1)),
        "gram": of_rows(lambda jac: ltjax.gram(jac, chunk_size=spec.batch_size)),
    }
    flops = {name: _flops(fun, problem.params, batch) for name, fun in programs.items()}
    return {name: n / flops["gradient"] for name, n in flops.items()}


def _flops(fun: Callable[..., Any], *args: Any) -> float:
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype), args)
    analysis = jax.jit(fun).lower(*shapes).compile().cost_analysis()
    assert analysis is not None
    return analysis["flops"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS, choices=[*SPECS])
    for model in parser.parse_args().models:
        print(model)
        for name, ratio in measure(SPECS[model]).items():
            print(f"  {name:12} {ratio:8.2f}", flush=True)


if __name__ == "__main__":
    main()
