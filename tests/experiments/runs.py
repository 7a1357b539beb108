"""Short runs of the trainer, and what is in their folders."""

import json
from pathlib import Path

import numpy as np

from experiments import train

ROOT = Path(__file__).parents[2]
TINY = ("--model.hidden", "8", "--no-progress", "--crop", "0", "--no-flip")
DIGITS = (
    *("smoke", *TINY, "--data.name", "digits", "--data.meta-size", "50"),
    *("--batch-size", "96"),
)


def run(folder, *argv, devices=1):
    """Exit status of the command line, on a few of the virtual devices."""
    where = ("--out", str(folder), "--devices", str(devices))
    return train.main([*argv, *where])


def rows(folder):
    return [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]


def arrays(folder, name="last.npz"):
    return dict(np.load(folder / name))


def assert_same(a, b, **tolerance):
    assert a.keys() == b.keys()
    for name in a:
        if tolerance:
            np.testing.assert_allclose(a[name], b[name], **tolerance, err_msg=name)
        else:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def without_times(history):
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "examples_per_second")}
        for row in history
    ]
