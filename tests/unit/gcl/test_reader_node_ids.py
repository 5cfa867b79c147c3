"""Looking up the ids of edges: in groups of batches, since text must be hashed anew at every call."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from gcl.errors import InvalidGraph
from gcl.readers.node_ids import NodeIds, UnknownEndpoints
from gcl.readers.own_tables import _groups


def batches(*sizes: int) -> Iterator[pa.RecordBatch]:
    for size in sizes:
        yield pa.record_batch({"x": np.arange(size)})


@pytest.mark.parametrize(
    ("sizes", "min_rows", "expected"),
    [((3, 3, 3), 1, [[3], [3], [3]]), ((3, 3, 3), 5, [[3, 3], [3]]), ((), 5, []), ((0, 9), 5, [[0, 9]])],
)
def test_batches_come_in_groups(sizes: tuple[int, ...], min_rows: int, expected: list[list[int]]) -> None:
    found = _groups(batches(*sizes), min_rows=min_rows)
    assert [[batch.num_rows for batch in group] for group in found] == expected


@pytest.mark.parametrize(
    ("ids", "is_indexed"),
    [
        (pa.array(["b", "a", "c"]), False),
        (pa.array([7, -5, 2**62]), True),
        (pa.array([0, 1, 2]), True),
    ],
)
def test_chunks_are_looked_up_as_one(ids: pa.Array, is_indexed: bool) -> None:
    known = NodeIds(ids)
    assert known.is_indexed == is_indexed
    other = "x" if pa.types.is_string(ids.type) else 99
    chunks = [pa.array([ids[2].as_py(), other], ids.type), pa.array([ids[0].as_py(), None], ids.type)]
    assert known.positions(pa.chunked_array(chunks)).tolist() == [2, -1, 0, -1]
    assert [known.positions(chunk).tolist() for chunk in chunks] == [[2, -1], [0, -1]]


def test_unknown_ends_of_chunks_are_told_by_their_rows() -> None:
    known, unknown = NodeIds(pa.array(["a", "b"])), UnknownEndpoints("src")
    column = pa.chunked_array([["a", "x"], ["b", "y"]])
    unknown.add(column, known.positions(column), first_row=11, what="edges.csv")
    with pytest.raises(InvalidGraph, match="2 row") as caught:
        unknown.raise_if_any()
    assert list(caught.value.sample) == ["edges.csv, row 12: 'x'", "edges.csv, row 14: 'y'"]
