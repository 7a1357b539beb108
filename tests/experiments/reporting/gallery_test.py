"""Galleries show the examples that they say they show."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from experiments.reporting import gallery

EXAMPLES = {
    "indices": np.array([7, 3, 9, 1]),
    "weights": np.array([1.0, 0.5, np.nan, 1.5]),
    "labels": np.array([0, 1, 1, 1]),
    "clean_labels": np.array([0, 1, 1, 0]),
    "changed": np.array([False, False, False, True]),
}
IMAGES = gallery.Images(str, "", ["cat", "dog"])  # the index for the image


def test_suspects_by_the_best_score_there_is():
    found = gallery.suspects(EXAMPLES, IMAGES)
    assert "lowest weight" in found.about
    assert "1 of these 3 is known to be wrong" in found.about
    assert [example.image for example in found.examples] == ["3", "7", "1"]
    lines = ["label dog", "truth cat", "weight 1.5", "index 1"]
    assert found.examples[2].text == lines
    margins = np.array([0.5, 2.0, np.nan, -1.0])
    found = gallery.suspects(EXAMPLES | {"margins": margins}, IMAGES)
    assert "lowest margin" in found.about
    assert [example.image for example in found.examples] == ["1", "7", "3"]


def test_equal_weights_are_no_score():
    found = gallery.suspects(EXAMPLES | {"weights": np.ones(4)}, IMAGES)
    assert found.examples == ()
    assert found.about == "No score tells these labels apart."


def test_the_heaviest_of_the_tail_against_the_mean_of_all():
    found = gallery.heaviest(EXAMPLES, IMAGES, np.array([5, 3]), 4)
    assert [example.image for example in found.examples] == ["1", "3"]
    assert "weight 1.5" in found.examples[0].text  # the mean is 1
    none = gallery.heaviest(EXAMPLES, IMAGES, np.array([5, 4]), 4)
    assert none.about == "No class has fewer than 4 training examples."


def test_missing_images_are_said():
    missing = gallery.Images(None, "Because.")
    assert gallery.suspects(EXAMPLES, missing).about == "Because."
    assert gallery.heaviest(EXAMPLES, missing, np.array([5, 3]), 4).about == "Because."


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3), (200, 100, 3)])
def test_thumbnails_are_small_copies(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    content = gallery.thumbnail(pixels).removeprefix("data:image/png;base64,")
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    if max(shape) <= 128:
        np.testing.assert_array_equal(np.asarray(image).reshape(shape), pixels)
    else:
        assert image.size == (64, 128)
