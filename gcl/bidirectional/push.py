"""Push: P = sum_l w_l (D^(r-1) A D^-r)^l X to a stated error, one column of features at a time.

With T = D^-1 A and q0 = D^-r x, the filter is D^r sum_l w_l T^l q0. Residues start as R^0 = q0. At level t
every residue larger than a threshold moves on, R^(t+1)(v) += R^t(u) T(v, u) for each in-neighbour v of u;
the others stay. With Q^t, the residues of level t before any of them moved on,

    T^l q0 = Q^l + sum_(t<l) T^(l-t) R^t    (R^t: what stayed at level t)

holds exactly. Push gives D^r sum_l w_l Q^l. T averages, so what it leaves out of row s is at most
degree(s)^r sum_(t<L) max|R^t| sum_(l>t) |w_l|, where max|R^t| is at most the threshold. Walks from a row
estimate what is left out of it, without bias.

Against the paper: Q^t counts what stays at level t too (a term that costs nothing and is exact), and the
signs of a column are pushed together unless asked otherwise. Residues of unlike sign then cancel where they
meet: less work at the same error.

When to take it: for a change of few rows (`update_filter`). The exact filter (`gcl.smoothing`) moves many
columns along an edge at once and push one: for whole matrices, dense or sparse, and for a thousand rows of
200k nodes, it is the cheaper at every error below 50 % that `benchmarks/filters.py` measured.

References:
    Chen et al. 2020, Scalable Graph Neural Networks via Bidirectional Propagation (GBP), NeurIPS.

Shape legend: N nodes, E edges, F features, L steps, S rows asked for, c columns of one block.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from gcl.bidirectional.columns import ColumnPush, Part, Signs, Task, column_parts
from gcl.bidirectional.walks import random_walks
from gcl.propagation import Csr, effective_degrees, out_degrees

SparseMatrix = sp.csr_matrix | sp.csc_matrix
Matrix = np.ndarray | SparseMatrix
_BLOCK_COLUMNS = 16  # one cache line of float32 in each row of the result


@dataclass(frozen=True, eq=False)
class Pushed:
    """A filtered matrix, and how far it can be from the exact one.

    Attributes:
        x_SF: float32, all N rows or those asked for.
        bound_F: float64; push alone, rounding aside: row s of column f is at most
            ``degree(s) ** convolution * bound_F[f]`` away from the exact filter (a degree of 0 counts as 1).
        spread_F: float64: what one walk adds to a row, over the same factor, lies in an interval this long.
        num_edge_steps: how often a value passed an edge; exact propagation takes L E F such steps.
    """

    x_SF: np.ndarray
    bound_F: np.ndarray
    spread_F: np.ndarray
    num_edge_steps: int

    def walk_bound(self, num_walks: int, *, confidence: float = 0.95) -> np.ndarray:
        """As `bound_F`, for `num_walks` walks from each row: float64 of F.

        By Hoeffding's inequality, for all S x F values at once with probability `confidence` over the
        seeds. Where it is larger than `bound_F`, so few walks are of no use.
        """
        log_term = math.log(2 * max(self.x_SF.size, 1) / (1 - confidence))
        return np.asarray(self.spread_F * math.sqrt(log_term / (2 * num_walks)))


def push_filter(
    x_NF: Matrix,
    csr: Csr,
    *,
    weights: np.ndarray,
    r_max: float,
    convolution: float = 0.5,
    signs: Signs = "together",
    is_undirected: bool = False,
    rows: np.ndarray | None = None,
    num_walks: int = 0,
    seed: int = 0,
    num_threads: int = 1,
    out: np.ndarray | None = None,
) -> Pushed:
    """Filter features by push, and by walks from the rows asked for if `num_walks` is not 0.

    Memory: features in and out, the graph, once more turned round if it is directed, and 29 + 4 x 16 bytes a
    node for each thread; with walks, also 8 L bytes a thread for each node that they reach.

    Args:
        x_NF: float32, dense or scipy sparse (CSC is not converted).
        csr: from `gcl.propagation.csr_arrays`: row = src, weighted or not.
        weights: w_0..w_L, any sign; see `gcl.smoothing.filter_weights`.
        r_max: residues stay up to this share of the absolute sum of D^-r x, in [0, 1]; 0 filters exactly.
        convolution: r in [0, 1].
        signs: ``apart`` pushes the positive and the negative entries of a column each with a threshold of
            their own, as the paper does.
        is_undirected: every edge is there in both directions with one weight, so no turned copy is made.
        rows: the S rows wanted; None: all.
        num_walks: walks of L steps from each of `rows` (count); 0: push only.
        seed: of the walks; the push draws nothing.
        num_threads: threads that share the columns (count); they do not change a byte of the result.
        out: float32, S x F, takes the result; may be memory-mapped.

    Raises:
        ValueError: a setting is out of range, a shape does not fit, or a feature is not finite.
        ImportError: numba is not installed.
    """
    _check(x_NF, csr, r_max=r_max, convolution=convolution, rows=rows, num_walks=num_walks)
    task = _task(csr, weights, r_max, convolution, signs, is_undirected)
    if rows is not None:
        rows, num_steps = np.asarray(rows, np.int64), len(task.weights) - 1
        walks = None
        if num_walks and num_steps and len(rows):
            walks = random_walks(csr, rows, num_steps=num_steps, num_walks=num_walks, seed=seed)
        task = replace(task, rows=rows, walks=walks)
    shape = (x_NF.shape[0] if rows is None else len(rows), x_NF.shape[1])
    if out is None:
        out = np.empty(shape, np.float32)
    elif out.shape != shape or out.dtype != np.float32:
        raise ValueError(f"out must be float32, {shape[0]} x {shape[1]}, not {out.dtype}, {out.shape}")
    return _filter_columns(x_NF, task, out, num_threads=num_threads, adds=False)


def update_filter(
    filtered_NF: np.ndarray,
    change_NF: SparseMatrix,
    csr: Csr,
    *,
    weights: np.ndarray,
    r_max: float,
    convolution: float = 0.5,
    is_undirected: bool = False,
    num_threads: int = 1,
) -> Pushed:
    """Bring a filtered matrix up to date after a change of features, in place: the filter is linear.

    Costs what the push of the change costs: it stays near the changed rows as far as `r_max` lets it.

    Args:
        filtered_NF: float32, what the filter gave for the old features, exact or pushed; gets the new.
        change_NF: new less old features, sparse, with values in the changed rows only.
        csr: see `push_filter`, as the other settings.
        weights: w_0..w_L.
        r_max: relative to the absolute sums of the change, not of the features.
        convolution: r in [0, 1].
        is_undirected: see `push_filter`.
        num_threads: threads that share the columns (count).

    Returns:
        `filtered_NF` itself, with the bounds of what this update left out; they add to those it had.
    """
    _check(change_NF, csr, r_max=r_max, convolution=convolution, rows=None, num_walks=0)
    if filtered_NF.shape != change_NF.shape or filtered_NF.dtype != np.float32:
        raise ValueError(
            f"the filtered matrix must be float32 and of the shape of the change, {change_NF.shape}, "
            f"not {filtered_NF.dtype}, {filtered_NF.shape}"
        )
    task = _task(csr, weights, r_max, convolution, "together", is_undirected)
    return _filter_columns(change_NF, task, filtered_NF, num_threads=num_threads, adds=True)


def _filter_columns(x_NF: Matrix, task: Task, out_SF: np.ndarray, *, num_threads: int, adds: bool) -> Pushed:
    """Share blocks of columns out among threads; a column's result does not depend on its block."""
    columns = x_NF if isinstance(x_NF, np.ndarray) else _summed_columns(x_NF)
    num_rows, num_columns = out_SF.shape
    width = min(_BLOCK_COLUMNS, max(1, -(-num_columns // num_threads)))
    bound_F, spread_F = np.zeros(num_columns), np.zeros(num_columns)

    def filter_block(first: int) -> int:
        block, push = slice(first, min(first + width, num_columns)), ColumnPush(task)
        out_cS = np.empty((block.stop - first, num_rows), np.float32)
        for offset, parts in enumerate(column_parts(columns, block, task)):
            out_cS[offset], bounds = push.filtered(parts)
            bound_F[first + offset], spread_F[first + offset] = _combined(parts, bounds, task.weights)
        if adds:
            out_SF[:, block] += out_cS.T
        else:
            out_SF[:, block] = out_cS.T
        return push.num_edge_steps

    with ThreadPoolExecutor(num_threads) as pool:
        num_edge_steps = sum(pool.map(filter_block, range(0, num_columns, width)))
    return Pushed(out_SF, bound_F, spread_F, num_edge_steps)


def _summed_columns(x_NF: SparseMatrix) -> sp.csc_matrix:
    """As CSC, without repeated entries."""
    columns = sp.csc_matrix(x_NF)
    if not columns.has_canonical_format:
        columns = columns.copy()
        columns.sum_duplicates()
    return columns


def _combined(parts: tuple[Part, ...], bounds: list[float], weights: np.ndarray) -> tuple[float, float]:
    """(bound, spread of a walk) of a column, from what each of its parts leaves out at most."""
    if not (weights >= 0).all():
        return sum(bounds), 2 * sum(bounds)
    # What a positive part leaves out is missing, what a negative one does is too much: they cannot add up.
    missing = sum(bound for part, bound in zip(parts, bounds, strict=True) if (part.values > 0).any())
    excess = sum(bound for part, bound in zip(parts, bounds, strict=True) if (part.values < 0).any())
    return max(missing, excess), missing + excess


def _task(
    csr: Csr, weights: np.ndarray, r_max: float, convolution: float, signs: Signs, is_undirected: bool
) -> Task:
    degree_N = effective_degrees(out_degrees(csr[0], csr[2]))
    trimmed = np.trim_zeros(np.asarray(weights, np.float64), "b")
    return Task(
        in_csr=csr if is_undirected else _turned(csr),
        inverse_degree_N=1 / degree_N,
        scaling_N=degree_N**convolution,
        weights=trimmed if len(trimmed) else np.zeros(1),
        r_max=r_max,
        signs=signs,
        rows=None,
        walks=None,
    )


def _turned(csr: Csr) -> Csr:
    """CSR of the in-neighbours."""
    indptr, indices, weight_E = csr
    data = np.ones(len(indices), np.int8) if weight_E is None else weight_E
    turned = sp.csr_matrix((data, indices, indptr), shape=(len(indptr) - 1,) * 2).tocsc()
    return turned.indptr, turned.indices, None if weight_E is None else turned.data


def _check(
    x_NF: Matrix,
    csr: Csr,
    *,
    r_max: float,
    convolution: float,
    rows: np.ndarray | None,
    num_walks: int,
) -> None:
    num_nodes = len(csr[0]) - 1
    if x_NF.ndim != 2 or x_NF.shape[0] != num_nodes:
        raise ValueError(f"features must have {num_nodes} rows, one a node, not the shape {x_NF.shape}")
    if not 0 <= r_max <= 1:
        raise ValueError(f"r_max is a share in [0, 1], not {r_max}; 1e-5 is a start, smaller is more exact")
    if not 0 <= convolution <= 1:
        raise ValueError(f"convolution must lie in [0, 1], not {convolution}")
    if num_walks < 0 or (num_walks and rows is None):
        raise ValueError("walks start from the rows asked for: give rows, and num_walks of at least 0")
    if rows is not None and len(rows) and not (np.min(rows) >= 0 and np.max(rows) < num_nodes):
        raise ValueError(f"rows must lie in 0..{num_nodes - 1}; some do not")
