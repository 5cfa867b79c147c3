import numpy as np
import pytest

from gcl.graph import Graph
from gcl.uncertainty.affinity import (
    _Neighbours,
    affinity_uncertainty,
    near_probability,
    pair_uncertainty,
    two_means,
)

OPTIONS = {
    "graph": None,
    "num_candidates": 512,
    "max_neighbours": 32,
    "estimator": "softmax",
    "reward": 1.9,
    "neighbour_weight": 0.5,
    "seed": 0,
}


def test_two_means_costs_no_more_than_scikit_learn_with_many_starts():
    from sklearn.cluster import KMeans

    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(6, 40)), rng.choice([0.1, 0.4, 0.9], size=(3, 40))])
    near_BM, cost_B = two_means(rows)
    for row, near, cost in zip(rows, near_BM, cost_B, strict=True):
        best = KMeans(2, n_init=50, random_state=0).fit(row[:, None]).inertia_
        assert cost == pytest.approx(best, abs=1e-9)
        own = ((row - np.where(near, row[near].mean(), row[~near].mean())) ** 2).sum()
        assert cost == pytest.approx(own, abs=1e-9)
        assert row[near].min() > row[~near].max()


def test_two_means_ignores_missing_values():
    full = np.array([[0.1, 0.9, 0.2, 1.0]])
    holes = np.array([[np.nan, 0.1, 0.9, np.nan, 0.2, 1.0]])
    near_BM, cost_B = two_means(holes)
    assert near_BM[0].tolist() == [False, False, True, False, False, True]
    assert cost_B[0] == pytest.approx(two_means(full)[1][0])


def test_two_means_of_equal_or_single_values_is_one_group():
    near_BM, cost_B = two_means(np.array([[0.5, 0.5, 0.5], [0.3, np.nan, np.nan]]))
    assert near_BM[np.isfinite([[0.5, 0.5, 0.5], [0.3, np.nan, np.nan]])].all()
    np.testing.assert_allclose(cost_B, 0)


def test_the_positive_is_always_near():
    """The node itself, at cosine 1, orients the groups."""
    rng = np.random.default_rng(0)
    similarity_BM = np.hstack([np.ones((50, 1)), rng.uniform(-1, 0.99, size=(50, 30))])
    near_BM, _ = two_means(similarity_BM)
    assert near_BM[:, 0].all()


def test_posterior_is_that_of_the_planted_gaussians():
    rng = np.random.default_rng(0)
    is_near_M = rng.random(20_000) < 0.3
    value_M = np.where(is_near_M, rng.normal(0.8, 0.1, 20_000), rng.normal(0.0, 0.1, 20_000))
    p_M = near_probability(value_M[None], is_near_M[None])[0]
    grid = np.array([0.3, 0.4, 0.45])
    density = [0.3 * np.exp(-((grid - 0.8) ** 2) / 0.02), 0.7 * np.exp(-(grid**2) / 0.02)]
    expected = density[0] / (density[0] + density[1])
    found = np.interp(grid, np.sort(value_M), p_M[np.argsort(value_M)])
    np.testing.assert_allclose(found, expected, atol=0.08)


def test_the_wider_group_does_not_win_on_the_far_side_of_the_tighter():
    """Lower values cluster tightly, one a little below: it must not count as near to the wide upper group."""
    tight, wide = np.tile([-0.01, 0.01], 20), np.linspace(0.5, 1.5, 10)
    value_BM = np.concatenate([[-0.06], tight, wide])[None]
    p_BM = near_probability(value_BM, value_BM > 0.3)
    assert p_BM[0, 0] < 0.01
    assert p_BM[0, -10:].min() > 0.5


@pytest.mark.parametrize("q", [0.6, 0.7, 0.8, 0.9])
def test_gambler_minimises_the_deep_gamblers_loss(q):
    """Search the simplex for the abstention that minimises -q log(p1 + a/o) - (1-q) log(p0 + a/o)."""
    reward = 1.9
    a, p1 = np.meshgrid(np.linspace(0, 1, 1001), np.linspace(0, 1, 501))
    p0 = 1 - a - p1
    with np.errstate(divide="ignore", invalid="ignore"):
        loss = -q * np.log(p1 + a / reward) - (1 - q) * np.log(p0 + a / reward)
    loss[p0 < -1e-12] = np.inf
    best = a.flat[np.nanargmin(loss)]
    found = pair_uncertainty(np.array([q]), estimator="gambler", reward=reward)[0]
    assert found == pytest.approx(best, abs=0.01)


def test_estimators_are_symmetric_and_peak_in_the_middle():
    q = np.linspace(0, 1, 101)
    for estimator in ("softmax", "entropy", "gambler"):
        u = pair_uncertainty(q, estimator=estimator)
        np.testing.assert_allclose(u, u[::-1], atol=1e-12)
        assert u[0] == u[-1] == 0 and u[50] == u.max()
    assert pair_uncertainty(np.array([0.5]), estimator="entropy")[0] == pytest.approx(np.log(2))


def test_blocks_change_nothing_and_candidates_are_seeded():
    rng = np.random.default_rng(0)
    z_ND = rng.normal(size=(90, 6)).astype("f")
    options = OPTIONS | {"num_candidates": 30}
    whole = affinity_uncertainty(z_ND, **options)
    np.testing.assert_allclose(affinity_uncertainty(z_ND, **options, rows_at_once=7), whole, rtol=1e-4)
    assert (affinity_uncertainty(z_ND, **(options | {"seed": 1})) != whole).any()


def test_a_node_between_clusters_in_the_graph_scores_higher():
    rng = np.random.default_rng(0)
    y_N = np.arange(80) % 2
    z_ND = (np.eye(2, 8)[y_N] + 0.1 * rng.normal(size=(80, 8))).astype("f")
    z_ND[0] = (z_ND[2] + z_ND[1]) / 2
    same = (y_N[:, None] == y_N) & ~np.eye(80, dtype=bool)
    same[0, :] = same[:, 0] = True
    same[0, 0] = False
    score_N = affinity_uncertainty(z_ND, **(OPTIONS | {"graph": Graph(80, *np.nonzero(same))}))
    assert score_N[0] == score_N.max()


def test_an_outlier_is_not_the_surest_node():
    rng = np.random.default_rng(0)
    z_ND = (np.eye(3, 12)[np.arange(90) % 3] + 0.05 * rng.normal(size=(90, 12))).astype("f")
    z_ND[0] = -np.eye(12)[5]
    for estimator in ("softmax", "entropy", "gambler"):
        score_N = affinity_uncertainty(z_ND, **(OPTIONS | {"estimator": estimator}))
        assert score_N[0] == score_N.max()


def test_a_candidate_is_never_compared_with_itself():
    """Orthogonal nodes are all outliers; a node that counted itself as company would look sure."""
    np.testing.assert_array_equal(affinity_uncertainty(np.eye(6, dtype="f"), **OPTIONS), 0.5)


def test_nodes_without_neighbours_use_candidates_alone():
    rng = np.random.default_rng(0)
    z_ND = rng.normal(size=(40, 6)).astype("f")
    graph = Graph(40, np.array([0, 1]), np.array([1, 0]))
    with_graph = affinity_uncertainty(z_ND, **(OPTIONS | {"graph": graph}))
    without = affinity_uncertainty(z_ND, **OPTIONS)
    np.testing.assert_allclose(with_graph[2:], without[2:], rtol=1e-5)
    assert with_graph[0] != without[0]


def test_a_longer_list_of_neighbours_is_thinned_evenly_and_a_shorter_one_filled_up():
    src = np.array([0] * 6 + [2] * 2 + [3])
    dst = np.array([1, 2, 3, 4, 5, 6, 0, 1, 6])
    found = _Neighbours(Graph(7, src, dst), 3, 7)
    assert found.width == 3
    assert found.of(np.arange(4)).tolist() == [[1, 3, 5], [-1, -1, -1], [0, 1, -1], [6, -1, -1]]
    assert found.of(np.array([2, 3])).tolist() == [[0, 1, -1], [6, -1, -1]]
    assert _Neighbours(None, 3, 7).of(np.arange(4)).shape == (4, 0)


def test_very_many_candidates_take_smaller_blocks(monkeypatch):
    rows = []
    z_ND = np.random.default_rng(0).normal(size=(90, 6)).astype("f")
    whole = affinity_uncertainty(z_ND, **OPTIONS)
    monkeypatch.setattr("gcl.uncertainty.affinity._BLOCK_ELEMENTS", 910)
    monkeypatch.setattr(
        "gcl.uncertainty.affinity.two_means",
        lambda value_BM: rows.append(len(value_BM)) or two_means(value_BM),
    )
    np.testing.assert_allclose(affinity_uncertainty(z_ND, **OPTIONS), whole, rtol=1e-4)
    assert rows == [10] * 9
