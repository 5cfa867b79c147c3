"""Filters against a dense float64 reference; the bytes do not depend on how the work is cut."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from pydantic import ValidationError

from gcl.config import affects_results
from gcl.graph import Graph
from gcl.propagation import csr_arrays
from gcl.smoothing import (
    BASE_BYTES,
    NUM_BUFFERS,
    MemoryLimits,
    SmoothingConfig,
    _block_columns,
    filter_weights,
    smooth_features,
    takes_dask,
)
from gcl.smoothing_blocks import map_in_process, smooth_block

FILTERS = {
    "ppr": {"filter": "ppr", "alpha": 0.15, "num_steps": 6},
    "heat": {"filter": "heat", "time": 2.5, "num_steps": 6},
    "sgc": {"filter": "sgc", "num_steps": 3},
    "weights": {"filter": "weights", "weights": (0.5, -0.25, 0.0, 1.5)},
}


def attributed_graph(
    *, num_nodes: int = 200, num_features: int = 9, directed: bool = False, weighted: bool = False
) -> Graph:
    """Random graph with three isolated nodes, uneven degrees and features of both signs."""
    generator = np.random.default_rng(7)
    src = generator.integers(0, num_nodes - 3, 900)
    dst = (generator.random(900) ** 3 * (num_nodes - 3)).astype(np.int64)
    if not directed:
        src, dst = np.concatenate([src, dst]), np.concatenate([dst, src])
    keys = np.unique(src * num_nodes + dst)
    src, dst = keys // num_nodes, keys % num_nodes
    weight_E = None
    if weighted:
        low, high = np.minimum(src, dst), np.maximum(src, dst)
        weight_E = (0.2 + (low * 31 + high * 17) % 10 / 4).astype(np.float32)
    x_NF = generator.standard_normal((num_nodes, num_features)).astype(np.float32)
    return Graph(num_nodes, src, dst, x_NF=x_NF, weight_E=weight_E, is_undirected=not directed)


def reference(graph: Graph, weights: np.ndarray, convolution: float, *, self_loops: bool) -> np.ndarray:
    """sum_l w_l (D^(r-1) A D^-r)^l X from the definition, dense float64."""
    adjacency = graph.adjacency_NN().toarray().astype(np.float64)
    if self_loops:
        adjacency[np.diag_indices(graph.num_nodes)] = np.where(np.diag(adjacency) > 0, np.diag(adjacency), 1)
    degree = adjacency.sum(1)
    degree[degree == 0] = 1
    operator = degree[:, None] ** (convolution - 1) * adjacency * degree[None, :] ** -convolution
    x_NF = graph.x_NF.toarray() if sp.issparse(graph.x_NF) else graph.x_NF
    power_NF = x_NF.astype(np.float64)
    out_NF = weights[0] * power_NF
    for weight in weights[1:]:
        power_NF = operator @ power_NF
        out_NF = out_NF + weight * power_NF
    return out_NF


@pytest.mark.parametrize("convolution", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("kind", ["undirected", "directed", "weighted", "sparse"])
def test_filter_equals_its_definition(name, convolution, self_loops, kind):
    graph = attributed_graph(directed=kind == "directed", weighted=kind == "weighted")
    if kind == "sparse":
        graph = replace(graph, x_NF=sp.csr_matrix(np.maximum(graph.x_NF, 0)))
    config = SmoothingConfig(**FILTERS[name], convolution=convolution, self_loops=self_loops)
    smoothed = smooth_features(graph, config, seed=0)
    expected = reference(graph, smoothed.weights, convolution, self_loops=self_loops)
    assert smoothed.x_NF.dtype == np.float32
    assert smoothed.x_NF.flags.c_contiguous
    np.testing.assert_allclose(smoothed.x_NF, expected, atol=3e-6 * max(1, np.abs(expected).max()))
    assert np.abs(smoothed.x_NF).max() <= smoothed.bound


@pytest.mark.parametrize("convolution", [0.0, 0.3, 0.5, 1.0])
def test_powers_of_the_operator_are_powers_of_the_walk_between_scalings(convolution):
    adjacency = attributed_graph().adjacency_NN().toarray().astype(np.float64) + np.eye(200)
    degree = adjacency.sum(1)
    operator = degree[:, None] ** (convolution - 1) * adjacency * degree[None, :] ** -convolution
    walk = np.linalg.matrix_power(adjacency / degree[:, None], 5)
    expected = degree[:, None] ** convolution * walk * degree[None, :] ** -convolution
    np.testing.assert_allclose(np.linalg.matrix_power(operator, 5), expected, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("name", ["ppr", "heat", "sgc"])
def test_constant_vector_is_a_fixed_point_of_the_random_walk(name):
    graph = replace(attributed_graph(), x_NF=np.ones((200, 1), np.float32))
    smoothed = smooth_features(graph, SmoothingConfig(**FILTERS[name], convolution=0.0), seed=0)
    np.testing.assert_allclose(smoothed.x_NF, 1, atol=1e-6)


def test_isolated_node_keeps_only_its_own_weight_without_self_loops():
    graph = attributed_graph()
    config = SmoothingConfig(alpha=0.25, self_loops=False)
    x_NF = smooth_features(graph, config, seed=0).x_NF
    np.testing.assert_array_equal(x_NF[-3:], np.float32(0.25) * graph.x_NF[-3:])
    with_loops = smooth_features(graph, SmoothingConfig(alpha=0.25), seed=0).x_NF
    np.testing.assert_allclose(with_loops[-3:], graph.x_NF[-3:], rtol=1e-6)


def test_features_of_the_graph_are_left_as_they_were():
    graph = attributed_graph()
    before = graph.x_NF.copy()
    smooth_features(graph, SmoothingConfig(), seed=0)
    np.testing.assert_array_equal(graph.x_NF, before)


def test_ppr_tail_goes_where_the_policy_says():
    on_last, drop, shared = (
        filter_weights(SmoothingConfig(alpha=0.05, num_steps=10, tail=tail))
        for tail in ("on_last", "drop", "renormalise")
    )
    assert on_last.sum() == pytest.approx(1)
    assert on_last[-1] == pytest.approx(0.5987, abs=1e-4)
    np.testing.assert_allclose(on_last[:-1], drop[:-1])
    np.testing.assert_allclose(drop, 0.05 * 0.95 ** np.arange(11))
    np.testing.assert_allclose(shared, drop / drop.sum())


@pytest.mark.parametrize("time", [0.1, 3.0, 90.0])
@pytest.mark.parametrize("num_steps", [0, 1, 20])
def test_heat_weights_on_last_sum_to_one(time, num_steps):
    weights = filter_weights(SmoothingConfig(filter="heat", time=time, num_steps=num_steps))
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert (weights >= 0).all()


def test_heat_weights_are_poisson():
    weights = filter_weights(SmoothingConfig(filter="heat", time=2.0, num_steps=3, tail="drop"))
    np.testing.assert_allclose(weights, np.exp(-2) * np.array([1, 2, 2, 8 / 6]))


def test_given_weights_are_used_as_given_and_sgc_is_one_level():
    given = SmoothingConfig(filter="weights", weights=(0.5, -2.0), tail="renormalise")
    assert filter_weights(given).tolist() == [0.5, -2.0]
    assert filter_weights(SmoothingConfig(filter="sgc", num_steps=2)).tolist() == [0, 0, 1]


@pytest.mark.parametrize("fields", [{"filter": "weights"}, {"weights": (1.0,)}])
def test_weights_and_their_filter_need_each_other(fields):
    with pytest.raises(ValidationError, match="need each other"):
        SmoothingConfig(**fields)


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_bytes_do_not_depend_on_blocks_order_files_or_threads(tmp_path, is_sparse, weighted):
    graph = attributed_graph(num_nodes=5000, num_features=67, weighted=weighted)
    if is_sparse:
        graph = replace(graph, x_NF=sp.csr_matrix(np.maximum(graph.x_NF, 0)))
    whole = smooth_features(graph, SmoothingConfig(block_columns=67), seed=0).x_NF

    def twice_and_backwards(function, blocks):
        names = [function(block) for block in reversed(blocks)]
        assert names == map_in_process(function, blocks[::-1])
        return names[::-1]

    threads = torch.get_num_threads()
    try:
        for num_threads, width in ((1, 1), (2, 16), (3, 66)):
            torch.set_num_threads(num_threads)
            config = SmoothingConfig(block_columns=width)
            folder = tmp_path / str(width)
            folder.mkdir()
            np.testing.assert_array_equal(smooth_features(graph, config, seed=0).x_NF, whole)
            in_files = smooth_features(graph, config, seed=0, scratch=folder, map_blocks=twice_and_backwards)
            assert in_files.x_NF.tobytes() == whole.tobytes()
            assert not list(folder.glob("*.partial"))
    finally:
        torch.set_num_threads(threads)


def test_foreign_map_without_scratch_gets_a_folder_that_is_gone_afterwards():
    folders = set()

    def spy(function, blocks):
        assert function is smooth_block
        folders.update(block.folder for block in blocks)
        return map_in_process(function, blocks)

    graph = attributed_graph()
    smoothed = smooth_features(graph, SmoothingConfig(), seed=0, map_blocks=spy)
    np.testing.assert_array_equal(smoothed.x_NF, smooth_features(graph, SmoothingConfig(), seed=0).x_NF)
    assert len(folders) == 1
    assert not Path(folders.pop()).exists()


@pytest.mark.parametrize("weighted", [False, True])
def test_backends_agree(weighted):
    graph = attributed_graph(weighted=weighted)
    results = [
        smooth_features(graph, SmoothingConfig(), seed=0, propagation_backend=name).x_NF
        for name in ("dgl", "torch")
    ]
    np.testing.assert_allclose(*results, atol=1e-5)


def test_edge_weights_change_the_result():
    weighted = attributed_graph(weighted=True)
    plain = smooth_features(replace(weighted, weight_E=None), SmoothingConfig(), seed=0).x_NF
    assert np.abs(smooth_features(weighted, SmoothingConfig(), seed=0).x_NF - plain).max() > 0.05


def test_bound_is_reached_on_a_star_and_holds_for_directed_graphs():
    leaves = np.arange(1, 101)
    hub = np.zeros(100, np.int64)
    src, dst = np.concatenate([hub, leaves]), np.concatenate([leaves, hub])
    star = Graph(101, src, dst, x_NF=np.ones((101, 1), np.float32))
    config = SmoothingConfig(filter="sgc", num_steps=1, convolution=1.0, self_loops=False)
    smoothed = smooth_features(star, config, seed=0)
    assert smoothed.x_NF.max() == 100
    assert 100 <= smoothed.bound < 100.01
    inward = Graph(101, leaves, hub, x_NF=np.ones((101, 1), np.float32), is_undirected=False)
    for convolution in (0.0, 0.5, 1.0):
        smoothed = smooth_features(inward, config.model_copy(update={"convolution": convolution}), seed=0)
        assert np.abs(smoothed.x_NF).max() <= smoothed.bound


def test_output_rows_have_norm_one_and_bound_one():
    smoothed = smooth_features(attributed_graph(), SmoothingConfig(normalise_output="l2"), seed=0)
    np.testing.assert_allclose(np.linalg.norm(smoothed.x_NF, axis=1), 1, rtol=1e-6)
    assert smoothed.bound == pytest.approx(1, abs=1e-5)


def test_input_norm_and_components_come_before_the_filter():
    graph = attributed_graph()
    config = SmoothingConfig(
        normalise_input="l1", num_components=4, filter="weights", weights=(1.0,), convolution=0
    )
    x_NF = graph.x_NF / np.abs(graph.x_NF).sum(1, keepdims=True)
    centred = x_NF - x_NF.mean(0)
    expected = np.linalg.svd(centred, compute_uv=False)[:4]
    actual = smooth_features(graph, config, seed=0).x_NF
    np.testing.assert_allclose(np.linalg.norm(actual, axis=0), expected, rtol=1e-5)


def test_columns_are_standardised_before_rows_are_normalised():
    graph = attributed_graph()
    unlike = replace(graph, x_NF=(graph.x_NF * 10.0 ** np.arange(graph.x_NF.shape[1])).astype(np.float32))
    settings = {"normalise_input": "l2", "filter": "weights", "weights": (1.0,), "convolution": 0}
    found = [
        smooth_features(each, SmoothingConfig(standardise=True, **settings), seed=0).x_NF
        for each in (graph, unlike)
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
    plain = smooth_features(unlike, SmoothingConfig(**settings), seed=0).x_NF
    assert np.abs(plain - found[1]).max() > 0.1


def test_graph_without_attributes_is_refused_with_a_hint():
    graph = replace(attributed_graph(), x_NF=None)
    with pytest.raises(ValueError, match="degree.*spectral"):
        smooth_features(graph, SmoothingConfig(), seed=0)


@pytest.mark.parametrize(("source", "width"), [("degree", 65), ("spectral", 12)])
def test_graph_without_attributes_can_smooth_its_structure(source, width):
    graph = replace(attributed_graph(), x_NF=None)
    num_components = None if source == "degree" else 12
    config = SmoothingConfig(features=source, num_components=num_components)
    smoothed = smooth_features(graph, config, seed=0)
    assert smoothed.x_NF.shape == (200, width)
    np.testing.assert_array_equal(smoothed.x_NF, smooth_features(graph, config, seed=0).x_NF)


def test_non_finite_features_are_refused():
    graph = attributed_graph()
    graph.x_NF[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        smooth_features(graph, SmoothingConfig(), seed=0)


def test_only_how_to_work_is_operational():
    operational = {
        name for name in SmoothingConfig.model_fields if not affects_results(SmoothingConfig, name)
    }
    assert operational == {
        "backend",
        "dask_address",
        "num_workers",
        "threads_per_worker",
        "memory_limit",
        "block_columns",
    }
    assert all(field.description for field in SmoothingConfig.model_fields.values())


def test_dask_is_taken_by_name_or_where_there_is_a_scheduler():
    address = "tcp://127.0.0.1:8786"
    assert not takes_dask(SmoothingConfig())
    assert takes_dask(SmoothingConfig(dask_address=address))
    assert takes_dask(SmoothingConfig(backend="dask"))
    assert not takes_dask(SmoothingConfig(backend="direct", dask_address=address))


@pytest.mark.parametrize(
    ("settings", "run_limit", "expected"),
    [
        ({}, None, 24),  # 6 GiB over two workers, four buffers of 4 bytes
        ({}, 4 << 30, 8),  # the run's limit over two workers, half of it for buffers
        ({"memory_limit": 4 << 30}, 1 << 30, 16),  # a worker's own limit
        ({"num_workers": 4}, 4 << 30, 4),
    ],
)
def test_blocks_of_workers_share_what_there_is(settings, run_limit, expected):
    num_nodes = (1 << 30) // 128
    config = SmoothingConfig(backend="dask", **settings)
    limits = MemoryLimits(run_limit, machine=None, besides=0)
    assert _block_columns(config, (num_nodes, 128), limits, csr_bytes=0) == expected


@pytest.mark.parametrize(
    ("machine", "expected"),
    [(64 << 30, 48), (4 << 30, 24), (1 << 30, 1)],  # as much as ever; a container that has less; too little
)
def test_without_a_limit_blocks_fit_the_machine(machine, expected):
    limits = MemoryLimits(None, machine, besides=1 << 30)
    assert _block_columns(SmoothingConfig(), ((1 << 30) // 128, 128), limits, csr_bytes=0) == expected


def test_memory_limit_narrows_the_blocks(tmp_path):
    graph = attributed_graph(num_nodes=300_000, num_features=64)
    config = SmoothingConfig(backend="dask", num_workers=1, memory_limit=2**28, num_steps=1)
    widths = []

    def spy(function, blocks):
        widths.extend(block.last - block.first for block in blocks)
        return map_in_process(function, blocks)

    smooth_features(graph, config, seed=0, map_blocks=spy, scratch=tmp_path)
    assert max(widths) * 4 * 4 * graph.num_nodes <= 2**27
    assert sum(widths) == 64


@pytest.mark.parametrize(("columns", "expected"), [(64, 64), (5, 5), (0, 1)])
def test_memory_limit_narrows_the_blocks_of_this_process_too(columns, expected):
    graph = attributed_graph(num_nodes=20_000, num_features=64)
    csr_bytes = sum(part.nbytes for part in csr_arrays(graph, self_loops=True) if part is not None)
    limit = BASE_BYTES + 2 * csr_bytes + NUM_BUFFERS * 4 * graph.num_nodes * columns
    config = SmoothingConfig(num_steps=1)
    limited = smooth_features(graph, config, seed=0, memory_limit=limit)
    assert max(last - first for first, last in limited.blocks.ranges) == expected
    np.testing.assert_array_equal(limited.x_NF, smooth_features(graph, config, seed=0).x_NF)


def test_bound_of_rows_that_are_scaled_up_is_one():
    """Rows of L1 length 1 over many columns are short, and scaling to length 1 enlarges their values."""
    graph = attributed_graph()
    x_NF = np.full((graph.num_nodes, 100), 1.0, np.float32)
    config = SmoothingConfig(normalise_input="l1", normalise_output="l2", convolution=0)
    smoothed = smooth_features(replace(graph, x_NF=x_NF), config, seed=0)
    assert np.abs(smoothed.x_NF).max() == pytest.approx(0.1, rel=1e-4)  # of .01 before
    assert np.abs(smoothed.x_NF).max() <= smoothed.bound


def test_bound_counts_nodes_that_only_receive_edges():
    fork = Graph(3, np.array([0, 0]), np.array([1, 2]), x_NF=np.ones((3, 1), np.float32), is_undirected=False)
    config = SmoothingConfig(filter="sgc", num_steps=1, convolution=1.0, self_loops=False)
    smoothed = smooth_features(fork, config, seed=0)
    assert smoothed.x_NF.ravel().tolist() == [2, 0, 0]
    assert 2 <= smoothed.bound < 2.001


@pytest.mark.parametrize("is_sparse", [False, True])
def test_push_is_exact_at_zero_and_within_its_bound_above(is_sparse):
    pytest.importorskip("numba")
    graph = attributed_graph(num_nodes=500, num_features=20)
    if is_sparse:
        graph = replace(graph, x_NF=sp.csr_matrix(np.maximum(graph.x_NF, 0)))
    exact = smooth_features(graph, SmoothingConfig(), seed=0)
    zero = smooth_features(graph, SmoothingConfig(solver="push", r_max=0.0), seed=0)
    np.testing.assert_allclose(zero.x_NF, exact.x_NF, atol=1e-5)
    rough = smooth_features(graph, SmoothingConfig(solver="push", r_max=1e-3), seed=0)
    error = np.abs(rough.x_NF - exact.x_NF).max()
    assert 1e-4 < error <= rough.bound - exact.bound
    assert np.abs(rough.x_NF).max() <= rough.bound


def test_push_stays_in_this_process():
    with pytest.raises(ValidationError, match="works in this process"):
        SmoothingConfig(solver="push", backend="dask")
    assert not takes_dask(SmoothingConfig(solver="push", dask_address="tcp://127.0.0.1:8786"))
