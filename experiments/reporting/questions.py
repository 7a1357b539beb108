"""The questions that the evidence runs answer: which presets, and which numbers.

A `Comparison` is a table of presets on the same data, a `Question` several of these
with the numbers that matter. Rows come in the order of the presets.
"""

from typing import NamedTuple

from experiments.configs import PRESETS

LABELS = {
    "ce": "CE",
    "ce-clean": "CE + clean set",
    "cb": "Class-balanced CE",
    "balanced-softmax": "Balanced softmax",
    "ldam-drw": "LDAM-DRW",
    "la": "Logit adjustment",
    "posthoc": "Post-hoc adjustment",
    "posthoc-searched": "Post-hoc adjustment, tau searched",
    "gce": "GCE",
    "sce": "SCE",
    "absgd": "ABSGD",
    "absgd-batch": "ABSGD within the batch",
    "absgd-two-stage": "ABSGD, two-stage",
    "absgd-ldam": "ABSGD on LDAM-DRW",
    "absgd-sce": "ABSGD on SCE",
    "gradtail": "GradTail",
    "gradtail-classifier": "GradTail, classifier",
    "gradtail-weighted": "GradTail, classifier, weighted mean",
    "gradtail-bump": "GradTail, classifier, bump",
    "gradtail-shuffled": "GradTail, classifier, shuffled",
    "l2rw": "L2RW",
    "mwnet": "MW-Net",
    "gdw": "GDW",
    "elm-contrastive": "ELM, contrastive",
    "elm-spread": "ELM, spread",
    "elm-center": "ELM, center",
    "wb-naive": "No weight decay",
    "wb-wd": "Strong weight decay",
    "wb-two-stage": "Weight balancing, two stages",
    "wb-one-stage": "Weight balancing, one stage",
    "wb-one-stage-additive": "Weight balancing, one stage, additive",
    "uniform": "Squared error",
    "inverse-density": "Inverse density",
    "inverse-root": "Inverse root of density",
}


class Column(NamedTuple):
    """A number of a run's results."""

    title: str
    key: str  # as in records, without test/
    rule: str = "best"  # that chose the epoch


class Comparison(NamedTuple):
    """Presets of one recipe, each with its method."""

    prefix: str
    title: str

    @property
    def presets(self) -> dict[str, str]:
        """Names of the presets, and what their rows are called."""
        start = f"{self.prefix}-"
        names = [name for name in PRESETS if name.startswith(start)]
        return {name: LABELS[name.removeprefix(start)] for name in names}


class Question(NamedTuple):
    """Comparisons that are measured alike; the first column is what decides."""

    name: str
    unit: str
    baseline: str  # end of the baseline's name
    columns: tuple[Column, ...]
    comparisons: tuple[Comparison, ...]


LONG_TAIL = Question(
    "long-tail",
    "balanced test accuracy, %",
    "ce",
    (
        Column("balanced", "balanced_accuracy"),
        Column("last epoch", "balanced_accuracy", "last"),
        Column("many", "many"),
        Column("medium", "medium"),
        Column("few", "few"),
        Column("ECE", "ece"),
    ),
    (
        Comparison("evidence-lt100-cifar10", "CIFAR-10, ratio 100"),
        Comparison("evidence-lt10-cifar10", "CIFAR-10, ratio 10"),
        Comparison("evidence-lt100-cifar100", "CIFAR-100, ratio 100"),
    ),
)
NOISE = Question(
    "noise",
    "test accuracy, %",
    "ce",
    (
        Column("accuracy", "accuracy"),
        Column("last epoch", "accuracy", "last"),
        Column("ECE", "ece"),
    ),
    (
        Comparison("evidence-noise-unif40", "40% uniform"),
        Comparison("evidence-noise-memory40", "40% uniform, memorised"),
        Comparison("evidence-noise-unif60", "60% uniform"),
        Comparison("evidence-noise-asym40", "40% asymmetric"),
        Comparison("evidence-noise-human", "labels by people, 40% wrong"),
        Comparison("evidence-noise-tail40", "40% uniform in a tail of ratio 100"),
    ),
)
REGRESSION = Question(
    "regression",
    "mean absolute error where targets are rare",
    "uniform",
    (
        Column("MAE, few", "few_mae"),
        Column("medium", "medium_mae"),
        Column("many", "many_mae"),
        Column("all", "mae"),
        Column("RMSE, all", "rmse"),
        Column("MAE, few, last epoch", "few_mae", "last"),
    ),
    (
        Comparison("evidence-regression-california", "California housing, $"),
        Comparison("evidence-regression-abalone", "Abalone, rings"),
        Comparison("evidence-regression-bike", "Bike sharing, rentals an hour"),
    ),
)
SCENES = Question(
    "scenes",
    "mean intersection over union, %",
    "ce",
    (
        Column("IoU", "mean_iou"),
        Column("last epoch", "mean_iou", "last"),
        Column("many", "many_iou"),
        Column("medium", "medium_iou"),
        Column("few", "few_iou"),
        Column("pixels right", "accuracy"),
        Column("ECE", "ece"),
    ),
    (Comparison("evidence-scenes-mnist", "Scenes of MNIST digits, ratio 100"),),
)
QUESTIONS = (LONG_TAIL, NOISE, REGRESSION, SCENES)
