"""Sources of other formats as gconstruct folders in Parquet: what is read back is what was written."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from gcl.graph import Split
from gcl.hetero_findings import InvalidHetero, UnreadableHetero
from gcl.interop_hetero import from_arrays
from gcl.metapaths import build_metapaths
from gcl.readers import AnyDataset, open_source
from gcl.readers.gconstruct import GconstructConfig, source_files
from gcl.readers.gconstruct import open_source as read_back
from gcl.readers.gconstruct_writer import write_gconstruct
from gcl.readers.hetero_base import HeteroSource
from gcl.readers.hetero_held import held_source
from tests.hetero_sources import dgl_csv, gconstruct_csv, gconstruct_parquet, heco, heco_acm


def opened(overrides: dict[str, Any]) -> HeteroSource:
    from pydantic import TypeAdapter

    source: HeteroSource = open_source(
        TypeAdapter(AnyDataset).validate_python({"weights": "honour"} | overrides)
    )
    return source


def assert_same(first: HeteroSource, second: HeteroSource) -> None:
    assert first.graph.target == second.graph.target
    assert dict(first.graph.num_nodes) == dict(second.graph.num_nodes)
    assert first.graph.edges.keys() == second.graph.edges.keys()
    for relation, edges in first.graph.edges.items():
        np.testing.assert_array_equal(edges, second.graph.edges[relation])
    assert first.graph.features.keys() == second.graph.features.keys()
    for type_, x_NF in first.graph.features.items():
        other = second.graph.features[type_]
        assert sp.issparse(x_NF) == sp.issparse(other)
        assert (abs(x_NF - other) if sp.issparse(x_NF) else np.abs(x_NF - other)).max() == 0
    assert all(first.node_ids[type_].equals(second.node_ids[type_]) for type_ in first.node_ids)
    assert first.class_names == second.class_names
    np.testing.assert_array_equal(first.y_N, second.y_N)
    for one, other in zip(first.splits, second.splits, strict=True):
        assert one.name == other.name
        for role in ("train", "validation", "test"):
            np.testing.assert_array_equal(getattr(one, role), getattr(other, role))
    assert first.metapaths == second.metapaths
    assert {relation: list(weights) for relation, weights in first.graph.weights.items()} == {
        relation: list(weights) for relation, weights in second.graph.weights.items()
    }


@pytest.mark.parametrize("build", [gconstruct_csv, gconstruct_parquet, dgl_csv, heco, heco_acm])
def test_what_is_written_is_read_back(build: Any, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    source = opened(build(tmp_path / "source"))
    write_gconstruct(tmp_path / "written", source)
    config = GconstructConfig(path=tmp_path / "written", weights="honour")
    assert source_files(config)
    assert_same(source, read_back(config))


def test_a_written_file_that_changes_is_noticed(tmp_path: Path) -> None:
    source = opened(heco(tmp_path))
    write_gconstruct(tmp_path / "written", source)
    fewer = replace(source, splits=source.splits[:1])
    write_gconstruct(tmp_path / "other", fewer)
    name = "edges/movie__ma__actor.parquet"
    (tmp_path / "written" / name).write_bytes(
        (tmp_path / "other" / name.replace("ma__actor", "md__director")).read_bytes()
    )
    with pytest.raises(UnreadableHetero, match="H17 .*movie__ma__actor"):
        read_back(GconstructConfig(path=tmp_path / "written"))


@pytest.mark.parametrize(
    "relation",
    [
        ("../../escaped", "buys", "item"),
        ("end user", "buys", "item"),
        ("a/user", "buys", "item"),
        ("user", "ex:buys", "item"),
        ("user", "buys", "item" * 17),
    ],
)
def test_names_that_a_manifest_does_not_take_are_refused_before_anything_is_written(
    relation: tuple[str, str, str], tmp_path: Path
) -> None:
    graph = from_arrays({relation: ([0], [0])}, {relation[0]: 1, relation[2]: 1}, target=relation[0])
    (bad,) = (name for name in relation if name not in ("user", "buys", "item"))
    with pytest.raises(InvalidHetero, match="H07 .*broken by 1 row.*A to Z, a to z, digits and _") as caught:
        write_gconstruct(tmp_path / "deep" / "deeper" / "written", held_source(graph))
    assert repr(bad) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_would_not_be_read_back_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    none = np.zeros(0, np.int64)

    def refuse(told: str, *relations: tuple[str, str, str], **changes: Any) -> None:
        types = {name for relation in relations for name in (relation[0], relation[2])}
        edges = {relation: ([0], [number]) for number, relation in enumerate(relations)}
        graph = from_arrays(edges, dict.fromkeys(types, len(relations)), target=relations[0][0])
        with pytest.raises(InvalidHetero, match=f"H07 .*{told}"):
            write_gconstruct(tmp_path / "written", replace(held_source(graph), **changes))
        assert list(tmp_path.iterdir()) == []

    refuse("two tables would be the file 'edges/a__b__c__d", ("a__b", "c", "d"), ("a", "b__c", "d"))
    refuse("two tables would be the file 'nodes/user", ("user", "is", "User"))
    refuse("b/rev_is/a: called the reverse", ("a", "is", "b"), ("b", "rev_is", "a"))
    refuse(r"split '\.\.'", ("a", "is", "b"), splits=(Split("..", none, none, none),))
    refuse("'my split'", ("a", "is", "b"), splits=(Split("my split", none, none, none),))
    refuse("1048576 bytes", ("a", "is", "b"), y_N=none, class_names=("x" * 2**20,))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("acm", [57_853, 4_338_213]),
        ("dblp", [11_113, 5_000_495, 7_043_571]),
        ("freebase", [8_404, 254_702, 10_706]),
    ],
)
def test_heco_in_parquet_has_the_same_metapaths(
    name: str, entries: list[int], real_data: Path, tmp_path: Path
) -> None:
    """The counts, declared in the manifest, are held to when the metapaths are walked."""
    folder = real_data / "heco" / name
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    source = opened({"format": "heco", "path": str(folder), "name": name})
    plans = tuple(replace(plan, nnz=nnz) for plan, nnz in zip(source.metapaths, entries, strict=True))
    write_gconstruct(tmp_path, replace(source, metapaths=plans))
    again = read_back(GconstructConfig(path=tmp_path))
    assert_same(replace(source, metapaths=plans), again)
    found = build_metapaths(again.graph, again.metapaths, max_entries=10**8, seed=0)
    assert [metapath.adjacency_NN.nnz for metapath in found] == entries
