"""Commands are read back by the command line that they are for."""

import shlex

import pytest

from experiments import configs, train
from experiments.configs import commands
from experiments.records.files import plain

PAIRS = (
    ("smoke", "smoke"),
    ("smoke", "gdw-cifar10-unif40"),
    ("gdw-cifar10-unif40", "smoke"),
    ("la-cifar10-lt100", "ldam-drw-cifar10-lt100"),
    ("ldam-drw-cifar10-lt100", "wb-two-stage-cifar100-lt100"),
    ("wb-two-stage-cifar100-lt100", "la-cifar10-lt100"),
    ("table", "mse-bike"),
    ("gradtail-abalone", "images"),
)


@pytest.mark.parametrize(("start", "wanted"), PAIRS)
def test_a_command_leads_from_one_preset_to_another(start, wanted):
    preset, config = configs.PRESETS[start], configs.PRESETS[wanted].config
    words = shlex.split(commands.training(start, preset.config, plain(config)))
    assert words[:4] == ["python", "-m", "experiments.train", start]
    assert train.parse(preset, words[4:], start).config == config
    assert (len(words) == 4) == (start == wanted)


def test_names_with_spaces_and_unknown_settings():
    start = configs.PRESETS["table"].config
    config = plain(start) | {"gone": 3}
    config["data"] = config["data"] | {"path": "my own.csv", "train_on_meta": True}
    assert commands.training("table", start, config) == (
        "python -m experiments.train table --data.path 'my own.csv' "
        "--data.train-on-meta"
    )
