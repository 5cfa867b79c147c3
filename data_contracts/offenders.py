"""Finds the rows that break a clause: a second pass over the file, made only when a check has failed."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_contracts.arrow import leaves
from data_contracts.predicates import Predicate, Window
from data_contracts.reading import read_batches, read_schema

MAX_SAMPLE = 10
_MAX_ITEMS = 8
_IDENTIFIERS = ("node", "node_id")


def find_offenders(path: Path, table: str, predicate: Predicate) -> tuple[int, tuple[Mapping[str, Any], ...]]:
    """How many rows break the predicate, and the first of them.

    A sampled row is a dictionary of JSON types: ``row`` (its position), the columns the predicate reads,
    and node and node_id where the table has them. Of a list that has a wrong item, the item is shown
    under its position (``x[3]``) rather than the whole list.
    """
    names = read_schema(path, table).names
    wanted = {*predicate.columns, *_IDENTIFIERS}
    shown = [name for name in names if name in wanted and names.count(name) == 1]
    offset, count = 0, 0
    previous: pa.RecordBatch | None = None
    sample: list[Mapping[str, Any]] = []
    for batch in read_batches(path, table, columns=shown):
        rows = np.flatnonzero(predicate.mask(Window(batch, offset, previous)))
        count += len(rows)
        for row in rows[: MAX_SAMPLE - len(sample)]:
            sample.append({"row": offset + int(row), **_values(batch.slice(int(row), 1), predicate)})
        offset += batch.num_rows
        previous = batch.slice(batch.num_rows - 1)
    return count, tuple(sample)


def _values(row: pa.RecordBatch, predicate: Predicate) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name in row.schema.names:
        items, lengths = leaves(row.column(name))
        if lengths is not None and predicate.leaf is not None:
            for position in np.flatnonzero(predicate.leaf(items))[:_MAX_ITEMS]:
                shown[f"{name}[{position}]"] = _plain(items[int(position)].as_py())
        else:
            shown[name] = _plain(row.column(name)[0].as_py())
    return shown


def _plain(value: Any) -> Any:
    """A JSON value; JSON has no NaN or infinity, so those become text."""
    if isinstance(value, list):
        cut = [_plain(item) for item in value[:_MAX_ITEMS]]
        return [*cut, "..."] if len(value) > _MAX_ITEMS else cut
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)
