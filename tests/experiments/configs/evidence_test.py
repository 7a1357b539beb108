"""Rows of a comparison differ in the method alone, and every row can run."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import models, queue, train
from experiments.configs import PRESETS, evidence
from experiments.methods import Batch, make_method

ROWS = Path(train.__file__).parent / "evidence.txt"
BASELINES = {
    "evidence-lt100-cifar10": "ce",
    "evidence-lt10-cifar10": "ce",
    "evidence-lt100-cifar100": "ce",
    "evidence-noise-unif40": "ce",
    "evidence-noise-memory40": "ce",
    "evidence-noise-unif60": "ce",
    "evidence-noise-asym40": "ce",
    "evidence-noise-human": "ce",
    "evidence-noise-tail40": "ce",
    "evidence-regression-california": "uniform",
    "evidence-regression-abalone": "uniform",
    "evidence-regression-bike": "uniform",
    "evidence-scenes-mnist": "ce",
}


def _table(prefix):
    return {
        n: p.config for n, p in evidence.PRESETS.items() if n.startswith(f"{prefix}-")
    }


def test_every_row_is_of_a_table():
    assert set().union(*map(_table, BASELINES)) == set(evidence.PRESETS)


@pytest.mark.parametrize("prefix", BASELINES)
def test_rows_of_a_table_share_their_recipe(prefix):
    base = PRESETS[f"{prefix}-{BASELINES[prefix]}"].config
    table = _table(prefix)
    assert len(set(map(repr, table.values()))) == len(table)
    for name, config in table.items():
        changes = {"method": base.method}
        if "-wb-" in name:  # in decay, head and second stage
            changes["optimizer"] = dataclasses.replace(
                config.optimizer,
                learning_rate=base.optimizer.learning_rate,
                weight_decay=base.optimizer.weight_decay,
            )
            second = config.trained == "classifier"
            assert second == (config.optimizer.learning_rate != 0.1), name
        if config.model.head != "linear":
            changes["model"] = dataclasses.replace(config.model, head="linear")
        if name.endswith("-two-stage") and "-wb-" in name:
            changes |= {"epochs": base.epochs, "trained": "all"}
        if name.endswith("-clean"):
            changes["data"] = dataclasses.replace(config.data, train_on_meta=False)
        assert dataclasses.replace(config, **changes) == base, name


def _distinct():
    """One name for every method and head."""
    kinds = {}
    for name, preset in evidence.PRESETS.items():
        kinds.setdefault(repr((preset.config.method, preset.config.model.head)), name)
    return list(kinds.values())


@pytest.mark.parametrize("name", _distinct())
def test_a_step_can_be_built(name):
    config = PRESETS[name].config
    classes = None if config.method.is_regression else 10
    model = dataclasses.replace(config.model, name="mlp", hidden=(16,))
    apply, params, rest = models.functional(
        models.make_model(
            model, input_shape=(6,), num_outputs=classes or 1, rngs=nnx.Rngs(0)
        )
    )
    method = make_method(
        config.method,
        apply,
        optimizer=config.optimizer,
        epochs=config.epochs,
        steps_per_epoch=10,
        class_counts=None if classes is None else jnp.arange(1, classes + 1),
        targets=np.linspace(0, 1, 50) ** 2 if classes is None else None,
    )
    x = jnp.ones((8, 6))
    targets = jnp.zeros(8, jnp.int32 if classes else jnp.float32)
    key = jax.random.key(0)
    state = jax.eval_shape(method.init, params, rest, x, key)
    batch = Batch(x, targets)
    new, metrics = jax.eval_shape(method.step, state, batch, batch, key)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert metrics["weights"].shape == (8,)


def test_the_list_of_runs_names_presets_and_settings():
    rows = queue.read(ROWS)
    assert {row.words[0] for row in rows} == set(evidence.PRESETS)
    checked = set()
    names = {row.name for row in rows}
    for row in rows:
        name, *settings = row.words
        options = tuple(word for word in settings if word.startswith("--"))
        if options not in checked:
            train.parse(PRESETS[name], settings, name)
            checked.add(options)
        if "--init-from" in settings:
            path = settings[settings.index("--init-from") + 1]
            _, first, file = path.split("/")
            assert first in names
            assert file == "best.npz"
    assert len(checked) >= 3
