"""The number of values of a Parquet file, from its footer alone."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl.errors import SourceUnreadable, UnsafeSource
from gcl.readers import parquet_footer
from gcl.readers.parquet_footer import check_num_values


def counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """The count that the check comes to."""
    found: list[int] = []
    monkeypatch.setattr(parquet_footer, "check_ratio", lambda path, count, **_: found.append(count))
    check_num_values(path)
    return found[0]


@pytest.mark.parametrize("row_group_size", [1, 2, 100])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_values_of_the_longest_column_are_counted(
    row_group_size: int, compression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table(
        {
            "n": pa.array([1, None, 3, 4]),
            "t": ["a", "b", "c", "d"],
            "l": pa.array([[1.0, 2.0], [], None, [3.0] * 5]),
            "b": [True, False, True, True],
        }
    )
    path = tmp_path / "t.parquet"
    pq.write_table(table, path, row_group_size=row_group_size, compression=compression)
    assert counted(path, monkeypatch) == 9, "an empty and a missing list each have a place in the column"


def test_rows_count_where_there_are_no_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"x": pa.array([], pa.int64())}), tmp_path / "t.parquet")
    assert counted(tmp_path / "t.parquet", monkeypatch) == 0


def test_wide_and_annotated_files_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({f"c{i}": [i] * 3 for i in range(300)}).replace_schema_metadata({"k": "v" * 5000})
    pq.write_table(table, tmp_path / "t.parquet", write_page_index=True, write_page_checksum=True)
    assert counted(tmp_path / "t.parquet", monkeypatch) == 3


def test_only_many_values_out_of_proportion_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": pa.repeat(pa.scalar(0), 1 << 20)}), path)
    check_num_values(path)
    monkeypatch.setattr(parquet_footer, "FREE_VALUES", (1 << 20) - 1)
    with pytest.raises(UnsafeSource, match="claim to unpack to 1048576 values"):
        check_num_values(path)
    draw = random.Random(0)
    pq.write_table(pa.table({"x": [draw.getrandbits(62) for _ in range(1 << 20)]}), path)
    check_num_values(path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_footers_are_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    pq.write_table(pa.table({"x": [1, 2], "l": [[1.0], [2.0]]}), folder / "clean.parquet")
    content = bytearray((folder / "clean.parquet").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "damaged.parquet").write_bytes(content[data.draw(st.sampled_from([0, 0, 0, 9])) :])
    try:
        check_num_values(folder / "damaged.parquet")
    except SourceUnreadable as error:
        assert str(error).startswith("damaged.parquet: ")


@pytest.mark.parametrize(
    "footer",
    [
        b"\x1c" * 60,
        b"\x19\xfc" + b"\xff" * 9 + b"\x01",
        b"\x16" + b"\xff" * 11,
        b"\x18\xff\x7f",
        b"\x1b\x00",
        b"",
    ],
    ids=["deep", "long_list", "long_number", "text_cut", "map", "empty"],
)
def test_hostile_footer_is_refused(footer: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(SourceUnreadable, match="damaged footer"):
        check_num_values(path)
