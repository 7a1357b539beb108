"""The compiled functions of a run, and what they refuse."""

import dataclasses

import pytest

from experiments import configs, datasets
from experiments.methods import Gdw, MethodConfig
from experiments.training.devices import make_mesh
from experiments.training.program import Program


def test_refuses_own_splits_without_the_meta_set_that_the_method_needs():
    config = configs.PRESETS["smoke"].config
    splits = dataclasses.replace(datasets.load(config.data), meta=None)
    config = dataclasses.replace(config, method=MethodConfig(weighting=Gdw()))
    with pytest.raises(ValueError, match="meta_batch_size must be at most the 0 ex"):
        Program(config, splits, make_mesh(1))
