"""The smoothed features of some nodes only: what the filter needs of the graph, and nothing more.

T^l x at a node depends on the nodes within l hops. So the walk starts on the ball of L hops around the wanted
rows and is computed on a smaller ball at each step, L - 1 hops, L - 2, ..., in the order of additions of
`gcl.smoothing`: the rows come out as smoothing everything would give them. Degrees are those of the whole
graph. Where the ball is most of the graph, smoothing everything costs no more, and is what is done; also
where the filter is pushed, since what push leaves out depends on whole columns.

Shape legend: N nodes, R wanted rows, M nodes of a ball, F features, L steps, c columns of one block.
"""

from collections.abc import Iterator, Sequence

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
from gcl.smoothing import BLOCK_COLUMNS, SmoothingConfig, filter_weights, prepared_rows, smooth_features
from gcl.workspace import MEMORY, Workspace

MAX_BALL_SHARE = 0.5
"""Of the nodes. Each step on a ball is laid out anew; beyond, smoothing everything is as quick."""


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
    propagation_backend: BackendName = "auto",
    max_ball_share: float = MAX_BALL_SHARE,
) -> np.ndarray:
    """The rows of `smooth_features` at some nodes.

    Memory: the graph in CSR form; the features of the ball in the workspace, and four blocks of 128 columns
    of it.

    Args:
        graph: directed graphs aggregate over out-neighbours.
        config: filter, operator, preparation; where its blocks run plays no part.
        rows_R: int64 nodes, strictly ascending.
        attributes: the graph's attributes, where they are not in the graph.
        workspace: where large arrays are put.
        memory_limit: of `smooth_features`, where everything is smoothed.
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
    csr, balls = None, None
    if config.solver == "power":
        csr = csr_arrays(graph, self_loops=config.self_loops, workspace=workspace)
        balls = _balls(csr, rows_R, len(weights) - 1, max_nodes=int(max_ball_share * graph.num_nodes))
    if csr is None or balls is None:
        csr = None
        smoothed = smooth_features(
            graph,
            config,
            seed=0,  # nothing that `require_row_wise` lets through is drawn
            attributes=attributes,
            workspace=workspace,
            memory_limit=memory_limit,
            propagation_backend=propagation_backend,
        )
        return _gathered(smoothed.row_blocks(), rows_R, smoothed.num_features, workspace)
    prepared = prepared_rows(graph, config, seed=0, attributes=attributes)
    x_MF = _gathered(prepared.blocks(), balls[-1], prepared.shape[1], workspace)
    backend = resolve_backend(propagation_backend, "cpu")
    steps = [
        _step(csr, wider, ball, backend=backend)
        for ball, wider in zip(balls[-2::-1], balls[:0:-1], strict=True)
    ]
    out_RF = workspace.empty((len(rows_R), x_MF.shape[1]))
    degree_N = effective_degrees(out_degrees(csr[0], csr[2]))
    for first in range(0, x_MF.shape[1], BLOCK_COLUMNS):
        columns = slice(first, first + BLOCK_COLUMNS)
        x_Mc = np.array(x_MF[:, columns], order="C")
        out_RF[:, columns] = _filtered(x_Mc, balls, steps, weights, degree_N, config.convolution)
    return np.asarray(normalise_rows(out_RF, config.normalise_output))


def _check_rows(rows_R: np.ndarray, num_nodes: int) -> None:
    is_ascending = bool((np.diff(rows_R) > 0).all())
    if len(rows_R) and not (is_ascending and rows_R[0] >= 0 and rows_R[-1] < num_nodes):
        raise ValueError(f"rows must be strictly ascending nodes of 0..{num_nodes - 1}")


def _balls(csr: Csr, rows_R: np.ndarray, num_steps: int, *, max_nodes: int) -> list[np.ndarray] | None:
    """Nodes within 0, 1, ..., L hops of the rows, ascending; None once there are more than `max_nodes`."""
    indptr, indices, _ = csr
    is_inside_N = np.zeros(len(indptr) - 1, bool)
    is_inside_N[rows_R] = True
    balls, frontier = [rows_R.astype(np.int64)], rows_R
    for _ in range(num_steps):
        if len(balls[-1]) > max_nodes:
            return None
        reached = np.unique(indices[_edges_of(indptr, frontier)]).astype(np.int64)
        frontier = reached[~is_inside_N[reached]]
        is_inside_N[frontier] = True
        balls.append(np.sort(np.concatenate([balls[-1], frontier])) if len(frontier) else balls[-1])
    return None if len(balls[-1]) > max_nodes else balls


def _edges_of(indptr: np.ndarray, rows_B: np.ndarray) -> np.ndarray:
    """int64 positions of the edges of some rows, in order."""
    first_B = indptr[rows_B].astype(np.int64)
    count_B = indptr[rows_B + 1] - first_B
    ends_B = np.cumsum(count_B)
    return np.asarray(np.arange(count_B.sum()) + np.repeat(first_B - (ends_B - count_B), count_B))


def _step(csr: Csr, wider_M: np.ndarray, ball_B: np.ndarray, *, backend: BackendName) -> Propagation:
    """The edges of a ball's nodes, among the nodes of the next wider one; rows of the others are empty."""
    indptr, indices, weight_E = csr
    edges = _edges_of(indptr, ball_B)
    count_M = np.zeros(len(wider_M), np.int64)
    count_M[np.searchsorted(wider_M, ball_B)] = indptr[ball_B + 1] - indptr[ball_B]
    local = np.zeros(len(wider_M) + 1, indices.dtype)
    np.cumsum(count_M, out=local[1:])
    neighbours = np.searchsorted(wider_M, indices[edges]).astype(indices.dtype)
    return Propagation(
        local, neighbours, weight_E=None if weight_E is None else weight_E[edges], backend=backend
    )


def _filtered(
    x_Mc: np.ndarray,
    balls: Sequence[np.ndarray],
    steps: Sequence[Propagation],
    weights: np.ndarray,
    degree_N: np.ndarray,
    convolution: float,
) -> np.ndarray:
    """D^r (sum_l w_l T^l) D^-r x at the first ball, from x at the last; rounds as `gcl.smoothing` does."""
    import torch

    def scaling(ball_B: np.ndarray, exponent: float) -> torch.Tensor:
        return torch.from_numpy((degree_N[ball_B] ** exponent).astype(np.float32)[:, None])

    def places(inner_B: np.ndarray, outer_M: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.searchsorted(outer_M, inner_B))

    rows_R = balls[0]
    with torch.inference_mode():
        walked = torch.from_numpy(x_Mc)
        if convolution != 0:
            walked.mul_(scaling(balls[-1], -convolution))
        out_Rc = walked[places(rows_R, balls[-1])] * float(weights[0] if len(weights) else 0.0)
        walk_scaling_R1 = scaling(rows_R, -1.0)
        for level, step in enumerate(steps, start=1):
            ball_B, wider_M = balls[len(steps) - level], balls[len(steps) - level + 1]
            summed = torch.empty_like(walked)
            step.neighbour_sum(walked, out_Nc=summed)
            summed = summed[places(ball_B, wider_M)]
            if weights[level] != 0:
                summed_Rc = summed[places(rows_R, ball_B)]
                out_Rc.addcmul_(summed_Rc, walk_scaling_R1, value=float(weights[level]))
            walked = summed.mul_(scaling(ball_B, -1.0))
        if convolution != 0:
            out_Rc.mul_(scaling(rows_R, convolution))
        return out_Rc.numpy()


def _gathered(blocks: Iterator[Features], rows_R: np.ndarray, width: int, workspace: Workspace) -> np.ndarray:
    """Some rows of a matrix that comes in blocks, float32 [R, width]."""
    out_RF, start, filled = workspace.empty((len(rows_R), width)), 0, 0
    for x_BF in blocks:
        stop = int(np.searchsorted(rows_R, start + x_BF.shape[0]))
        taken = x_BF[rows_R[filled:stop] - start]
        out_RF[filled:stop] = taken if isinstance(taken, np.ndarray) else taken.toarray()
        start, filled = start + x_BF.shape[0], stop
    return out_RF
