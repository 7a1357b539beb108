"""The trainer through its real entry point, on sets that need no download."""

import json
import re

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from pyarrow import parquet

from experiments import configs, datasets, suspects, train
from experiments.models import Outputs
from tests.experiments.datasets import formats
from tests.experiments.runs import (
    DIGITS,
    TINY,
    arrays,
    assert_same,
    rows,
    run,
)

METHODS = {
    **{
        f"{loss}": ("--method.loss", loss)
        for loss in (
            *("ce", "class_balanced", "logit_adjusted", "balanced_softmax", "ldam"),
            *("focal", "sce", "gce", "truncated_gce", "elm"),
        )
    },
    **{w: ("--method.weighting", w) for w in ("absgd", "gdw", "mw_net", "l2rw")},
    "gradtail": ("--method.weighting", "gradtail", "--method.weighting.burn-in", "1"),
    "bfloat16": ("--model.dtype", "bfloat16"),
    "weight-balancing": (
        *(
            "--model.hidden",
            "16",
            "--model.head",
            "etf",
            "--method.feature-penalty",
            "0.01",
        ),
        *("--method.post-hoc", "multiplicative"),
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_smoke_of_every_method(method, tmp_path):
    assert run(tmp_path, "smoke", *TINY, *METHODS[method]) == 0
    (row,) = rows(tmp_path)
    assert row["step"] == 2
    assert np.isfinite(row["train/loss"])
    assert np.isfinite(row["train/weighted_loss"])
    assert len(row["weights/by_class"]) == len(row["test/per_class_accuracy"]) == 10
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary.keys() == {"best", "last5", "last", "parity"}
    assert summary["last"]["test/balanced_accuracy"] == row["test/balanced_accuracy"]
    assert ("tau" in row) == (method == "weight-balancing")
    final = np.load(tmp_path / "final.npz")
    assert final["test_logits"].shape == (160, 10)
    assert len(final["test_embeddings"]) == 160


def test_run_folder_says_what_ran(tmp_path, capsys):
    assert run(tmp_path, "smoke", *TINY, "--export-weights", "--geometry") == 0
    facts = json.loads((tmp_path / "config.json").read_text())
    assert facts["preset"] == "smoke"
    assert facts["config"]["model"]["hidden"] == [8]
    assert facts["class_names"] is None  # the set has none
    assert facts["versions"]["jax"] == jax.__version__
    assert facts["device"]["platform"] == "cpu"
    assert re.fullmatch(r"[0-9a-f]{64}", facts["digest"])
    splits = np.load(tmp_path / "splits.npz")
    assert set(splits) == {"train", "val", "test", "meta"}
    exported = np.load(tmp_path / "example_weights.npz")
    seen = ~np.isnan(exported["weights"])
    assert seen.sum() == 2 * 208
    np.testing.assert_allclose(exported["weights"][seen], 1.0, rtol=1e-5)
    assert not exported["changed"].any()
    assert rows(tmp_path)[0]["test/tightness"] > 0
    assert rows(tmp_path)[0]["train/fisher_ratio"] > 0
    assert list((tmp_path / "tensorboard").iterdir())
    assert "parity" in capsys.readouterr().out


def test_exported_examples_are_those_of_the_last_steps(tmp_path, capsys):
    settings = ("--export-weights", "--data.noise", "uniform_other")
    settings += ("--data.noise-rate", "0.4", "--epochs", "2")
    assert run(tmp_path, "smoke", *TINY, *METHODS["absgd"], *settings) == 0
    found = dict(np.load(tmp_path / "example_weights.npz"))
    seen = ~np.isnan(found["weights"])
    assert seen.sum() > 208
    np.testing.assert_array_equal(np.isnan(found["margins"]), ~seen)
    np.testing.assert_array_equal(np.isnan(found["losses"]), ~seen)
    assert found["changed"].mean() == pytest.approx(0.4, abs=0.1)
    right = found["predictions"] == found["labels"]
    assert (found["probabilities"][right] > 1 / 10).all()
    assert (found["probabilities"][~right] < 0.5 + 1e-6).all()
    detection = json.loads((tmp_path / "detection.json").read_text())
    assert {"weight", "loss", "margin", "probability", "quality"} == detection.keys()
    lines = (tmp_path / "example_weights.csv").read_text().splitlines()
    assert len(lines) == 1 + len(seen)
    assert lines[0].startswith("index,label,clean_label,weight,loss,")
    stored = parquet.read_table(tmp_path / "example_weights.parquet")
    assert stored.column_names == lines[0].split(",")
    np.testing.assert_array_equal(stored["weight"], found["weights"])
    capsys.readouterr()
    assert suspects.main([str(tmp_path), "--count", "3", "--by", "loss"]) == 0
    shown = capsys.readouterr().out
    worst = found["indices"][np.nanargmax(found["losses"])]
    assert f" {worst} " in shown
    assert "AUROC" in shown


def test_same_command_again_changes_nothing(tmp_path, capsys):
    assert run(tmp_path, "smoke", *TINY) == 0
    assert suspects.main([str(tmp_path)]) == 1
    assert "train it with --export-weights" in capsys.readouterr().out
    before = arrays(tmp_path), rows(tmp_path)
    assert run(tmp_path, "smoke", *TINY) == 0
    assert_same(arrays(tmp_path), before[0])
    assert rows(tmp_path) == before[1]


def test_used_folder_is_refused_unless_overwritten(tmp_path, capsys):
    assert run(tmp_path, "smoke", *TINY) == 0
    other = ("smoke", *TINY, "--optimizer.learning-rate", "0.5")
    assert run(tmp_path, *other) == 1
    message = " ".join(capsys.readouterr().err.split())
    assert re.search(r"optimizer\.learning_rate 0\.01 -> 0\.5", message)
    assert run(tmp_path, *other, "--overwrite") == 0
    assert rows(tmp_path)[0]["learning_rate"] == 0.5


def test_stops_at_the_first_loss_that_is_not_finite(tmp_path, capsys):
    settings = (
        *(*DIGITS, "--epochs", "4", "--optimizer.schedule", "step"),
        *("--optimizer.milestones", "2", "--optimizer.factor", "1e30"),
    )
    assert run(tmp_path, *settings) == 1
    message = " ".join(capsys.readouterr().err.split())
    assert re.search(r"(loss is|parameters are not finite).* in epoch 3", message)
    kept = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    steps_per_epoch = rows(tmp_path)[0]["step"]
    assert str(2 * steps_per_epoch) in kept
    assert len(rows(tmp_path)) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("nonsense",), "no preset is named 'nonsense'"),
        (("smoke", "--method.loss", "mse"), "method.loss='mse' does not fit"),
        (("smoke", "--batch-size", "1000"), "batch_size must be at most the 480"),
        (
            ("smoke", "--method.weighting", "gdw", "--data.meta-size", "0"),
            "data.meta_size must be at least meta_batch_size=16",
        ),
        (("smoke", "--data.name", "cifar10", "--data.path", "none"), "No cifar10 data"),
        (("smoke", "--batch-size", "101", "--devices", "2"), "multiple of the 2 dev"),
        (("smoke", "--model.head", "etf", "--model.hidden", "8"), "at most embed_dim"),
        (("smoke", "--trained", "classifier"), "init_from must be given"),
        (("smoke", "--init-from", "none.npz"), "init_from cannot be read"),
    ],
)
def test_bad_settings_are_explained(settings, message, tmp_path, capsys):
    assert train.main([*settings, "--out", str(tmp_path / "run")]) == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_blocks_and_single_steps_agree(tmp_path):
    settings = (*DIGITS, "--epochs", "1", "--method.weighting", "absgd")
    assert run(tmp_path / "scan", *settings) == 0
    assert run(tmp_path / "steps", *settings, "--scan", "False") == 0
    assert_same(
        arrays(tmp_path / "scan"), arrays(tmp_path / "steps"), rtol=1e-4, atol=1e-6
    )


def test_seeds_side_by_side_are_the_single_runs(tmp_path):
    settings = (*DIGITS, "--epochs", "1", "--method.weighting", "gdw")
    assert run(tmp_path / "both", *settings, "--seed", "3", "--seeds", "2") == 0
    assert run(tmp_path / "one", *settings, "--seed", "4") == 0
    assert_same(
        arrays(tmp_path / "both" / "seed4"),
        arrays(tmp_path / "one"),
        rtol=1e-4,
        atol=1e-5,
    )
    first = arrays(tmp_path / "both" / "seed3")
    second = arrays(tmp_path / "both" / "seed4")
    assert any(not np.allclose(first[k], second[k]) for k in first)
    facts = json.loads((tmp_path / "both" / "seed4" / "config.json").read_text())
    assert facts["seed"] == 4


@pytest.mark.parametrize(
    "settings",
    [
        ("--model.name", "mlp", "--method.weighting", "gdw"),
        ("--model.name", "mlp", "--model.hidden", "64", "--fsdp"),
        (
            *("--model.name", "patchify", "--model.width", "8", "--epochs", "1"),
            *("--method.weighting", "absgd", "--data.name", "synthetic"),
        ),
    ],
    ids=["gdw", "fsdp", "convolutional"],
)
def test_eight_devices_give_the_numbers_of_one(settings, tmp_path):
    settings = (*DIGITS, "--batch-size", "240", "--meta-batch-size", "48", *settings)
    assert run(tmp_path / "1", *settings) == 0
    assert run(tmp_path / "8", *settings, devices=8) == 0
    assert_same(arrays(tmp_path / "8"), arrays(tmp_path / "1"), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", [(), ("--method.weighting", "gradtail")])
def test_regression(method, tmp_path):
    settings = (
        *("smoke", *TINY, "--data.name", "diabetes", "--data.meta-size", "0"),
        *("--method.loss", "mse", "--batch-size", "64"),
    )
    assert run(tmp_path, *settings, "--epochs", "3", *method) == 0
    row = rows(tmp_path)[-1]
    assert row["test/mae"] > 1  # in the units of the data, not standardised
    assert "train/accuracy" not in row
    assert {"test/few_mae", "test/many_geometric_mean"} <= row.keys()
    assert len(row["weights/by_class"]) == 3


def test_classifier_alone_is_trained_again(tmp_path):
    assert run(tmp_path / "1", *DIGITS, "--optimizer.weight-decay", "0.1") == 0
    settings = (
        *(*DIGITS, "--trained", "classifier", "--method.max-norm", "0.1"),
        *("--init-from", str(tmp_path / "1" / "best.npz")),
    )
    assert run(tmp_path / "2", *settings) == 0
    before, after = (
        arrays(tmp_path / "1", "best.npz"),
        arrays(tmp_path / "2"),
    )
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"head.kernel", "head.bias"}
    start = np.linalg.norm(before["head.kernel"], axis=0)
    cap = start.min() + 0.1 * (start.max() - start.min())
    assert np.linalg.norm(after["head.kernel"], axis=0).max() <= cap * (1 + 1e-5)


def test_streamed_images_train_and_resume(tmp_path):
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(30):
            pixels = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{i}.png")
    settings = (
        *("smoke", *TINY, "--data.name", "folder", "--data.stream", "True"),
        *("--data.path", str(tmp_path / "data"), "--data.image-size", "8"),
        *("--data.meta-size", "0", "--batch-size", "8", "--epochs", "2"),
    )
    assert run(tmp_path / "whole", *settings) == 0
    assert len(rows(tmp_path / "whole")) == 2
    assert run(tmp_path / "parts", *settings) == 0
    # What a kill in the second epoch leaves behind.
    steps = rows(tmp_path / "parts")[0]["step"]
    checkpoints = tmp_path / "parts" / "checkpoints"
    (checkpoints / str(2 * steps) / "_CHECKPOINT_METADATA").unlink()
    assert run(tmp_path / "parts", *settings) == 0
    assert_same(arrays(tmp_path / "whole"), arrays(tmp_path / "parts"))


def test_a_prepared_tfds_directory_trains(tmp_path):
    parts = {
        part: (formats.images(count, seed, size=24), np.arange(count) % 3)
        for seed, (part, count) in enumerate(
            {"train": 18, "validation": 6, "test": 6}.items()
        )
    }
    formats.tfds_directory(tmp_path, "imagenet_lt", parts, class_names=list("abc"))
    settings = (
        *("smoke", *TINY, "--data.name", "imagenet_lt", "--data.path", str(tmp_path)),
        *("--data.image-size", "8", "--data.meta-size", "0", "--batch-size", "6"),
    )
    assert run(tmp_path / "run", *settings) == 0
    (row,) = rows(tmp_path / "run")
    assert row["step"] == 3
    assert 0 <= row["test/accuracy"] <= 1


def test_list_names_every_preset_and_its_data(capsys):
    assert train.main(["--list"]) == 0
    text = capsys.readouterr().out
    assert "smoke" in text
    assert "LTJAX_DATA" in text


def test_list_finds_presets_with_all_words(capsys):
    assert train.main(["--list", "cifar10", "Noise", "gdw"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all("gdw" in x.lower() and "cifar10" in x and "noise" in x for x in lines)
    assert train.main(["--list", "cifar10", "nonsense"]) == 1
    assert "no preset has all of cifar10, nonsense" in capsys.readouterr().err


def test_without_arguments_it_says_what_to_type(capsys):
    assert train.main([]) == 0
    text = capsys.readouterr().out
    for said in ("--list", "--dry-run", "PRESET", "smoke"):
        assert said in text


def test_an_unknown_preset_is_told_close_names(capsys):
    assert train.main(["smoek"]) == 1
    assert "smoke" in capsys.readouterr().err


def test_settings_can_be_completed(capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["--tyro-print-completion", "bash"])
    assert not stop.value.code
    script = capsys.readouterr().out
    assert re.search(r"^complete .* train$", script, re.MULTILINE)
    assert "--data.noise-rate" in script


def test_every_preset_is_consistent():
    for name, preset in configs.PRESETS.items():
        assert preset.about, name
        twin = configs.PRESETS.get(f"{name}-small")
        if twin is not None:
            assert twin.config.epochs <= preset.config.epochs
            assert twin.config.data == preset.config.data


class Net(nnx.Module):
    """A network from outside."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, 5, rngs=rngs)
        self.head = nnx.Linear(5, 10, rngs=rngs)

    def __call__(self, x, train, key=None):
        h = nnx.relu(self.hidden(x.reshape(len(x), -1)))
        return Outputs(self.head(h), h)


def test_own_network_and_own_data(tmp_path):
    rng = np.random.default_rng(0)
    config = configs.TrainConfig(
        data=datasets.DataConfig(name="arrays"), epochs=1, batch_size=32
    )
    splits = datasets.from_arrays(
        rng.normal(size=(200, 64)), np.arange(200) % 10, config.data
    )
    machine = train.Machine(devices=1, progress=False)
    assert train.train(config, machine, tmp_path, splits=splits, make=Net) == 0
    assert arrays(tmp_path)["hidden.kernel"].shape == (64, 5)
