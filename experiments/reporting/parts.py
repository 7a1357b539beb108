"""What a page says of a `Section` of runs."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.configs import PRESETS, commands
from experiments.records.epochs import REGIONS
from experiments.records.files import flat
from experiments.records.runs import Run
from experiments.reporting import gallery
from experiments.reporting.charts import Chart, of_classes, of_methods
from experiments.reporting.document import legend, provenance
from experiments.reporting.groups import Group, Section
from experiments.reporting.page import Charts, Gallery, Part, Repeat
from experiments.reporting.series import (
    by_part,
    class_parts,
    known_mean,
    over_epochs,
    relative_weights,
)
from experiments.reporting.tables import Table

_SWITCHES = ("export_weights", "geometry")  # of a machine, that leave more records


def part(
    section: Section, tables: Sequence[Table], pictures: Sequence[tuple[Path, str]]
) -> Part:
    """A section as a part of a page."""
    if section.is_regression:
        side_by_side, over_time = [_errors(section)], _regions_over_time
    else:
        side_by_side = [_learning(section), _by_class(section)]
        over_time = _classes_over_time
    return Part(
        section.title,
        tables,
        legend(section),
        [
            Charts("Methods side by side", side_by_side),
            *(
                Charts(f"Over time: {group.label}", over_time(section, group))
                for group in section.groups
            ),
        ],
        _galleries(section),
        pictures,
        [_repeat(group) for group in section.groups],
    )


# Charts


def _errors(section: Section) -> Chart:
    data = {group.label: over_epochs(group, "test/mae") for group in section.groups}
    return of_methods("Test MAE by epoch", data, xlabel="epoch", ylabel="test MAE")


def _learning(section: Section) -> Chart:
    return of_methods(
        "Balanced test accuracy by epoch",
        {
            group.label: over_epochs(group, "test/balanced_accuracy", 100)
            for group in section.groups
        },
        xlabel="epoch",
        ylabel="balanced test accuracy, %",
    )


def _by_class(section: Section) -> Chart:
    """At the epoch that the main table is of."""
    parts, names = _classes(section)
    rule = "best" if section.rule == "best" else "last"
    data = {}
    for group in section.groups:
        rows = [run.selected[rule]["test/per_class_accuracy"] for run in group.counted]
        values = 100 * np.stack([by_part(row, parts) for row in rows])
        data[group.label] = np.arange(len(parts)), values
    return of_methods(
        "Test accuracy by class, with its number of training examples",
        data,
        xlabel="class",
        ylabel="test accuracy, %",
        ticks=names,
        top=102,
    )


def _classes_over_time(section: Section, group: Group) -> list[Chart]:
    """Accuracy of each class by epoch, and its weight if the method weighs."""
    parts, names = _classes(section)
    rows = list(zip(*(run.evaluated for run in group.counted), strict=False))
    accuracy = [
        known_mean(np.array([r["test/per_class_accuracy"] for r in row], np.float64))
        for row in rows
    ]
    found = [
        of_classes(
            "Test accuracy of each class",
            names,
            np.array([row[0]["epoch"] for row in rows]),
            100 * np.array([by_part(own, parts) for own in accuracy]),
            ylabel="test accuracy, %",
            top=102,
        )
    ]
    if group.weighs:
        epochs, weights = relative_weights(group, "weights/by_class")
        values = np.array([by_part(own, parts) for own in known_mean(weights)])
        found.append(
            of_classes(
                "Mean weight of each class, relative to all examples",
                names,
                epochs,
                np.maximum(values, 1e-3),
                ylabel="weight",
                log=True,
            )
        )
    return found


def _regions_over_time(section: Section, group: Group) -> list[Chart]:
    """Error of each region by epoch, and its weight if the method weighs."""
    del section
    last = group.counted[0].evaluated[-1]
    regions = [name for name in REGIONS if f"test/{name}_mae" in last]
    series = [over_epochs(group, f"test/{name}_mae") for name in regions]
    found = [
        of_classes(
            "Test MAE by region of the target",
            regions,
            series[0][0],
            np.stack([known_mean(values) for _, values in series], axis=1),
            ylabel="test MAE",
        )
    ]
    if group.weighs:
        epochs, weights = relative_weights(group, "weights/by_class")
        title = "Mean weight by region, relative to all examples"
        values = known_mean(weights)
        found.append(of_classes(title, REGIONS, epochs, values, ylabel="weight"))
    return found


def _classes(section: Section) -> tuple[list[np.ndarray], list[str]]:
    """Classes by falling frequency, grouped if there are many, and their names."""
    counts, classes = section.facts["class_counts"], section.facts.get("class_names")
    parts, numbers = class_parts(counts)
    if len(parts) < len(counts):
        ends = np.cumsum([len(own) for own in parts])
        return parts, [
            f"places {end - len(own) + 1}-{end} ({number})"
            for end, own, number in zip(ends, parts, numbers, strict=True)
        ]
    names = [f"class {c}" if classes is None else classes[c] for (c,) in parts]
    return parts, [f"{n} ({c})" for n, c in zip(names, numbers, strict=True)]


# Examples


def _galleries(section: Section) -> list[Gallery]:
    """Those of every method; what is missing is said once for all of these."""
    found, missing = [], dict[tuple[str, str], list[str]]()
    for group in section.groups:
        for own in _of_group(section, group):
            if own.examples:
                found.append(own._replace(title=f"{own.title}: {group.label}"))
            else:
                missing.setdefault((own.title, own.about), []).append(group.label)
    for (title, about), labels in missing.items():
        found.append(Gallery(f"{title}: {', '.join(labels)}", about))
    return found


def _of_group(section: Section, group: Group) -> list[Gallery]:
    """Examples of the first run that exported them."""
    run = next((run for run in group.counted if run.example_weights), group.counted[0])
    images, examples = gallery.of_run(run), run.example_weights
    found = [gallery.suspects(examples, images)]
    if group.weighs and not section.is_regression:
        counts, (_, few) = section.facts["class_counts"], section.facts["shots"]
        found.append(gallery.heaviest(examples, images, counts, few))
    return found


# Settings


def _repeat(group: Group) -> Repeat:
    settings = flat(group.config)
    return Repeat(
        group.label,
        list(dict.fromkeys(filter(None, map(_command, group.runs)))),
        provenance(group),
        {k: json.dumps(v, ensure_ascii=False) for k, v in settings.items()},
    )


def _command(run: Run) -> str:
    """What trains the run again; nothing where its preset is not known."""
    name = run.facts["preset"]
    if name not in PRESETS:
        return ""
    words = [commands.training(name, PRESETS[name].config, run.config)]
    machine = run.facts.get("machine", {})
    words += [f"--{s.replace('_', '-')}" for s in _SWITCHES if machine.get(s)]
    # One for all its seeds if these were trained together.
    folder = run.path.resolve()
    own = folder if run.config["seeds"] == 1 else folder.parent
    return " ".join([*words, "--out", shlex.quote(f"runs/{own.name}")])
