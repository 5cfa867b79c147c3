"""Smoothing for some rows alone: what it refuses, and that it leaves the rest of the graph alone."""

import numpy as np
import pytest

import gcl.smoothing_rows as module
from gcl.errors import UnsuitableSetting
from gcl.feature_rows import FeatureRows
from gcl.graph import Graph
from gcl.smoothing import SmoothingConfig, smooth_features
from gcl.smoothing_rows import require_row_wise, smooth_rows
from gcl.workspace import Workspace


def ring(num_nodes: int = 300, num_features: int = 7) -> Graph:
    nodes = np.arange(num_nodes)
    x_NF = np.random.default_rng(5).standard_normal((num_nodes, num_features)).astype(np.float32)
    return Graph.from_edges(nodes, (nodes + 1) % num_nodes, x_NF)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"standardise": True}, "smooth.standardise"),
        ({"num_components": 2}, "smooth.num_components"),
        ({"features": "spectral"}, "smooth.features=spectral"),
    ],
)
def test_what_depends_on_the_whole_matrix_is_refused(setting, named):
    config = SmoothingConfig(**setting)
    with pytest.raises(UnsuitableSetting, match=named) as caught:
        smooth_rows(ring(), config, np.array([3]))
    assert "\n" not in str(caught.value)


def test_degrees_and_row_norms_are_not_refused():
    require_row_wise(SmoothingConfig(features="degree", normalise_input="l1", normalise_output="l2"))


@pytest.mark.parametrize("rows", [[3, 3], [5, 2], [-1], [300]])
def test_rows_that_are_no_ascending_nodes_are_refused(rows):
    with pytest.raises(ValueError, match="ascending nodes of 0..299"):
        smooth_rows(ring(), SmoothingConfig(), np.array(rows))


def test_a_small_ball_is_all_that_is_smoothed(monkeypatch):
    graph, config = ring(), SmoothingConfig(num_steps=4)
    expected = smooth_features(graph, config, seed=0).x_NF
    sizes = []

    class Watched(module.Propagation):
        def neighbour_sum(self, x_Nc, *, out_Nc=None):
            sizes.append((len(x_Nc), self.num_edges))
            return super().neighbour_sum(x_Nc, out_Nc=out_Nc)

    monkeypatch.setattr(module, "Propagation", Watched)
    monkeypatch.setattr(module, "smooth_features", lambda *_, **__: pytest.fail("everything was smoothed"))
    found = smooth_rows(graph, config, np.array([10, 11]))
    np.testing.assert_array_equal(found, expected[[10, 11]])
    # 2 + 2 h nodes within h hops; the rows that are summed lie one hop further in, with three edges each.
    assert sizes == [(10, 24), (8, 18), (6, 12), (4, 6)]


@pytest.mark.parametrize(("num_steps", "distance"), [(4, 9), (1, 3)])  # beyond half early, at the last hop
def test_most_of_the_graph_is_smoothed_as_a_whole(num_steps, distance, monkeypatch):
    graph, config, called = ring(), SmoothingConfig(num_steps=num_steps), []

    def watched(*given, **options):
        called.append(given)
        return smooth_features(*given, **options)

    monkeypatch.setattr(module, "smooth_features", watched)
    rows_R = np.arange(0, 300, distance)
    np.testing.assert_array_equal(
        smooth_rows(graph, config, rows_R), smooth_features(graph, config, seed=0).x_NF[rows_R]
    )
    assert len(called) == 1


def test_a_pushed_filter_is_pushed_as_a_whole():
    pytest.importorskip("numba")
    graph, config = ring(), SmoothingConfig(num_steps=4, solver="push", r_max=1e-3)
    found = smooth_rows(graph, config, np.array([10]))
    np.testing.assert_array_equal(found, smooth_features(graph, config, seed=0).x_NF[[10]])
    exact = config.model_copy(update={"solver": "power"})
    assert not np.array_equal(found, smooth_rows(graph, exact, np.array([10])))


def test_attributes_may_be_streamed_and_wider_than_a_block():
    graph, config = ring(num_features=300), SmoothingConfig(num_steps=3, normalise_input="l2")
    x_NF = graph.x_NF
    streamed = FeatureRows(x_NF.shape, lambda: (x_NF[first : first + 70] for first in range(0, 300, 70)))
    bare = Graph(graph.num_nodes, graph.src_E, graph.dst_E, is_undirected=True)
    rows_R = np.array([0, 69, 70, 299])
    found = smooth_rows(bare, config, rows_R, attributes=streamed)
    np.testing.assert_array_equal(found, smooth_features(graph, config, seed=0).x_NF[rows_R])


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("columns", [1, 3])
def test_narrow_blocks_and_few_edges_at_a_time_change_no_byte(columns, is_weighted, monkeypatch, tmp_path):
    graph = ring()
    if is_weighted:
        weight_E = (1 + np.arange(graph.num_edges) % 5).astype(np.float32)
        graph = Graph(graph.num_nodes, graph.src_E, graph.dst_E, graph.x_NF, weight_E)
    config, rows_R = SmoothingConfig(num_steps=4, normalise_output="l2"), np.array([3, 10, 11, 200])
    expected = smooth_features(graph, config, seed=0).x_NF[rows_R]
    widths, filter_blocks = set(), module._filter

    def watched(csr, hop_N, x, out, *given, **options):
        widths.update(x_Mc.shape[1] for x_Mc in x.arrays)
        return filter_blocks(csr, hop_N, x, out, *given, **options)

    monkeypatch.setattr(module, "_filter", watched)
    monkeypatch.setattr(module, "_held_by_steps", lambda *_: 0)
    monkeypatch.setattr(module, "_EDGES_AT_A_TIME", 4)
    ball = 9 + 10 + 9  # around 3, around 10 and 11, around 200; nodes 6 and 7 are in two of them
    limit = module.NUM_COPIES * 4 * (ball - 2) * columns
    limited = {"memory_limit": limit, "held_bytes": 0, "workspace": Workspace(tmp_path)}
    found = smooth_rows(graph, config, rows_R, **limited)
    np.testing.assert_array_equal(found, expected)
    assert max(widths) == columns


def test_no_rows_are_an_empty_matrix():
    assert smooth_rows(ring(), SmoothingConfig(), np.empty(0, np.int64)).shape == (0, 7)
