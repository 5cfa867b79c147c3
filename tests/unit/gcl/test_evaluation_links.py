from functools import partial

import numpy as np
import pytest

from gcl.edge_holdout import HeldOutPairs
from gcl.errors import NotDefined
from gcl.evaluation.links import LeakedEdges, LinkPairs, assert_no_leak, link_protocol, link_rows, pair_score
from gcl.graph import Graph
from gcl.workspace import row_slices


def pairs(edges, others):
    both = np.array(edges + others)
    return HeldOutPairs(both[:, 0], both[:, 1], np.array([True] * len(edges) + [False] * len(others)))


HELD_OUT = LinkPairs(test=pairs([(0, 1), (2, 3)], [(0, 2), (1, 3)]), validation=pairs([(4, 5)], [(0, 5)]))


def graph(*edges):
    src, dst = np.array(sorted(edges)).T
    return Graph(6, src, dst)


def test_graph_without_the_held_out_edges_passes():
    assert_no_leak(graph((0, 2), (2, 0), (1, 3), (3, 1)), HELD_OUT)  # holds sampled non-edges only


@pytest.mark.parametrize("edge", [(0, 1), (1, 0), (3, 2)])
def test_a_held_out_test_edge_in_either_direction_is_a_leak(edge):
    with pytest.raises(LeakedEdges, match=r"1 held-out test edge.*edge_holdout"):
        assert_no_leak(graph(edge, (0, 4)), HELD_OUT)


def test_a_held_out_validation_edge_is_a_leak():
    with pytest.raises(LeakedEdges, match=r"validation.*4-5"):
        assert_no_leak(graph((5, 4)), HELD_OUT)


def test_scores_by_hand():
    z_ND = np.array([[1, 0], [2, 0], [0, 3], [0, 1], [1, 1], [2, 2]], np.float32)
    rows = {(row.split, row.metric): row for row in link_rows(z_ND, HELD_OUT, embedding="method", seed=0)}
    assert rows["test", "auc"].value == 1.0
    assert rows["validation", "average_precision"].value == 1.0
    assert rows["test", "auc"].n == 1 and rows["test", "auc"].std == 0
    np.testing.assert_allclose(pair_score(z_ND, HELD_OUT.test), [2, 3, 0, 0])
    assert {metric for _, metric in rows} == {
        "auc", "average_precision", "auc_inner_product", "average_precision_inner_product"
    }  # fmt: skip


def test_cosine_ignores_length_and_the_inner_product_does_not():
    z_ND = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [1, 1], [1, 1]], np.float32)
    longer = z_ND * np.array([[1], [1], [40], [30], [1], [1]], np.float32)
    rows = {
        row.metric: row.value
        for row in link_rows(longer, HELD_OUT, embedding="method", seed=0)
        if row.split == "test"
    }
    plain = {
        row.metric: row.value
        for row in link_rows(z_ND, HELD_OUT, embedding="method", seed=0)
        if row.split == "test"
    }
    assert rows["auc"] == plain["auc"]
    assert rows["auc_inner_product"] != plain["auc_inner_product"]


def test_blocks_change_nothing(monkeypatch):
    z_ND = np.random.default_rng(0).normal(size=(6, 3)).astype("f")
    whole = pair_score(z_ND, HELD_OUT.test)
    monkeypatch.setattr("gcl.evaluation.links._PAIRS_AT_ONCE", 1)
    np.testing.assert_array_equal(pair_score(z_ND, HELD_OUT.test), whole)


@pytest.mark.parametrize("block_bytes", [1, 200])
def test_leaks_are_found_in_any_block_of_edges(block_bytes, monkeypatch):
    monkeypatch.setattr("gcl.evaluation.subgraph.row_slices", partial(row_slices, block_bytes=block_bytes))
    assert_no_leak(graph((0, 2), (2, 0), (1, 3), (3, 1)), HELD_OUT)
    with pytest.raises(LeakedEdges, match=r"2 held-out test edge.*first: 0-1, 2-3"):
        assert_no_leak(graph((0, 4), (1, 0), (2, 3), (4, 2)), HELD_OUT)
    with pytest.raises(LeakedEdges, match=r"1 held-out validation"):
        assert_no_leak(graph((0, 4), (4, 5)), HELD_OUT)


def test_pairs_of_one_kind_are_not_defined():
    only = LinkPairs(test=pairs([(0, 1)], []), validation=HELD_OUT.validation)
    with pytest.raises(NotDefined, match="test pairs lack"):
        link_rows(np.eye(6, dtype="f"), only, embedding="method", seed=0)


def test_another_share_of_edges_is_another_protocol() -> None:
    assert link_protocol(0.1) == "link-10-5"
    assert link_protocol(0.3) == "link-30-15"
    z_ND = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    rows = link_rows(z_ND, HELD_OUT, embedding="method", seed=0, rate=0.3)
    assert {row.protocol for row in rows} == {"link-30-15"}
