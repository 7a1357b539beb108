"""Training examples to look at: labels that look wrong, and what weighs most in a tail.

Images are read again from the data set, so it must be where the run found it.
"""

import functools
import io
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from experiments.datasets import DataConfig
from experiments.datasets.catalogue import READERS
from experiments.datasets.images import LazyImages
from experiments.records.examples import SCORES, Examples, suspicion
from experiments.records.runs import Run
from experiments.reporting.page import Example, Gallery, as_address

_SHOWN = 24
_LARGEST = 128  # pixels of a thumbnail's longer side
_PREFERRED = ("margin", *SCORES)


class Images(NamedTuple):
    """Pictures of training examples, or why there are none."""

    read: Callable[[int], str] | None  # address of a thumbnail, by index in the source
    missing: str = ""
    class_names: Sequence[str] | None = None

    def label(self, label: Any) -> str:
        """What a class is called."""
        return str(label) if self.class_names is None else self.class_names[label]


class _Unreadable(Exception):
    """Why a run's images cannot be shown, as a sentence."""


def of_run(run: Run) -> Images:
    """The images of a run's training examples."""
    if run.facts["class_counts"] is None:
        return Images(None, "Targets are numbers here, not classes.")
    if not run.example_weights:
        return Images(None, "No weights were exported: train with --export-weights.")
    if run.example_weights["labels"].ndim > 1:
        return Images(None, "Every pixel has a label of its own here.")
    try:
        source = _source(json.dumps(run.config["data"], sort_keys=True))
        return _checked(source, run.example_weights)
    except _Unreadable as error:
        return Images(None, str(error))


def suspects(examples: Examples, images: Images) -> Gallery:
    """The labels that look most wrong."""
    title = "Most suspicious labels"
    if images.read is None:
        return Gallery(title, images.missing)
    scores = suspicion(examples)
    if not scores:
        return Gallery(title, "No score tells these labels apart.")
    name = next(name for name in _PREFERRED if name in scores)
    values, unit = examples[SCORES[name][0]], f"{name} "
    order = np.argsort(-scores[name], kind="stable")[:_SHOWN]
    order = order[np.isfinite(scores[name][order])]  # the others were never seen
    about = f"Training examples of {'lowest' if SCORES[name][1] < 0 else 'highest'} "
    about += f"{name}, the most suspicious first"
    if examples["changed"].any():
        wrong = int(examples["changed"][order].sum())
        about += f": the label of {wrong} of these {len(order)} is known to be wrong"
    return Gallery(
        title,
        f"{about}.",
        [_example(examples, images, i, f"{unit}{values[i]:.3g}") for i in order],
    )


def heaviest(
    examples: Examples, images: Images, counts: np.ndarray, few: int
) -> Gallery:
    """Examples of classes with fewer than ``few`` that have the largest weights."""
    title = "Heaviest examples of the tail"
    if images.read is None:
        return Gallery(title, images.missing)
    weights = examples["weights"]
    rare = (np.asarray(counts) < few)[examples["labels"]] & np.isfinite(weights)
    if not rare.any():
        return Gallery(title, f"No class has fewer than {few} training examples.")
    order = np.argsort(np.where(rare, -weights, np.inf), kind="stable")
    order, mean = order[: min(_SHOWN, rare.sum())], np.nanmean(weights)
    return Gallery(
        title,
        f"Those of largest last weight among the {rare.sum()} examples of classes with "
        f"fewer than {few}; the mean of all training examples is 1.",
        [
            _example(examples, images, i, f"weight {weights[i] / mean:.3g}")
            for i in order
        ],
    )


def thumbnail(pixels: np.ndarray | Image.Image) -> str:
    """A small PNG as an address that holds it."""
    if isinstance(pixels, np.ndarray):
        grey = pixels.ndim == 3 and pixels.shape[-1] == 1
        pixels = Image.fromarray(pixels[..., 0] if grey else pixels)
    image = pixels.copy()
    image.thumbnail((_LARGEST, _LARGEST))
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return as_address(content.getvalue())


def _example(examples: Examples, images: Images, i: int, score: str) -> Example:
    assert images.read is not None
    index = int(examples["indices"][i])
    text = [f"label {images.label(examples['labels'][i])}"]
    if "predictions" in examples:
        text.append(f"network {images.label(examples['predictions'][i])}")
    if examples["changed"].any():
        text.append(f"truth {images.label(examples['clean_labels'][i])}")
    return Example(images.read(index), [*text, score, f"index {index}"])


def _checked(source: Any, examples: Examples) -> Images:
    """The images, if they are those that the run was trained on."""
    inputs, labels = source.parts["train"]
    indices = examples["indices"]
    if indices.max() >= len(labels) or not np.array_equal(
        labels[indices], examples["clean_labels"]
    ):
        raise _Unreadable("The data found now are not those of the run.")
    return Images(lambda index: thumbnail(inputs[index]), "", source.class_names)


@functools.lru_cache(1)
def _source(settings: str) -> Any:
    """The data of a run, given its settings as JSON."""
    config = DataConfig.of_record(json.loads(settings))
    if config.name not in READERS:
        raise _Unreadable(f"Images of {config.name} are drawn, not read.")
    try:
        source = READERS[config.name](config)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise _Unreadable(f"The data cannot be read here: {reason}") from error
    inputs = source.parts["train"].inputs
    if not isinstance(inputs, LazyImages) and inputs.dtype != np.uint8:
        raise _Unreadable(
            "The data are a table, not images; python -m experiments.suspects lists "
            "the most suspicious labels."
        )
    return source
