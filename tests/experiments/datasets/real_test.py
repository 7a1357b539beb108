"""The real sets, where they are."""

import hashlib

import numpy as np
import pytest

from experiments.datasets import DataConfig, load
from tests.experiments.datasets import formats


def test_real_cifar10(needs_data):
    splits = load(DataConfig(name="cifar10", val_size=0))
    assert (
        hashlib.sha256(splits.train.inputs.tobytes()).hexdigest()
        == "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a"
    )
    np.testing.assert_allclose(splits.mean, [0.4914, 0.4822, 0.4465], atol=1e-4)
    np.testing.assert_allclose(splits.std, [0.2470, 0.2435, 0.2616], atol=1e-4)
    noisy = load(DataConfig(name="cifar10", val_size=0, noise="human_worse"))
    changed = noisy.train.targets != splits.train.targets
    assert changed.mean() == pytest.approx(0.4021, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "rows", "features"),
    [("california", 20_640, 13), ("abalone", 4_177, 10), ("bike", 17_379, 58)],
)
def test_real_tables(needs_data, name, rows, features):
    splits = load(DataConfig(name=name))
    parts = splits.train, splits.val, splits.test
    assert sum(len(p.targets) for p in parts) == rows
    assert splits.input_shape == (features,)
    assert all(np.isfinite(p.inputs).all() for p in parts)


def test_official_places_lt_list(needs_data, tmp_path):
    for name in (
        "train/airfield/00004851.jpg",
        "train/airfield/00002049.jpg",
        "val/airfield/Places365_val_00003597.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(formats.encoded(formats.images(1)[0]))
    splits = load(DataConfig(name="places_lt", images=str(tmp_path)))
    assert len(splits.train.targets) == 62_500
    assert splits.num_classes == 365
    assert splits.class_counts.max() == 4980
    assert splits.class_counts.min() == 5
    assert (np.bincount(splits.val.targets) == 20).all()
    assert (np.bincount(splits.test.targets) == 100).all()
    assert splits.streaming
