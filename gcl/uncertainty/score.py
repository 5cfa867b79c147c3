"""One uncertainty a node by the configured method."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gcl.clustering.geometry import (
    checked_embeddings,
    cluster_spread,
    soft_membership,
    unit_rows,
)
from gcl.clustering.kmeans import fit_kmeans, fit_minibatch_kmeans
from gcl.errors import NotDefined, UnsuitableSetting
from gcl.graph import Graph
from gcl.random import derive_seed
from gcl.threads import one_thread
from gcl.uncertainty.affinity import affinity_uncertainty
from gcl.uncertainty.augmentation import EmbedView, direction_disagreement, membership_disagreement
from gcl.uncertainty.config import UncertaintyConfig
from gcl.workspace import MEMORY, Workspace, row_slices

_ROWS_AT_ONCE = 4096  # as `soft_membership` takes them


@dataclass(frozen=True, eq=False)
class UncertaintyInputs:
    """All an uncertainty is computed from; no labels.

    Attributes:
        z_ND: float32 embeddings.
        embed_view: view number -> float32 [N, D] embeddings of an augmented graph; for ``augmentation``.
        graph: for ``affinity``; None compares with sampled candidates only.
        num_clusters: what the cluster stage uses, where it is known beforehand.
    """

    z_ND: np.ndarray
    embed_view: EmbedView | None = None
    graph: Graph | None = None
    num_clusters: int | None = None


def score_uncertainty(
    inputs: UncertaintyInputs, config: UncertaintyConfig, *, seed: int, workspace: Workspace = MEMORY
) -> np.ndarray:
    """Uncertainty of each node by ``config.method``; larger is less sure, scales differ between methods.

    Args:
        inputs: embeddings and what the method needs beside them.
        config: method and parameters.
        seed: the run's seed.
        workspace: where arrays of the size of the embeddings are put.

    Returns:
        float32 [N], NaN where a node is not scored; the same bytes for any number of threads.

    Raises:
        NotDefined: for a single node.
        UnsuitableSetting: a number of clusters that is missing, or that so few nodes cannot have.
        ValueError: embeddings not finite, or an input the method needs is missing.
    """
    z_ND = checked_embeddings(inputs.z_ND)
    if len(z_ND) < 2:
        raise NotDefined(
            "the uncertainty of a single node is not defined: there is nothing to compare it with"
        )
    if inputs.graph is not None and inputs.graph.num_nodes != len(z_ND):
        raise ValueError(f"{len(z_ND)} embeddings for a graph of {inputs.graph.num_nodes} nodes")
    return METHODS[config.method](inputs, z_ND, config, seed, workspace)


def _affinity(
    inputs: UncertaintyInputs,
    z_ND: np.ndarray,
    config: UncertaintyConfig,
    seed: int,
    workspace: Workspace,
) -> np.ndarray:
    return affinity_uncertainty(
        z_ND,
        graph=inputs.graph,
        num_candidates=config.num_candidates,
        max_neighbours=config.max_neighbours,
        estimator=config.estimator,
        reward=config.reward,
        neighbour_weight=config.neighbour_weight,
        seed=seed,
        workspace=workspace,
    )


def _augmentation(
    inputs: UncertaintyInputs,
    z_ND: np.ndarray,
    config: UncertaintyConfig,
    seed: int,
    workspace: Workspace,
) -> np.ndarray:
    if inputs.embed_view is None:
        raise ValueError(
            "uncertainty.method=augmentation needs embeddings of augmented graphs; choose affinity"
        )
    with one_thread():
        if config.disagreement == "cosine":
            return direction_disagreement(inputs.embed_view, config.num_views, workspace=workspace)
        centroid_KD, scale, _ = _own_clusters(inputs, z_ND, config, seed, workspace)
        return membership_disagreement(
            inputs.embed_view, config.num_views, centroid_KD=centroid_KD, scale=scale, workspace=workspace
        )


def _cluster_margin(
    inputs: UncertaintyInputs,
    z_ND: np.ndarray,
    config: UncertaintyConfig,
    seed: int,
    workspace: Workspace,
) -> np.ndarray:
    """1 minus the gap between the two largest memberships: 0 deep inside a cluster, 1 midway."""
    with one_thread():
        centroid_KD, scale, unit_ND = _own_clusters(inputs, z_ND, config, seed, workspace)
        margin_N = np.empty(len(z_ND), np.float32)
        for rows in row_slices(len(z_ND), 1, block_bytes=_ROWS_AT_ONCE):
            sorted_BK = np.sort(soft_membership(unit_ND[rows], centroid_KD, scale=scale), axis=1)
            sorted_BK = sorted_BK.astype(np.float64)
            # Added up from below: 1 - (first - second) would round most nodes to exactly 0.
            margin_N[rows] = sorted_BK[:, :-1].sum(1) + sorted_BK[:, -2]
    return margin_N


def _own_clusters(
    inputs: UncertaintyInputs,
    z_ND: np.ndarray,
    config: UncertaintyConfig,
    seed: int,
    workspace: Workspace,
) -> tuple[np.ndarray, float, np.ndarray]:
    """Centroids, membership scale, and the unit-length embeddings they live among."""
    num_clusters = config.num_clusters or inputs.num_clusters
    if num_clusters is None:
        raise UnsuitableSetting(
            "set uncertainty.num_clusters: the cluster stage's own number is not known beforehand"
        )
    if not 2 <= num_clusters <= len(z_ND):
        raise UnsuitableSetting(
            f"uncertainty: margins between {num_clusters} clusters of {len(z_ND)} nodes are not defined; "
            "set uncertainty.num_clusters"
        )
    unit_ND = unit_rows(z_ND, workspace=workspace)
    one = derive_seed(seed, "uncertainty")
    if len(z_ND) > config.minibatch_threshold:
        fit = fit_minibatch_kmeans(
            unit_ND,
            num_clusters,
            seed=one,
            num_restarts=config.num_restarts,
            batch_size=4096,
            max_iterations=100,
        )
    else:
        (fit,) = fit_kmeans(unit_ND, num_clusters, seeds=[one], num_restarts=config.num_restarts)
    spread = cluster_spread(unit_ND, fit.centroid_KD, fit.cluster_N)
    return fit.centroid_KD, 2 * config.membership_temperature * spread, unit_ND


_Method = Callable[[UncertaintyInputs, np.ndarray, UncertaintyConfig, int, Workspace], np.ndarray]
METHODS: dict[str, _Method] = {
    "affinity": _affinity,
    "augmentation": _augmentation,
    "cluster_margin": _cluster_margin,
}
