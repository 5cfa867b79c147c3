import numpy as np
import pytest

from gcl.evaluation.conformal import conformal_quantile, mixed_with_neighbours, nonconformity, set_scores
from gcl.graph import Graph


def drawn(num_nodes=20_000, num_classes=5):
    """Probabilities of an imperfect probe on a homophilous random graph, and the true classes."""
    rng = np.random.default_rng(0)
    y_N = rng.integers(num_classes, size=num_nodes)
    logit_NK = 1.2 * np.eye(num_classes)[y_N] + rng.normal(size=(num_nodes, num_classes))
    p_NK = np.exp(logit_NK) / np.exp(logit_NK).sum(1, keepdims=True)
    order = np.argsort(y_N, kind="stable")
    src = np.concatenate([order[:-1], order[1:]])
    dst = np.concatenate([order[1:], order[:-1]])
    by_src = np.lexsort((dst, src))
    return p_NK, y_N, Graph(num_nodes, src[by_src], dst[by_src]), rng.random(num_nodes)


def scored(p_NK, score, draw_N, graph):
    score_NK = nonconformity(p_NK, score=score, draw_B=draw_N)
    if score != "daps":
        return score_NK
    return mixed_with_neighbours(score_NK, graph, np.arange(len(p_NK)), weight=0.5)


@pytest.mark.parametrize("score", ["lac", "aps", "daps"])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_sets_cover_as_promised(score, alpha):
    p_NK, y_N, graph, draw_N = drawn()
    score_NK = scored(p_NK, score, draw_N, graph)
    calibrate, new = np.arange(0, 20_000, 3), np.setdiff1d(np.arange(20_000), np.arange(0, 20_000, 3))
    set_NK = score_NK <= conformal_quantile(score_NK[calibrate, y_N[calibrate]], alpha)
    found = set_scores(set_NK[new, y_N[new]], set_NK[new].sum(1))
    assert found["coverage"] == pytest.approx(1 - alpha, abs=0.03)
    assert 0.5 < found["mean_set_size"] < 5


def test_neighbours_of_a_homophilous_graph_shrink_the_sets():
    p_NK, y_N, graph, draw_N = drawn()
    size = {}
    for score in ("aps", "daps"):
        score_NK = scored(p_NK, score, draw_N, graph)
        rows = np.arange(20_000)
        set_NK = score_NK <= conformal_quantile(score_NK[rows, y_N], 0.1)
        size[score] = set_NK.sum(1).mean()
    assert size["daps"] < size["aps"]


def test_aps_by_hand():
    score_NK = nonconformity(np.array([[0.2, 0.5, 0.3]]), score="aps", draw_B=np.array([0.5]))
    np.testing.assert_allclose(score_NK, [[0.9, 0.25, 0.65]])


def test_isolated_nodes_keep_their_own_score():
    p_NK = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]])
    graph = Graph(3, np.array([0, 1]), np.array([1, 0]))
    draw_N = np.zeros(3)
    own, mixed = (scored(p_NK, score, draw_N, graph) for score in ("aps", "daps"))
    np.testing.assert_allclose(mixed[2], own[2])
    np.testing.assert_allclose(mixed[0], (own[0] + own[1]) / 2)


def test_quantile_by_hand_and_of_too_few_nodes():
    assert conformal_quantile(np.arange(1, 10) / 10, 0.1) == pytest.approx(0.9)
    assert conformal_quantile(np.arange(1, 9) / 10, 0.1) == np.inf


@pytest.mark.parametrize("weighted", [False, True])
def test_neighbours_means_are_those_of_the_adjacency_in_any_order_and_group(weighted, monkeypatch):
    p_NK, _, graph, _ = drawn(num_nodes=200)
    weight_E = np.random.default_rng(1).random(graph.num_edges).astype("f") if weighted else None
    graph = Graph(201, graph.src_E, graph.dst_E, weight_E=weight_E)  # the last node is isolated
    score_NK = np.vstack([p_NK, p_NK[:1]])
    adjacency_NN = graph.adjacency_NN().astype(np.float64)
    degree_N1 = np.asarray(adjacency_NN.sum(1)).reshape(-1, 1)
    mean_NK = (adjacency_NN @ score_NK) / np.where(degree_N1 > 0, degree_N1, 1)
    expected_NK = np.where(degree_N1 > 0, 0.7 * score_NK + 0.3 * mean_NK, score_NK)
    for edges_at_once in (1 << 20, 5, 1):
        monkeypatch.setattr("gcl.evaluation.conformal._EDGES_AT_ONCE", edges_at_once)
        for nodes in (np.arange(201), np.array([200, 3, 3, 17]), np.zeros(0, np.int64)):
            mixed_MK = mixed_with_neighbours(score_NK, graph, nodes, weight=0.3)
            np.testing.assert_allclose(mixed_MK, expected_NK[nodes], rtol=1e-14)


def test_set_scores_by_hand():
    sets = np.array([[True, False], [True, True], [False, False], [False, True]])
    found = set_scores(sets[:, 0], sets.sum(1))
    assert found == {"coverage": 0.5, "mean_set_size": 1.0, "singleton_hit": 0.25}
