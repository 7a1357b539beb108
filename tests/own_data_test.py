"""The commands of docs/own_data.md lead from a file to a report, as written."""

import importlib
import pathlib
import re
import shlex

import numpy as np
import pytest
from PIL import Image

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "own_data.md"
# For the sake of time: nothing that changes what is read or written.
BRIEFLY = ("--epochs", "2", "--devices", "1", "--model.name", "mlp", "--no-progress")


@pytest.fixture
def strict_promotion():
    """The page's own code runs under JAX's default settings."""


def _section(title: str) -> str:
    (text,) = re.findall(rf"^## {title}\n(.*?)^## ", PAGE.read_text(), re.M | re.S)
    return text


def _follow(title: str) -> None:
    """Runs the commands of a section of the page."""
    for block in re.findall(r"^```sh\n(.*?)^```", _section(title), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            python, m, module, *settings = shlex.split(line)
            assert (python, m) == ("python", "-m")
            if module == "experiments.train":
                settings += BRIEFLY
            assert importlib.import_module(module).main(settings) == 0, line


def _write_table(path: pathlib.Path, targets) -> None:
    rng = np.random.default_rng(0)
    rows = [
        f"{rng.normal():.2f},{rng.normal():.2f},{rng.choice(['red', 'blue'])},{target}"
        for target in targets
    ]
    path.write_text("\n".join(["width,height,colour,kind", *rows]))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_table(strict_promotion, here, capsys):
    _write_table(here / "mine.csv", ["a"] * 150 + ["b"] * 60 + ["c"] * 20)
    _write_table(here / "prices.csv", np.linspace(1, 9, 120).round(2))
    _follow("A CSV file")
    printed = " ".join(capsys.readouterr().out.split())
    (counts,) = set(re.findall(r"3 classes: a (\d+), b (\d+), c (\d+)", printed))
    kept = np.array(counts, int) / [150, 60, 20]
    assert (kept > 0.4).all()  # the others are held out
    assert (kept < 0.9).all()
    assert "Estimated time" in printed
    text = (here / "report" / "report.md").read_text()
    assert "Logit adjustment" in text
    assert "balanced" in text
    assert (here / "runs" / "prices" / "summary.json").is_file()


def test_a_folder_of_images(strict_promotion, here):
    rng = np.random.default_rng(0)
    for name, count in (("cat", 40), ("dog", 20), ("emu", 12)):
        (here / "photos" / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 255, (40, 36 + i % 5, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(here / "photos" / name / f"{i:03}.jpg")
    _follow("A folder of images")
    assert "GradTail" in (here / "report" / "report.md").read_text()
    assert (here / "runs" / "weighted" / "example_weights.npz").is_file()


def test_arrays(strict_promotion, here):
    (code,) = re.findall(r"^```python\n(.*?)^```", _section("Arrays"), re.M | re.S)
    exec(code, {})
    _follow("Arrays")
    assert "ELM" in (here / "report" / "report.md").read_text()
