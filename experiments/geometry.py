"""Measures the geometry of a trained network, layer by layer.

    python -m experiments.geometry RUN

RUN is the folder of a finished classification run of ``python -m experiments.train``,
or a folder of such folders. For every layer of the backbone, behind its rectifier if it
has one: mean cosine between test examples of the same and of different classes, and
between inputs of pure noise (the cone effect), and the Fisher discriminant ratio. For
the classifier: norms by class. For the logits: balanced test accuracy over the strength
of both adjustments. Written to ``geometry.json`` in the folder of the run.
"""

import dataclasses
import functools
import operator
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from rich.console import Console
from rich.table import Table

from experiments import datasets
from experiments.datasets import DataConfig, DataNotFoundError, Splits
from experiments.methods.post_hoc import class_priors
from experiments.models import ModelConfig, make_model
from experiments.models.vit import ViT
from experiments.records.files import write_json
from experiments.records.runs import RecordError, Run, read_runs
from experiments.training.batches import normalise
from experiments.training.parameters import replaced
from ltjax import heads, metrics

_TAUS = [i / 10 for i in range(31)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What the command line sets."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, or of several."""
    count: int = 2000
    """Test examples, drawn at random, and inputs of noise that go through it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    arguments = tyro.cli(
        Arguments,
        prog="python -m experiments.geometry",
        description=__doc__,
        args=argv,
    )
    console = Console(highlight=False)
    try:
        for run in read_runs(arguments.run):
            found = measured(run, arguments.count)
            write_json(run.path / "geometry.json", found)
            console.print(_table(found["layers"], run.path))
    except (RecordError, DataNotFoundError) as error:
        console.print(f"[bold red]error[/] {error}", soft_wrap=True)
        return 1
    return 0


def measured(run: Run, count: int) -> dict[str, Any]:
    """Layers, norms of the classifier and adjustments of a finished run.

    Raises:
      RecordError: if the run is not finished, not of classes, or without parameters.
    """
    if count < 2:
        raise RecordError(f"count must be at least 2, got {count}.")
    if not (run.finished and (run.path / "last.npz").exists()):
        raise RecordError(f"{run.path} is not finished, or its last.npz is gone.")
    splits = datasets.load(DataConfig.of_record(run.config["data"]))
    if splits.num_classes is None or splits.dense or splits.streaming:
        raise RecordError(
            f"{run.path} is not of examples with a class each, in memory."
        )
    model = _trained(run, splits)
    labels = splits.test.targets
    chosen = np.random.default_rng(0).permutation(len(labels))[:count]
    inputs = np.asarray(splits.test.inputs[chosen])
    kernel = model.head.kernel.get_value()
    return {
        "layers": _layers(model, inputs, labels[chosen], splits),
        "classifier_norms": np.linalg.norm(kernel, axis=0).tolist(),
        "adjustment": {"taus": _TAUS, **_adjusted(run)},
    }


def _trained(run: Run, splits: Splits) -> Any:
    """The network with the parameters of the last epoch."""
    settings = dict(run.config["model"])
    settings["hidden"] = tuple(settings["hidden"])
    model = make_model(
        ModelConfig(**settings),
        input_shape=splits.input_shape,
        num_outputs=splits.num_classes or 1,
        rngs=nnx.Rngs(0),
    )
    with np.load(run.path / "last.npz") as arrays:
        nnx.update(model, replaced(nnx.state(model), dict(arrays)))
    return model


def _layers(
    model: Any, inputs: np.ndarray, labels: np.ndarray, splits: Splits
) -> list[dict[str, Any]]:
    """Numbers of every layer, the input's side first."""
    of_noise = _activations(model, _noise_like(inputs), splits)
    alike, classes = np.zeros_like(labels), splits.classes.counts.size
    rows = []
    for name, h in _activations(model, inputs, splits).items():
        cosines = metrics.cosine_statistics(h, labels, classes)
        noise = metrics.cosine_statistics(of_noise[name], alike, 1)
        rows.append(
            {
                "name": name,
                "cosine_within": cosines.within,
                "cosine_between": cosines.between,
                "cosine_noise": noise.overall,
                "fisher_ratio": metrics.fisher_discriminant_ratio(h, labels, classes),
            }
        )
    return rows


def _activations(
    model: Any, inputs: np.ndarray, splits: Splits
) -> dict[str, np.ndarray]:
    """``[N, E]`` outputs of the backbone's layers by name, means over positions.

    Rectified, which does not change what already is: in some networks the rectifier is
    part of a layer, in others it follows. That of a transformer's blocks is inside.
    """
    rectify = (lambda h: h) if isinstance(model.backbone, ViT) else jax.nn.relu

    stages = [*_stages(model.backbone)]

    @jax.jit
    def captured(x):
        forward: Any = nnx.capture(
            nnx.merge(*nnx.split(model)),
            nnx.Intermediate,
            method_outputs=nnx.Intermediate,
        )
        backbone = forward(normalise(x, splits), train=False)[1]["backbone"]
        calls = [functools.reduce(operator.getitem, s, backbone) for s in stages]
        found = (call["__call__"].get_value()[0] for call in calls)
        return [rectify(h).reshape(len(h), -1, h.shape[-1]).mean(1) for h in found]

    names = (" ".join(map(str, stage)) for stage in stages)
    return dict(zip(names, map(np.asarray, captured(inputs)), strict=True))


def _stages(backbone: nnx.Module) -> Iterator[tuple[str | int, ...]]:
    """Paths of its layers, in the order of their definition."""
    for name, layer in vars(backbone).items():
        if isinstance(layer, nnx.List):
            yield from ((name, i) for i in range(len(layer)))
        elif isinstance(layer, nnx.Module):
            yield (name,)


def _noise_like(inputs: np.ndarray) -> np.ndarray:
    """Normal noise with the mean and standard deviation of the inputs."""
    noise = np.random.default_rng(0).normal(inputs.mean(), inputs.std(), inputs.shape)
    if inputs.dtype == np.uint8:
        noise = noise.round().clip(0, 255)
    return noise.astype(inputs.dtype)


def _adjusted(run: Run) -> dict[str, list[float]]:
    """Balanced test accuracy at each strength, by kind of adjustment."""
    logits, labels = (
        jnp.asarray(run.final[f"test_{k}"]) for k in ("logits", "targets")
    )
    priors, taus = (
        jnp.asarray(class_priors(run.final["class_counts"])),
        jnp.array(_TAUS),
    )
    found = {}
    for mode in ("additive", "multiplicative"):
        _, accuracies = heads.search_tau(logits, labels, priors, taus, mode=mode)
        found[mode] = [round(float(x), 6) for x in accuracies]
    return found


def _table(layers: Sequence[dict[str, Any]], path: Path) -> Table:
    table = Table(title=f"Layers of {path}")
    for column in layers[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in layers:
        table.add_row(
            *(f"{x:.3g}" if isinstance(x, float) else x for x in row.values())
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
