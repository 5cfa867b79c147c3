"""Conversions: the same graph whatever it came in, refused where it breaks a rule, and back again."""

import subprocess
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from gcl.errors import InvalidGraph
from gcl.graph import Graph
from gcl.interop import (
    labels_from,
    labels_from_dgl,
    labels_from_networkx,
    labels_from_pyg,
    to_dgl,
    to_networkx,
    to_pyg,
)

nx = pytest.importorskip("networkx", reason="networkx is not installed")

# A triangle with a tail, given out of order, once twice, once both ways, and with a self-loop.
SRC, DST = [2, 0, 0, 1, 1, 3], [3, 1, 1, 0, 2, 3]
PAIRS = [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)]
X = np.arange(8, dtype=np.float64).reshape(4, 2)


def pairs(graph):
    return list(zip(graph.src_E.tolist(), graph.dst_E.tolist(), strict=True))


def same(first, second):
    def arrays(graph):
        x_NF = graph.x_NF.toarray() if sp.issparse(graph.x_NF) else graph.x_NF
        return (graph.src_E, graph.dst_E, graph.weight_E, x_NF)

    return (first.num_nodes, first.is_undirected) == (second.num_nodes, second.is_undirected) and all(
        (a is None and b is None) or np.array_equal(a, b)
        for a, b in zip(arrays(first), arrays(second), strict=True)
    )


class DglStandIn:
    """What `from_dgl` asks of a dgl graph."""

    is_homogeneous = True

    def __init__(self, src, dst, num_nodes, ndata=None, edata=None):
        self._ends, self._num_nodes = (torch.tensor(src), torch.tensor(dst)), num_nodes
        self.ndata, self.edata = ndata or {}, edata or {}

    def edges(self):
        return self._ends

    def num_nodes(self):
        return self._num_nodes


@pytest.mark.parametrize(
    "kind",
    [np.array, list, torch.tensor, lambda v: np.array(v, np.int32)],
    ids=["numpy", "list", "torch", "int32"],
)
def test_edges_become_canonical_whatever_holds_them(kind):
    graph = Graph.from_edges(kind(SRC), kind(DST), X)
    assert pairs(graph) == PAIRS
    assert graph.num_nodes == 4
    assert graph.is_undirected
    assert graph.weight_E is None
    assert graph.x_NF.dtype == np.float32
    assert graph.src_E.dtype == graph.dst_E.dtype == np.int64


def test_directed_edges_keep_their_direction_and_self_loops_stay_on_request():
    graph = Graph.from_edges(SRC, DST, num_nodes=5, directed=True, self_loops="keep")
    assert pairs(graph) == [(0, 1), (1, 0), (1, 2), (2, 3), (3, 3)]
    assert graph.num_nodes == 5
    assert not graph.is_undirected


def test_order_of_edges_does_not_matter_and_weights_add_up():
    order = np.random.default_rng(0).permutation(len(SRC))
    weight = np.array([1, 2, 3, 5, 1, 1.0])
    first = Graph.from_edges(SRC, DST, weight=weight)
    second = Graph.from_edges(np.array(SRC)[order], np.array(DST)[order], weight=weight[order])
    assert same(first, second)
    assert first.weight_E.tolist() == [5, 5, 1, 1, 1, 1]
    assert first.weight_E.dtype == np.float32


def test_weights_of_one_are_none_at_all():
    assert Graph.from_edges(SRC, DST, weight=np.ones(6)).weight_E is None


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        ({"src": [0, 4]}, "endpoints_in_range"),
        ({"dst": [-1, 1]}, "endpoints_in_range"),
        ({"weight": [1, np.nan]}, "weights_finite_and_positive"),
        ({"weight": [1, -2]}, "weights_finite_and_positive"),
        ({"weight": [1, 1e300]}, "weights_finite_and_positive"),
        ({"x": np.array([[0, 1], [np.nan, 1], [0, 0], [np.inf, 0]])}, "features_finite"),
        ({"x": sp.csr_matrix(np.array([[0, 1], [0, 1], [0, 0], [np.inf, 0]]))}, "features_finite"),
        ({"src": [0, 1], "dst": [1, 0], "weight": [1, 2]}, "weights_equal_in_both_directions"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_name(broken, rule):
    given = {"src": [0, 1], "dst": [1, 2], "x": np.zeros((4, 2)), **broken}
    with pytest.raises(InvalidGraph) as raised:
        Graph.from_edges(given.pop("src"), given.pop("dst"), given.pop("x"), **given)
    assert raised.value.rule == rule


def test_offending_nodes_are_named():
    x_NF = np.zeros((4, 2))
    x_NF[[1, 3], 1] = np.nan
    for x in (x_NF, sp.csr_matrix(x_NF)):
        with pytest.raises(InvalidGraph) as raised:
            Graph.from_edges([0], [1], x)
        assert raised.value.sample == ("node 1", "node 3")


def test_no_node_is_no_graph():
    with pytest.raises(InvalidGraph, match="graph_not_empty"):
        Graph.from_edges([], [])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([0.0, 1.0], [1, 2]), "src is a list of whole numbers"),
        (([0, 1], [[1], [2]]), "dst is a list of whole numbers"),
        (([0, 1], [1]), "src has 2 entries, dst 1"),
        (([0], [1], np.zeros(2)), "x is a matrix"),
    ],
)
def test_arrays_of_the_wrong_kind_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Graph.from_edges(*given)


def test_features_of_another_height_are_refused():
    with pytest.raises(ValueError, match="x has 4 rows for 6 nodes"):
        Graph.from_edges(SRC, DST, X, num_nodes=6)
    with pytest.raises(ValueError, match="x has 4 rows for 3 nodes"):
        Graph.from_scipy(sp.eye(3), X)


def test_sparse_features_stay_sparse_and_the_callers_matrix_stays_as_it_is():
    given = sp.csr_matrix(
        (np.ones(3, np.float32), np.array([1, 0, 1]), np.array([0, 3, 3, 3, 3])), shape=(4, 2)
    )
    graph = Graph.from_edges(SRC, DST, given)
    assert graph.x_NF.toarray().tolist() == [[1, 2], [0, 0], [0, 0], [0, 0]]
    assert graph.x_NF.has_canonical_format
    assert given.indices.tolist() == [1, 0, 1]


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.coo_matrix, sp.csc_array, sp.lil_matrix, np.asarray])
def test_scipy_in_every_form(form):
    dense = np.zeros((4, 4))
    dense[[0, 1, 2], [1, 2, 3]] = 1
    graph = Graph.from_scipy(form(dense), X)
    assert pairs(graph) == PAIRS
    assert graph.weight_E is None
    assert same(Graph.from_scipy(graph.adjacency_NN(), X), graph)


def test_scipy_values_are_weights_unless_told_otherwise_and_stored_zeros_are_no_edges():
    matrix = sp.csr_matrix(np.array([[1, 0.5, 0], [0.5, 1, 2], [0, 2, 1]]))
    matrix.setdiag(0)
    matrix[0, 1] = matrix[1, 0] = 0
    graph = Graph.from_scipy(matrix)
    assert pairs(graph) == [(1, 2), (2, 1)]
    assert graph.weight_E.tolist() == [2, 2]
    assert Graph.from_scipy(matrix, weighted=False).weight_E is None


def test_scipy_repeats_add_up_as_in_scipy():
    matrix = sp.coo_matrix((np.ones(3), ([0, 0, 1], [1, 1, 2])), shape=(3, 3))
    assert Graph.from_scipy(matrix).weight_E.tolist() == [2, 2, 1, 1]


def test_adjacency_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match="square, not 2 x 3"):
        Graph.from_scipy(sp.csr_matrix((2, 3)))


def test_networkx_nodes_of_any_kind_keep_their_names():
    nx_graph = nx.Graph([("b", ("c", 1)), (("c", 1), 7), (7, "z")])
    graph = Graph.from_networkx(nx_graph)
    assert graph.node_ids == ("b", ("c", 1), 7, "z")
    assert pairs(graph) == PAIRS
    back = to_networkx(graph)
    assert nx.utils.graphs_equal(back, nx_graph)


def test_networkx_features_from_attributes_or_a_matrix():
    nx_graph = nx.path_graph(4)
    for node in nx_graph:
        nx_graph.nodes[node].update(age=node * 10, place=[node, -node])
    assert Graph.from_networkx(nx_graph, "age").x_NF.tolist() == [[0], [10], [20], [30]]
    expected = [[0, 0, 0], [10, 1, -1], [20, 2, -2], [30, 3, -3]]
    assert Graph.from_networkx(nx_graph, ["age", "place"]).x_NF.tolist() == expected
    assert Graph.from_networkx(nx_graph, X).x_NF.tolist() == X.tolist()
    back = to_networkx(Graph.from_networkx(nx_graph, ["age", "place"]), features="row")
    assert back.nodes[2]["row"].tolist() == expected[2]


def test_networkx_nodes_without_the_attribute_are_named():
    nx_graph = nx.path_graph(3)
    nx_graph.nodes[1]["age"] = 3
    with pytest.raises(InvalidGraph, match="attribute_on_every_node broken by 2 row"):
        Graph.from_networkx(nx_graph, "age")
    for node, value in ((0, 1), (2, [1, 2])):
        nx_graph.nodes[node]["age"] = value
    with pytest.raises(InvalidGraph, match="vectors_of_one_length"):
        Graph.from_networkx(nx_graph, "age")


def test_networkx_direction_and_weights_are_honoured():
    directed = nx.DiGraph([(0, 1), (1, 2)])
    assert pairs(Graph.from_networkx(directed)) == [(0, 1), (1, 2)]
    assert pairs(Graph.from_networkx(directed, directed=False)) == PAIRS[:4]
    assert to_networkx(Graph.from_networkx(directed)).is_directed()
    multi = nx.MultiGraph()
    multi.add_edge(0, 1, weight=2)
    multi.add_edge(1, 0)
    graph = Graph.from_networkx(multi)
    assert graph.weight_E.tolist() == [3, 3]
    assert to_networkx(graph)[0][1]["weight"] == 3
    assert Graph.from_networkx(multi, weight=None).weight_E is None


def test_dgl_graph_by_its_own_words():
    stand_in = DglStandIn(
        SRC, DST, 4, {"feat": torch.tensor(X), "label": torch.tensor([0, 1, 1, 0])}, {"weight": torch.ones(6)}
    )
    graph = Graph.from_dgl(stand_in)
    assert same(graph, Graph.from_edges(SRC, DST, X))
    assert labels_from_dgl(stand_in).y_N.tolist() == [0, 1, 1, 0]
    with pytest.raises(ValueError, match="no 'attr' in ndata; there are: feat, label"):
        Graph.from_dgl(stand_in, features="attr")
    stand_in.is_homogeneous = False
    with pytest.raises(ValueError, match="heterogeneous"):
        Graph.from_dgl(stand_in)


def test_dgl_there_and_back():
    pytest.importorskip("dgl", reason="dgl is not installed")
    graph = Graph.from_edges(SRC, DST, X, weight=np.array([1, 2, 3, 5, 1, 1.0]))
    assert same(Graph.from_dgl(to_dgl(graph)), graph)


def test_pyg_data_and_pair():
    edge_index = torch.tensor([SRC, DST])
    expected = Graph.from_edges(SRC, DST, X)
    data = SimpleNamespace(
        x=torch.tensor(X), edge_index=edge_index, y=torch.tensor([0, 1, 1, 0]), num_nodes=4
    )
    assert same(Graph.from_pyg(data), expected)
    assert same(Graph.from_pyg((torch.tensor(X), edge_index)), expected)
    assert Graph.from_pyg((None, edge_index), num_nodes=9).num_nodes == 9
    data.edge_attr = torch.full((6, 1), 2.0)
    assert Graph.from_pyg(data).weight_E is None
    assert Graph.from_pyg(data, weight="edge_attr", directed=True).weight_E.tolist() == [4, 2, 2, 2]
    data.edge_weight = torch.full((6,), 3.0)
    assert Graph.from_pyg(data, directed=True).weight_E.tolist() == [6, 3, 3, 3]
    with pytest.raises(ValueError, match="no 'cost' in Data"):
        Graph.from_pyg(data, weight="cost")


def test_pyg_tensors_with_gradients_are_read():
    x = torch.tensor(X, requires_grad=True)
    assert Graph.from_pyg((x, torch.tensor([SRC, DST]))).x_NF.tolist() == X.tolist()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (SimpleNamespace(x=None), "no edge_index"),
        ((None, torch.zeros(4, 2, dtype=torch.long)), r"shape \(4, 2\), not \(2, E\)"),
        (SimpleNamespace(edge_types=[]), "heterogeneous"),
    ],
)
def test_pyg_without_edges_of_the_right_kind_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        Graph.from_pyg(data)


def test_pyg_there_and_back(monkeypatch):
    try:
        import torch_geometric.data  # noqa: F401
    except ImportError:  # a stand-in for the one class that is used
        module = ModuleType("torch_geometric.data")
        module.Data = SimpleNamespace
        monkeypatch.setitem(sys.modules, "torch_geometric", ModuleType("torch_geometric"))
        monkeypatch.setitem(sys.modules, "torch_geometric.data", module)
    graph = Graph.from_edges(SRC, DST, sp.csr_matrix(X), weight=np.array([1, 2, 3, 5, 1, 1.0]))
    assert same(Graph.from_pyg(to_pyg(graph)), graph)


def test_labels_never_enter_the_graph():
    data = SimpleNamespace(
        x=None, edge_index=torch.tensor([SRC, DST]), y=torch.tensor([0, 1, 1, 0]), num_nodes=4
    )
    assert not {"y", "y_N", "labels"} & set(vars(Graph.from_pyg(data)))
    labels = labels_from_pyg(data)
    assert labels.y_N.dtype == np.int32
    assert labels.class_names == ("0", "1")
    with pytest.raises(ValueError, match="no labels"):
        labels_from_pyg(SimpleNamespace())


def test_labels_of_every_kind():
    assert labels_from(torch.tensor([[0], [2], [-1]])).y_N.tolist() == [0, 2, -1]
    assert labels_from(np.array([0.0, np.nan, 1.0])).y_N.tolist() == [0, -1, 1]
    named = labels_from(["red", None, "blue", "red"])
    assert named.y_N.tolist() == [1, -1, 0, 1]
    assert named.class_names == ("blue", "red")
    karate = nx.karate_club_graph()
    assert labels_from_networkx(karate, "club").class_names == ("Mr. Hi", "Officer")
    nx.set_node_attributes(karate, dict.fromkeys(karate, 3), "group")
    assert labels_from_networkx(karate, "group").num_classes == 4
    for wrong in ([0.5, 1], [0, 5], [[0, 1], [1, 0]]):
        with pytest.raises(ValueError, match="labels are"):
            labels_from(np.array(wrong))
    with pytest.raises(ValueError, match="no node has the attribute 'team'"):
        labels_from_networkx(karate, "team")


@pytest.mark.parametrize(
    ("convert", "library"), [(to_networkx, "networkx"), (to_dgl, "dgl"), (to_pyg, "torch_geometric")]
)
def test_missing_library_is_named(convert, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setitem(sys.modules, f"{library}.data", None)
    with pytest.raises(ImportError, match=f"needs {library}"):
        convert(Graph.from_edges(SRC, DST))


def test_reading_graphs_imports_none_of_the_libraries():
    code = (
        "import sys; from gcl.graph import Graph; Graph.from_edges([0], [1]);"
        "print([m for m in ('networkx', 'dgl', 'torch', 'torch_geometric') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("form", ["array", "scipy", "torch"])
def test_complex_features_and_weights_are_refused(form):
    import torch

    x_NF = np.array([[1 + 2j, 0], [0, 1], [1, 1]])
    given = {"array": np.asarray, "scipy": sp.csr_matrix, "torch": torch.tensor}[form](x_NF)
    with pytest.raises(ValueError, match="x: complex numbers"):
        Graph.from_edges([0, 1], [1, 2], given)
    with pytest.raises(ValueError, match="weights: complex numbers"):
        Graph.from_edges([0, 1], [1, 2], weight=x_NF[0])
