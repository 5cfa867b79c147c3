"""Cluster: embeddings become clusters with soft membership, evidence for their number, and stability."""

from collections.abc import Iterator

import numpy as np

from gcl.clustering.config import ClusterConfig
from gcl.clustering.fit import cluster_embeddings
from gcl.workspace import Workspace
from tasks.convert import read_checks, read_graph, read_matrix, read_node_ids, write_columns
from tasks.stage import Stage
from tasks.work import Work


def cluster(work: Work, config: ClusterConfig) -> None:
    """Cluster without labels; at most their number of classes is known, as a fact of the run."""
    workspace = work.workspace()
    z_ND = read_matrix(work.input("embeddings") / "embeddings.parquet", "z", workspace)
    graph = (
        read_graph(work.input("graph"), with_features=False, workspace=workspace)
        if config.needs_graph
        else None
    )
    clustering = cluster_embeddings(
        z_ND,
        config,
        seed=work.seed,
        num_classes=work.facts.get("num_classes"),
        graph=graph,
        checks=_checks(work, num_nodes=len(z_ND), workspace=workspace),
        workspace=workspace,
    )
    folder, node_ids = work.output("clusters"), read_node_ids(work.input("graph"))
    num_clusters = clustering.num_clusters
    write_columns(
        folder / "clusters.parquet",
        "clusters.clusters",
        {
            "node": np.arange(len(z_ND)),
            "node_id": node_ids,
            "cluster": clustering.cluster_N,
            "confidence": clustering.confidence_N,
            "membership": clustering.membership_NK,
        },
        node_id_type=node_ids.type,
    )
    write_columns(
        folder / "centroids.parquet",
        "clusters.centroids",
        {"cluster": np.arange(num_clusters), "z": clustering.centroid_KD},
        width=clustering.centroid_KD.shape[1],
    )
    if clustering.evidence:
        write_columns(
            folder / "evidence.parquet",
            "clusters.evidence",
            {
                "num_clusters": [item.num_clusters for item in clustering.evidence],
                "measure": [item.measure for item in clustering.evidence],
                "value": [item.value for item in clustering.evidence],
            },
        )
    work.describe(
        "clusters",
        {
            "algorithm": config.algorithm,
            "num_clusters": num_clusters,
            "normalise": config.normalise,
            "stability": clustering.stability,
            "notes": list(clustering.notes),
        },
    )
    work.expect("clusters.clusters", num_nodes=len(z_ND), num_clusters=num_clusters)
    work.expect("clusters.centroids", num_clusters=num_clusters, embedding_size=z_ND.shape[1])


def _checks(work: Work, *, num_nodes: int, workspace: Workspace) -> Iterator[np.ndarray] | None:
    """The embeddings of each check, one at a time; opened for a consensus alone."""
    if "checks" not in work.inputs:
        return None
    path = work.input("checks") / "checks.parquet"
    return (z_NK for _, z_NK in read_checks(path, num_nodes=num_nodes, workspace=workspace))


CLUSTER = Stage(
    name="cluster",
    version=1,
    body=cluster,
    tables=("clusters.clusters", "clusters.centroids"),
    libraries=("numpy", "pyarrow", "scikit-learn", "scikit-network", "scipy"),
)
