"""R5, R28: CSV, Parquet and JSON of strangers end in a graph or in one of our errors, never in another."""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from gcl.edges import canonical_edges
from gcl.errors import InvalidGraph, SourceUnreadable
from gcl.readers import AnyDataset, csv_tables, edge_policy, open_source
from gcl.readers.csv_tables import csv_batches, csv_columns
from tests.sources import EDGES, NODES, Overrides, geom, musae, own_csv, own_parquet

REFUSED = (SourceUnreadable, InvalidGraph)


def read_all(overrides: Overrides) -> None:
    config = TypeAdapter(AnyDataset).validate_python(overrides)
    source = open_source(config)
    for stream in (source.feature_chunks, source.label_chunks):
        if stream is not None:
            list(stream())
    with tempfile.TemporaryDirectory() as scratch:
        list(
            canonical_edges(
                source.edge_chunks(),
                num_nodes=source.num_nodes,
                policy=edge_policy(config, source),
                scratch=Path(scratch),
            )
        )


@pytest.mark.parametrize("file", ["nodes.parquet", "edges.parquet"])
def test_every_truncation_of_parquet_is_refused(file: str, tmp_path: Path) -> None:
    overrides = own_parquet(tmp_path)
    content = (tmp_path / file).read_bytes()
    for end in {*range(0, len(content), 16), *range(len(content) - 16, len(content))}:
        (tmp_path / file).write_bytes(content[:end])
        with pytest.raises(SourceUnreadable):
            read_all(overrides)


@pytest.mark.parametrize(
    ("build", "files"),
    [
        (own_csv, ["nodes.csv", "edges.csv", "graph.toml"]),
        (musae, ["edges/tiny_edges.csv", "features/tiny.json", "target/tiny_target.csv"]),
        (geom, ["out1_graph_edges.txt", "out1_node_feature_label.txt"]),
    ],
)
def test_mutated_text_is_read_or_refused_and_nothing_else(
    build: Callable[[Path], Overrides], files: list[str], tmp_path: Path
) -> None:
    @settings(max_examples=120, deadline=None)
    @given(st.data())
    def mutate(data: st.DataObject) -> None:
        overrides = build(tmp_path)
        path = tmp_path / data.draw(st.sampled_from(files))
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at : at + data.draw(st.integers(0, 2))] = data.draw(
                st.sampled_from(
                    [b"", b",", b"\n", b'"', b"\r", b"9" * 25, b"-", b"\xff", b"\t", b"e", b"[", b"{"]
                )
            )
        path.write_bytes(content)
        with contextlib.suppress(REFUSED):
            read_all(overrides)

    mutate()


def test_text_in_parquet_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """Neither writing nor reading Parquet checks this; a validation of every batch does."""
    offsets = pa.py_buffer(np.array([0, 1, 2, 3], np.int32).tobytes())
    ids = pa.StringArray.from_buffers(3, offsets, pa.py_buffer(b"a\xffc"))
    ends = pa.array(["a"])
    overrides = own_parquet(tmp_path, id_type="string", id=ids, edge_source=ends, edge_target=ends)
    with pytest.raises(SourceUnreadable, match="UTF8"):
        read_all(overrides)


def test_row_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_tables, "MAX_ROW_BYTES", 1000)
    with pytest.raises(SourceUnreadable):
        read_all(own_csv(tmp_path, nodes=NODES.replace(b"bob", b"b" * 5000), edges=EDGES))


@pytest.mark.parametrize("text", [b"\0", b"a,b\0\n", b"", b"\n", b"\xff\xfe,\n", b'"a\n', b"a,a\n"])
def test_header_that_is_none_is_refused(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text)
    with pytest.raises(SourceUnreadable):
        csv_columns(path)
        list(csv_batches(path, {}))
