"""How many clusters: evidence without labels over a grid of K, and the rule that chooses.

No single index can be trusted: stability alone prefers two clusters, modularity alone prefers many,
inertia always prefers more, and the silhouette has been seen to pick a partition nine points worse
than its rivals (on the Brazilian air traffic graph). Hence a rule in two steps, see `choose_num_clusters`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gcl.clustering.partition import mean_pairwise_ari
from gcl.clustering.quality import graph_scores, silhouette
from gcl.clustering.runs import Runs
from gcl.graph import Graph

LARGER_IS_BETTER = ("silhouette", "inertia_knee", "modularity")


@dataclass(frozen=True)
class Evidence:
    """One measure of the partition into `num_clusters`; `value` is finite."""

    num_clusters: int
    measure: str
    value: float


def gather_evidence(
    z_ND: np.ndarray,
    grid: Sequence[int],
    fit: Callable[[int], Runs],
    *,
    graph: Graph | None,
    sample: int,
    seed: int,
) -> list[Evidence]:
    """Measure the partitions of every K in `grid`.

    Args:
        z_ND: float32 embeddings, as they are clustered.
        grid: numbers of clusters, ascending.
        fit: K -> fits with several seeds.
        graph: for modularity and conductance; None leaves them out.
        sample: nodes the silhouette is taken on.
        seed: of that sample, the same nodes for every K.

    Returns:
        stability (mean pairwise ARI over the seeds), inertia, inertia_knee, silhouette, modularity and
        conductance, a K each; measures that are not defined are absent.
    """
    evidence: list[Evidence] = []
    inertia: dict[int, float] = {}
    for num_clusters in grid:
        runs = fit(num_clusters)
        inertia[num_clusters] = runs.best.inertia
        values = {
            "stability": mean_pairwise_ari(runs.partitions),
            "inertia": inertia[num_clusters],
            "silhouette": silhouette(z_ND, runs.best.cluster_N, sample=sample, seed=seed),
        }
        if graph is not None:
            values |= graph_scores(graph, runs.best.cluster_N)
        evidence += [
            Evidence(num_clusters, name, value) for name, value in values.items() if np.isfinite(value)
        ]
    return evidence + [Evidence(k, "inertia_knee", value) for k, value in _knee(inertia).items()]


def _knee(inertia: Mapping[int, float]) -> dict[int, float]:
    """How far log inertia lies below the chord of its curve, both axes scaled to [0, 1] (as Kneedle)."""
    if len(inertia) < 3:
        return {}
    k = np.array(list(inertia), float)
    log_value = np.log(np.maximum(list(inertia.values()), 1e-30))
    span = log_value[0] - log_value[-1]
    if span <= 0:
        return {}
    chord = 1 - (k - k[0]) / (k[-1] - k[0])
    return dict(zip(inertia, (chord - (log_value - log_value[-1]) / span).tolist(), strict=True))


def choose_num_clusters(evidence: Sequence[Evidence], *, stability_slack: float) -> tuple[int, list[str]]:
    """The rule: stable first, then the best mean rank.

    1. Eligible is every K whose stability lies within `stability_slack` of the largest; without
       stability measured, every K.
    2. Among those, each of silhouette, inertia knee and modularity ranks the K, larger first; the least
       mean rank wins, ties go to the smaller K. Conductance is reported only: it prefers few clusters
       whatever the data.

    Returns:
        K, and notes for the reader where a single measure would have chosen otherwise.
    """
    table: dict[str, dict[int, float]] = {}
    for item in evidence:
        table.setdefault(item.measure, {})[item.num_clusters] = item.value
    grid = sorted({item.num_clusters for item in evidence})
    stability = table.get("stability", {})
    eligible = [
        k for k in grid if stability.get(k, -1) >= max(stability.values(), default=-1) - stability_slack
    ]
    voters = {name: table[name] for name in LARGER_IS_BETTER if name in table}
    rank = {k: np.mean([_rank(k, eligible, v) for v in voters.values()] or [0.0]) for k in eligible}
    chosen = min(eligible, key=lambda k: (rank[k], k))
    notes = [
        f"{name} alone would have chosen {best} clusters instead of {chosen}"
        for name, values in {**voters, "stability": stability}.items()
        if values and (best := max(values, key=lambda k: (values[k], -k))) != chosen
    ]
    return chosen, notes


def _rank(num_clusters: int, eligible: Sequence[int], values: Mapping[int, float]) -> float:
    """How many eligible K a measure prefers to this one, a tie counted half; last where it is undefined."""
    own = values.get(num_clusters)
    if own is None:
        return float(len(eligible))
    others = [values.get(k, -np.inf) for k in eligible if k != num_clusters]
    return float(sum(1.0 if other > own else 0.5 if other == own else 0.0 for other in others))
