"""Sums over the neighbours of a fixed graph with weights that change from call to call, as attention needs.

Shape legend: N nodes, E directed edges in CSR order, c feature columns.
"""

import warnings
from typing import TYPE_CHECKING

import numpy as np

from gcl.dgl_kernels import DglWeightedEdges
from gcl.propagation import BackendName, resolve_backend

if TYPE_CHECKING:
    import torch


class WeightedEdges:
    """Sums over neighbours with a weight an edge that changes from call to call, as attention needs.

    Edges are in CSR order. Nothing has gradients: those of a sum are the transposed sum and the products.

    Attributes:
        row_E: int64 row of each edge, on the device.
        column_E: int64 column of each edge, on the device.
        backend: ``dgl`` or ``torch``, what is really used.
    """

    _PRODUCT_NUMBERS = 1 << 22  # of ends gathered at a time by the torch backend

    def __init__(
        self, indptr: np.ndarray, indices: np.ndarray, *, backend: BackendName = "auto", device: str = "cpu"
    ) -> None:
        """Take CSR arrays (indices sorted within a row); arguments as of `gcl.propagation.Propagation`."""
        import torch

        self.num_nodes, self.backend = len(indptr) - 1, resolve_backend(backend, device)
        row_E = np.repeat(np.arange(self.num_nodes), np.diff(indptr))
        self.row_E = torch.from_numpy(row_E).to(device)
        self.column_E = torch.from_numpy(indices.astype(np.int64)).to(device)
        self._by_column = torch.from_numpy(np.lexsort((row_E, indices))).to(device)
        counts_N = np.bincount(indices, minlength=self.num_nodes)
        column_pointers = np.concatenate([[0], np.cumsum(counts_N)]).astype(np.int64)
        self._row_pointers = torch.from_numpy(indptr.astype(np.int64)).to(device)
        self._column_pointers = torch.from_numpy(column_pointers).to(device)
        if self.backend == "dgl":
            self._dgl = DglWeightedEdges(indptr, indices)

    def weighted_sum(self, weight_E: "torch.Tensor", x_Nc: "torch.Tensor") -> "torch.Tensor":
        """W x: for each row the sum of its columns' rows of `x_Nc`, weighted."""
        if self.backend == "dgl" and x_Nc.shape[1] > 1:  # dgl's kernel for single columns wants edge ids
            return self._dgl.weighted_sum(weight_E, x_Nc)
        return self._csr_product(self._row_pointers, self.column_E, weight_E, x_Nc)

    def transposed_sum(self, weight_E: "torch.Tensor", x_Nc: "torch.Tensor") -> "torch.Tensor":
        """W^T x: for each column the sum of its rows' rows of `x_Nc`, weighted."""
        if self.backend == "dgl" and x_Nc.shape[1] > 1:  # dgl's kernel for single columns wants edge ids
            return self._dgl.weighted_sum(weight_E, x_Nc, transposed=True)
        order = self._by_column
        return self._csr_product(self._column_pointers, self.row_E[order], weight_E[order], x_Nc)

    def products(self, row_Nc: "torch.Tensor", column_Nc: "torch.Tensor") -> "torch.Tensor":
        """For each edge the inner product of its row's and its column's row."""
        import torch

        if self.backend == "dgl":
            return self._dgl.products(row_Nc, column_Nc)
        found_E = row_Nc.new_empty(len(self.row_E))
        step = max(1, self._PRODUCT_NUMBERS // max(1, row_Nc.shape[1]))
        for first in range(0, len(found_E), step):
            part = slice(first, first + step)
            ends_ec = row_Nc[self.row_E[part]].mul_(column_Nc[self.column_E[part]])
            torch.sum(ends_ec, dim=1, out=found_E[part])
        return found_E

    def row_sums(self, value_E: "torch.Tensor") -> "torch.Tensor":
        """For each row the sum of its edges' values; 0 for a row without."""
        import torch

        return torch.segment_reduce(value_E, "sum", offsets=self._row_pointers, initial=0)

    def row_maxima(self, value_E: "torch.Tensor") -> "torch.Tensor":
        """For each row the largest of its edges' values; -inf for a row without."""
        import torch

        return torch.segment_reduce(value_E, "max", offsets=self._row_pointers)

    def column_sums(self, value_E: "torch.Tensor") -> "torch.Tensor":
        """For each column the sum of its edges' values; 0 for a column without."""
        import torch

        ordered_E = value_E[self._by_column]
        return torch.segment_reduce(ordered_E, "sum", offsets=self._column_pointers, initial=0)

    def _csr_product(
        self,
        pointers: "torch.Tensor",
        neighbours: "torch.Tensor",
        weights: "torch.Tensor",
        x_Nc: "torch.Tensor",
    ) -> "torch.Tensor":
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls its CSR support a beta
            size = (self.num_nodes, self.num_nodes)
            matrix = torch.sparse_csr_tensor(pointers, neighbours, weights, size=size, check_invariants=False)
        return matrix @ x_Nc
