"""Push and walks against the filter's definition in float64: the identity, the bounds, no bias."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from gcl.bidirectional import kernels as kernels_module
from gcl.bidirectional import push_filter, update_filter
from gcl.bidirectional.columns import ColumnPush, Part, Task
from gcl.bidirectional.walks import Walks, random_walks
from gcl.graph import Graph
from gcl.propagation import csr_arrays, effective_degrees, out_degrees
from gcl.smoothing import SmoothingConfig, filter_weights, smooth_features

WEIGHTS = {
    "ppr": filter_weights(SmoothingConfig(alpha=0.15, num_steps=6)),
    "heat": filter_weights(SmoothingConfig(filter="heat", time=2.5, num_steps=6)),
    "sgc": filter_weights(SmoothingConfig(filter="sgc", num_steps=3)),
    "signed": np.array([0.5, -0.25, 0.0, 1.5, 0.0]),
    "none": np.zeros(3),
    "first": np.array([0.7]),
}
KINDS = ("undirected", "directed", "weighted", "directed weighted")


def graph_of(kind: str, *, num_nodes: int = 150, num_features: int = 5) -> Graph:
    """Uneven degrees, three isolated nodes, dead ends if directed, features of both signs, weights of 0."""
    is_undirected = "directed" not in kind.split()
    generator = np.random.default_rng(3)
    src = generator.integers(0, num_nodes - 3, 500)
    dst = (generator.random(500) ** 3 * (num_nodes - 3)).astype(np.int64)
    if is_undirected:
        src, dst = np.concatenate([src, dst]), np.concatenate([dst, src])
    keys = np.unique(src * num_nodes + dst)
    src, dst = keys // num_nodes, keys % num_nodes
    weight_E = (
        (0.2 + (src + dst) % 7 * ((src + dst) % 5 > 0)).astype(np.float32) if "weighted" in kind else None
    )
    x_NF = generator.standard_normal((num_nodes, num_features)).astype(np.float32)
    return Graph(
        num_nodes, src, dst, x_NF=x_NF, weight_E=weight_E, is_undirected="directed" not in kind.split()
    )


def walk_matrix(csr) -> np.ndarray:
    """T = D^-1 A, dense float64."""
    indptr, indices, weight_E = csr
    data = np.ones(len(indices)) if weight_E is None else weight_E.astype(np.float64)
    adjacency = sp.csr_matrix((data, indices, indptr), shape=(len(indptr) - 1,) * 2).toarray()
    return adjacency / degrees(csr)[:, None]


def degrees(csr) -> np.ndarray:
    return effective_degrees(out_degrees(csr[0], csr[2]))


def exact(x_NF, csr, weights, convolution) -> np.ndarray:
    """D^r sum_l w_l T^l D^-r X in float64."""
    scaling_N1 = degrees(csr)[:, None] ** convolution
    walk, power_NF = walk_matrix(csr), x_NF / scaling_N1
    out_NF = np.zeros(x_NF.shape)
    for weight in weights:
        out_NF += weight * power_NF
        power_NF = walk @ power_NF
    return out_NF * scaling_N1


@pytest.mark.parametrize("convolution", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_out_at_r_max_0(kind, name, convolution):
    graph = graph_of(kind)
    csr = csr_arrays(graph, self_loops=kind == "undirected")
    expected = exact(graph.x_NF, csr, WEIGHTS[name], convolution)
    for signs in ("together", "apart"):
        pushed = push_filter(
            graph.x_NF, csr, weights=WEIGHTS[name], r_max=0, convolution=convolution, signs=signs
        )
        assert pushed.x_SF.dtype == np.float32
        np.testing.assert_allclose(pushed.x_SF, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
        assert (pushed.bound_F == 0).all()


def test_push_agrees_with_the_exact_filter_of_the_pipeline():
    graph = graph_of("undirected")
    config = SmoothingConfig(alpha=0.1, num_steps=8, convolution=0.3)
    smoothed = smooth_features(graph, config, seed=0)
    pushed = push_filter(
        graph.x_NF, csr_arrays(graph, self_loops=True), weights=smoothed.weights, r_max=0, convolution=0.3
    )
    np.testing.assert_allclose(pushed.x_SF, smoothed.x_NF, atol=2e-6)


def exact_shares(csr, num_steps: int) -> Walks:
    """Infinitely many walks from every node."""
    walk = walk_matrix(csr)
    powers = [np.linalg.matrix_power(walk, step) for step in range(1, num_steps + 1)]
    num_nodes = len(walk)
    return Walks(np.arange(num_nodes, dtype=np.int32), num_nodes, sp.csr_matrix(np.hstack(powers)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [0, 1, 3, 5])
def test_reserves_and_walked_residues_make_up_each_power_exactly(kind, level):
    csr = csr_arrays(graph_of(kind))
    weights = np.eye(6)[level]
    walk, num_nodes = walk_matrix(csr), len(csr[0]) - 1
    data = np.ones(len(csr[1]), np.float32) if csr[2] is None else csr[2]
    turned = sp.csr_matrix((data, csr[1], csr[0]), shape=walk.shape).tocsc()
    q0 = np.random.default_rng(0).standard_normal(num_nodes)
    task = Task(
        in_csr=(turned.indptr, turned.indices, turned.data),
        inverse_degree_N=1 / degrees(csr),
        scaling_N=np.ones(num_nodes),
        weights=weights,
        r_max=4e-3,
        signs="together",
        rows=np.arange(num_nodes),
        walks=exact_shares(csr, 5),
    )
    filtered_N, (bound,) = ColumnPush(task).filtered((Part(np.arange(num_nodes), q0),))
    np.testing.assert_allclose(filtered_N, np.linalg.matrix_power(walk, level) @ q0, atol=1e-14)
    assert bound > 0 or level == 0, "something was left to the walks"


@pytest.mark.parametrize("convolution", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["ppr", "sgc", "signed"])
@pytest.mark.parametrize("signs", ["together", "apart"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_row_lies_within_its_bound_and_the_bound_is_not_far_off(kind, signs, name, convolution):
    graph, weights = graph_of(kind), WEIGHTS[name]
    graph = replace(graph, x_NF=graph.x_NF * np.float32([1, 1, 1, 0, 1]) + np.float32([0, 3, -3, 0, 0]))
    csr = csr_arrays(graph, self_loops=True)
    scaling_N1 = degrees(csr)[:, None] ** convolution
    expected = exact(graph.x_NF, csr, weights, convolution)
    l1_F = np.abs(graph.x_NF / scaling_N1).sum(0)
    tightest = []
    for r_max in (1e-3, 3e-3, 1e-2):
        pushed = push_filter(
            graph.x_NF, csr, weights=weights, r_max=r_max, convolution=convolution, signs=signs
        )
        error_NF = np.abs(pushed.x_SF - expected)
        bound_NF = scaling_N1 * pushed.bound_F
        assert (error_NF <= bound_NF + 1e-6 * np.abs(expected).max()).all()
        stated_F = r_max * l1_F * (np.arange(len(weights)) * np.abs(weights)).sum()
        assert (pushed.bound_F <= stated_F * (1 + 1e-12)).all()
        assert pushed.bound_F[3] == 0, "a column of zeros is exact"
        with np.errstate(invalid="ignore", divide="ignore"):
            tightest.append((error_NF / bound_NF)[:, pushed.bound_F > 1e-3].max(initial=0))
    assert (pushed.bound_F[[0, 1, 2, 4]] > 0).all()
    assert max(tightest) > 0.1


@pytest.mark.parametrize(("name", "combine"), [("ppr", np.maximum), ("signed", np.add)])
def test_errors_of_the_two_signs_add_up_only_under_weights_of_both_signs(name, combine):
    graph = graph_of("undirected")
    csr, x_NF = csr_arrays(graph), graph.x_NF
    bounds = [
        push_filter(x, csr, weights=WEIGHTS[name], r_max=5e-3, signs="apart").bound_F
        for x in (x_NF, np.maximum(x_NF, 0), np.minimum(x_NF, 0))
    ]
    assert (bounds[1] > 0).all()
    np.testing.assert_allclose(bounds[0], combine(bounds[1], bounds[2]), rtol=1e-12)


def test_signs_pushed_together_reach_a_smaller_error_with_less_work():
    graph = graph_of("undirected", num_nodes=2000)
    csr, weights = csr_arrays(graph, self_loops=True), WEIGHTS["ppr"]
    expected = exact(graph.x_NF, csr, weights, 0.5)
    together = push_filter(graph.x_NF, csr, weights=weights, r_max=1e-5)
    apart = push_filter(graph.x_NF, csr, weights=weights, r_max=1e-4, signs="apart")
    assert np.linalg.norm(together.x_SF - expected) < np.linalg.norm(apart.x_SF - expected)
    assert together.num_edge_steps < apart.num_edge_steps


@pytest.mark.parametrize("kind", ["undirected", "weighted"])
def test_an_undirected_graph_is_its_own_turned_graph(kind):
    graph = graph_of(kind)
    csr = csr_arrays(graph, self_loops=True)
    options = {"weights": WEIGHTS["ppr"], "r_max": 1e-3}
    turned = push_filter(graph.x_NF, csr, **options)
    own = push_filter(graph.x_NF, csr, is_undirected=True, **options)
    np.testing.assert_array_equal(own.x_SF, turned.x_SF)


def test_bytes_do_not_depend_on_threads_blocks_or_how_columns_are_given(tmp_path):
    graph = graph_of("undirected", num_nodes=400, num_features=40)
    x_NF = np.where(np.random.default_rng(0).random(graph.x_NF.shape) < 0.02, graph.x_NF, np.float32(0))
    csr = csr_arrays(graph, self_loops=True)
    options = {"weights": WEIGHTS["ppr"], "r_max": 1e-3, "rows": np.array([5, 1, 5]), "num_walks": 3}
    for given in ({}, options):
        settings = {**options, "rows": None, "num_walks": 0, **given}
        expected = push_filter(x_NF, csr, **settings)
        shape = expected.x_SF.shape
        mapped = np.memmap(tmp_path / "out", np.float32, mode="w+", shape=shape)
        for x, num_threads in ((x_NF, 3), (np.asfortranarray(x_NF), 1), (sp.csr_matrix(x_NF), 2)):
            pushed = push_filter(x, csr, num_threads=num_threads, out=mapped, **settings)
            assert pushed.x_SF is mapped
            np.testing.assert_array_equal(mapped, expected.x_SF)
            np.testing.assert_array_equal(pushed.bound_F, expected.bound_F)
            assert pushed.num_edge_steps == expected.num_edge_steps
        one = push_filter(x_NF[:, 7:8], csr, **settings)
        np.testing.assert_array_equal(one.x_SF[:, 0], expected.x_SF[:, 7])


def ring(num_nodes: int) -> Graph:
    node = np.arange(num_nodes)
    src = np.repeat(node, 2)
    dst = np.sort(np.stack([(node - 1) % num_nodes, (node + 1) % num_nodes], 1), 1).ravel()
    return Graph(num_nodes, src, dst)


def test_work_stays_where_the_values_are():
    csr = csr_arrays(ring(10_000))
    x_NF = sp.csc_matrix(([1.0], ([500], [0])), shape=(10_000, 1))
    pushed = push_filter(x_NF, csr, weights=np.full(11, 1 / 11), r_max=0)
    # From one node, t + 1 nodes hold a residue after t steps on a ring, and each passes it over two edges.
    assert pushed.num_edge_steps == sum(2 * (level + 1) for level in range(10))
    coarse = push_filter(x_NF, csr, weights=np.full(11, 1 / 11), r_max=0.3)
    assert coarse.num_edge_steps == 2 + 4 + 2  # 1; 1/2, 1/2; 1/4, 1/2, 1/4; 1/4, 1/4 at most after that


@pytest.mark.parametrize("kind", ["undirected", "directed weighted"])
def test_compiled_loops_do_what_the_source_says(kind, monkeypatch):
    graph = graph_of(kind)
    csr = csr_arrays(graph)
    x_NF = np.where(np.abs(graph.x_NF) > 1.5, graph.x_NF, np.float32(0))
    options = {"weights": WEIGHTS["ppr"], "r_max": 1e-2, "rows": np.arange(150), "num_walks": 5}
    compiled = push_filter(x_NF, csr, **options)
    plain = kernels_module.Kernels(kernels_module.settle, kernels_module.spread)
    monkeypatch.setattr("gcl.bidirectional.columns.compiled_kernels", lambda: plain)
    np.testing.assert_array_equal(push_filter(x_NF, csr, **options).x_SF, compiled.x_SF)


@pytest.mark.parametrize("kind", KINDS)
def test_walks_add_what_push_leaves_out_without_bias(kind):
    graph, weights = graph_of(kind), WEIGHTS["ppr"]
    csr, rows = csr_arrays(graph), np.array([0, 1, 2, 40, 60, 61, 99, 120, 140, 149])
    expected = exact(graph.x_NF, csr, weights, 0.5)[rows]
    options = {"weights": weights, "r_max": 2e-2, "rows": rows}
    push_alone = push_filter(graph.x_NF, csr, **options)
    estimates = np.stack(
        [push_filter(graph.x_NF, csr, num_walks=100, seed=seed, **options).x_SF for seed in range(40)]
    )
    deviation = np.maximum(estimates.std(0, ddof=1) / np.sqrt(len(estimates)), 1e-6)
    assert np.abs((estimates.mean(0) - expected) / deviation).max() < 5
    assert np.abs((push_alone.x_SF - expected) / deviation).max() > 15, "the test would see push alone"
    walk_bound_SF = degrees(csr)[rows, None] ** 0.5 * push_alone.walk_bound(100, confidence=0.99)
    assert (np.abs(estimates - expected) <= walk_bound_SF).mean() > 0.99
    assert (push_alone.walk_bound(400) == push_alone.walk_bound(100) / 2).all()


def test_walks_from_a_row_do_not_depend_on_the_other_rows():
    graph = graph_of("directed weighted")
    csr = csr_arrays(graph)
    options = {"weights": WEIGHTS["ppr"], "r_max": 2e-2, "num_walks": 20, "seed": 4}
    many = push_filter(graph.x_NF, csr, rows=np.arange(150), **options).x_SF
    few = push_filter(graph.x_NF, csr, rows=np.array([140, 17, 17]), **options).x_SF
    np.testing.assert_allclose(few, many[[140, 17, 17]], rtol=1e-6, atol=1e-7)
    other = push_filter(graph.x_NF, csr, rows=np.arange(150), **{**options, "seed": 5}).x_SF
    assert not np.array_equal(other, many)
    assert push_filter(graph.x_NF, csr, rows=np.array([], np.int64), **options).x_SF.shape == (0, 5)


def test_rows_walk_apart_from_each_other_and_alike_in_chunks_of_any_size(monkeypatch):
    csr, rows = csr_arrays(ring(50)), np.array([10, 20, 30])
    walks = random_walks(csr, rows, num_steps=4, num_walks=8, seed=0)
    share_S4V = walks.share.toarray().reshape(3, 4, walks.num_slots)
    around = walks.slot_N[rows[:2, None] + np.arange(-4, 5)]
    standing = np.where(around[:, None, :] >= 0, share_S4V[:2][[[0], [1]], :, around].transpose(0, 2, 1), 0)
    assert np.allclose(standing.sum(2), 1)
    assert not np.array_equal(standing[0], standing[1])
    monkeypatch.setattr("gcl.bidirectional.walks._CHUNK_POSITIONS", 1)
    again = random_walks(csr, rows, num_steps=4, num_walks=8, seed=0)
    np.testing.assert_array_equal(again.share.toarray(), walks.share.toarray())


@pytest.mark.parametrize("r_max", [0, 1e-3])
def test_an_isolated_node_keeps_its_first_term_and_with_a_self_loop_all_of_it(r_max):
    graph, weights = graph_of("undirected"), WEIGHTS["ppr"]
    for self_loops, share in ((False, weights[0]), (True, 1.0)):
        csr = csr_arrays(graph, self_loops=self_loops)
        pushed = push_filter(graph.x_NF, csr, weights=weights, r_max=r_max)
        tolerance = pushed.bound_F.max() + 1e-6
        np.testing.assert_allclose(
            pushed.x_SF[-3:], share * graph.x_NF[-3:], atol=tolerance * self_loops + 1e-7
        )


@pytest.mark.parametrize("kind", ["undirected", "directed weighted"])
def test_an_update_gives_what_filtering_anew_gives(kind):
    graph, weights = graph_of(kind), WEIGHTS["ppr"]
    csr = csr_arrays(graph, self_loops=True)
    change_NF = sp.lil_matrix(graph.x_NF.shape, dtype=np.float32)
    change_NF[[3, 70]] = np.random.default_rng(1).standard_normal((2, 5))
    filtered_NF = push_filter(graph.x_NF, csr, weights=weights, r_max=0, convolution=0.3).x_SF
    new_NF = graph.x_NF + change_NF.toarray()
    expected = exact(new_NF, csr, weights, 0.3)
    options = {"weights": weights, "convolution": 0.3, "is_undirected": graph.is_undirected}
    for r_max in (0, 1e-3):
        updated_NF = filtered_NF.copy()
        updated = update_filter(updated_NF, change_NF.tocsr(), csr, r_max=r_max, num_threads=2, **options)
        assert updated.x_SF is updated_NF
        bound_NF = degrees(csr)[:, None] ** 0.3 * updated.bound_F
        assert (np.abs(updated_NF - expected) <= bound_NF + 2e-6).all()
    assert (updated.bound_F > 0).all()
    with pytest.raises(ValueError, match="must be float32 and of the shape of the change"):
        update_filter(filtered_NF.astype(np.float64), change_NF.tocsr(), csr, r_max=0, **options)


def test_repeated_entries_of_a_sparse_matrix_add_up():
    csr = csr_arrays(ring(9))
    twice = sp.csc_matrix((np.float32([1, 2]), [4, 4], [0, 2]), shape=(9, 1))
    options = {"weights": WEIGHTS["ppr"], "r_max": 0}
    np.testing.assert_array_equal(
        push_filter(twice, csr, **options).x_SF, push_filter(twice.toarray(), csr, **options).x_SF
    )
    assert twice.nnz == 2, "the caller's matrix is left alone"


BROKEN = {
    "r_max is a share": {"r_max": -1e-9},
    "r_max is a share in": {"r_max": float("nan")},
    "convolution must lie": {"convolution": 1.5},
    "give rows": {"num_walks": 10},
    r"rows must lie in 0\.\.8": {"rows": np.array([0, 9])},
    "features must have 9 rows": {"x_NF": np.ones((8, 1), np.float32)},
    "column 1 contains NaN": {"x_NF": np.float32([[0, np.inf]] * 9)},
    "out must be float32, 9 x 1": {"out": np.empty((9, 2), np.float32)},
}


@pytest.mark.parametrize("message", BROKEN)
def test_settings_that_do_not_fit_are_refused(message):
    settings = {
        "x_NF": np.ones((9, 1), np.float32),
        "weights": WEIGHTS["ppr"],
        "r_max": 0.0,
        **BROKEN[message],
    }
    with pytest.raises(ValueError, match=message):
        push_filter(settings.pop("x_NF"), csr_arrays(ring(9)), **settings)


def test_without_numba_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    kernels_module.compiled_kernels.cache_clear()
    with pytest.raises(ImportError, match="install it, or use the exact filter"):
        kernels_module.compiled_kernels()


def test_numba_is_imported_on_first_use_only():
    code = "import gcl.bidirectional, sys; print('numba' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
