"""The push of one column of features, in the work arrays of one thread.

Shape legend: N nodes, E edges, L steps, S rows asked for, V nodes that some walk reaches.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp

from gcl.bidirectional.kernels import compiled_kernels
from gcl.bidirectional.walks import Walks
from gcl.propagation import Csr

Columns = np.ndarray | sp.csc_matrix
Signs = Literal["together", "apart"]
_LIST_SHARE = 4  # nodes are listed while at most N / 4 edges are passed; beyond that a sweep is cheaper


@dataclass(frozen=True, eq=False)
class Task:
    """What is the same for every column.

    Attributes:
        in_csr: the graph's in-neighbours.
        inverse_degree_N: float64, 1 / degree, 1 where the degree is 0.
        scaling_N: float64, degree ** convolution.
        weights: float64, w_0..w_L.
        r_max: share of a part's absolute sum up to which residues stay.
        signs: whether the positive and the negative entries of a column are pushed in one part or in two.
        rows: int64, the rows asked for; None: all.
        walks: from those rows; None: push only.
    """

    in_csr: Csr
    inverse_degree_N: np.ndarray
    scaling_N: np.ndarray
    weights: np.ndarray
    r_max: float
    signs: Signs
    rows: np.ndarray | None
    walks: Walks | None


@dataclass(frozen=True, eq=False)
class Part:
    """Entries of a column of D^-r x that are not zero: their nodes, and their values in float64."""

    nodes: np.ndarray
    values: np.ndarray


def column_parts(columns: Columns, block: slice, task: Task) -> Iterator[tuple[Part, ...]]:
    """The parts of each column of a block, one or two as `task.signs` says.

    Raises:
        ValueError: a value is not finite.
    """
    for column, (nodes, x) in enumerate(_entries(columns, block), start=block.start):
        if not np.isfinite(x).all():
            raise ValueError(f"column {column} contains NaN or infinite values; filtering would spread them")
        values = x / task.scaling_N[nodes]
        if task.signs == "together":
            yield (Part(nodes, values),)
        else:
            yield tuple(Part(nodes[chosen], values[chosen]) for chosen in (values > 0, values < 0))


def _entries(columns: Columns, block: slice) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(nodes, values) of each column, zeros left out where they cost nothing to find."""
    if isinstance(columns, np.ndarray):
        for x_N in np.ascontiguousarray(columns[:, block].T):
            nodes = np.flatnonzero(x_N)
            yield nodes, x_N[nodes]
        return
    for column in range(block.start, block.stop):
        entries = slice(columns.indptr[column], columns.indptr[column + 1])
        yield columns.indices[entries], columns.data[entries]


class ColumnPush:
    """Filters one column after the other; holds about 29 bytes a node, with walks 8 L for each in reach.

    Attributes:
        num_edge_steps: how often a residue passed an edge, over all columns so far.
    """

    def __init__(self, task: Task) -> None:
        """Allocate the work arrays."""
        num_nodes = len(task.scaling_N)
        indptr, indices, weight_E = task.in_csr
        self.num_edge_steps = 0
        self._task = task
        self._in_csr = indptr, indices, np.empty(0, np.float32) if weight_E is None else weight_E
        # All zero between parts, so that a sparse part need not look at all nodes.
        self._residue_N = np.zeros(num_nodes)
        self._out_N = np.empty(num_nodes)
        self._nodes, self._values = np.empty(num_nodes, indices.dtype), np.empty(num_nodes)
        self._touched = np.empty(num_nodes // _LIST_SHARE, indices.dtype)
        self._slot_N = task.walks.slot_N if task.walks else np.empty(0, np.int32)
        self._left_LV = np.empty((len(task.weights), task.walks.num_slots if task.walks else 0))

    def filtered(self, parts: tuple[Part, ...]) -> tuple[np.ndarray, list[float]]:
        """The filter of one column.

        Returns:
            (float64 of S, for each part the most that push left out of any row before D^r).
        """
        task, bounds = self._task, []
        self._out_N.fill(0)
        walked_S = np.zeros(0 if task.rows is None else len(task.rows))
        for part in parts:
            bounds.append(self._push(part))
            if task.walks:
                walked_S += task.walks.estimate(self._left_LV[:-1], task.weights)
        if task.rows is None:
            return self._out_N * task.scaling_N, bounds
        return (self._out_N[task.rows] + walked_S) * task.scaling_N[task.rows], bounds

    def _push(self, part: Part) -> float:
        """Add the reserves of a part to the result, keep what stays where walks go, and bound it."""
        kernels, weights, bound = compiled_kernels(), self._task.weights, 0.0
        mass_beyond = np.append(np.cumsum(np.abs(weights[:0:-1]))[::-1], 0.0)  # sum_(l>t) |w_l|
        threshold = self._task.r_max * float(np.abs(part.values).sum())
        self._left_LV.fill(0)
        num_touched, scale_N = self._start(part), np.empty(0)
        for level, weight in enumerate(weights):
            # At the last level everything is counted and nothing goes on.
            level_threshold = threshold if mass_beyond[level] else np.inf
            num_pushed, largest_left = kernels.settle(
                self._residue_N, self._touched, num_touched, scale_N, weight, level_threshold,
                self._out_N, self._slot_N, self._left_LV[level], self._nodes, self._values,
            )  # fmt: skip
            bound += largest_left * mass_beyond[level]
            if not num_pushed:
                break
            num_touched, num_edges = kernels.spread(
                *self._in_csr, self._nodes, self._values, num_pushed, self._residue_N, self._touched
            )
            self.num_edge_steps += num_edges
            scale_N = self._task.inverse_degree_N
        return bound

    def _start(self, part: Part) -> int:
        self._residue_N[part.nodes] = part.values
        if len(part.nodes) > len(self._touched):
            return -1
        self._touched[: len(part.nodes)] = part.nodes
        return len(part.nodes)
