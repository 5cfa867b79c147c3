"""The example in docs/own-data.md does what it says."""

import re
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from gcl.readers import AnyDataset, open_source
from gcl.readers.manifest import EdgeTable, NodeTable

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "own-data.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def check(folder: Path, format_name: str, num_features: int) -> None:
    source = open_source(
        TypeAdapter(AnyDataset).validate_python({"format": format_name, "path": str(folder)})
    )
    assert source.node_ids.to_pylist() == ["ann", "bob", "cyd"]
    assert source.class_names == ("blue", "red")
    assert np.concatenate(list(source.label_chunks())).tolist() == [1, 0, -1]
    assert np.concatenate(list(source.feature_chunks())).shape == (3, num_features)
    assert [(c.src.tolist(), c.dst.tolist()) for c in source.edge_chunks()] == [([0, 1], [1, 2])]


def test_csv_example_is_a_graph(tmp_path: Path) -> None:
    nodes, edges = blocks("csv")[:2]
    (tmp_path / "nodes.csv").write_text(nodes)
    (tmp_path / "edges.csv").write_text(edges)
    (tmp_path / "graph.toml").write_text(blocks("toml")[0])
    check(tmp_path, "csv", 2)


def test_parquet_example_is_the_same_graph(tmp_path: Path) -> None:
    (tmp_path / "graph.toml").write_text(blocks("toml")[1])
    exec(blocks("python")[0].replace("my-graph", str(tmp_path)), {})
    check(tmp_path, "parquet", 64)


def test_page_names_every_key_of_the_manifest() -> None:
    keys = [f"nodes.{name}" for name in NodeTable.model_fields] + [
        f"edges.{name}" for name in EdgeTable.model_fields
    ]
    assert [key for key in keys if f"`{key}`" not in PAGE] == []
