"""Files that are replaced whole or not at all, and settings as JSON has them."""

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """A dataclass as JSON has it; ``name`` says which of several kinds a part is."""
    if dataclasses.is_dataclass(value):
        name = {"name": value.name} if hasattr(value, "name") else {}
        fields = (field.name for field in dataclasses.fields(value))
        return name | {field: plain(getattr(value, field)) for field in fields}
    return [plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def write_json(path: Path, content: Any) -> None:
    """Replaces a file by JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replaces a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Replaces a file by columns with a header, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_text(path, text.getvalue())


def write_parquet(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Replaces a file by typed columns, whole or not at all."""
    import pyarrow as pa  # a second, and few commands write such files
    from pyarrow import parquet

    partial = path.with_name(path.name + ".partial")
    parquet.write_table(pa.table(dict(columns)), partial)
    partial.replace(path)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Replaces a file by arrays, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    partial.replace(path)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by path, such as ``method.loss.tau``."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
