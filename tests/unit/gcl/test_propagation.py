"""Sums over neighbours: direction, backends, bits, gradients, self-loops, weights."""

import itertools
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch

from gcl.graph import Graph
from gcl.propagation import Propagation, csr_arrays, out_degrees, resolve_backend


def random_graph(
    num_nodes: int = 300,
    num_edges: int = 2400,
    *,
    directed: bool = True,
    weighted: bool = False,
    seed: int = 0,
) -> Graph:
    generator = np.random.default_rng(seed)
    src, dst = generator.integers(0, num_nodes - 5, (2, num_edges))  # the last five nodes are isolated
    dst[: num_nodes // 2] = 3  # a hub
    if not directed:
        src, dst = np.concatenate([src, dst]), np.concatenate([dst, src])
    keys = np.unique(src * num_nodes + dst)
    weight_E = generator.uniform(0.1, 2, len(keys)).astype(np.float32) if weighted else None
    return Graph(
        num_nodes, keys // num_nodes, keys % num_nodes, weight_E=weight_E, is_undirected=not directed
    )


def random_walk(graph: Graph, *, self_loops: bool = False) -> np.ndarray:
    """T = D^-1 A, dense float64, zero rows where there are no out-edges."""
    adjacency = graph.adjacency_NN().toarray().astype(np.float64)
    if self_loops:
        adjacency[np.diag_indices(graph.num_nodes)] = np.where(np.diag(adjacency) > 0, np.diag(adjacency), 1)
    degree = adjacency.sum(1, keepdims=True)
    return np.divide(adjacency, degree, out=np.zeros_like(adjacency), where=degree > 0)


def features(num_nodes: int, num_columns: int = 7) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(1).standard_normal((num_nodes, num_columns)).astype(np.float32)
    )


@pytest.mark.parametrize("backend", ["dgl", "torch"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("self_loops", [False, True])
def test_propagate_averages_over_out_neighbours(backend, weighted, self_loops):
    graph = random_graph(weighted=weighted)
    x = features(graph.num_nodes)
    propagation = Propagation.from_graph(graph, self_loops=self_loops, backend=backend)
    expected = random_walk(graph, self_loops=self_loops) @ x.double().numpy()
    np.testing.assert_allclose(propagation.propagate(x).numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("convolution", [0.0, 0.3, 0.5, 1.0])
def test_propagate_equals_scaled_adjacency_for_every_convolution(convolution):
    graph = random_graph(directed=False)
    x = features(graph.num_nodes)
    degree = np.maximum(graph.out_degree_N, 1).astype(float)
    dense = graph.adjacency_NN().toarray()
    operator = degree[:, None] ** (convolution - 1) * dense * degree[None, :] ** -convolution
    actual = Propagation.from_graph(graph).propagate(x, convolution=convolution)
    np.testing.assert_allclose(actual.numpy(), operator @ x.double().numpy(), atol=2e-5)


def test_isolated_node_has_a_zero_row_without_self_loop_and_keeps_itself_with_one():
    graph = random_graph()
    x = features(graph.num_nodes)
    without = Propagation.from_graph(graph).propagate(x)
    assert not without[-5:].any()
    assert torch.isfinite(without).all()
    assert torch.equal(Propagation.from_graph(graph, self_loops=True).propagate(x)[-5:], x[-5:])


def test_self_loops_keep_rows_sorted_and_count_existing_loops_once():
    graph = Graph(4, np.array([0, 0, 1, 3]), np.array([1, 2, 1, 0]), is_undirected=False)
    indptr, indices, weights = csr_arrays(graph, self_loops=True)
    assert indptr.tolist() == [0, 3, 4, 5, 7]
    assert indices.tolist() == [0, 1, 2, 1, 2, 0, 3]
    assert weights is None


def test_self_loops_of_weighted_graph_weigh_one_beside_given_ones():
    weight_E = np.array([2.0, 5.0], np.float32)
    graph = Graph(2, np.array([0, 1]), np.array([1, 1]), weight_E=weight_E, is_undirected=False)
    indptr, indices, weights = csr_arrays(graph, self_loops=True)
    assert (indptr.tolist(), indices.tolist(), weights.tolist()) == ([0, 2, 3], [0, 1, 1], [1.0, 2.0, 5.0])


def test_backends_agree_bit_for_bit_on_an_unweighted_graph():
    graph = random_graph(num_nodes=3000, num_edges=60_000)
    x = features(graph.num_nodes, 70)
    dgl, torch_csr = (Propagation.from_graph(graph, backend=name) for name in ("dgl", "torch"))
    assert (dgl.backend, torch_csr.backend) == ("dgl", "torch")
    assert torch.equal(dgl.neighbour_sum(x), torch_csr.neighbour_sum(x))


@pytest.mark.parametrize("weighted", [False, True])
def test_sum_has_the_same_bits_for_every_width_and_thread_count(weighted):
    graph = random_graph(num_nodes=20_000, num_edges=300_000, weighted=weighted)
    x = features(graph.num_nodes, 70)
    propagation = Propagation.from_graph(graph)
    reference = propagation.neighbour_sum(x)
    threads = torch.get_num_threads()
    try:
        for num_threads in (1, 2, 3):
            torch.set_num_threads(num_threads)
            for width in (1, 7, 32, 70):
                blocks = [
                    propagation.neighbour_sum(x[:, i : i + width].contiguous()) for i in range(0, 70, width)
                ]
                assert torch.equal(torch.cat(blocks, 1), reference), (num_threads, width)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("backend", ["dgl", "torch"])
def test_gradient_is_the_transposed_walk(backend):
    graph = random_graph()
    x = features(graph.num_nodes).requires_grad_()
    Propagation.from_graph(graph, backend=backend).propagate(x).square().sum().backward()
    walk = random_walk(graph)
    np.testing.assert_allclose(x.grad, 2 * walk.T @ walk @ x.detach().double().numpy(), atol=1e-4)


@pytest.mark.parametrize("backend", ["dgl", "torch"])
@pytest.mark.parametrize("weighted", [False, True])
def test_sum_into_used_memory_equals_the_fresh_one(backend, weighted):
    graph = random_graph(weighted=weighted)
    x = features(graph.num_nodes)
    propagation = Propagation.from_graph(graph, backend=backend)
    used = torch.full_like(x, torch.nan)
    assert propagation.neighbour_sum(x, out_Nc=used) is used
    assert torch.equal(used, propagation.neighbour_sum(x))
    with pytest.raises(ValueError, match="contiguous"):
        propagation.neighbour_sum(x, out_Nc=torch.empty(x.shape[::-1]).T)


def test_weighted_graph_goes_through_torch_and_counts_its_weights():
    graph = random_graph(weighted=True)
    assert Propagation.from_graph(graph, backend="dgl").backend == "torch"


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_weights_that_are_no_walk_are_refused(bad):
    weight_E = np.array([1.0, bad], np.float32)
    graph = Graph(2, np.array([0, 1]), np.array([1, 0]), weight_E=weight_E)
    with pytest.raises(ValueError, match="edge weights"):
        Propagation.from_graph(graph)


@pytest.mark.parametrize("backend", ["dgl", "torch"])
def test_graph_without_edges_sums_to_zero(backend):
    empty = np.zeros(0, np.int64)
    propagation = Propagation.from_graph(Graph(3, empty, empty), backend=backend)
    assert not propagation.propagate(torch.ones(3, 2)).any()
    assert not propagation.neighbour_sum(torch.ones(3, 2), out_Nc=torch.ones(3, 2)).any()


def test_features_of_another_graph_are_refused():
    with pytest.raises(ValueError, match="300 x c"):
        Propagation.from_graph(random_graph()).propagate(torch.ones(299, 2))


def test_resolve_backend_follows_device_and_installation(monkeypatch):
    assert resolve_backend("auto", "cpu") == "dgl"
    assert resolve_backend("torch", "cpu") == "torch"
    assert resolve_backend("auto", "cuda") == "torch"
    with pytest.raises(ValueError, match="CPU"):
        resolve_backend("dgl", "cuda")
    with pytest.raises(ValueError, match="unknown"):
        resolve_backend("DGL")  # type: ignore[arg-type]
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.1.0")
    assert resolve_backend() == "torch"


def test_resolving_and_configuring_import_neither_torch_nor_dgl():
    code = (
        "import sys, gcl.smoothing as s; from gcl.propagation import resolve_backend; resolve_backend();"
        "s.filter_weights(s.SmoothingConfig()); assert not {'torch', 'dgl', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_wide_rows_of_many_neighbours_are_summed_and_do_not_crash():
    """dgl cuts such sums into blocks and then reads the numbers of edges, which the graph had not."""
    program = """
import numpy as np, torch
from gcl.graph import Graph
from gcl.propagation import Propagation
node = np.arange(1500)
src, dst = (np.concatenate(ends) for ends in zip(*((node, (node + step) % 1500) for step in range(1, 300))))
graph = Graph.from_edges(src, dst, np.ones((1500, 1), np.float32))
x = torch.randn(1500, 2048, generator=torch.Generator().manual_seed(0))
sums = [Propagation.from_graph(graph, backend=name).neighbour_sum(x) for name in ("auto", "torch")]
into = Propagation.from_graph(graph).neighbour_sum(x, out_Nc=torch.empty_like(x))
print(torch.equal(*sums) and torch.equal(into, sums[0]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr[-500:]


@pytest.mark.parametrize("edges_at_once", [1, 3, 7, 1000])
def test_weighted_degrees_are_summed_in_parts_to_the_same_bytes(edges_at_once, monkeypatch):
    rng = np.random.default_rng(0)
    degree_N = np.array([0, 5, 0, 12, 1, 0, 3, 0])
    indptr = np.concatenate([[0], np.cumsum(degree_N)])
    weight_E = rng.random(degree_N.sum()).astype(np.float32)
    expected = [sum(map(float, weight_E[first:last])) for first, last in itertools.pairwise(indptr)]
    monkeypatch.setattr("gcl.propagation._EDGES_AT_ONCE", edges_at_once)
    assert out_degrees(indptr, weight_E).tolist() == expected


def test_weighted_degrees_take_memory_of_nodes_not_of_edges():
    num_edges = 16_000_000
    indptr, weight_E = np.arange(0, num_edges + 1, 100), np.ones(num_edges, np.float32)
    tracemalloc.start()
    try:
        out_degrees(indptr, weight_E)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * num_edges, "16 bytes an edge are a row's number and a wide weight of each"
