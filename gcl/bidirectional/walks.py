"""Random walks from the rows that are needed: where they stand after each number of steps.

Shape legend: N nodes, L steps, S rows asked for, V nodes that some walk reaches.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from gcl.propagation import Csr, out_degrees
from gcl.random import numpy_generator

_CHUNK_POSITIONS = 1 << 22  # walks x steps held at once


@dataclass(frozen=True, eq=False)
class Walks:
    """Empirical distributions of the random walk D^-1 A, after 1 to L steps.

    Attributes:
        slot_N: int32, the number 0..V-1 of a node that some walk reaches; -1 for the others.
        num_slots: V.
        share: CSR, S x (L V), float64: the share of the walks from a row that stand on the node of slot v
            after j steps lies in column (j - 1) V + v. A walk that meets a dead end stands nowhere.
    """

    slot_N: np.ndarray
    num_slots: int
    share: sp.csr_matrix

    def estimate(self, left_LV: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Mean over the walks of sum_l w_l sum_(t<l) R^t(where the walk stands after l - t steps).

        Args:
            left_LV: float64, residues R^t that were not pushed, t = 0..L-1, at the nodes that walks reach.
            weights: float64, w_0..w_L.

        Returns:
            float64 of S: unbiased for sum_l w_l sum_(t<l) T^(l-t) R^t.
        """
        num_steps = len(weights) - 1
        step, level = np.arange(1, num_steps + 1)[:, None], np.arange(num_steps)[None, :]
        weight_LL = np.append(weights, 0.0)[np.minimum(step + level, num_steps + 1)]
        return np.asarray(self.share @ (weight_LL @ left_LV).ravel())


def random_walks(csr: Csr, rows: np.ndarray, *, num_steps: int, num_walks: int, seed: int) -> Walks:
    """Walk `num_steps` steps along out-edges, `num_walks` times from each row.

    A row's walks depend on the seed and the row alone, not on the other rows.

    Args:
        csr: the graph, row = src; an edge is taken with probability in proportion to its weight.
        rows: int64 of S.
        num_steps: L, at least 1.
        num_walks: walks from each row, at least 1.
        seed: see `gcl.random`.
    """
    chunk = max(1, _CHUNK_POSITIONS // (num_steps * num_walks))
    keys, counts = [], []
    for first in range(0, len(rows), chunk):
        part = rows[first : first + chunk]
        draws = np.stack([_draws(seed, int(row), num_walks, num_steps) for row in part])
        keys_, counts_ = np.unique(_positions(csr, part, draws, first), return_counts=True)
        keys.append(keys_)
        counts.append(counts_)
    num_nodes = len(csr[0]) - 1
    key, count = np.concatenate(keys), np.concatenate(counts)
    row, rest = np.divmod(key, num_nodes * num_steps)
    step, node = np.divmod(rest, num_nodes)
    slot_N = np.full(num_nodes, -1, np.int32)
    reached = np.unique(node)
    slot_N[reached] = np.arange(len(reached))
    shape = (len(rows), num_steps * len(reached))
    column = step * len(reached) + slot_N[node]
    share = sp.csr_matrix((count / num_walks, (row, column)), shape=shape)
    return Walks(slot_N, len(reached), share)


def _draws(seed: int, row: int, num_walks: int, num_steps: int) -> np.ndarray:
    return numpy_generator(seed, "filter-walks", row).random((num_walks, num_steps))


def _positions(csr: Csr, rows: np.ndarray, draws: np.ndarray, first: int) -> np.ndarray:
    """Keys (row number, step - 1, node) of every position of every walk, dead ends left out."""
    indptr, indices, weight_E = csr
    num_nodes, (num_rows, num_walks, num_steps) = len(indptr) - 1, draws.shape
    begin_N, degree_N = indptr[:-1].astype(np.int64), out_degrees(indptr, weight_E)
    mass_E = None if weight_E is None else np.concatenate([[0.0], np.cumsum(weight_E, dtype=np.float64)])
    node = np.repeat(rows, num_walks)
    row = np.repeat(np.arange(first, first + num_rows), num_walks)
    draws = draws.reshape(-1, num_steps)
    keys = []
    for step in range(num_steps):
        moves = degree_N[node] > 0
        node, row, draws = node[moves], row[moves], draws[moves]
        along = draws[:, step] * degree_N[node]
        if mass_E is None:
            edge = begin_N[node] + along.astype(np.int64)
        else:
            edge = np.searchsorted(mass_E[1:], mass_E[begin_N[node]] + along, side="right")
        node = indices[np.minimum(edge, indptr[node + 1] - 1)].astype(np.int64)
        keys.append((row * num_steps + step) * num_nodes + node)
    return np.concatenate(keys)
