"""Every example runs as written and learns."""

import importlib
import pathlib

import pytest

import examples

FOLDER = pathlib.Path(examples.__file__).parent
NEEDS = {"equinox_gdw": "equinox", "haiku_product": "haiku", "keras_stateless": "keras"}
NAMES = sorted(
    path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "digits")
)


@pytest.fixture
def strict_promotion():
    """Examples run under JAX's default settings, as a reader's would."""


@pytest.mark.filterwarnings("default")  # of the other libraries
@pytest.mark.parametrize("name", NAMES)
def test_example_learns(name, capsys):
    if name in NEEDS:
        reason = f"needs {NEEDS[name]}: pip install -e '.[examples]'"
        pytest.importorskip(NEEDS[name], reason=reason)
    accuracy = importlib.import_module(f"examples.{name}").main()
    assert f"balanced accuracy: {accuracy:.1%}" in capsys.readouterr().out
    assert accuracy > 0.75


@pytest.mark.parametrize("name", NAMES)
def test_example_is_short(name):
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) < 60
