"""The pictures of the methods' pages can be drawn, and none is missing."""

import importlib.util
import pathlib
import xml.etree.ElementTree as ET

import numpy as np
import pytest

DOCS = pathlib.Path(__file__).parents[1] / "docs"


@pytest.fixture
def strict_promotion():
    """The script runs under JAX's default settings."""


@pytest.fixture
def pictures():
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_picture_is_drawn(strict_promotion, pictures, tmp_path):
    pictures.draw(tmp_path)
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == {path.name for path in DOCS.glob("images/method-*.svg")}
    for path in tmp_path.iterdir():
        assert len(list(ET.parse(path).iter())) > 100, path.name


def test_margins_are_read_off_the_loss(strict_promotion, pictures):
    # Logit adjustment: log of the ratio of the priors, 100 for the rarest class.
    margin = pictures._margin(9, "logit_adjustment", 1.0)
    np.testing.assert_allclose(margin, np.log(100), rtol=1e-5)
    np.testing.assert_allclose(pictures._margin(9, "ldam", 0.5), 0.5, rtol=1e-5)


def test_rarity_has_mean_one_over_examples(strict_promotion, pictures):
    rarity = pictures._rarity(0.5)
    np.testing.assert_allclose((rarity * pictures.PRIORS).sum(), 1, rtol=1e-5)
    assert rarity[9] == pytest.approx(10 * rarity[0], rel=1e-5)  # 100 ** 0.5
