"""The graph on some of its nodes, found in blocks of edges."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

import gcl.evaluation.subgraph
from gcl.evaluation.subgraph import induced_subgraph
from gcl.graph import Graph
from gcl.workspace import Workspace, row_slices


def drawn_graph(is_weighted: bool) -> Graph:
    rng = np.random.default_rng(0)
    src, dst = np.nonzero(rng.random((40, 40)) < 0.2)
    weight_E = rng.random(len(src)).astype("f") if is_weighted else None
    return Graph(40, src, dst, weight_E=weight_E, is_undirected=False)


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("block_bytes", [1, 500, 1 << 20])
def test_it_is_the_part_of_the_adjacency(
    is_weighted: bool, block_bytes: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gcl.evaluation.subgraph, "row_slices", partial(row_slices, block_bytes=block_bytes))
    graph, nodes = drawn_graph(is_weighted), np.array([1, 5, 6, 20, 21, 39])
    found = induced_subgraph(graph, nodes, Workspace(tmp_path, in_memory_bytes=0))
    expected = graph.adjacency_NN().toarray()[np.ix_(nodes, nodes)]
    np.testing.assert_array_equal(found.adjacency_NN().toarray(), expected)
    assert found.src_E.dtype == np.int64 and not found.is_undirected
    assert (found.weight_E is not None) == is_weighted


def test_all_nodes_give_the_graph_itself_and_none_an_empty_one() -> None:
    graph = drawn_graph(is_weighted=True)
    assert induced_subgraph(graph, np.arange(40)) is graph
    assert induced_subgraph(graph, np.zeros(0, np.int64)).num_edges == 0
