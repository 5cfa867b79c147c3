"""Which nodes are scored: by kind, or by a file of the source's ids, which may hold anything."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gcl.errors import SourceUnreadable, UnsuitableSetting
from tasks.scored_nodes import wanted_nodes
from tasks.source_digests import digest_sources

TEXT = pa.array(["a", "b", " c", "1"])
NUMBERS = pa.array([5, -3, 2**62 + 1, 1])
ROWS = np.array([2, -1, 0, -1])


def test_new_nodes_are_those_training_has_not_seen() -> None:
    assert wanted_nodes("new", None, TEXT, ROWS).tolist() == [1, 3]
    assert wanted_nodes("all", None, TEXT, ROWS).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("ids", "content", "nodes"),
    [
        (TEXT, b"1\nb\n", [1, 3]),
        (TEXT, b"\xef\xbb\xbfb\r\n\r\na\r\nb", [0, 1]),
        (TEXT, b" c\n", [2]),
        (NUMBERS, b"1\n-3\n4611686018427387905\n", [1, 2, 3]),
        (NUMBERS, b"", []),
        (NUMBERS, b"5\n005\n1\n-03\n-3\n", [0, 1, 3]),
    ],
)
def test_a_file_lists_ids_as_the_source_writes_them(
    ids: pa.Array, content: bytes, nodes: list[int], tmp_path: Path
) -> None:
    (tmp_path / "ids").write_bytes(content)
    assert wanted_nodes("listed", tmp_path / "ids", ids, ROWS).tolist() == nodes


@pytest.mark.parametrize(
    ("ids", "content", "told"),
    [
        (TEXT, b"c\nz\na\n", "2 ids of .* are not in the new data; first: c, z$"),
        (NUMBERS, b"a\n1_0\n 5\n1.0\n99999999999999999999\n", "5 ids of .* are not integers; first: a, 1_0,"),
        (NUMBERS, b"7\n", "1 ids of .* are not in the new data; first: 7$"),
        (NUMBERS, b"8\n08\n", "1 ids of .* are not in the new data; first: 8$"),
        (NUMBERS, b" 5\n", "not integers; first: ' 5'$"),
        (TEXT, b"a \nb\t\nz\n", r"first: 'a ', 'b\\t', z$"),
        (TEXT, b"\xff\xfe\x00", "not a readable text file"),
        (TEXT, b"x\x1b[31m\n", r"first: x\\x1b\[31m$"),
    ],
)
def test_other_ids_are_refused_in_one_line(ids: pa.Array, content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "ids").write_bytes(content)
    with pytest.raises(UnsuitableSetting, match=told) as caught:
        wanted_nodes("listed", tmp_path / "ids", ids, ROWS)
    assert "\n" not in str(caught.value)


def test_at_most_ten_are_named(tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("\n".join(f"x{i}" for i in range(50)))
    with pytest.raises(UnsuitableSetting, match="50 ids of .*first: x0, x1, x2, x3, x4, x5, x6, x7, x8, x9$"):
        wanted_nodes("listed", tmp_path / "ids", TEXT, ROWS)


def test_a_file_that_has_changed_since_its_digest_is_refused(tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    ids.write_text("a\n")
    digest_sources({"nodes": ids}, None)
    assert wanted_nodes("listed", ids, TEXT, ROWS).tolist() == [0]
    ids.write_text("a\nb\n")
    with pytest.raises(SourceUnreadable, match="changed"):
        wanted_nodes("listed", ids, TEXT, ROWS)
