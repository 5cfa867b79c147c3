"""Damaged files give TableUnreadable, never another error and never a silent wrong number."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts import TABLES, ContractViolation, TableUnreadable, check_table
from data_contracts.profile import profile_table
from data_contracts.reading import count_rows, read_batches


def write_features(path: Path, *, rows: int = 200) -> Path:
    x = np.random.default_rng(0).normal(size=(rows, 4)).astype(np.float32)
    schema = TABLES["graph.features"].schema(width=4)
    array = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 4)
    table = pa.Table.from_arrays([array], schema=schema)
    pq.write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("reading") / "x.parquet")


def test_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(TableUnreadable, match="graph.nodes"):
        check_table(tmp_path / "absent.parquet", "graph.nodes", context={})


def test_text_file_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_text("src,dst\n0,1\n")
    with pytest.raises(TableUnreadable):
        check_table(path, "graph.edges", context={})


def test_truncated_file_is_unreadable_wherever_it_is_cut(sound: Path, tmp_path: Path) -> None:
    content, path = sound.read_bytes(), tmp_path / "t.parquet"
    cuts = [*range(0, len(content), 64), *range(len(content) - 16, len(content))]
    for cut in cuts:
        path.write_bytes(content[:cut])
        with pytest.raises(TableUnreadable):
            profile_table(path, "graph.features")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3))
def test_flipped_bytes_never_give_a_wrong_number(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[float, int]]
) -> None:
    content = bytearray(sound.read_bytes())
    for where, value in flips:
        content[int(where * len(content))] ^= value
    path = tmp_path_factory.mktemp("flipped") / "t.parquet"
    path.write_bytes(bytes(content))
    expected = profile_table(sound, "graph.features")
    try:
        profile = profile_table(path, "graph.features")
        check_table(path, "graph.features", context={"num_nodes": 200, "num_features": 4})
    except (TableUnreadable, ContractViolation):
        return
    # Bytes of the footer that nobody reads (statistics, the writer's name) may differ.
    assert profile == expected


def test_batches_are_bounded_and_complete(sound: Path) -> None:
    wide = list(read_batches(sound, "graph.features", columns=["x"]))
    assert sum(batch.num_rows for batch in wide) == count_rows(sound, "graph.features") == 200


def test_many_rows_come_in_several_batches(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": np.zeros(300_000, np.int64)}), path)
    sizes = [batch.num_rows for batch in read_batches(path, "t", columns=["a"])]
    assert max(sizes) <= 1 << 17
    assert sum(sizes) == 300_000


def test_long_lists_come_in_short_batches(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    lists = pa.array([np.arange(2000, dtype=np.int32)] * 300, pa.list_(pa.int32()))
    pq.write_table(pa.table({"a": lists, "b": range(300)}), path)
    assert next(read_batches(path, "t", columns=["a"])).num_rows < 150
    assert next(read_batches(path, "t", columns=["b"])).num_rows == 300
