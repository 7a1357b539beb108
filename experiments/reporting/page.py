"""One HTML file that shows runs, and needs nothing but a browser.

A `Part` is what stands under one heading. Charts and tables are Bokeh's, whose scripts
are written into the file; everything else is the template ``page.html``.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
from bokeh.embed import components
from bokeh.model import Model
from bokeh.resources import Component, Resources
from PIL import Image

from experiments.records.files import write_text
from experiments.reporting.charts import Chart
from experiments.reporting.sortable import data_table
from experiments.reporting.tables import Table

_DENSITY = 1.5  # pixels of a picture for one of the screen
_SCRIPTS: list[Component] = ["bokeh", "bokeh-widgets", "bokeh-tables"]


class Charts(NamedTuple):
    """Charts side by side."""

    title: str
    charts: Sequence[Chart]


class Example(NamedTuple):
    """A training example."""

    image: str  # data URI
    text: Sequence[str]


class Gallery(NamedTuple):
    """Examples side by side, or why there are none."""

    title: str
    about: str
    examples: Sequence[Example] = ()


class Repeat(NamedTuple):
    """How a method was run, and how that is done again."""

    title: str
    commands: Sequence[str]
    facts: Sequence[str]
    settings: Mapping[str, str]


class Part(NamedTuple):
    """What stands under one heading."""

    title: str
    tables: Sequence[Table]
    remarks: Sequence[str]
    charts: Sequence[Charts]
    galleries: Sequence[Gallery]
    pictures: Sequence[tuple[Path, str]]  # with their captions
    repeats: Sequence[Repeat]


def write(
    path: Path, title: str, parts: Sequence[Part], notes: Sequence[str] = ()
) -> None:
    """Writes the page."""
    models = _models(parts)
    script, places = components(models) if models else ("", {})
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html").render(
        title=title,
        notes=notes,
        parts=parts,
        embedded=_embedded,
        places=places,
        script=script,
        bokeh=Resources(mode="inline", components=_SCRIPTS).render(),
    )
    write_text(path, text)


def as_address(content: bytes) -> str:
    """The bytes of a PNG as an address that holds them."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


class _Embedded(NamedTuple):
    """A picture and its size on the screen."""

    address: str
    width: int
    height: int


def _embedded(path: Path) -> _Embedded:
    with Image.open(path) as image:
        width, height = (round(side / _DENSITY) for side in image.size)
    return _Embedded(as_address(path.read_bytes()), width, height)


def _models(parts: Sequence[Part]) -> dict[str, Model]:
    """Tables and charts by the names that the template knows them by."""
    found: dict[str, Model] = {}
    for p, part in enumerate(parts):
        found |= {f"table-{p}-{i}": data_table(t) for i, t in enumerate(part.tables)}
        found |= {
            f"chart-{p}-{i}-{j}": chart.figure
            for i, group in enumerate(part.charts)
            for j, chart in enumerate(group.charts)
        }
    return found
