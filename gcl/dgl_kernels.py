"""Sums over neighbours by dgl's kernels on the CPU; beside `interop`, the one module that knows dgl.

Nothing here chooses a backend: see `gcl.propagation.resolve_backend`. Directions are those of
`gcl.propagation`: row = src of a CSR, and a row aggregates over its columns.
"""

import importlib.metadata
import os
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from gcl.threads import cache_bytes

if TYPE_CHECKING:
    import torch

# dgl cuts neighbours into blocks where width x mean degree is above 1/2000 of the cache; half is a margin.
_BLOCKED_FROM_BYTES = cache_bytes() // 4000


def has_dgl() -> bool:
    """Whether a dgl that works here is installed, found without importing it."""
    # dgl 2.x needs a compiled companion for one torch version and does not import with a current torch.
    try:
        return importlib.metadata.version("dgl").startswith("1.")
    except importlib.metadata.PackageNotFoundError:
        return False


class DglSums:
    """A x of one unweighted graph."""

    def __init__(self, indptr: np.ndarray, indices: np.ndarray) -> None:
        """Take CSR arrays (row = src, indices sorted within a row)."""
        self.num_nodes, self.num_edges = len(indptr) - 1, len(indices)
        self._csr: tuple[np.ndarray, ...] = (indptr, indices)
        self._graph = _dgl_graph(indptr, indices)

    def neighbour_sum(self, x_Nc: "torch.Tensor") -> "torch.Tensor":
        """The sum of the neighbours' rows, differentiable with respect to them."""
        from dgl.ops import copy_u_sum

        return copy_u_sum(self._graph_for(x_Nc.shape[1]), x_Nc.contiguous())  # type: ignore[no-any-return]

    def sum_into(self, x_Nc: "torch.Tensor", out_Nc: "torch.Tensor") -> "torch.Tensor":
        """The same without gradients, in `out_Nc`; both are contiguous."""
        # What copy_u_sum calls, without its allocation; the kernel adds to what it finds.
        from dgl._sparse_ops import _CAPI_DGLKernelSpMM, to_dgl_nd, to_dgl_nd_for_write

        out_Nc.zero_()
        if self.num_edges:
            graph, none = self._graph_for(x_Nc.shape[1])._graph, to_dgl_nd(None)
            x, out = to_dgl_nd(x_Nc), to_dgl_nd_for_write(out_Nc)
            _CAPI_DGLKernelSpMM(graph, "copy_lhs", "sum", x, none, out, none, none)
        return out_Nc

    def _graph_for(self, width: int) -> Any:
        """The graph; its edges are numbered where dgl cuts neighbours into blocks, or it would crash."""
        if width * self.num_edges >= _BLOCKED_FROM_BYTES * self.num_nodes and self._csr:
            self._graph, self._csr = _dgl_graph(*self._csr, numbered=True), ()
        return self._graph


class DglWeightedEdges:
    """Products with weights that change from call to call; edges in CSR order, no gradients."""

    def __init__(self, indptr: np.ndarray, indices: np.ndarray) -> None:
        """Take CSR arrays (indices sorted within a row)."""
        self._graph = _dgl_graph(indptr, indices)
        self._reversed = _import_dgl().reverse(self._graph)

    def weighted_sum(
        self, weight_E: "torch.Tensor", x_Nc: "torch.Tensor", *, transposed: bool = False
    ) -> "torch.Tensor":
        """W x, or W^T x; `x_Nc` has more than one column, for which dgl's kernel would want edge numbers."""
        from dgl.ops import u_mul_e_sum

        graph = self._reversed if transposed else self._graph
        return u_mul_e_sum(graph, x_Nc.contiguous(), weight_E[:, None])  # type: ignore[no-any-return]

    def products(self, row_Nc: "torch.Tensor", column_Nc: "torch.Tensor") -> "torch.Tensor":
        """For each edge the inner product of its row's and its column's row."""
        from dgl.ops import u_dot_v

        product_E1: torch.Tensor = u_dot_v(self._graph, column_Nc.contiguous(), row_Nc.contiguous())
        return product_E1[:, 0]


def _import_dgl() -> ModuleType:
    # Without it dgl writes a configuration file into the home folder.
    os.environ.setdefault("DGLBACKEND", "pytorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import dgl
    return dgl  # type: ignore[no-any-return]


def _dgl_graph(indptr: np.ndarray, indices: np.ndarray, *, numbered: bool = False) -> Any:
    import torch

    dgl = _import_dgl()
    pointers, neighbours = torch.from_numpy(indptr), torch.from_numpy(indices)
    # dgl sums over the sources of a node's in-edges: our rows are its targets, so our CSR is its CSC.
    ids = torch.arange(len(indices) if numbered else 0, dtype=pointers.dtype)
    return dgl.graph(("csc", (pointers, neighbours, ids)), num_nodes=len(indptr) - 1)
