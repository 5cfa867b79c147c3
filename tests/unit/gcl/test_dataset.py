"""Data sets in memory: the graph the readers stream, whole."""

import numpy as np
import pytest
import scipy.sparse as sp
from pydantic import TypeAdapter

import gcl
from gcl.dataset import read_dataset
from gcl.errors import InvalidGraph, SourceUnreadable, UnsuitableSetting
from gcl.graph import Graph
from gcl.readers import AnyDataset, open_source


def test_digits_are_the_readers_digits():
    dataset = read_dataset("digits_knn", k=3)
    source = open_source(TypeAdapter(AnyDataset).validate_python({"format": "digits_knn", "k": 3}))
    (chunk,) = source.edge_chunks()
    expected = Graph.from_edges(chunk.src, chunk.dst, np.concatenate(list(source.feature_chunks())))
    assert np.array_equal(dataset.graph.src_E, expected.src_E)
    assert np.array_equal(dataset.graph.dst_E, expected.dst_E)
    assert np.array_equal(dataset.graph.x_NF, expected.x_NF)
    assert dataset.graph.node_ids is None
    assert dataset.labels.num_classes == 10
    assert len(dataset.labels.y_N) == dataset.graph.num_nodes
    assert [split.name for split in dataset.splits] == ["digits-20"]


def test_own_tables_keep_their_ids_and_missing_labels(tmp_path):
    (tmp_path / "nodes.csv").write_text("user,team,age\nann,red,31\nbob,blue,25\ncyd,,40\n")
    (tmp_path / "edges.csv").write_text("from,to\nann,bob\nbob,cyd\n")
    (tmp_path / "graph.toml").write_text(
        '[nodes]\nfile = "nodes.csv"\nid = "user"\nlabel = "team"\nfeatures = ["age"]\n'
        '[edges]\nfile = "edges.csv"\nsource = "from"\ntarget = "to"\n'
    )
    dataset = gcl.read_dataset("csv", path=tmp_path)
    assert dataset.graph.node_ids == ("ann", "bob", "cyd")
    assert dataset.graph.src_E.tolist() == [0, 1, 1, 2]
    assert dataset.graph.x_NF.tolist() == [[31], [25], [40]]
    assert dataset.labels.y_N.tolist() == [1, 0, -1]
    (tmp_path / "edges.csv").write_text("from,to\nann,bob\nbob,bob\n")
    assert gcl.read_dataset("csv", path=tmp_path).graph.num_edges == 2
    with pytest.raises(InvalidGraph, match="no_self_loops"):
        gcl.read_dataset("csv", path=tmp_path, self_loops="reject")
    (tmp_path / "nodes.csv").write_text("user,team,age\nann,red,31\nbob,blue,nan\n")
    with pytest.raises(InvalidGraph, match="features_finite"):
        gcl.read_dataset("csv", path=tmp_path)


@pytest.mark.real_data
def test_cora_has_its_published_size(real_data):
    folders = [path.parent for path in sorted(real_data.rglob("ind.cora.x"))]
    if not folders:
        pytest.skip("no Planetoid files of Cora among the public graphs")
    dataset = read_dataset("planetoid", path=folders[0], name="cora")
    assert (dataset.graph.num_nodes, dataset.graph.num_edges) == (2708, 10556)
    assert sp.issparse(dataset.graph.x_NF)
    assert dataset.graph.num_features == 1433
    assert dataset.labels.num_classes == 7


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"format": "no_such"}, ValueError, "no reader for the format 'no_such'; known:"),
        ({"format": "digits_knn", "k": 0}, ValueError, r"k: .* \(got 0\)"),
        ({"format": "digits_knn", "kk": 3}, ValueError, "kk: there is no such setting"),
        ({"format": "digits_knn", "edge_holdout": 0.1}, UnsuitableSetting, "edge_holdout"),
        ({"format": "tu_text", "path": "x"}, UnsuitableSetting, "tu_text holds many graphs: .*_collection"),
        ({"format": "csv", "path": "nowhere"}, SourceUnreadable, "nowhere"),
    ],
)
def test_what_cannot_be_read_is_named(fields, error, message):
    with pytest.raises(error, match=message):
        read_dataset(**fields)
