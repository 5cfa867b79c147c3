"""Message passing over a fixed graph: sums over neighbours, and the random-walk operator T = D^-1 A.

Both backends, dgl's kernels and torch CSR, add the neighbours of a node one after the
other in the order of the edge table, so on a CPU they give the same bits for every number of threads and
every way of cutting the columns into blocks; the tests hold them to that.

Direction: row = src, so a node aggregates over its *out*-neighbours, as in D^-1 A.

Shape legend: N nodes, E directed edges, c a block of feature columns.
"""

import warnings
from typing import TYPE_CHECKING, Literal

import numpy as np

from gcl.dgl_kernels import DglSums, has_dgl
from gcl.graph import Graph
from gcl.workspace import MEMORY, Workspace, row_slices

if TYPE_CHECKING:
    import torch

BackendName = Literal["auto", "dgl", "torch"]
Csr = tuple[np.ndarray, np.ndarray, np.ndarray | None]
_EDGES_AT_ONCE = 1 << 21  # of rows whose weights are summed
_EDGE_BYTES = 64  # what an edge takes while it is put in its place


def resolve_backend(name: BackendName = "auto", device: str = "cpu") -> Literal["dgl", "torch"]:
    """The backend that `name` means here, without importing it: part of a stage's cache key.

    Args:
        name: ``auto`` takes dgl on a CPU where a dgl of the 1.x series is installed, torch otherwise.
        device: torch device; the dgl of the package index has no CUDA kernels.

    Raises:
        ValueError: dgl was asked for by name and cannot serve.
    """
    if name not in ("auto", "dgl", "torch"):
        raise ValueError(f"propagation backend {name!r} is unknown: auto, dgl or torch")
    is_cpu = device == "cpu"
    found_dgl = has_dgl()
    if name == "dgl" and not (is_cpu and found_dgl):
        raise ValueError(
            f"propagation backend dgl needs the CPU and dgl 1.x installed (device {device!r}, "
            f"dgl {'found' if found_dgl else 'missing'}); use backend torch"
        )
    return "dgl" if name != "torch" and is_cpu and found_dgl else "torch"


def csr_arrays(graph: Graph, *, self_loops: bool = False, workspace: Workspace = MEMORY) -> Csr:
    """The graph as CSR (row = src) with the smallest index type that holds it.

    Args:
        graph: edges sorted by (src, dst).
        self_loops: give every node that has none an edge to itself, of weight 1; a self-loop that the
            source already has stays as it is, so no node counts itself twice.
        workspace: where the arrays of E are put; besides, memory is O(N).

    Returns:
        (indptr of N + 1, indices of E, float32 weights of E or None for an unweighted graph).

    Raises:
        ValueError: an edge weight is negative or not finite; D^-1 A would not be a random walk.
    """
    degree_N = np.bincount(graph.src_E, minlength=graph.num_nodes)
    first_N = np.cumsum(degree_N) - degree_N
    lacks_loop_N = np.full(graph.num_nodes, self_loops)
    for edges in row_slices(graph.num_edges, _EDGE_BYTES):
        src_B = graph.src_E[edges]
        lacks_loop_N[src_B[src_B == graph.dst_E[edges]]] = False
    degree_N += lacks_loop_N
    num_edges = graph.num_edges + int(lacks_loop_N.sum())
    index_type = np.int32 if max(num_edges, graph.num_nodes) < 2**31 else np.int64
    indptr = np.zeros(graph.num_nodes + 1, index_type)
    np.cumsum(degree_N, out=indptr[1:])
    indices = workspace.empty((num_edges,), index_type)
    weights = None if graph.weight_E is None else workspace.empty((num_edges,), np.float32)
    for edges in row_slices(graph.num_edges, _EDGE_BYTES):
        src_B, dst_B = graph.src_E[edges], graph.dst_E[edges]
        # A new self-loop goes between the smaller and the larger neighbours, so it moves the larger ones on.
        within_B = np.arange(edges.start, edges.stop) - first_N[src_B]
        place_B = indptr[src_B] + within_B + (lacks_loop_N[src_B] & (dst_B > src_B))
        indices[place_B] = dst_B
        if weights is not None and graph.weight_E is not None:
            weights[place_B] = _checked_weights(graph.weight_E[edges])
    if self_loops:
        _place_loops(graph, indptr, lacks_loop_N, indices, weights)
    return indptr, indices, weights


def _place_loops(
    graph: Graph,
    indptr: np.ndarray,
    lacks_loop_N: np.ndarray,
    indices: np.ndarray,
    weights: np.ndarray | None,
) -> None:
    """Write the new self-loops into the places that were left for them."""
    place_N = indptr[:-1].astype(np.int64)
    for edges in row_slices(graph.num_edges, _EDGE_BYTES):
        src_B = graph.src_E[edges]
        num_smaller = np.bincount(src_B[graph.dst_E[edges] < src_B] - src_B[0])
        place_N[src_B[0] : src_B[0] + len(num_smaller)] += num_smaller
    nodes = np.flatnonzero(lacks_loop_N)
    indices[place_N[nodes]] = nodes
    if weights is not None:
        weights[place_N[nodes]] = 1


def _checked_weights(weight_B: np.ndarray) -> np.ndarray:
    if not (np.isfinite(weight_B).all() and (weight_B >= 0).all()):
        raise ValueError(
            "smoothing needs finite edge weights of at least 0; some are negative, NaN or infinite"
        )
    return weight_B


class Propagation:
    """Sums and averages over neighbours of one graph, differentiable with respect to the features.

    The unweighted sum runs in dgl's blocked kernel and the normalisation is a row scaling before and after
    it, thrice as fast as a CSR product with 1/d at every edge. Weighted graphs go through torch CSR.

    Attributes:
        num_nodes: N.
        num_edges: E.
        backend: ``dgl`` or ``torch``, what is really used.
        degree_N: float64 (weighted) out-degrees, self-loops included if there are any.
    """

    def __init__(
        self,
        indptr: np.ndarray,
        indices: np.ndarray,
        *,
        weight_E: np.ndarray | None = None,
        backend: BackendName = "auto",
        device: str = "cpu",
    ) -> None:
        """Take CSR arrays (row = src, indices sorted within a row); they may be memory-mapped.

        Args:
            indptr: int32 or int64 of N + 1.
            indices: E neighbours, of indptr's type, sorted within each row.
            weight_E: float32 weights, at least 0; None when every edge counts the same.
            backend: ``auto``, ``dgl`` or ``torch``.
            device: torch device of features and result.
        """
        self.num_nodes = len(indptr) - 1
        self.device = device
        resolved = resolve_backend(backend, device)
        self.backend: Literal["dgl", "torch"] = "torch" if weight_E is not None else resolved
        self.degree_N = out_degrees(indptr, weight_E)
        self._scalings: dict[float, torch.Tensor] = {}
        self.num_edges = len(indices)
        if self.backend == "dgl":
            self._dgl = DglSums(indptr, indices)
        else:
            self._matrix = _torch_csr(indptr, indices, weight_E, device)

    @classmethod
    def from_graph(
        cls, graph: Graph, *, self_loops: bool = False, backend: BackendName = "auto", device: str = "cpu"
    ) -> "Propagation":
        """Build from a Graph; see `csr_arrays` for what self-loops mean."""
        indptr, indices, weight_E = csr_arrays(graph, self_loops=self_loops)
        return cls(indptr, indices, weight_E=weight_E, backend=backend, device=device)

    def neighbour_sum(self, x_Nc: "torch.Tensor", *, out_Nc: "torch.Tensor | None" = None) -> "torch.Tensor":
        """A x: the (weighted) sum of the out-neighbours' rows, zero where there are none.

        Args:
            x_Nc: float32, on this object's device.
            out_Nc: contiguous, of x's shape, not x: takes the result, which saves page faults; no gradients.
        """
        if x_Nc.ndim != 2 or len(x_Nc) != self.num_nodes:
            raise ValueError(f"features must be {self.num_nodes} x c, not {tuple(x_Nc.shape)}")
        if out_Nc is not None:
            return self._sum_into(x_Nc.contiguous(), out_Nc)
        if self.backend == "dgl":
            return self._dgl.neighbour_sum(x_Nc)
        return self._matrix @ x_Nc

    def _sum_into(self, x_Nc: "torch.Tensor", out_Nc: "torch.Tensor") -> "torch.Tensor":
        if out_Nc.shape != x_Nc.shape or not out_Nc.is_contiguous():
            raise ValueError(f"out must be contiguous and {tuple(x_Nc.shape)}, not {tuple(out_Nc.shape)}")
        if self.backend == "torch":
            import torch

            return torch.addmm(out_Nc, self._matrix, x_Nc, beta=0, out=out_Nc)
        return self._dgl.sum_into(x_Nc, out_Nc)

    def propagate(self, x_Nc: "torch.Tensor", *, convolution: float = 0.0) -> "torch.Tensor":
        """One step of D^(r-1) A D^-r; r = 0 is the random walk T = D^-1 A, r = 1/2 the symmetric form.

        Args:
            x_Nc: float32.
            convolution: r in [0, 1].
        """
        if convolution != 0:
            x_Nc = x_Nc * self.degree_scaling(-convolution)
        summed_Nc = self.neighbour_sum(x_Nc)
        return summed_Nc if convolution == 1 else summed_Nc.mul_(self.degree_scaling(convolution - 1))

    def degree_scaling(self, exponent: float) -> "torch.Tensor":
        """float32 column (N x 1) of degree ** exponent; 1 for a node without out-edges, so never 1/0.

        A row of A without edges is zero whatever it is scaled by, and D^r D^-r stays the identity.
        """
        if exponent not in self._scalings:
            import torch

            scaling_N = effective_degrees(self.degree_N) ** exponent
            column_N1 = torch.from_numpy(scaling_N.astype(np.float32)[:, None])
            self._scalings[exponent] = column_N1.to(self.device)
        return self._scalings[exponent]


def effective_degrees(degree_N: np.ndarray) -> np.ndarray:
    """Degrees with 1 in place of 0."""
    return np.where(degree_N > 0, degree_N, 1.0)


def out_degrees(indptr: np.ndarray, weight_E: np.ndarray | None = None) -> np.ndarray:
    """float64 number of edges of each row, or the sum of their weights; O(N) memory."""
    degree_N = np.diff(indptr)
    if weight_E is None:
        return degree_N.astype(np.float64)
    total_N = np.zeros(len(degree_N))
    first = 0
    while first < len(degree_N):
        enough = int(indptr[first]) + _EDGES_AT_ONCE
        last = max(int(np.searchsorted(indptr, enough, side="right")) - 1, first + 1)
        row_B = np.repeat(np.arange(last - first), degree_N[first:last])
        own_B = weight_E[indptr[first] : indptr[last]]
        total_N[first:last] = np.bincount(row_B, weights=own_B, minlength=last - first)
        first = last
    return total_N


def _torch_csr(
    indptr: np.ndarray, indices: np.ndarray, weight_E: np.ndarray | None, device: str
) -> "torch.Tensor":
    import torch

    values = np.ones(len(indices), np.float32) if weight_E is None else weight_E
    num_nodes = len(indptr) - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its CSR support a beta
        return torch.sparse_csr_tensor(
            torch.from_numpy(indptr),
            torch.from_numpy(indices),
            torch.from_numpy(values),
            size=(num_nodes, num_nodes),
            check_invariants=False,
        ).to(device)
