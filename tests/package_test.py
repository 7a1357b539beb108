"""What an installed package promises."""

import pathlib
import tomllib

import ltjax

ROOT = pathlib.Path(__file__).parents[1]


def test_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert ltjax.__version__ == project["version"]


def test_types_are_visible_to_type_checkers():
    assert (pathlib.Path(ltjax.__file__).parent / "py.typed").is_file()
