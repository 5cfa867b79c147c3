"""One's own graph in CSV and Parquet: ids of any type, labels, splits, features, weights, spelling."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from pydantic import TypeAdapter

from gcl.errors import InvalidGraph, SourceUnreadable
from gcl.readers import AnyDataset, GraphSource, open_source, source_files
from tests.sources import CSV_MANIFEST, EDGES, NODES, own_csv, own_parquet


def opened(overrides: dict[str, Any]) -> GraphSource:
    return open_source(TypeAdapter(AnyDataset).validate_python(overrides))


def edges_of(source: GraphSource) -> list[tuple[int, int]]:
    return [(int(s), int(d)) for c in source.edge_chunks() for s, d in zip(c.src, c.dst, strict=True)]


def labels_of(source: GraphSource) -> list[int]:
    return np.concatenate(list(source.label_chunks())).tolist()


def features_of(source: GraphSource) -> list[list[float]]:
    blocks = list(source.feature_chunks())
    assert all(block.dtype == np.float32 for block in blocks)
    return np.concatenate([b.toarray() if sp.issparse(b) else b for b in blocks]).tolist()


def manifest(text: str, *, nodes: str = "", edges: str = "") -> bytes:
    return (
        f'[nodes]\nfile = "nodes.csv"\nid = "id"\n{text}{nodes}[edges]\nfile = "edges.csv"\n{edges}'.encode()
    )


def test_csv_gives_the_graph_of_its_manifest(tmp_path: Path) -> None:
    source = opened(own_csv(tmp_path))
    assert source.node_ids.to_pylist() == ["ann", "bob", "cyd"]
    assert edges_of(source) == [(0, 1), (1, 2)]
    assert features_of(source) == [[1, 2], [3, 4], [5, 6]]
    assert (source.class_names, labels_of(source)) == (("x", "y"), [0, 1, 0])
    assert (source.is_directed, source.has_weights, source.splits) == (False, False, ())


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b"\xef\xbb\xbf" + b,
        lambda b: b.replace(b"\n", b"\r\n"),
        lambda b: b.replace(b"bob", b'"bob"'),
        lambda b: b.removesuffix(b"\n"),
        lambda b: b + b"\n\n",
    ],
    ids=["bom", "crlf", "quotes", "no_last_newline", "blank_lines"],
)
def test_csv_spelled_otherwise_is_the_same_table(change: Any, tmp_path: Path) -> None:
    source = opened(own_csv(tmp_path, nodes=change(NODES), edges=change(EDGES), manifest=CSV_MANIFEST))
    assert source.node_ids.to_pylist() == ["ann", "bob", "cyd"]
    assert edges_of(source) == [(0, 1), (1, 2)]
    assert labels_of(source) == [0, 1, 0]
    assert features_of(source) == [[1, 2], [3, 4], [5, 6]]


def test_csv_values_that_look_like_something_are_what_they_are(tmp_path: Path) -> None:
    """ "nan", "NA", "true" and "001" are labels and ids like any others; line breaks may stand in quotes."""
    nodes = b'id,label\n001,nan\n1,NA\n"a\nb",true\n1.0,\n'
    edges = b'source,target\n001,1\n1.0,"a\nb"\n'
    source = opened(own_csv(tmp_path, nodes=nodes, edges=edges, manifest=manifest('label = "label"\n')))
    assert source.node_ids.to_pylist() == ["001", "1", "a\nb", "1.0"]
    assert edges_of(source) == [(0, 1), (3, 2)]
    assert source.class_names == ("NA", "nan", "true")
    assert labels_of(source) == [1, 0, 2, -1]


def test_csv_integer_ids_are_exact_beyond_doubles(tmp_path: Path) -> None:
    big = [2**63 - 1, 2**53 + 1, 2**53, -5]
    nodes = "id\n" + "\n".join(map(str, big)) + "\n"
    edges = f"source,target\n{2**53},{2**53 + 1}\n{2**63 - 1},-5\n"
    source = opened(
        own_csv(
            tmp_path, nodes=nodes.encode(), edges=edges.encode(), manifest=manifest('id_type = "int64"\n')
        )
    )
    assert source.node_ids.type == pa.int64()
    assert source.node_ids.to_pylist() == big
    assert edges_of(source) == [(2, 1), (0, 3)]


def test_csv_ids_in_order_from_zero_need_no_mapping(tmp_path: Path) -> None:
    source = opened(
        own_csv(
            tmp_path,
            nodes=b"id\n0\n1\n2\n",
            edges=b"source,target\n2,0\n",
            manifest=manifest('id_type = "int64"\n'),
        )
    )
    assert source.node_ids is None
    assert edges_of(source) == [(2, 0)]


def test_csv_integer_id_beyond_int64_is_refused(tmp_path: Path) -> None:
    nodes = b"id\n9223372036854775808\n"
    with pytest.raises(SourceUnreadable, match="Row #2"):
        opened(own_csv(tmp_path, nodes=nodes, manifest=manifest('id_type = "int64"\n')))


def test_csv_sparse_features_by_index_and_value(tmp_path: Path) -> None:
    nodes = b"id,words\na,3 1:0.5\nb,\nc,0:2 0:1\n"
    toml = manifest('sparse_features = "words"\nnum_features = 4\n')
    source = opened(own_csv(tmp_path, nodes=nodes, edges=b"source,target\na,b\n", manifest=toml))
    assert source.has_sparse_features
    assert source.num_features == 4
    assert features_of(source) == [[0, 0.5, 0, 1], [0, 0, 0, 0], [3, 0, 0, 0]]


@pytest.mark.parametrize(
    ("item", "match"), [("4", "lies outside"), ("-1", "lies outside"), ("x:1", "neither")]
)
def test_csv_sparse_feature_that_is_none_is_refused(item: str, match: str, tmp_path: Path) -> None:
    toml = manifest('sparse_features = "words"\nnum_features = 4\n')
    source = opened(
        own_csv(
            tmp_path, nodes=f"id,words\na,0\nb,{item}\n".encode(), edges=b"source,target\n", manifest=toml
        )
    )
    with pytest.raises(SourceUnreadable, match=f"node 1.*{match}"):
        list(source.feature_chunks())


def test_csv_prefix_names_features_in_the_order_of_the_file(tmp_path: Path) -> None:
    nodes = b"id,x_9,note,x_1\na,1,hello,2\n"
    source = opened(
        own_csv(tmp_path, nodes=nodes, edges=b"source,target\n", manifest=manifest('features = "x_*"\n'))
    )
    assert features_of(source) == [[1, 2]]
    with pytest.raises(SourceUnreadable, match="no feature column 'z_"):
        opened(own_csv(tmp_path, nodes=nodes, manifest=manifest('features = "z_*"\n')))
    with pytest.raises(SourceUnreadable, match="named twice"):
        opened(own_csv(tmp_path, nodes=nodes, manifest=manifest('features = ["x_*", "x_1"]\n')))


def test_csv_split_column_becomes_a_split(tmp_path: Path) -> None:
    nodes = b"id,role\na,test\nb,\nc,train\nd,validation\ne,train\n"
    source = opened(
        own_csv(tmp_path, nodes=nodes, edges=b"source,target\n", manifest=manifest('split = "role"\n'))
    )
    (split,) = source.splits
    assert split.name == "given"
    assert [part.tolist() for part in (split.train, split.validation, split.test)] == [[2, 4], [3], [0]]
    with pytest.raises(SourceUnreadable, match="node 1: 'Test'"):
        opened(own_csv(tmp_path, nodes=b"id,role\na,test\nb,Test\n", manifest=manifest('split = "role"\n')))


def test_csv_number_classes_are_in_order_of_value(tmp_path: Path) -> None:
    nodes = b"id,label\na,10\nb,9\nc,-1\n"
    source = opened(
        own_csv(tmp_path, nodes=nodes, edges=b"source,target\n", manifest=manifest('label = "label"\n'))
    )
    assert source.class_names == ("-1", "9", "10")
    assert labels_of(source) == [2, 1, 0]


def test_csv_directed_and_weighted(tmp_path: Path) -> None:
    toml = manifest("", edges='source = "from"\ntarget = "to"\nweight = "w"\ndirected = true\n')
    edges = b"w,to,from\n0.5,b,a\n"
    overrides = own_csv(tmp_path, nodes=b"id\na\nb\n", edges=edges, manifest=toml)
    with pytest.raises(InvalidGraph, match="weights_decided"):
        opened(overrides)
    source = opened(overrides | {"weights": "honour"})
    (chunk,) = source.edge_chunks()
    assert (chunk.src.tolist(), chunk.dst.tolist(), chunk.weight.tolist()) == ([0], [1], [0.5])
    assert source.is_directed
    assert source.has_weights


def test_unknown_endpoints_are_counted_and_named_by_their_own_ids(tmp_path: Path) -> None:
    edges = b"source,target\n" + b"ann,zoe\n" * 12
    source = opened(own_csv(tmp_path, edges=edges))
    with pytest.raises(InvalidGraph) as caught:
        list(source.edge_chunks())
    assert (caught.value.column, caught.value.num_rows, len(caught.value.sample)) == ("dst", 12, 10)
    assert caught.value.sample[0] == "edges.csv, row 1: 'zoe'"


def test_source_files_are_manifest_and_tables(tmp_path: Path) -> None:
    config = TypeAdapter(AnyDataset).validate_python(own_csv(tmp_path))
    assert {role: path.name for role, path in source_files(config).items()} == {
        "manifest": "graph.toml", "nodes": "nodes.csv", "edges": "edges.csv",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        'features = "a"\nsparse_features = "b"\nnum_features = 2\n',
        'sparse_features = "b"\n',
        "num_features = 3\n",
        'id_type = "float"\n',
    ],
)
def test_manifest_that_contradicts_itself_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="graph.toml: nodes"):
        opened(own_csv(tmp_path, manifest=manifest(text)))


def test_parquet_gives_the_same_graph_for_every_type_of_list(tmp_path: Path) -> None:
    rows = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    for type_ in (
        pa.list_(pa.float64()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float32(), 2),
        pa.list_(pa.int16()),
    ):
        values = pa.array(
            [[int(v) for v in r] for r in rows] if pa.types.is_integer(type_.value_type) else rows, type_
        )
        source = opened(own_parquet(tmp_path, x=values))
        assert features_of(source) == rows
        assert source.node_ids.to_pylist() == [10, 20, 30]
        assert edges_of(source) == [(0, 1), (1, 2)]


@pytest.mark.parametrize("type_", [pa.int8(), pa.uint32(), pa.uint64()])
def test_parquet_ids_of_any_integer_type_are_cast_without_loss(type_: pa.DataType, tmp_path: Path) -> None:
    ids = {
        "id": pa.array([30, 20, 10], type_),
        "edge_source": pa.array([10], type_),
        "edge_target": pa.array([30]),
    }
    source = opened(own_parquet(tmp_path, **ids))
    assert source.node_ids.type == pa.int64()
    assert edges_of(source) == [(2, 0)]


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_string_ids_of_any_kind(type_: pa.DataType, tmp_path: Path) -> None:
    ids = pa.array(["001", "1", "x"], pa.string()).cast(type_)
    ends = {"edge_source": pa.array(["1"]), "edge_target": pa.array(["001"])}
    source = opened(own_parquet(tmp_path, id_type="string", id=ids, **ends))
    assert source.node_ids.to_pylist() == ["001", "1", "x"]
    assert edges_of(source) == [(1, 0)]


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([True, False, True]),
        pa.array([b"a", b"b", b"c"]),
        pa.array([1.0, 2.0, 3.0]),
        pa.array(["1", "2", "3"]),
    ],
    ids=["bool", "binary", "float", "text"],
)
def test_parquet_ids_of_another_type_than_declared_are_refused(ids: pa.Array, tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="declared int64"):
        opened(own_parquet(tmp_path, id=ids))


def test_parquet_sparse_features_labels_and_dense_columns(tmp_path: Path) -> None:
    nodes = pa.table(
        {
            "id": ["a", "b"],
            "i": pa.array([[2, 0], []], pa.list_(pa.int32())),
            "v": pa.array([[0.5, 1.0], []], pa.list_(pa.float32())),
            "u": [1, 2],
            "y": pa.array([7, None]),
        }
    )
    pq.write_table(nodes, tmp_path / "n.parquet")
    pq.write_table(pa.table({"source": ["a"], "target": ["b"]}), tmp_path / "e.parquet")
    head, tail = '[nodes]\nfile = "n.parquet"\nid = "id"\nlabel = "y"\n', '[edges]\nfile = "e.parquet"\n'
    (tmp_path / "graph.toml").write_text(f'{head}sparse_features = ["i", "v"]\nnum_features = 3\n{tail}')
    source = opened({"format": "parquet", "path": str(tmp_path)})
    assert features_of(source) == [[1, 0, 0.5], [0, 0, 0]]
    assert (source.class_names, labels_of(source)) == (("7",), [0, -1])
    (tmp_path / "graph.toml").write_text(f'{head}features = ["u"]\n{tail}')
    assert features_of(opened({"format": "parquet", "path": str(tmp_path)})) == [[1], [2]]


def test_parquet_null_value_is_nan_for_the_contracts_to_see(tmp_path: Path) -> None:
    values = pa.array([[1.0, None], [1.0, 2.0], [1.0, 2.0]], pa.list_(pa.float32()))
    assert np.isnan(features_of(opened(own_parquet(tmp_path, x=values)))[0][1])


@pytest.mark.parametrize("values", [pa.array([["a"]] * 3), pa.array([1, 2, 3]).cast(pa.string())])
def test_parquet_features_that_are_no_numbers_are_refused(values: pa.Array, tmp_path: Path) -> None:
    source = opened(own_parquet(tmp_path, x=values))
    with pytest.raises(SourceUnreadable, match="expected numbers"):
        list(source.feature_chunks())


def test_sliced_lists_are_read_from_their_own_offsets(tmp_path: Path) -> None:
    """Batches of a long column are slices: their lists do not begin at offset zero."""
    count = 70_000
    x = pa.array(np.arange(2 * count, dtype=np.float32).reshape(count, 2).tolist(), pa.list_(pa.float32()))
    source = opened(
        own_parquet(
            tmp_path, id=pa.array(range(count)), x=x, edge_source=pa.array([0]), edge_target=pa.array([1])
        )
    )
    blocks = list(source.feature_chunks())
    assert len(blocks) > 1
    assert np.array_equal(np.concatenate(blocks).ravel(), np.arange(2 * count))
