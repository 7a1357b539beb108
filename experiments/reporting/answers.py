"""What the records of evidence runs say: rows of tables with one entry per preset."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from experiments.records.examples import SCORES
from experiments.records.runs import Run
from experiments.reporting.groups import Group, arrange
from experiments.reporting.numbers import (
    Statistic,
    rank_correlation,
    results,
    statistic,
)
from experiments.reporting.questions import QUESTIONS, Column, Comparison, Question
from experiments.reporting.tables import Table

Seeds = tuple[int, int]
Found = Mapping[str, Group]  # by preset


def finished_rows(runs: Sequence[Run]) -> dict[str, Group]:
    """Finished runs by preset; runs with changed settings are not a preset's row."""
    sections, _ = arrange([run for run in runs if run.finished])
    groups = (group for section in sections for group in section.groups)
    return {g.preset: g for g in groups if g.preset and not g.changed_settings}


def by_seeds(group: Group, column: Column) -> dict[Seeds, float]:
    """A number of every run; empty if some run lacks it."""
    found = results(group, column.rule).get(column.key)
    if found is None:
        return {}
    seeds = (run.seeds for run in group.counted)
    return dict(zip(seeds, found.values, strict=True))


def difference(group: Group, base: Group, column: Column) -> Statistic | None:
    """That of runs with the same seeds, and so with the same split."""
    own, other = by_seeds(group, column), by_seeds(base, column)
    common = sorted(own.keys() & other.keys())
    return statistic([own[s] - other[s] for s in common]) if common else None


def overview(question: Question, found: Found) -> Table:
    """The deciding number of every method on every set."""
    column = question.columns[0]
    labels = dict.fromkeys(
        label for c in question.comparisons for label in c.presets.values()
    )
    rows = []
    for label in labels:
        cells = [_of_label(c, label, column, found) for c in question.comparisons]
        rows.append([label, *cells])
    titles = [comparison.title for comparison in question.comparisons]
    return Table(question.unit, ["method", *titles], rows)


def details(question: Question, comparison: Comparison, found: Found) -> Table:
    """All numbers of every method on one set, and what it gains over the baseline."""
    first, *others = question.columns
    base = found.get(f"{comparison.prefix}-{question.baseline}")
    rows = []
    for preset, label in comparison.presets.items():
        group = found.get(preset)
        cells = [""] * (3 + len(others))
        if group is not None:
            gain = None
            if base is not None and base is not group:
                gain = difference(group, base, first)
            cells = [
                str(len(group.counted)),
                _cell(group, first),
                "" if gain is None else with_error(gain, sign=True),
                *(_cell(group, column) for column in others),
            ]
        rows.append([label, *cells, f"`{preset.removeprefix(comparison.prefix)[1:]}`"])
    label = comparison.presets[f"{comparison.prefix}-{question.baseline}"]
    columns = ["method", "seeds", first.title, f"over {label}"]
    columns += [*(column.title for column in others), "preset"]
    return Table(comparison.title, columns, rows)


def detections(comparison: Comparison, found: Found) -> Table | None:
    """How well each score of each method finds wrong labels, if that was measured."""
    rows = []
    for preset, label in comparison.presets.items():
        runs = found[preset].counted if preset in found else []
        own = [run.detection for run in runs if run.detection is not None]
        if own:
            rows.append([label, str(len(own)), *(_detected(own, s) for s in SCORES)])
    title = f"Wrong labels found, {comparison.title}"
    return Table(title, ["method", "seeds", *SCORES], rows) if rows else None


def gradtail_weights(found: Found) -> Table:
    """What GradTail's weights follow, on every set that it was trained on.

    Mean and range over runs of: the rank correlation, over classes or the three regions
    of the target, of the second epoch's weight with the number of examples; that, over
    epochs from the second on, of the rarest ones' weight with their loss; and the
    weight of wrong labels over that of right ones in the last epoch.
    """
    rows = []
    for comparison in (c for q in QUESTIONS for c in q.comparisons):
        for preset, label in comparison.presets.items():
            if "gradtail" not in preset or preset not in found:
                continue
            runs = found[preset].counted
            numbers = (_mean_and_range(f, runs) for f in _FOLLOWED.values())
            rows.append([comparison.title, label, str(len(runs)), *numbers])
    columns = ["data", "method", "seeds", *_FOLLOWED]
    return Table("GradTail's weights", columns, rows)


def measured(question: Question, found: Found) -> dict[str, dict[str, np.ndarray]]:
    """``[seeds]`` of the deciding number by set and method, of those that were run."""
    drawn = {}
    for comparison in question.comparisons:
        values = {
            label: np.array([*by_seeds(found[preset], question.columns[0]).values()])
            for preset, label in comparison.presets.items()
            if preset in found
        }
        if values:
            drawn[comparison.title] = values
    return drawn


def provenance(found: Found) -> list[str]:
    """Versions, devices and commits of the runs, a line each."""
    runs = [run for group in found.values() for run in group.runs]
    facts = [run.facts for run in runs]
    versions = {", ".join(f"{k} {v}" for k, v in f["versions"].items()) for f in facts}
    devices = {
        f"{f['device']['kind']}, {f['device']['cpu_cores']} cores" for f in facts
    }
    commits = {str(f["commit"])[:12] for f in facts}
    return [
        f"{len(runs)} runs of {len(found)} presets",
        *(
            f"{kind}: {'; '.join(sorted(names))}"
            for kind, names in (
                ("commits", commits),
                ("devices", devices),
                ("versions", versions),
            )
        ),
    ]


def with_error(number: Statistic, *, sign: bool = False) -> str:
    """Mean and standard error."""
    largest = max(abs(number.mean), number.error or 0.0)
    digits = sum(largest < bound for bound in (10, 1000))
    text = f"{number.mean:{'+' if sign else ''}.{digits}f}"
    return text if number.error is None else f"{text} ± {number.error:.{digits}f}"


def _mean_and_range(number: Callable[[Run], float | None], runs: Sequence[Run]) -> str:
    values = [v for run in runs if (v := number(run)) is not None]
    if not values:
        return ""
    return f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _by_size(run: Run) -> float:
    weights, sizes = _known(run.rows[1]["weights/by_class"]), _sizes(run)
    return rank_correlation(weights[sizes > 0], sizes[sizes > 0])


def _fading(run: Run) -> float:
    rarest = _sizes(run) == _sizes(run)[_sizes(run) > 0].min()
    weights, losses = (
        np.array([_known(row[key])[rarest].mean() for row in run.rows[1:]])
        for key in ("weights/by_class", "train/loss_by_class")
    )
    return rank_correlation(weights, losses)


def _wrong_over_right(run: Run) -> float | None:
    last = run.rows[-1]
    if "weights/changed_labels" not in last:
        return None
    return last["weights/changed_labels"] / last["weights/unchanged_labels"]


_FOLLOWED: Mapping[str, Callable[[Run], float | None]] = {
    "weight and size": _by_size,
    "weight and loss of the rarest": _fading,
    "wrong : right": _wrong_over_right,
}


def _sizes(run: Run) -> np.ndarray:
    """Training examples of each class; of regression's regions, only their order."""
    return np.asarray(run.facts["class_counts"] or (3, 2, 1))


def _known(values: Sequence[float | None]) -> np.ndarray:
    return np.asarray(values, np.float64)


def _detected(runs: Sequence[Mapping[str, Mapping[str, float]]], score: str) -> str:
    """Mean AUROC, and precision in brackets, in percent."""
    if not all(score in run for run in runs):
        return ""
    auroc, precision = (
        100 * np.mean([run[score][name] for run in runs])
        for name in ("auroc", "precision")
    )
    return f"{auroc:.1f} ({precision:.1f})"


def _of_label(comparison: Comparison, label: str, column: Column, found: Found) -> str:
    names = [name for name, own in comparison.presets.items() if own == label]
    return _cell(found[names[0]], column) if names and names[0] in found else ""


def _cell(group: Group, column: Column) -> str:
    values = by_seeds(group, column).values()
    return with_error(statistic(list(values))) if values else ""
