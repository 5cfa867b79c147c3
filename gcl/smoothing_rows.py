"""The smoothed features of some nodes only: what the filter needs of the graph, and nothing more.

T^l x at a node depends on the nodes within l hops. So the walk starts on the ball of L hops around the wanted
rows and is computed on a smaller ball at each step, L - 1 hops, L - 2, ..., in the order of additions of
`gcl.smoothing`: the rows come out as smoothing everything would give them. Degrees are those of the whole
graph. Where the ball is most of the graph, smoothing everything costs no more, and is what is done; also
where the filter is pushed, since what push leaves out depends on whole columns.

A step is laid out once and taken by all blocks of columns, which lie in the workspace in between: one step
and the copies of one block are all that is in memory.

Shape legend: N nodes, R wanted rows, M nodes of a ball, B nodes of the next smaller one, F features, L steps,
c columns of one block.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gcl.errors import UnsuitableSetting
from gcl.feature_rows import FeatureRows
from gcl.features import normalise_rows
from gcl.graph import Features, Graph
from gcl.propagation import (
    BackendName,
    Csr,
    Propagation,
    csr_arrays,
    effective_degrees,
    out_degrees,
    resolve_backend,
)
from gcl.smoothing import (
    BASE_BYTES,
    BLOCK_COLUMNS,
    MemoryLimits,
    SmoothingConfig,
    filter_weights,
    prepared_rows,
    smooth_features,
)
from gcl.smoothing_blocks import ColumnBlocks, column_blocks
from gcl.workspace import MEMORY, Workspace, row_slices

if TYPE_CHECKING:
    import torch

MAX_BALL_SHARE = 0.5
"""Of the nodes. Each step on a ball is laid out anew; beyond, smoothing everything is as quick."""
STEP_EDGE_BYTES = 24
"""What a step takes in memory for each of its edges: as laid out, and as the kernels take them."""
NUM_COPIES = 3
"""Of a block of columns: before and after a step, and what goes in and out."""
_EDGES_AT_A_TIME = 1 << 20
_FAR = np.iinfo(np.int16).max


def require_row_wise(config: SmoothingConfig) -> None:
    """Refuse preparations that mix all rows: new nodes would get other columns than a model has seen.

    Raises:
        UnsuitableSetting: standardised columns, principal components or spectral features.
    """
    tied = {
        "smooth.features=spectral": config.features == "spectral",
        "smooth.num_components": config.num_components is not None,
        "smooth.standardise": config.standardise,
    }
    if found := [name for name, is_set in tied.items() if is_set]:
        raise UnsuitableSetting(
            f"{found[0]} depends on the whole matrix of the training graph, so new nodes would get other "
            "columns than the model has seen: train a model without it to score new nodes"
        )


def smooth_rows(
    graph: Graph,
    config: SmoothingConfig,
    rows_R: np.ndarray,
    *,
    attributes: FeatureRows | None = None,
    workspace: Workspace = MEMORY,
    memory_limit: int | None = None,
    machine_memory: int | None = None,
    held_bytes: int = BASE_BYTES,
    propagation_backend: BackendName = "auto",
    max_ball_share: float = MAX_BALL_SHARE,
) -> np.ndarray:
    """The rows of `smooth_features` at some nodes.

    Memory: the graph in CSR form, one step of the ball (`STEP_EDGE_BYTES` an edge), and three copies of a
    block of columns of it. The ball's features lie in the workspace.

    Args:
        graph: directed graphs aggregate over out-neighbours.
        config: filter, operator, preparation; where its blocks run plays no part.
        rows_R: int64 nodes, strictly ascending.
        attributes: the graph's attributes, where they are not in the graph.
        workspace: where large arrays are put.
        memory_limit: bytes this process may take; narrows the blocks of columns. None: blocks of up to 128
            columns, all copies of one in at most 6 GiB.
        machine_memory: bytes that there are: where `memory_limit` is none, blocks are not larger than fits.
        held_bytes: what the process takes besides the graph and the blocks.
        propagation_backend: see `gcl.propagation.resolve_backend`.
        max_ball_share: share of the nodes above which everything is smoothed.

    Returns:
        float32 [R, F], C order: the bytes that smoothing everything gives on the same backend.

    Raises:
        UnsuitableSetting: a preparation that depends on the whole matrix, or features that are not there.
        ValueError: rows that are not ascending nodes of the graph.
    """
    require_row_wise(config)
    _check_rows(rows_R, graph.num_nodes)
    weights = np.trim_zeros(filter_weights(config), "b")  # no hop beyond the last weight
    csr, hop_N = None, None
    if config.solver == "power":
        csr = csr_arrays(graph, self_loops=config.self_loops, workspace=workspace)
        hop_N = _hops(csr, rows_R, len(weights) - 1, max_nodes=int(max_ball_share * graph.num_nodes))
    if csr is None or hop_N is None:
        csr = None
        smoothed = smooth_features(
            graph,
            config,
            seed=0,  # nothing that `require_row_wise` lets through is drawn
            attributes=attributes,
            workspace=workspace,
            memory_limit=memory_limit,
            machine_memory=machine_memory,
            held_bytes=held_bytes,
            propagation_backend=propagation_backend,
        )
        return _gathered(smoothed.row_blocks(), rows_R, smoothed.num_features, workspace)
    prepared = prepared_rows(graph, config, seed=0, attributes=attributes)
    ball_M, width = _ball(hop_N, len(weights) - 1), prepared.shape[1]
    limits = MemoryLimits(memory_limit, machine_memory, besides=held_bytes + _held_by_steps(csr, ball_M))
    ranges = _ranges(width, len(ball_M), limits.for_blocks)
    # Under a limit the ball's features are not among what may lie in memory.
    placed = workspace if memory_limit is None else Workspace(workspace.folder, in_memory_bytes=0)
    x, out = (column_blocks(ranges, num_rows, placed) for num_rows in (len(ball_M), len(rows_R)))
    x.fill(FeatureRows((len(ball_M), width), lambda: _taken(prepared.blocks(), ball_M)))
    backend = resolve_backend(propagation_backend, "cpu")
    _filter(csr, hop_N, x, out, weights, config.convolution, backend=backend, workspace=placed)
    normalised = (normalise_rows(x_BF, config.normalise_output) for x_BF in out.row_blocks())
    return _gathered(normalised, np.arange(len(rows_R)), width, workspace)


def _check_rows(rows_R: np.ndarray, num_nodes: int) -> None:
    is_ascending = bool((np.diff(rows_R) > 0).all())
    if len(rows_R) and not (is_ascending and rows_R[0] >= 0 and rows_R[-1] < num_nodes):
        raise ValueError(f"rows must be strictly ascending nodes of 0..{num_nodes - 1}")


def _hops(csr: Csr, rows_R: np.ndarray, num_steps: int, *, max_nodes: int) -> np.ndarray | None:
    """int16 [N] hops from the rows, `_FAR` beyond so many; None once more than `max_nodes` are nearer."""
    indptr, indices, _ = csr
    hop_N = np.full(len(indptr) - 1, _FAR, np.int16)
    hop_N[rows_R] = 0
    frontier, num_inside = rows_R, len(rows_R)
    for hop in range(1, num_steps + 1):
        if num_inside > max_nodes:
            return None
        found = [rows_R[:0]]
        for edges in _edge_blocks(indptr, frontier):
            reached = indices[edges]
            found.append(np.unique(reached[hop_N[reached] == _FAR]))
            hop_N[found[-1]] = hop
        frontier = np.concatenate(found)
        num_inside += len(frontier)
    return None if num_inside > max_nodes else hop_N


def _ball(hop_N: np.ndarray, num_hops: int) -> np.ndarray:
    """int64 nodes within so many hops of the rows, ascending; the rows themselves for none."""
    return np.flatnonzero(hop_N <= max(num_hops, 0))


def _held_by_steps(csr: Csr, ball_M: np.ndarray) -> int:
    """Bytes that the graph and the step on the widest ball take."""
    num_edges = int((csr[0][ball_M + 1] - csr[0][ball_M]).sum(dtype=np.int64))
    return 2 * sum(part.nbytes for part in csr if part is not None) + STEP_EDGE_BYTES * num_edges


def _ranges(num_columns: int, num_rows: int, budget: int) -> list[tuple[int, int]]:
    """First and last + 1 column of each block: as wide as the budget allows, one column at the least."""
    width = max(min(BLOCK_COLUMNS, budget // (NUM_COPIES * 4 * max(num_rows, 1))), 1)
    return [(first, min(first + width, num_columns)) for first in range(0, num_columns, width)]


def _edge_blocks(indptr: np.ndarray, rows_B: np.ndarray) -> Iterator[np.ndarray]:
    """int64 positions of the edges of some rows, in order, a bounded number at a time (but one row's)."""
    ends_B, start = np.cumsum(indptr[rows_B + 1] - indptr[rows_B], dtype=np.int64), 0
    while start < len(rows_B):
        done = int(ends_B[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends_B, done + _EDGES_AT_A_TIME, "right")), start + 1)
        yield _edges_of(indptr, rows_B[start:stop])
        start = stop


def _edges_of(indptr: np.ndarray, rows_B: np.ndarray) -> np.ndarray:
    """int64 positions of the edges of some rows, in order."""
    first_B = indptr[rows_B].astype(np.int64)
    count_B = indptr[rows_B + 1] - first_B
    ends_B = np.cumsum(count_B)
    return np.asarray(np.arange(count_B.sum()) + np.repeat(first_B - (ends_B - count_B), count_B))


def _step(
    csr: Csr, wider_M: np.ndarray, ball_B: np.ndarray, *, backend: BackendName, workspace: Workspace
) -> Propagation:
    """The edges of a ball's nodes, among the nodes of the next wider one; rows of the others are empty."""
    indptr, indices, weight_E = csr
    place_N = np.empty(len(indptr) - 1, indices.dtype)  # set, and read, at the wider ball's nodes alone
    place_N[wider_M] = np.arange(len(wider_M))
    count_M = np.zeros(len(wider_M), np.int64)
    count_M[place_N[ball_B]] = indptr[ball_B + 1] - indptr[ball_B]
    local = np.zeros(len(wider_M) + 1, indices.dtype)
    np.cumsum(count_M, out=local[1:])
    neighbours, start = workspace.empty((int(local[-1]),), indices.dtype), 0
    weights = None if weight_E is None else workspace.empty(neighbours.shape)
    for edges in _edge_blocks(indptr, ball_B):
        part = slice(start, start + len(edges))
        neighbours[part] = place_N[indices[edges]]
        if weights is not None and weight_E is not None:
            weights[part] = weight_E[edges]
        start = part.stop
    return Propagation(local, neighbours, weight_E=weights, backend=backend)


def _filter(
    csr: Csr,
    hop_N: np.ndarray,
    x: ColumnBlocks,
    out: ColumnBlocks,
    weights: np.ndarray,
    convolution: float,
    *,
    backend: BackendName,
    workspace: Workspace,
) -> None:
    """D^r (sum_l w_l T^l) D^-r x at the rows, from x at the widest ball; rounds as `gcl.smoothing` does.

    Args:
        csr: the whole graph.
        hop_N: as of `_hops`.
        x: blocks of x at the widest ball; used up.
        out: blocks for the rows; take the result.
        weights: w_0..w_L.
        convolution: r.
        backend: of the sums.
        workspace: where steps are put.
    """
    import torch

    degree_N = effective_degrees(out_degrees(csr[0], csr[2]))

    def scaling(ball_B: np.ndarray, exponent: float) -> torch.Tensor:
        return torch.from_numpy((degree_N[ball_B] ** exponent).astype(np.float32)[:, None])

    rows_R, wider_M = _ball(hop_N, 0), _ball(hop_N, len(weights) - 1)
    with torch.inference_mode():
        for x_Mc, out_Rc in zip(x.arrays, out.arrays, strict=True):
            if convolution != 0:
                _scale(x_Mc, scaling(wider_M, -convolution))
            np.take(x_Mc, np.searchsorted(wider_M, rows_R), axis=0, out=out_Rc)
            _scale(out_Rc, float(weights[0] if len(weights) else 0.0))
        walk_scaling_R1 = scaling(rows_R, -1.0)
        for level, weight in enumerate(weights[1:], start=1):
            ball_B = _ball(hop_N, len(weights) - 1 - level)
            step = _step(csr, wider_M, ball_B, backend=backend, workspace=workspace)
            rows = _Places(_places(rows_R, wider_M), walk_scaling_R1)
            inner = _Places(_places(ball_B, wider_M), scaling(ball_B, -1.0))
            for x_Mc, out_Rc in zip(x.arrays, out.arrays, strict=True):
                _advance(step, x_Mc, out_Rc, inner, rows, float(weight))
            wider_M = ball_B
        if convolution != 0:
            for out_Rc in out.arrays:
                _scale(out_Rc, scaling(rows_R, convolution))


class _Places(NamedTuple):
    """Where some nodes are among those of a wider ball, and what each is multiplied by, [B, 1]."""

    place_B: "torch.Tensor"
    scaling_B1: "torch.Tensor"


def _places(inner_B: np.ndarray, outer_M: np.ndarray) -> "torch.Tensor":
    import torch

    return torch.from_numpy(np.searchsorted(outer_M, inner_B))


def _advance(
    step: Propagation, x_Mc: np.ndarray, out_Rc: np.ndarray, inner: _Places, rows: _Places, weight: float
) -> None:
    """T x in the place of x, at the smaller ball; what its level weighs at the rows is added to `out_Rc`."""
    import torch

    # A copy: random reads are slower from the pages of a file.
    walked_Mc = torch.from_numpy(np.array(x_Mc[: step.num_nodes]))
    summed_Mc = step.neighbour_sum(walked_Mc, out_Nc=torch.empty_like(walked_Mc))
    del walked_Mc
    for part in row_slices(len(out_Rc) if weight != 0 else 0, 4 * out_Rc.shape[1]):
        of_rows = summed_Mc[rows.place_B[part]]
        torch.from_numpy(out_Rc[part]).addcmul_(of_rows, rows.scaling_B1[part], value=weight)
    for part in row_slices(len(inner.place_B), 4 * x_Mc.shape[1]):
        x_Mc[part] = summed_Mc[inner.place_B[part]].mul_(inner.scaling_B1[part]).numpy()


def _scale(x_Mc: np.ndarray, scaling: "torch.Tensor | float") -> None:
    """Multiply by a number, or each row by its own, in place."""
    import torch

    torch.from_numpy(x_Mc).mul_(scaling)


def _taken(blocks: Iterator[Features], rows_R: np.ndarray) -> Iterator[Features]:
    """Some rows of a matrix that comes in blocks, in blocks."""
    start, filled = 0, 0
    for x_BF in blocks:
        stop = int(np.searchsorted(rows_R, start + x_BF.shape[0]))
        yield x_BF[rows_R[filled:stop] - start]
        start, filled = start + x_BF.shape[0], stop


def _gathered(blocks: Iterator[Features], rows_R: np.ndarray, width: int, workspace: Workspace) -> np.ndarray:
    """Some rows of a matrix that comes in blocks, float32 [R, width]."""
    out_RF, filled = workspace.empty((len(rows_R), width)), 0
    for taken in _taken(blocks, rows_R):
        part = slice(filled, filled + taken.shape[0])
        out_RF[part] = taken if isinstance(taken, np.ndarray) else taken.toarray()
        filled = part.stop
    return out_RF
