import numpy as np
import pytest

from gcl.evaluation.conformal import conformal_quantile, nonconformity, set_scores
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


@pytest.mark.parametrize("score", ["lac", "aps", "daps"])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_sets_cover_as_promised(score, alpha):
    p_NK, y_N, graph, draw_N = drawn()
    score_NK = nonconformity(p_NK, score=score, draw_N=draw_N, graph=graph)
    calibrate, new = np.arange(0, 20_000, 3), np.setdiff1d(np.arange(20_000), np.arange(0, 20_000, 3))
    set_NK = score_NK <= conformal_quantile(score_NK[calibrate, y_N[calibrate]], alpha)
    found = set_scores(set_NK[new], y_N[new])
    assert found["coverage"] == pytest.approx(1 - alpha, abs=0.03)
    assert 0.5 < found["mean_set_size"] < 5


def test_neighbours_of_a_homophilous_graph_shrink_the_sets():
    p_NK, y_N, graph, draw_N = drawn()
    size = {}
    for score in ("aps", "daps"):
        score_NK = nonconformity(p_NK, score=score, draw_N=draw_N, graph=graph)
        rows = np.arange(20_000)
        set_NK = score_NK <= conformal_quantile(score_NK[rows, y_N], 0.1)
        size[score] = set_NK.sum(1).mean()
    assert size["daps"] < size["aps"]


def test_aps_by_hand():
    score_NK = nonconformity(np.array([[0.2, 0.5, 0.3]]), score="aps", draw_N=np.array([0.5]))
    np.testing.assert_allclose(score_NK, [[0.9, 0.25, 0.65]])


def test_isolated_nodes_keep_their_own_score():
    p_NK = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]])
    graph = Graph(3, np.array([0, 1]), np.array([1, 0]))
    draw_N = np.zeros(3)
    own, mixed = (nonconformity(p_NK, score=s, draw_N=draw_N, graph=graph) for s in ("aps", "daps"))
    np.testing.assert_allclose(mixed[2], own[2])
    np.testing.assert_allclose(mixed[0], (own[0] + own[1]) / 2)


def test_quantile_by_hand_and_of_too_few_nodes():
    assert conformal_quantile(np.arange(1, 10) / 10, 0.1) == pytest.approx(0.9)
    assert conformal_quantile(np.arange(1, 9) / 10, 0.1) == np.inf


def test_daps_without_graph_is_refused():
    with pytest.raises(ValueError, match="graph"):
        nonconformity(np.ones((1, 2)) / 2, score="daps", draw_N=np.zeros(1))


def test_set_scores_by_hand():
    sets = np.array([[True, False], [True, True], [False, False], [False, True]])
    found = set_scores(sets, np.array([0, 0, 0, 0]))
    assert found == {"coverage": 0.5, "mean_set_size": 1.0, "singleton_hit": 0.25}
