"""The README's example runs as written."""

import pathlib
import re

import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"


@pytest.fixture
def strict_promotion():
    """The example runs under JAX's default settings, as a reader's would."""


def test_example_runs(strict_promotion, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(code, {})
    assert re.fullmatch(r"mean loss 0\.\d+\n", capsys.readouterr().out)


def test_linked_pages_exist():
    links = re.findall(r"\]\(((?:docs/|LICENSE)[^)]*)\)", README.read_text())
    assert links
    for link in links:
        assert (README.parent / link).is_file(), link
