"""Clustering figures: k-means on every embedding, and those of the pipeline's own clusters."""

from collections.abc import Sequence

import numpy as np

from gcl.clustering.geometry import unit_rows
from gcl.clustering.kmeans import fit_kmeans, fit_minibatch_kmeans
from gcl.clustering.quality import graph_scores, silhouettes
from gcl.errors import NotDefined
from gcl.evaluation.agreement import cluster_scores
from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.protocols import labelled_nodes
from gcl.evaluation.results import MetricRow, summarise
from gcl.evaluation.subgraph import induced_subgraph
from gcl.graph import Graph, Labels
from gcl.random import derive_seed, numpy_generator


def kmeans_rows(
    z_ND: np.ndarray,
    labels: Labels,
    graph: Graph,
    config: EvaluateConfig,
    *,
    embedding: str,
    seed: int,
    protocol: str = "kmeans-final",
) -> list[MetricRow]:
    """Agreement with labels and label-free measures of k-means++, means over k-means seeds.

    Args:
        z_ND: float32 embeddings.
        labels: classes; nodes without one are left out.
        graph: for modularity and conductance.
        config: seeds and starts.
        embedding: for the rows.
        seed: the run's seed.
        protocol: ``kmeans-final`` on rows of length 1, or ``kmeans-raw`` on rows as they are.

    Raises:
        NotDefined: with fewer than two classes among the labelled nodes.
    """
    nodes = labelled_nodes(labels)
    classes, y_M = np.unique(labels.y_N[nodes], return_inverse=True)
    if len(classes) < 2:
        raise NotDefined(f"clustering scores need two classes; the labels hold {len(classes)}")
    points_MD = _points(z_ND[nodes], is_unit=protocol == "kmeans-final")
    part = induced_subgraph(graph, nodes)
    seeds = [derive_seed(seed, protocol, number) for number in range(config.num_clustering_seeds)]
    partitions = kmeans_partitions(points_MD, len(classes), config, seeds=seeds)
    label_free = label_free_scores(points_MD, partitions, part, config, seed=seed)
    repeats = [
        cluster_scores(cluster_M, y_M) | scores
        for cluster_M, scores in zip(partitions, label_free, strict=True)
    ]
    return summarise(
        repeats,
        task="clustering",
        protocol=protocol,
        split="all",
        seed=seed,
        embedding=embedding,
        over="k-means seeds",
    )


def _points(z_MD: np.ndarray, *, is_unit: bool) -> np.ndarray:
    return unit_rows(z_MD) if is_unit else np.ascontiguousarray(z_MD, dtype=np.float32)


def kmeans_partitions(
    z_MD: np.ndarray, num_clusters: int, config: EvaluateConfig, *, seeds: Sequence[int]
) -> list[np.ndarray]:
    """The int32 [M] clusters of each seed, by k-means++ or, of very many nodes, by mini-batches.

    Args:
        z_MD: float32 points.
        num_clusters: K.
        config: starts a seed, and from how many nodes on mini-batches are taken.
        seeds: one partition each.
    """
    if len(z_MD) > config.minibatch_threshold:
        return [
            fit_minibatch_kmeans(
                z_MD,
                num_clusters,
                seed=one,
                num_restarts=config.num_restarts,
                batch_size=4096,
                max_iterations=100,
            ).cluster_N
            for one in seeds
        ]
    fits = fit_kmeans(z_MD, num_clusters, seeds=seeds, num_restarts=config.num_restarts)
    return [fit.cluster_N for fit in fits]


def silhouette_nodes(num_nodes: int, config: EvaluateConfig, *, seed: int) -> np.ndarray:
    """int64, ascending: nodes that the silhouette of the pipeline's own clusters is taken on.

    They are those that `gcl.clustering.quality.silhouettes` would draw of all.
    """
    if num_nodes <= config.silhouette_sample:
        return np.arange(num_nodes)
    generator = numpy_generator(seed, "silhouette")
    return np.sort(generator.choice(num_nodes, config.silhouette_sample, replace=False))


def clusters_artifact_rows(
    cluster_N: np.ndarray,
    z_SD: np.ndarray,
    labels: Labels | None,
    graph: Graph,
    config: EvaluateConfig,
    *,
    seed: int,
    protocol: str = "clusters-artifact",
    is_unit: bool = True,
) -> list[MetricRow]:
    """Rows of the pipeline's own clusters; without labels, the label-free figures.

    Args:
        cluster_N: int32 clusters.
        z_SD: float32 embeddings of the `silhouette_nodes`.
        labels: for agreement with classes.
        graph: for modularity and conductance; edges may be memory-mapped.
        config: size of the silhouette's sample.
        seed: the run's seed.
        protocol: ``consensus-final`` for clusters that are a consensus, else ``clusters-artifact``.
        is_unit: whether the clusters were found on rows of length 1; the silhouette is taken on the same.
    """
    cluster_S = cluster_N[silhouette_nodes(len(cluster_N), config, seed=seed)]
    points_SD = _points(z_SD, is_unit=is_unit)
    (value,) = silhouettes(points_SD, [cluster_S], sample=config.silhouette_sample, seed=seed)
    scores = graph_scores(graph, cluster_N) | {"silhouette": value}
    nodes = labelled_nodes(labels)
    if labels is not None and len(np.unique(labels.y_N[nodes])) > 1:
        scores = cluster_scores(cluster_N[nodes], labels.y_N[nodes]) | scores
    return summarise(
        [scores],
        task="clustering",
        protocol=protocol,
        split="all",
        seed=seed,
        embedding="method",
        over="clusterings",
    )


def label_free_scores(
    z_ND: np.ndarray, partitions: list[np.ndarray], graph: Graph, config: EvaluateConfig, *, seed: int
) -> list[dict[str, float]]:
    """Figures modularity, conductance and silhouette of each partition; NaN where not defined."""
    values = silhouettes(z_ND, partitions, sample=config.silhouette_sample, seed=seed)
    return [
        graph_scores(graph, cluster_N) | {"silhouette": value}
        for cluster_N, value in zip(partitions, values, strict=True)
    ]
