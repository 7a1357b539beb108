"""The README's example runs as written."""

import pathlib
import re

import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"


@pytest.fixture
def strict_promotion():
    """The example runs under JAX's default settings, as a reader's would."""


def test_example_runs_and_learns(strict_promotion):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict = {}
    exec(code, names)
    logits = names["model"](names["x"])
    assert (logits.argmax(1) == names["y"]).mean() > 0.7
