"""What the page of a comparison on digits says of a scenario."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.datasets import DataConfig
from experiments.datasets.sets import bundled
from experiments.digits import display
from experiments.digits.display import FEW, Results, by_class, by_rightness
from experiments.digits.draws import (
    NUM_CLASSES,
    Scenario,
    load_images,
    long_tail_counts,
)
from experiments.digits.tuning import Result
from experiments.records.examples import Examples
from experiments.reporting import gallery, plots
from experiments.reporting.charts import Chart, Line, chart, of_classes, of_methods
from experiments.reporting.page import Charts, Gallery, Part, Repeat


def part(
    results: Results,
    scenario: Scenario,
    pictures: Sequence[tuple[Path, str]],
    repeat: Repeat,
) -> Part:
    """A scenario as a part of a page."""
    details = _long_tail if scenario == "long-tail" else _noise
    charts, galleries = details(results)
    return Part(
        display.title(results, scenario),
        [
            display.table(results, scenario)._replace(title="Test accuracy, %"),
            display.choices(results, scenario)._replace(title="Hyperparameters"),
        ],
        display.remarks(scenario),
        charts,
        galleries,
        pictures,
        [repeat],
    )


def _long_tail(results: Results) -> tuple[list[Charts], list[Gallery]]:
    counts = long_tail_counts()
    names = [f"{count} images" for count in counts]
    accuracy = of_methods(
        "Test accuracy by class",
        {r.label: (np.arange(NUM_CLASSES), 100 * r.accuracy) for r in results.values()},
        xlabel="training images of the class",
        ylabel="test accuracy, %",
        ticks=list(map(str, counts)),
        top=102,
    )
    charts = [Charts("Methods side by side", [_learning(results), accuracy])]
    weighing = display.weighing(results)
    for result in results.values():
        own = [
            of_classes(
                "Validation accuracy of each class, before any adjustment",
                names,
                _epochs(result),
                100 * result.val_by_epoch.mean(0),
                ylabel="validation accuracy, %",
                top=102,
            )
        ]
        if result.label in weighing:
            own.append(
                of_classes(
                    "Mean weight of each class, relative to all examples",
                    names,
                    _epochs(result),
                    np.maximum(by_class(result).mean(0), 1e-3),
                    ylabel="weight",
                    log=True,
                )
            )
        charts.append(Charts(f"Over time: {result.label}", own))
    galleries = [
        _named(gallery.heaviest(r.examples, _images(r.examples), counts, FEW), r)
        for r in weighing.values()
    ]
    return charts, galleries


def _noise(results: Results) -> tuple[list[Charts], list[Gallery]]:
    weights = []
    for result in display.weighing(results).values():
        lines = [
            Line(name, style["color"], _epochs(result), own.mean(0), plots.std(own))
            for (name, style), own in zip(
                plots.RIGHT_AND_WRONG.items(), by_rightness(result), strict=True
            )
        ]
        drawn = chart(lines, names="label", xlabel="epoch", ylabel="mean weight")
        weights.append(Chart(result.label, drawn, {n.name: n.color for n in lines}))
    charts = [Charts("Methods side by side", [_learning(results)])]
    if weights:
        charts.append(Charts("Weights of right and of wrong labels", weights))
    galleries = [
        _named(gallery.suspects(r.examples, _images(r.examples)), r)
        for r in results.values()
    ]
    return charts, galleries


def _learning(results: Results) -> Chart:
    return of_methods(
        "Balanced validation accuracy by epoch, before any adjustment",
        {
            r.label: (_epochs(r), 100 * r.val_by_epoch.mean(-1))
            for r in results.values()
        },
        xlabel="epoch",
        ylabel="balanced validation accuracy, %",
    )


def _epochs(result: Result) -> np.ndarray:
    return np.arange(1, result.val_by_epoch.shape[1] + 1)


def _named(found: Gallery, result: Result) -> Gallery:
    return found._replace(title=f"{found.title}: {result.label}, first seed")


def _images(examples: Examples) -> gallery.Images:
    """Pictures of the digits, and which digit a class is for this seed."""
    pixels = bundled.digits(DataConfig(name="digits")).parts["train"].inputs
    digits = load_images()[1][examples["indices"]]
    names = dict(zip(examples["clean_labels"].tolist(), digits.tolist(), strict=True))
    return gallery.Images(
        lambda index: gallery.thumbnail(pixels[index]),
        "",
        [str(names[label]) for label in range(NUM_CLASSES)],
    )
