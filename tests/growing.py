"""A small CSV graph that grows: as it was at training, with new nodes, and with new nodes from elsewhere."""

from pathlib import Path

import numpy as np

from flows.config import PipelineConfig, load_config

NUM_OLD, NUM_NEW, NUM_FEATURES = 160, 40, 6
SETTINGS = (
    "dataset.format=csv", "dataset.name=growing", "method.embedding_size=8", "train.epochs=8",
    "train.batch_size=64", "cluster.num_clusters=3", "cluster.num_restarts=1", "cluster.num_stability_runs=0",
    "evaluate.num_clustering_seeds=1", "evaluate.num_restarts=1",
)  # fmt: skip
MANIFEST = """[nodes]
file = "nodes.csv"
id = "id"
features = "x_*"
[edges]
file = "edges.csv"
"""


def write_source(
    folder: Path,
    *,
    num_new: int = 0,
    num_missing: int = 0,
    moved: float = 0.0,
    num_features: int = NUM_FEATURES,
) -> Path:
    """Write the source; every call draws the same graph and leaves out what is not asked for.

    Args:
        folder: made where it is missing.
        num_new: nodes beside the 160 old ones, at most 40; they stand first in the file.
        num_missing: old nodes left out.
        moved: added to every feature of the new nodes.
        num_features: columns, at most 6.
    """
    draws = np.random.default_rng(1)
    num_nodes = NUM_OLD + NUM_NEW
    class_N = draws.integers(0, 3, num_nodes)
    x_NF = 3 * draws.standard_normal((3, NUM_FEATURES))[class_N]
    x_NF += draws.standard_normal((num_nodes, NUM_FEATURES))
    x_NF[NUM_OLD:] += moved
    edges = [
        (node, other)
        for node in range(num_nodes)
        for other in draws.choice(np.flatnonzero(class_N == class_N[node]), 3)
        if node != other
    ]
    nodes = [*range(NUM_OLD, NUM_OLD + num_new), *range(num_missing, NUM_OLD)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.toml").write_text(MANIFEST)
    rows = (",".join([f"n{node}", *(f"{x:.5f}" for x in x_NF[node, :num_features])]) for node in nodes)
    header = ",".join(["id", *(f"x_{column}" for column in range(num_features))])
    (folder / "nodes.csv").write_text("\n".join([header, *rows]) + "\n")
    kept = (f"n{src},n{dst}" for src, dst in edges if src in nodes and dst in nodes)
    (folder / "edges.csv").write_text("\n".join(["source,target", *kept]) + "\n")
    return folder


def growing(path: Path, *overrides: str) -> PipelineConfig:
    """The settings of a small run on such a source."""
    given = [*SETTINGS, f"dataset.path={path}", *overrides]
    return load_config(preset="none", overrides=given)[0]
