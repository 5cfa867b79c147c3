"""Link prediction on held-out edges, and the guard against having seen them."""

from dataclasses import dataclass

import numpy as np

from gcl.clustering.geometry import unit_rows
from gcl.edge_holdout import HeldOutPairs
from gcl.errors import NotDefined
from gcl.evaluation.results import HeldOut, MetricRow, summarise
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
    """Refuse held-out edges that the graph contains, in either direction.

    Raises:
        LeakedEdges: with how many, and the first of them.
    """
    key_E = np.concatenate(
        [graph.src_E * graph.num_nodes + graph.dst_E, graph.dst_E * graph.num_nodes + graph.src_E]
    )
    for name, pairs in (("test", held_out.test), ("validation", held_out.validation)):
        key_M = pairs.src * graph.num_nodes + pairs.dst
        leaked = np.flatnonzero(np.isin(key_M, key_E) & pairs.is_edge)
        if len(leaked):
            first = ", ".join(f"{pairs.src[i]}-{pairs.dst[i]}" for i in leaked[:3])
            raise LeakedEdges(
                f"{len(leaked)} held-out {name} edge(s) are edges of the graph the embeddings were made with "
                f"(first: {first}); train on a graph ingested with dataset.edge_holdout"
            )


def link_protocol(rate: float) -> str:
    """Name of the protocol with this share of edges held out for test, half as many for validation.

    0.1 is ``link-10-5``; another share is another rule and has another name.
    """
    return f"link-{100 * rate:g}-{50 * rate:g}"


def link_rows(
    z_ND: np.ndarray, held_out: HeldOut, *, embedding: str, seed: int, rate: float = 0.1
) -> list[MetricRow]:
    """AUC and average precision of cosine similarity, and the same of the inner product, on both parts.

    Raises:
        NotDefined: when a part lacks edges or non-edges.
    """
    unit_ND = unit_rows(z_ND)
    rows = []
    for part, pairs in (("validation", held_out.validation), ("test", held_out.test)):
        if not 0 < pairs.is_edge.sum() < len(pairs.is_edge):
            raise NotDefined(f"the held-out {part} pairs lack edges or non-edges")
        scores = _ranking(pair_score(unit_ND, pairs), pairs.is_edge)
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


def pair_score(z_ND: np.ndarray, pairs: HeldOutPairs) -> np.ndarray:
    """float32 inner product of each pair's embeddings, by blocks of pairs."""
    score_M = np.empty(len(pairs.src), np.float32)
    for start in range(0, len(score_M), _PAIRS_AT_ONCE):
        block = slice(start, start + _PAIRS_AT_ONCE)
        score_M[block] = np.einsum("md,md->m", z_ND[pairs.src[block]], z_ND[pairs.dst[block]])
    return score_M


def _ranking(score_M: np.ndarray, is_edge_M: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    return {
        "auc": float(roc_auc_score(is_edge_M, score_M)),
        "average_precision": float(average_precision_score(is_edge_M, score_M)),
    }
