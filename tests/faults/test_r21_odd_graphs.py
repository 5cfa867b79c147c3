"""R21, R22, R23, R26: no edges, a single node, isolated nodes, odd ids, one class, no labels.

Every one runs to the end, or ends with one of our own errors that says why; nothing is published half.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.config import PipelineConfig, load_config
from flows.exit_codes import describe
from gcl.errors import NotDefined, UnsuitableSetting
from tasks.store import Store
from tests.methods import ON_ONE_GRAPH
from tests.tiny_runs import TINY, DirectRun, run_direct

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.usefixtures("quick")]
MANIFEST = """
[nodes]
file = "nodes.csv"
id = "id"
id_type = "{id_type}"
{label}
features = ["u", "v", "w"]
[edges]
file = "edges.csv"
source = "source"
target = "target"
"""


def graph(folder: Path, *, num_nodes: int, edges: list[tuple[int, int]], method: str = "dmat_i",
          classes: int | None = 3, ids: list[Any] | None = None) -> PipelineConfig:  # fmt: skip
    """A graph as CSV, and settings that read it."""
    folder.mkdir(parents=True, exist_ok=True)
    draws, ids = np.random.default_rng(0), ids or [f"n{i}" for i in range(num_nodes)]
    names = ["id", *(["label", "role"] if classes else []), "u", "v", "w"]
    rows = [",".join(names)]
    for i in range(num_nodes):
        known = [f"c{i % classes}", "train" if i % 2 else "test"] if classes else []
        rows.append(",".join(map(str, [ids[i], *known, *draws.normal(size=3).round(3)])))
    (folder / "nodes.csv").write_text("\n".join(rows) + "\n")
    lines = [f"{ids[a]},{ids[b]}" for a, b in edges]
    (folder / "edges.csv").write_text("\n".join(["source,target", *lines]) + "\n")
    (folder / "graph.toml").write_text(
        MANIFEST.format(
            id_type="string" if isinstance(ids[0], str) else "int64",
            label='label = "label"' * bool(classes) + '\nsplit = "role"' * (method == "dmt"),
        )
    )
    drop = ("dataset.", "method.name")
    plain = [item for item in TINY if not item.startswith(drop)]
    extra = ["method.num_clusters=3"] if method == "hsan" else []
    source = [f"dataset.path={folder}", "dataset.format=csv", "dataset.name=odd", f"method.name={method}"]
    return load_config(preset="none", overrides=[*source, *plain, *extra])[0]


def embeddings(run: DirectRun) -> np.ndarray:
    table = pq.read_table(run.state.store.path(run.state.artifacts["embeddings"]) / "embeddings.parquet")
    return np.array(table.column("z").to_pylist())


def ring(num_nodes: int) -> list[tuple[int, int]]:
    return [(i, (i + step) % num_nodes) for i in range(num_nodes) for step in (1, 3)]


@pytest.mark.parametrize("method", ON_ONE_GRAPH)
def test_isolated_nodes_get_finite_embeddings(method: str, tmp_path: Path) -> None:
    """The last fifteen of sixty nodes have no edge, as in the CiteSeer of the Planetoid files."""
    config = graph(tmp_path / "g", num_nodes=60, edges=ring(45), method=method)
    z_ND = embeddings(run_direct(config, tmp_path / "store", until="train"))
    assert len(z_ND) == 60
    assert np.isfinite(z_ND).all()


@pytest.mark.parametrize("method", ON_ONE_GRAPH)
def test_a_graph_without_edges_runs_or_says_why_not(method: str, tmp_path: Path) -> None:
    config = graph(tmp_path / "g", num_nodes=60, edges=[], method=method)
    try:
        run = run_direct(config, tmp_path / "store", until="cluster")
    except (NotDefined, UnsuitableSetting) as error:
        assert len(describe(error)) > 20
        return
    assert np.isfinite(embeddings(run)).all()


@pytest.mark.parametrize("method", ON_ONE_GRAPH)
def test_a_single_node_is_refused_by_name_and_not_by_accident(method: str, tmp_path: Path) -> None:
    config = graph(tmp_path / "g", num_nodes=1, edges=[], method=method, classes=1)
    with pytest.raises((NotDefined, UnsuitableSetting)) as caught:
        run_direct(config, tmp_path / "store", until="evaluate")
    assert "Traceback" not in describe(caught.value)
    assert {stage for stage, _ in Store(tmp_path / "store").folders()} <= {"ingest", "smooth", "train"}


@pytest.mark.parametrize("classes", [None, 1], ids=["no labels", "one class"])
def test_without_two_classes_clusters_come_and_accuracies_do_not(classes: int | None, tmp_path: Path) -> None:
    config = graph(tmp_path / "g", num_nodes=60, edges=ring(60), classes=classes)
    run = run_direct(config, tmp_path / "store", until="evaluate")
    path = {kind: run.state.store.path(artifact) for kind, artifact in run.state.artifacts.items()}
    assert len(set(pq.read_table(path["clusters"] / "clusters.parquet").column("cluster").to_pylist())) == 3
    metrics = pq.read_table(path["metrics"] / "metrics.parquet").to_pylist()
    by_label = {"accuracy", "macro_f1", "nmi", "ari"}
    assert not [row for row in metrics if row["metric"] in by_label], "nothing is 100 % for want of a choice"


@pytest.mark.parametrize(
    "first", [["001", "1", "01", "1.0"], [2**63 - 1, 2**53 + 1, 2**53, -(2**63)]], ids=["text", "int64"]
)
def test_odd_ids_come_out_with_the_embeddings_as_they_went_in(first: list[Any], tmp_path: Path) -> None:
    more = [f"n{i}" for i in range(56)] if isinstance(first[0], str) else list(range(1000, 1056))
    ids = [*first, *more]
    config = graph(tmp_path / "g", num_nodes=60, edges=ring(60), ids=ids)
    run = run_direct(config, tmp_path / "store", until="train")
    table = pq.read_table(run.state.store.path(run.state.artifacts["embeddings"]) / "embeddings.parquet")
    assert table.column("node_id").to_pylist() == ids
    assert table.column("node").to_pylist() == list(range(60))
