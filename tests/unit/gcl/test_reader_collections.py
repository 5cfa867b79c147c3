"""Readers of collections: what they give, which features it becomes, and which line they refuse."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from pydantic import TypeAdapter, ValidationError

from gcl.errors import InvalidGraph, SourceUnreadable, UnsafeSource
from gcl.readers import AnyDataset, open_source, reader_of, source_files
from gcl.readers.collection_base import node_features, read_collection
from gcl.readers.text_files import TextFile, integer_table, text_files
from tests.collection_sources import (
    ONE_FILE,
    TU_FILES,
    one_file,
    one_file_zip,
    tu_text,
    tu_text_zip,
    write_zip,
)

ADAPTER = TypeAdapter(AnyDataset)
EDGES = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (4, 5), (5, 4)]
WELL_FORMED = {"folder": tu_text, "zip": tu_text_zip, "one-file": one_file, "one-file-zip": one_file_zip}


def read(overrides, **more):
    return read_collection(ADAPTER.validate_python(overrides | more))


@pytest.mark.parametrize("build", WELL_FORMED.values(), ids=WELL_FORMED.keys())
def test_every_layout_gives_the_same_graphs(build, tmp_path: Path) -> None:
    collection, labels = read(build(tmp_path))
    union = collection.union
    assert collection.num_graphs == 3
    assert collection.graph_N.tolist() == [0, 0, 0, 1, 2, 2]
    assert list(zip(union.src_E.tolist(), union.dst_E.tolist(), strict=True)) == EDGES
    assert sp.issparse(union.x_NF)
    assert union.x_NF.toarray().argmax(1).tolist() == [0, 0, 1, 1, 0, 2]
    assert union.x_NF.sum() == 6
    assert labels.y_N.tolist() == [1, 0, 1]
    assert labels.class_names == ("-1", "1")


def test_source_files_are_the_texts_or_the_archive(tmp_path: Path) -> None:
    config = ADAPTER.validate_python(tu_text(tmp_path))
    assert set(source_files(config)) == {
        "edges", "graph_indicator", "graph_labels", "node_labels", "node_attributes"
    }  # fmt: skip
    for build in (tu_text_zip, one_file_zip, one_file):
        files = source_files(ADAPTER.validate_python(build(tmp_path)))
        assert [path.is_file() for path in files.values()] == [True]


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [
        ("constant", [[1.0]] * 6),
        ("attributes", [[0.5, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 6]]),
        ("degree", [[0, 0, 1], [0, 0, 1], [0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 1, 0]]),
        (
            "labels_and_attributes",
            [
                [1, 0, 0, 0.5, 1],
                [1, 0, 0, 1, 2],
                [0, 1, 0, 2, 3],
                [0, 1, 0, 3, 4],
                [1, 0, 0, 4, 5],
                [0, 0, 1, 5, 6],
            ],
        ),
    ],
)
def test_features_are_what_the_configuration_asks_for(wanted, rows, tmp_path: Path) -> None:
    x_NF = read(tu_text(tmp_path), node_features=wanted)[0].union.x_NF
    assert np.array_equal(x_NF.toarray() if sp.issparse(x_NF) else x_NF, np.array(rows, np.float32))


def test_without_node_labels_features_are_one(tmp_path: Path) -> None:
    collection, _ = read(tu_text(tmp_path, node_labels=None))
    assert np.array_equal(collection.union.x_NF, np.ones((6, 1), np.float32))
    same_tag = ONE_FILE.replace("\n5 ", "\n0 ").replace("\n7 ", "\n0 ")
    assert np.array_equal(read(one_file(tmp_path, same_tag))[0].union.x_NF, np.ones((6, 1), np.float32))


def test_large_degrees_share_the_last_column(tmp_path: Path) -> None:
    x_NF = read(tu_text(tmp_path), node_features="degree", max_degree=1)[0].union.x_NF
    assert x_NF.toarray().argmax(1).tolist() == [1, 1, 1, 0, 1, 1]


def test_graphs_without_labels_or_nodes_are_read(tmp_path: Path) -> None:
    assert read(tu_text(tmp_path, graph_labels=None))[1] is None
    collection, labels = read(tu_text(tmp_path, graph_labels="1\n-1\n1\n2\n"))
    assert collection.num_graphs == len(labels.y_N) == 4
    assert collection.num_nodes_G.tolist() == [3, 1, 2, 0]
    assert read(one_file(tmp_path, ONE_FILE.replace("3\n3 1", "4\n3 1") + "0 1\n"))[0].num_graphs == 4


@pytest.mark.parametrize("text", ["1\n{}\n-1\n", "{}\n-1\n1\n", "-1\n1\n{}\n"])
@pytest.mark.parametrize("none", ["", " ", "nan", "NaN", "?"])
def test_graphs_may_have_no_label(text: str, none: str, tmp_path: Path) -> None:
    given = text.format(none).removesuffix("\n").split("\n")
    expected = [{"-1": 0, "1": 1}.get(label, -1) for label in given]
    collection, labels = read(tu_text(tmp_path, graph_labels=text.format(none)))
    assert collection.num_graphs == 3
    assert labels.y_N.tolist() == expected
    assert labels.class_names == ("-1", "1")
    if none.strip():
        one = ONE_FILE
        for before, label in zip(("3 1\n", "1 -1\n", "2 1\n"), given, strict=True):
            one = one.replace(f"\n{before}", f"\n{before.split()[0]} {label}\n")
        assert read(one_file(tmp_path, one))[1].y_N.tolist() == expected


def test_blank_ends_of_the_labels_are_no_further_graphs(tmp_path: Path) -> None:
    for text in ("1\n-1\n\n\n\n", "1\r\n-1\r\n\r\n \r\n"):
        collection, labels = read(tu_text(tmp_path, graph_labels=text))
        assert collection.num_graphs == 3
        assert labels.y_N.tolist() == [1, 0, -1]
    assert read(tu_text(tmp_path, graph_labels="?\n?\n?\n"))[1] is None, "none has a label"
    by_pandas = read(tu_text(tmp_path, graph_labels="1.0\n\n-1.0\n"))[1]
    assert (by_pandas.y_N.tolist(), by_pandas.class_names) == ([1, -1, 0], ("-1", "1"))
    with pytest.raises(SourceUnreadable, match=r"indicator.txt, line 5: graph 3, .* 2 lines"):
        read(tu_text(tmp_path, graph_labels="1\n-1\n"))


def test_attributes_that_stay_unread_are_told_of(tmp_path: Path) -> None:
    config = ADAPTER.validate_python(tu_text(tmp_path, node_labels=None))
    _, told = node_features(open_source(config), config, np.zeros(6, np.int64))
    assert told == (
        "the constant 1, there being no node labels; "
        "dataset.node_features=attributes takes the 2 node attributes"
    )
    config = ADAPTER.validate_python(tu_text(tmp_path, node_labels=None) | {"node_features": "constant"})
    assert node_features(open_source(config), config, np.zeros(6, np.int64))[1] == "the constant 1"


def test_graphs_without_nodes_are_noted(tmp_path: Path) -> None:
    assert open_source(ADAPTER.validate_python(tu_text(tmp_path))).notes == {}
    config = ADAPTER.validate_python(tu_text(tmp_path, graph_labels="1\n-1\n1\n2\n1\n"))
    assert open_source(config).notes == {"graphs_without_nodes": 2, "first_graph_without_nodes": 4}


def test_attributes_that_are_not_there_are_refused(tmp_path: Path) -> None:
    for wanted in ("attributes", "labels_and_attributes"):
        with pytest.raises(SourceUnreadable, match=f"node_features={wanted}: the source has no node attr"):
            read(one_file(tmp_path), node_features=wanted)


def test_links_cannot_be_held_out_of_many_graphs(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="edge_holdout"):
        ADAPTER.validate_python(tu_text(tmp_path) | {"edge_holdout": 0.1})


def lines(part: str, number: int, text: str) -> dict[str, str]:
    """A part with one line replaced, counted from 1."""
    found = TU_FILES[part].split("\n")
    found[number - 1] = text
    return {part: "\n".join(found)}


@pytest.mark.parametrize(
    ("parts", "error", "match"),
    [
        (lines("A", 3, "2, x"), SourceUnreadable, r"TINY_A.txt, line 3: expected 2 integers: .*' x'"),
        (lines("A", 3, "2"), SourceUnreadable, "TINY_A.txt, line 3: expected 2 integers: found 1"),
        (lines("A", 4, ""), SourceUnreadable, "TINY_A.txt, line 4: expected 2 integers"),
        (lines("A", 2, "2, 1.5"), SourceUnreadable, "TINY_A.txt, line 2: expected 2 integers"),
        (lines("A", 2, "2, " + "9" * 30), SourceUnreadable, "TINY_A.txt, line 2: expected 2 integers"),
        (lines("A", 5, "1, 7"), InvalidGraph, r"endpoints_in_range .*TINY_A.txt, line 5: \(1, 7\)"),
        (lines("A", 5, "0, 1"), InvalidGraph, r"endpoints_in_range .*TINY_A.txt, line 5: \(0, 1\)"),
        (lines("A", 7, "3, 4"), InvalidGraph, r"edges_within_one_graph .*TINY_A.txt, line 7: \(3, 4\)"),
        (lines("graph_indicator", 2, "0"), InvalidGraph, "consecutive .*indicator.txt, line 2: graph 0"),
        (lines("graph_indicator", 5, "1"), InvalidGraph, "consecutive .*indicator.txt, line 5: graph 1"),
        (lines("graph_indicator", 6, "4"), SourceUnreadable, "indicator.txt, line 6: graph 4, .* 3 lines"),
        (lines("graph_indicator", 6, "a"), SourceUnreadable, "indicator.txt, line 6: expected 1 integers"),
        (lines("graph_labels", 2, "1.5"), SourceUnreadable, "graph_labels.txt, line 2: expected 1 integers"),
        (lines("graph_labels", 2, ".0"), SourceUnreadable, "graph_labels.txt, line 2: expected 1 integers"),
        (lines("graph_labels", 2, "yes"), SourceUnreadable, "graph_labels.txt, line 2: expected 1 integers"),
        (lines("node_labels", 4, "1, 2"), SourceUnreadable, "node_labels.txt, line 4: expected 1 integers"),
        ({"node_labels": "0\n0\n"}, SourceUnreadable, "node_labels.txt: 2 lines for 6 nodes"),
        (lines("node_attributes", 2, "1"), SourceUnreadable, "attributes.txt, line 2: expected 2 numbers"),
        (lines("node_attributes", 6, "1, -"), SourceUnreadable, "attributes.txt, line 6: expected 2 numbers"),
        (
            lines("graph_indicator", 6, "1000000000000") | {"graph_labels": None},
            SourceUnreadable,
            "indicator.txt, line 6: graph 1000000000000, and there are 6 nodes and no TINY_graph_labels.txt",
        ),
        ({"graph_indicator": None}, SourceUnreadable, "there is no TINY_graph_indicator.txt"),
        ({"A": None}, SourceUnreadable, "holds the edges of 0 data sets"),
    ],
)
def test_malformed_text_is_refused_by_its_line(parts, error, match, tmp_path: Path) -> None:
    with pytest.raises(error, match=match) as raised:
        read(tu_text(tmp_path, **parts))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("before", "after", "error", "match"),
    [
        ("3\n3 1", "x\n3 1", SourceUnreadable, "line 1: expected the number of graphs"),
        ("3\n3 1", "4\n3 1", SourceUnreadable, "line 11: the file ends where the number of nodes"),
        ("3\n3 1", "2\n3 1", SourceUnreadable, "line 8: nothing may follow the last of 2 graphs"),
        ("3\n3 1", "3\n300 1", SourceUnreadable, "line 2: 300 are announced, and 8 lines follow"),
        ("3\n3 1", "9999999\n3 1", SourceUnreadable, "line 1: 9999999 are announced"),
        ("3\n3 1", "3\n3", SourceUnreadable, "line 2: expected the number of nodes and the label"),
        ("0 2 0 2", "0 2 0", SourceUnreadable, "line 4: expected 2 neighbours: found 1"),
        ("0 2 0 2", "0 2 0 2 0.5", SourceUnreadable, "line 4: expected 0 attributes: found 1"),
        ("0 2 0 2", "0 -1 0 2", SourceUnreadable, "line 4: expected -1 neighbours"),
        ("0 2 0 2", "0 2 0 y", SourceUnreadable, "line 4: expected a tag"),
        ("0 2 0 2", "", SourceUnreadable, "line 4: expected a tag"),
        ("0 2 0 2", "0 2 0 3", InvalidGraph, r"endpoints_in_range .*line 4: a neighbour outside 0\.\.2"),
        ("0 2 0 2", "0 2 0 -1", InvalidGraph, r"endpoints_in_range .*line 4"),
        ("7 1 0", "9" * 30 + " 1 0", SourceUnreadable, "beyond 64 bits"),
    ],
)
def test_malformed_one_file_is_refused_by_its_line(before, after, error, match, tmp_path: Path) -> None:
    with pytest.raises(error, match=match) as raised:
        read(one_file(tmp_path, ONE_FILE.replace(before, after)))
    assert "\n" not in str(raised.value)


def test_attributes_of_the_one_file_layout(tmp_path: Path) -> None:
    lines_of = ONE_FILE.strip().split("\n")
    nodes = [line if i in (0, 1, 5, 7) else f"{line} 0.5 {i}" for i, line in enumerate(lines_of)]
    collection, _ = read(one_file(tmp_path, "\n".join(nodes)), node_features="attributes")
    assert collection.union.x_NF[:, 1].tolist() == [2, 3, 4, 6, 8, 9]


def test_of_several_data_sets_the_named_one_is_read(tmp_path: Path) -> None:
    overrides = tu_text(tmp_path)
    for file in list(tmp_path.glob("TINY_*")):
        (tmp_path / file.name.replace("TINY", "OTHER-1")).write_bytes(file.read_bytes())
    assert read(overrides)[0].num_graphs == read(overrides | {"name": "other1"})[0].num_graphs == 3
    with pytest.raises(SourceUnreadable, match="edges of 2 data sets .* 0 of them named 'third'"):
        read(overrides | {"name": "third"})
    overrides = one_file_zip(tmp_path, {"TINY/OTHER.txt": ONE_FILE})
    assert read(overrides)[0].num_graphs == 3
    with pytest.raises(SourceUnreadable, match="holds 2 texts, 0 of them named 'third'"):
        read(overrides | {"name": "third"})


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ({"../TINY_A.txt": "1, 2\n"}, "points outside the archive"),
        ({"/etc/TINY_A.txt": "1, 2\n"}, "points outside the archive"),
        ({"other/TINY_A.txt": "1, 2\n"}, "occurs twice"),
    ],
)
def test_hostile_archives_are_refused(members, match, tmp_path: Path) -> None:
    with pytest.raises(UnsafeSource, match=match):
        read(tu_text_zip(tmp_path, members))


def test_damaged_archives_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = one_file_zip(tmp_path)
    path = Path(overrides["path"])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceUnreadable, match="not a readable zip archive"):
        read(overrides)
    flipped = bytearray(whole)
    flipped[whole.index(b"TINY/TINY.txt") + 20] ^= 0xFF
    path.write_bytes(flipped)
    with pytest.raises(SourceUnreadable, match=r"TINY\.zip: TINY\.txt"):
        read(overrides)
    path.write_bytes(whole)
    monkeypatch.setattr("gcl.readers.text_files.MAX_FILE_BYTES", 20)
    with pytest.raises(UnsafeSource, match="more than the limit of 20"):
        read(overrides)
    monkeypatch.setattr("gcl.readers.text_files.MAX_MEMBERS", 2)
    with pytest.raises(UnsafeSource, match="more than the limit of 2"):
        read(overrides)


def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gcl.readers.text_files.RATIO_FREE_BYTES", 1000)
    write_zip(tmp_path / "bomb.zip", {"TINY.txt": "0\n" * 1_000_000})
    with pytest.raises(UnsafeSource, match="claims to unpack"):
        read({"format": "tu_powerful_gnns", "path": str(tmp_path / "bomb.zip")})


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe1\x002\x00")
    with pytest.raises(SourceUnreadable, match=r"x\.txt: not UTF-8 text"):
        TextFile("x.txt", tmp_path / "x.txt").read()
    with pytest.raises(SourceUnreadable, match="there is no file or folder"):
        text_files(tmp_path / "absent")
    with pytest.raises(SourceUnreadable, match=r"gone\.txt"):
        TextFile("gone.txt", tmp_path / "gone.txt").read()
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        archive.writestr("a.txt", "1")
    with pytest.raises(SourceUnreadable, match=r"b\.txt"):
        TextFile("b.txt", tmp_path / "e.zip", "b.txt").read()


def test_line_ends_and_blank_ends_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"\xef\xbb\xbf1, 2\r\n 3 ,4\r\n\n \n")
    assert integer_table(TextFile("x.txt", tmp_path / "x.txt"), num_columns=2).tolist() == [[1, 2], [3, 4]]
    (tmp_path / "x.txt").write_bytes(b"")
    assert integer_table(TextFile("x.txt", tmp_path / "x.txt"), num_columns=2).shape == (0, 2)


TABLE = {
    "mutag": ("tu_text", "tu_text/MUTAG", 188, 3371, 3721, 7, [63, 125]),
    "proteins": ("tu_text", "tu_text/PROTEINS", 1113, 43_471, 81_044, 3, [663, 450]),
    "nci1": ("tu_powerful_gnns", "tu_powerful_gnns/NCI1.zip", 4110, 122_747, 132_753, 37, [2053, 2057]),
    "imdb-binary": (
        "tu_powerful_gnns", "tu_powerful_gnns/IMDBBINARY.zip", 1000, 19_773, 96_531, 1, [500, 500]
    ),
}  # fmt: skip


@pytest.mark.real_data
@pytest.mark.parametrize("name", TABLE)
def test_public_collections_have_their_published_sizes(name: str, real_data: Path) -> None:
    format_name, place, *expected = TABLE[name]
    assert reader_of(format_name).holds == "collection"
    collection, labels = read({"format": format_name, "path": str(real_data / place), "name": name})
    union = collection.union
    found = [collection.num_graphs, union.num_nodes, union.num_edges // 2, union.num_features]
    assert [*found, np.bincount(labels.y_N).tolist()] == expected
