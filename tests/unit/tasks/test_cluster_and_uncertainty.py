"""The bodies of the two stages: what they open, and that arrays in files change no byte of a table."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gcl.clustering.config import ClusterConfig
from gcl.uncertainty import UncertaintyConfig
from gcl.workspace import MEMORY, Workspace
from tasks.cluster import cluster
from tasks.convert import num_rows, read_column, write_columns, write_matrix
from tasks.uncertainty import uncertainty

NUM_NODES = 60
PLAIN = ClusterConfig(num_clusters=3)
MARGIN = UncertaintyConfig(method="cluster_margin")


class FolderWork:
    """What a stage's body asks of `tasks.work.Work`, on plain folders."""

    def __init__(self, folder: Path, name: str, workspace: Workspace = MEMORY) -> None:
        self.folder, self.name, self._workspace = folder, name, workspace
        self.seed, self.inputs, self.facts = 0, {}, {"num_clusters": 3}

    def input(self, kind: str) -> Path:
        return self.folder / kind

    def output(self, kind: str) -> Path:
        target = self.folder / self.name
        target.mkdir(exist_ok=True)
        return target

    def workspace(self) -> Workspace:
        return self._workspace

    def describe(self, *_: Any) -> None: ...

    def expect(self, *_: Any, **__: Any) -> None: ...


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Embeddings of three clusters, and a graph artifact whose edges are missing."""
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "graph").mkdir()
    rng, nodes = np.random.default_rng(0), np.arange(NUM_NODES)
    z_ND = (np.eye(3, 5)[nodes % 3] + 0.2 * rng.normal(size=(NUM_NODES, 5))).astype(np.float32)
    columns = {"node": nodes, "node_id": 7 * nodes}
    path = tmp_path / "embeddings" / "embeddings.parquet"
    write_matrix(path, "embeddings.embeddings", z_ND, column="z", others=columns)
    write_columns(tmp_path / "graph" / "nodes.parquet", "graph.nodes", columns)
    metadata = {"num_nodes": NUM_NODES, "is_undirected": True}
    (tmp_path / "graph" / "metadata.json").write_text(json.dumps(metadata))
    return tmp_path


def add_edges(folder: Path) -> None:
    src = np.arange(NUM_NODES)
    edges = {"src": src, "dst": (src + 3) % NUM_NODES}
    write_columns(folder / "graph" / "edges.parquet", "graph.edges", edges)


@pytest.mark.parametrize(("body", "config"), [(cluster, PLAIN), (uncertainty, MARGIN)])
def test_edges_are_not_opened_where_they_play_no_part(inputs: Path, body: Any, config: Any) -> None:
    body(FolderWork(inputs, "out"), config)
    (table,) = [path for path in (inputs / "out").iterdir() if path.stem in ("clusters", "uncertainty")]
    assert num_rows(table) == NUM_NODES
    assert read_column(table, "node_id").tolist() == [7 * node for node in range(NUM_NODES)]


@pytest.mark.parametrize(
    ("body", "config"),
    [(cluster, ClusterConfig(num_clusters="2..4")), (uncertainty, UncertaintyConfig(method="affinity"))],
)
def test_edges_are_opened_where_they_count(inputs: Path, body: Any, config: Any) -> None:
    with pytest.raises(FileNotFoundError, match="edges"):
        body(FolderWork(inputs, "out"), config)
    add_edges(inputs)
    body(FolderWork(inputs, "out"), config)


@pytest.mark.parametrize(
    ("body", "config"),
    [
        (cluster, PLAIN),
        (cluster, ClusterConfig(num_clusters="2..4")),
        (uncertainty, MARGIN),
        (uncertainty, UncertaintyConfig(method="affinity")),
    ],
)
def test_files_for_arrays_change_no_byte_of_a_table(inputs: Path, body: Any, config: Any) -> None:
    add_edges(inputs)
    body(FolderWork(inputs, "memory"), config)
    body(FolderWork(inputs, "files", Workspace(inputs, in_memory_bytes=0)), config)
    names = sorted(path.name for path in (inputs / "memory").iterdir())
    assert names == sorted(path.name for path in (inputs / "files").iterdir())
    for name in names:
        assert (inputs / "memory" / name).read_bytes() == (inputs / "files" / name).read_bytes(), name
