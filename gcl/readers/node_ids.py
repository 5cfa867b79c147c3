"""From a source's own node ids to positions 0..N-1, exactly: integers never pass through floats."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gcl.errors import InvalidGraph, SourceUnreadable
from gcl.readers.base import ArrowArray
from gcl.readers.printable import printable

MISSING = -1
_ID_TYPES = {"int64": pa.int64(), "string": pa.string()}


def exact_ids(column: ArrowArray, id_type: str, *, what: str) -> ArrowArray:
    """The ids as int64 or string; a float, or an integer that int64 cannot hold, is refused.

    Args:
        column: ids as the file has them.
        id_type: ``int64`` or ``string``, as declared.
        what: where they stand, for the message.
    """
    found = column.type
    if pa.types.is_dictionary(found):
        column = column.dictionary_decode()
        found = column.type
    is_text = pa.types.is_string(found) or pa.types.is_large_string(found)
    if not (pa.types.is_integer(found) if id_type == "int64" else is_text):
        raise SourceUnreadable(f"{what}: node ids are declared {id_type}, but the column is {found}")
    try:
        return column.cast(_ID_TYPES[id_type], safe=True)
    except pa.ArrowInvalid as error:
        raise SourceUnreadable(f"{what}: a node id does not fit {id_type}: {printable(error)}") from error


class NodeIds:
    """The ids of a node table, in node order, and the way back from an id to its position."""

    def __init__(self, ids: ArrowArray) -> None:
        self.ids = ids
        is_integer = pa.types.is_integer(ids.type)
        values = ids.to_numpy() if is_integer and ids.null_count == 0 else None
        self.is_range = values is not None and bool((values == np.arange(len(values))).all())
        self._sorted: np.ndarray | None = None
        if values is not None and not self.is_range:
            self._order = np.argsort(values, kind="stable")
            self._sorted = values[self._order]

    @property
    def is_indexed(self) -> bool:
        """Whether a look-up takes no preparation; else every call hashes all ids, so ask for many at once."""
        return self.is_range or self._sorted is not None

    def positions(self, column: ArrowArray) -> np.ndarray:
        """int64 positions of ids; -1 for an id that no node has, and for null.

        Args:
            column: ids, an array or a chunked array.
        """
        if self.is_indexed and column.null_count == 0:
            return self._integer_positions(column.to_numpy())
        found: ArrowArray = pc.index_in(column, value_set=self.ids, skip_nulls=True)
        positions: np.ndarray = found.fill_null(MISSING).to_numpy(zero_copy_only=False).astype(np.int64)
        return positions

    def _integer_positions(self, values: np.ndarray) -> np.ndarray:
        if self._sorted is None:
            return np.where((values >= 0) & (values < len(self.ids)), values, MISSING)
        at = np.minimum(np.searchsorted(self._sorted, values), len(self._sorted) - 1)
        return np.where(self._sorted[at] == values, self._order[at], MISSING)


class UnknownEndpoints:
    """Collects edges that name no node, and reports them by their own ids and rows."""

    def __init__(self, column: str) -> None:
        self.column = column
        self.num_rows = 0
        self.sample: list[str] = []

    def add(self, ids: ArrowArray, positions: np.ndarray, *, first_row: int, what: str) -> None:
        """Note the rows of a batch whose position is missing."""
        rows = np.flatnonzero(positions == MISSING)
        self.num_rows += len(rows)
        for row in rows[: 10 - len(self.sample)]:
            self.sample.append(f"{what}, row {first_row + int(row)}: {ids[int(row)].as_py()!r}"[:200])

    def raise_if_any(self) -> None:
        """Raise InvalidGraph if there were any."""
        if self.num_rows:
            raise InvalidGraph(
                table="graph.edges",
                column=self.column,
                rule="endpoints_in_range",
                num_rows=self.num_rows,
                sample=self.sample,
            )
