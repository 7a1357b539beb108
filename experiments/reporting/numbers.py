"""Numbers of a report: what runs of a group say together."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.configs import PRESETS, Published
from experiments.records.runs import Run
from experiments.reporting.groups import Group
from experiments.reporting.series import ranking

RULES = {
    "best": "best on validation",
    "last5": "mean of the last 5",
    "last": "last",
}
SHARES = {
    "balanced_accuracy": "balanced",
    "many": "many",
    "medium": "medium",
    "few": "few",
    "accuracy": "accuracy",
    "top5_accuracy": "top-5",
    "ece": "ECE",
    "mean_iou": "IoU",
    "many_iou": "IoU, many",
    "medium_iou": "IoU, medium",
    "few_iou": "IoU, few",
}
ERRORS = {"mae": "MAE", "rmse": "RMSE", "geometric_mean": "GM"}
_LISTED = 10  # training examples of lowest, and of highest weight


class Statistic(NamedTuple):
    """A number over seeds."""

    mean: float
    std: float | None  # None for a single run
    values: list[float]

    @property
    def error(self) -> float | None:
        """Standard error of the mean."""
        return None if self.std is None else self.std / len(self.values) ** 0.5


def statistic(values: Sequence[float]) -> Statistic:
    """Mean and sample standard deviation."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Statistic(float(np.mean(values)), std, [float(v) for v in values])


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's; 0 where one of both does not vary."""
    from scipy import stats  # takes half a second, and most reports need none

    if np.ptp(x) < 1e-6 or np.ptp(y) < 1e-6:
        return 0.0
    return float(stats.spearmanr(x, y).statistic)


def results(group: Group, rule: str) -> dict[str, Statistic]:
    """Test metrics by a rule of selection; empty if some run lacks it.

    Names come without ``test/``, shares in percent.
    """
    rows = [run.selected[rule] for run in group.counted if rule in run.selected]
    if len(rows) < len(group.counted):
        return {}
    return {
        key.removeprefix("test/"): statistic([_scale(key) * row[key] for row in rows])
        for key, value in rows[0].items()
        if key.startswith("test/") and isinstance(value, (int, float))
        if all(key in row for row in rows)
    }


def throughput(run: Run) -> float | None:
    """Median over epochs of training examples per second, of all seeds of a program."""
    rates = [row["examples_per_second"] for row in run.rows]
    rates = [rate for rate in rates if rate is not None]
    if not rates:
        # Epochs of one block are not timed without compilation; the first has it all.
        rows = run.rows[1:]
        each = run.config["batch_size"] * run.config["seeds"]
        rates = [each * r["step"] / r["epoch"] / r["seconds"] for r in rows]
    return float(np.median(rates)) if rates else None


def published(group: Group) -> tuple[Published | None, str]:
    """The published number to compare with, and why it cannot quite be compared."""
    name = group.preset or ""
    preset = PRESETS.get(name.removesuffix("-small"))
    same = not name.endswith("-small") and not group.changed_settings
    return preset and preset.published, "" if same else "‡"


def _scale(key: str) -> float:
    name = key.removeprefix("test/").removeprefix("plain_")
    return 100.0 if name in SHARES else 1.0


def extremes(group: Group) -> list[dict[str, float]]:
    """The first and the last examples by rising weight, in the first run."""
    run = group.counted[0]
    w = run.example_weights
    if not w or not group.weighs or w["labels"].ndim > 1:
        return []
    order, _ = ranking(run)
    order = order[np.isfinite(w["weights"][order])]
    ranks = range(len(order))
    shown = dict.fromkeys([*ranks[:_LISTED], *ranks[-_LISTED:]])
    columns = {"index": "indices", "weight": "weights", "label": "labels"}
    if w["changed"].any():
        columns["clean label"] = "clean_labels"
    return [
        {"rank": i + 1} | {k: w[v][order[i]].item() for k, v in columns.items()}
        for i in shown
    ]
