"""Imports go down only, in the order that the package's docstring gives."""

import ast
import pathlib
import subprocess
import sys

import pytest

import experiments

ROOT = pathlib.Path(experiments.__file__).parent
LINES = [
    line.split() for line in experiments.__doc__.splitlines() if line[:4] == "    "
]
LAYERS = {name: i for i, names in enumerate(LINES) for name in names}
FILES = sorted(ROOT.rglob("*.py"))


def _part(module):
    """``datasets`` of ``experiments.datasets.sets.vision``."""
    return module.split(".")[1]


def _imported(path):
    """Parts of the package that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "experiments":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {_part(node.module)} if "experiments." in node.module else set()
        elif isinstance(node, ast.Import):
            found |= {_part(a.name) for a in node.names if "experiments." in a.name}
    return found


def test_every_part_has_its_place():
    there = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in FILES}
    assert there - {"__init__"} == set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for other in _imported(path) - {own}:
        assert LAYERS[other] > LAYERS[own], f"{own} imports {other}"


def test_a_report_needs_no_trainer():
    code = "import experiments.report, sys; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    modules = set(found.stdout.split())
    assert "experiments.reporting.tables" in modules
    assert not {"experiments.train", "experiments.training", "orbax"} & modules
