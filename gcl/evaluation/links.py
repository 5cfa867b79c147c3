"""Link prediction on held-out edges, and the guard against having seen them."""

from dataclasses import dataclass

import numpy as np

from gcl.clustering.geometry import unit_rows
from gcl.edge_holdout import HeldOutPairs
from gcl.errors import NotDefined
from gcl.evaluation.results import HeldOut, MetricRow, summarise
from gcl.evaluation.subgraph import edge_slices
from gcl.graph import Graph

_PAIRS_AT_ONCE = 65_536


class LeakedEdges(ValueError):
    """Held-out edges are edges of the graph the embeddings were made with."""


@dataclass(frozen=True, eq=False)
class LinkPairs:
    """Held-out pairs as read back from an artifact, where the training edges are the graph itself."""

    test: HeldOutPairs
    validation: HeldOutPairs


def assert_no_leak(graph: Graph, held_out: HeldOut) -> None:
    """Refuse held-out edges that the graph contains, in either direction. Edges are read in blocks.

    Raises:
        LeakedEdges: with how many, and the first of them.
    """
    parts = (("test", held_out.test), ("validation", held_out.validation))
    keys = {name: _pair_keys(pairs.src, pairs.dst, graph.num_nodes) for name, pairs in parts}
    wanted = np.unique(np.concatenate([keys[name][pairs.is_edge] for name, pairs in parts]))
    is_in_graph = np.zeros(len(wanted), bool)
    for edges in edge_slices(graph):
        key_B = np.sort(_pair_keys(graph.src_E[edges], graph.dst_E[edges], graph.num_nodes))
        at = np.searchsorted(wanted, key_B)
        at, key_B = at[at < len(wanted)], key_B[at < len(wanted)]
        is_in_graph[at[wanted[at] == key_B]] = True
    for name, pairs in parts:
        leaked = np.flatnonzero(np.isin(keys[name], wanted[is_in_graph]) & pairs.is_edge)
        if len(leaked):
            first = ", ".join(f"{pairs.src[i]}-{pairs.dst[i]}" for i in leaked[:3])
            raise LeakedEdges(
                f"{len(leaked)} held-out {name} edge(s) are edges of the graph the embeddings were made with "
                f"(first: {first}); train on a graph ingested with dataset.edge_holdout"
            )


def _pair_keys(src: np.ndarray, dst: np.ndarray, num_nodes: int) -> np.ndarray:
    """int64 keys, the same for both directions of a pair."""
    return np.asarray(np.minimum(src, dst) * num_nodes + np.maximum(src, dst))


def link_protocol(rate: float) -> str:
    """Name of the protocol with this share of edges held out for test, half as many for validation.

    0.1 is ``link-10-5``; another share is another rule and has another name.
    """
    return f"link-{100 * rate:g}-{50 * rate:g}"


def link_rows(
    z_ND: np.ndarray, held_out: HeldOut, *, embedding: str, seed: int, rate: float = 0.1
) -> list[MetricRow]:
    """AUC and average precision of cosine similarity, and the same of the inner product, on both parts.

    Args:
        z_ND: float32 embeddings of all nodes; may be memory-mapped.
        held_out: pairs to tell apart.
        embedding: for the rows.
        seed: the run's seed.
        rate: share of edges held out for test.

    Raises:
        NotDefined: when a part lacks edges or non-edges.
    """
    rows = []
    for part, pairs in (("validation", held_out.validation), ("test", held_out.test)):
        if not 0 < pairs.is_edge.sum() < len(pairs.is_edge):
            raise NotDefined(f"the held-out {part} pairs lack edges or non-edges")
        scores = _ranking(pair_score(z_ND, pairs, is_cosine=True), pairs.is_edge)
        product = _ranking(pair_score(z_ND, pairs), pairs.is_edge)
        rows += summarise(
            [scores | {f"{name}_inner_product": value for name, value in product.items()}],
            task="link_prediction",
            protocol=link_protocol(rate),
            split="validation" if part == "validation" else "test",
            seed=seed,
            embedding=embedding,
            over="held-out sets",
        )
    return rows


def pair_score(z_ND: np.ndarray, pairs: HeldOutPairs, *, is_cosine: bool = False) -> np.ndarray:
    """float32 inner product, or cosine, of each pair's embeddings, by blocks of pairs."""
    score_M = np.empty(len(pairs.src), np.float32)
    for start in range(0, len(score_M), _PAIRS_AT_ONCE):
        block = slice(start, start + _PAIRS_AT_ONCE)
        first_BD, second_BD = z_ND[pairs.src[block]], z_ND[pairs.dst[block]]
        if is_cosine:
            first_BD, second_BD = unit_rows(first_BD), unit_rows(second_BD)
        score_M[block] = np.einsum("md,md->m", first_BD, second_BD)
    return score_M


def _ranking(score_M: np.ndarray, is_edge_M: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    return {
        "auc": float(roc_auc_score(is_edge_M, score_M)),
        "average_precision": float(average_precision_score(is_edge_M, score_M)),
    }
