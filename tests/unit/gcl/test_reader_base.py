"""The table of readers, their configurations, and what they share."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from gcl.config import affects_results, result_fields
from gcl.errors import InvalidGraph, SourceUnreadable
from gcl.readers import READERS, AnyDataset, _table, edge_policy, open_source, reader_of
from gcl.readers.base import class_range, existing_file, split_of_masks
from tests.sources import adgc, benchmark, heterophilous, own_csv

ADAPTER = TypeAdapter(AnyDataset)


def test_table_refuses_a_second_reader_of_a_format() -> None:
    reader = READERS["csv"]
    with pytest.raises(ValueError, match="two readers for the format 'csv'"):
        _table([reader, reader])


def test_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="known: adgc_npy, csv, dgl_csv"):
        reader_of("npz")


def test_union_and_table_name_the_same_formats() -> None:
    mapping = ADAPTER.json_schema()["discriminator"]["mapping"]
    assert set(mapping) == set(READERS)


@pytest.mark.parametrize("name", sorted(READERS))
def test_every_field_is_described_and_place_and_name_are_operational(name: str) -> None:
    config = READERS[name].config
    for field_name, field in config.model_fields.items():
        assert field.description or field_name == "format"
    assert config.model_fields["name"].default == name
    assert not affects_results(config, "name")
    assert "path" not in config.model_fields or not affects_results(config, "path")
    assert affects_results(config, "weights")
    assert READERS[name].description
    assert READERS[name].requires


def test_same_content_elsewhere_has_the_same_result_fields() -> None:
    here, there = (ADAPTER.validate_python({"format": "csv", "path": p, "name": p[1:]}) for p in ("/a", "/b"))
    assert result_fields(here) == result_fields(there)


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", "a\0b", "x" * 65, "x" * 5000, "Cora", "-a", ".", "a.b", "con\n", "ä", "a b"]
)
def test_name_that_could_be_a_path_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        ADAPTER.validate_python({"format": "planetoid", "path": "/tmp", "name": name})


@pytest.mark.parametrize(
    "change", [{"edge_holdout": 0.5}, {"edge_holdout": -0.1}, {"seed": -1}, {"weights": "sum"}, {"colour": 1}]
)
def test_field_out_of_bounds_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        ADAPTER.validate_python({"format": "digits_knn"} | change)


def test_importing_readers_imports_no_heavy_library() -> None:
    heavy = ["torch", "sklearn", "pandas", "dgl", "great_expectations", "matplotlib"]
    code = f"import sys, gcl.readers; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_missing_file_is_named_with_its_role(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="labels: there is no file .*gone"):
        existing_file(tmp_path / "gone", "labels")
    with pytest.raises(SourceUnreadable):
        existing_file(tmp_path, "a folder is no file")
    with pytest.raises(SourceUnreadable):
        existing_file(Path("a\0b"), "NUL")


def test_undirected_format_is_symmetrised_whatever_the_policy(tmp_path: Path) -> None:
    undirected = ADAPTER.validate_python(heterophilous(tmp_path) | {"one_way": "keep"})
    assert edge_policy(undirected, open_source(undirected)).one_way == "symmetrise"
    directed = ADAPTER.validate_python(benchmark(tmp_path) | {"one_way": "keep", "self_loops": "keep"})
    policy = edge_policy(directed, open_source(directed))
    assert (policy.one_way, policy.self_loops) == ("keep", "keep")


@pytest.mark.parametrize(("weights", "expected"), [("honour", [3, 1]), ("discard", None)])
def test_weights_are_given_out_or_discarded_as_declared(
    weights: str, expected: list[float] | None, tmp_path: Path
) -> None:
    adj = np.zeros((4, 4), np.float32)
    adj[0, 1], adj[2, 3] = 3, 1
    source = open_source(ADAPTER.validate_python(adgc(tmp_path, adj=adj) | {"weights": weights}))
    (chunk,) = source.edge_chunks()
    assert source.has_weights is (expected is not None)
    assert (chunk.weight.tolist() if expected else chunk.weight) == expected


def test_weight_column_of_ones_is_a_weight_all_the_same(tmp_path: Path) -> None:
    """A declared column is a statement about the graph; only adjacency matrices hold ones for structure."""
    edges = b"source,target,w\nann,bob,1\n"
    manifest = own_csv(tmp_path)  # writes the files
    toml = (tmp_path / "graph.toml").read_text() + 'weight = "w"\n'
    own_csv(tmp_path, edges=edges, manifest=toml.encode())
    with pytest.raises(InvalidGraph, match="weights_decided"):
        open_source(ADAPTER.validate_python(manifest))


def test_class_range_refuses_ids_beyond_the_nodes() -> None:
    assert class_range(np.array([0, 2, 2]), what="y") == ("0", "1", "2")
    assert class_range(np.array([], int), what="y") == ()
    with pytest.raises(InvalidGraph, match="node 1: 1000000000"):
        class_range(np.array([0, 10**9]), what="y")


def test_split_with_a_node_in_two_roles_is_refused() -> None:
    mask = np.array([True, False])
    with pytest.raises(InvalidGraph, match="split s, node 0"):
        split_of_masks("s", mask, mask, ~mask)


def test_feature_and_edge_chunks_start_a_fresh_pass_each_time(tmp_path: Path) -> None:
    source = open_source(ADAPTER.validate_python(adgc(tmp_path)))
    for _ in range(2):
        assert sum(len(chunk.src) for chunk in source.edge_chunks()) == 6
        assert sum(len(block) for block in source.feature_chunks()) == 4
