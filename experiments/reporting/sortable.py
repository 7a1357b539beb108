"""Tables that are sorted by clicking: text in, Bokeh models out."""

import html
from collections.abc import Sequence

import numpy as np
from bokeh.models import ColumnDataSource
from bokeh.models.widgets.tables import DataTable, HTMLTemplateFormatter, TableColumn

from experiments.reporting.charts import FONT
from experiments.reporting.tables import Table, leading_numbers

_ROW, _LETTER, _MARGIN = 26, 7.2, 28  # pixels
_STYLE = f"""
.slick-cell, .slick-header-column {{ font: 14px {FONT}; }}
.slick-header-column {{ font-weight: 600; }}
"""


def data_table(table: Table) -> DataTable:
    """A table that is sorted by clicking a title.

    A column of numbers, whatever follows these in its cells, is sorted by them; blank
    cells are the least. An empty first cell repeats the one above it.
    """
    rows = _filled(table.rows)
    columns, data = [], dict[str, list]()
    for i, title in enumerate(table.columns):
        cells = [row[i] for row in rows]
        data[f"text{i}"] = cells
        letters = max(map(len, (title + "  ", *cells)))
        column = TableColumn(
            field=f"text{i}",
            title=html.escape(title),
            width=round(_LETTER * letters) + _MARGIN,
        )
        numbers = leading_numbers(cells)
        if numbers is not None:
            data[f"key{i}"] = [-np.inf if x is None else x for x in numbers]
            column.field = f"key{i}"
            # The minus sign makes the template escape the text.
            column.formatter = HTMLTemplateFormatter(template=f"<%- text{i} %>")
        columns.append(column)
    return DataTable(
        source=ColumnDataSource(data),
        columns=columns,
        width=sum(column.width for column in columns) + 4,
        height=_ROW * (len(rows) + 1) + 12,
        row_height=_ROW,
        autosize_mode="none",
        index_position=None,
        reorderable=False,
        stylesheets=[_STYLE],
    )


def _filled(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    found: list[Sequence[str]] = []
    for row in rows:
        found.append(row if row[0] or not found else [found[-1][0], *row[1:]])
    return found
