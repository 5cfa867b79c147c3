"""Graphs and labels from arrays: what every conversion of `gcl.interop` ends in.

Shape legend: N nodes, E edges as given, F features.
"""

import tempfile
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from gcl.edges import EdgeChunk, EdgePolicy, canonical_edges
from gcl.errors import InvalidGraph
from gcl.graph import Features, Graph, Labels
from gcl.readers.base import edge_arrays

SelfLoops = Literal["remove", "keep"]


def from_edges(
    src: Any,
    dst: Any,
    x: Any = None,
    *,
    num_nodes: int | None = None,
    weight: Any = None,
    directed: bool = False,
    self_loops: SelfLoops = "remove",
    node_ids: tuple[Hashable, ...] | None = None,
) -> Graph:
    """A graph from two arrays of node positions.

    Args:
        src: whole numbers [E] in [0, N), source of each edge; array, list or torch tensor.
        dst: whole numbers [E] in [0, N), target of each edge.
        x: [N, F] features, dense or scipy sparse; not copied where it is float32 already.
        num_nodes: N; None takes the rows of `x`, or one more than the largest position.
        weight: [E] weights, finite and positive; None, or all of them 1: every edge counts the same.
        directed: keep edges whose opposite is missing as they are; otherwise the opposite is added.
        self_loops: drop edges from a node to itself (smoothing adds its own), or keep them.
        node_ids: what the nodes are called outside, N of them.

    Returns:
        The graph in canonical form: the same for every order of the edges.

    Raises:
        InvalidGraph: endpoints outside [0, N), weights or features not finite, weights not positive or, in an
            undirected graph, different in the two directions; no node at all.
        ValueError: arrays of the wrong shape or type.
    """
    src_E, dst_E = _positions(src, "src"), _positions(dst, "dst")
    if len(src_E) != len(dst_E):
        raise ValueError(f"src has {len(src_E)} entries, dst {len(dst_E)}: an edge has one of each")
    x_NF = None if x is None else checked_features(x)
    if num_nodes is None and node_ids is not None:
        num_nodes = len(node_ids)
    if num_nodes is None:
        largest = max(int(src_E.max(initial=-1)), int(dst_E.max(initial=-1)))
        num_nodes = largest + 1 if x_NF is None else int(x_NF.shape[0])
    if x_NF is not None and x_NF.shape[0] != num_nodes:
        raise ValueError(f"x has {x_NF.shape[0]} rows for {num_nodes} nodes: a row a node is needed")
    if node_ids is not None and len(node_ids) != num_nodes:
        raise ValueError(f"{len(node_ids)} node ids for {num_nodes} nodes")
    chunks = edge_arrays(src_E, dst_E, _weights(weight, len(src_E)))()
    policy = EdgePolicy(self_loops=self_loops, one_way="keep" if directed else "symmetrise")
    return graph_of_chunks(chunks, num_nodes=num_nodes, policy=policy, x_NF=x_NF, node_ids=node_ids)


def graph_of_chunks(
    chunks: Iterable[EdgeChunk],
    *,
    num_nodes: int,
    policy: EdgePolicy,
    x_NF: Features | None = None,
    node_ids: tuple[Hashable, ...] | None = None,
) -> Graph:
    """A graph from a stream of raw edges, brought into canonical form.

    Args:
        chunks: raw edges.
        num_nodes: N.
        policy: what to do with self-loops, repeats and one-way edges.
        x_NF: float32 features.
        node_ids: what the nodes are called outside.

    Raises:
        InvalidGraph: edges that break a rule.
    """
    with tempfile.TemporaryDirectory(prefix="gclflow-edges-") as scratch:
        edges = canonical_edges(chunks, num_nodes=num_nodes, policy=policy, scratch=Path(scratch))
        kept = list(edges)
    empty = np.empty(0, np.int64)
    weights = [chunk.weight for chunk in kept if chunk.weight is not None]
    return Graph(
        num_nodes=num_nodes,
        src_E=np.concatenate([empty, *(chunk.src for chunk in kept)]),
        dst_E=np.concatenate([empty, *(chunk.dst for chunk in kept)]),
        x_NF=x_NF,
        weight_E=np.concatenate(weights) if weights else None,
        is_undirected=edges.is_undirected,
        node_ids=node_ids,
    )


def from_scipy(
    adjacency: Any,
    x: Any = None,
    *,
    directed: bool = False,
    weighted: bool | None = None,
    self_loops: SelfLoops = "remove",
) -> Graph:
    """A graph from an adjacency matrix; a zero, stored or not, is no edge.

    Args:
        adjacency: [N, N] scipy sparse matrix or array, or a dense array; row = src, column = dst. Repeated
            entries add up, as everywhere in scipy.
        x: [N, F] features.
        directed: see `from_edges`.
        weighted: whether values are weights; None: they are unless all are 1.
        self_loops: see `from_edges`.

    Raises:
        InvalidGraph: see `from_edges`.
        ValueError: a matrix that is not square, features of another height.
    """
    matrix = sp.coo_matrix(sp.csr_matrix(adjacency))
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"an adjacency matrix is square, not {matrix.shape[0]} x {matrix.shape[1]}")
    stored = matrix.data != 0
    return from_edges(
        matrix.row[stored],
        matrix.col[stored],
        x,
        num_nodes=int(matrix.shape[0]),
        weight=None if weighted is False else matrix.data[stored],
        directed=directed,
        self_loops=self_loops,
    )


def labels_from(values: Any) -> Labels:
    """Labels from one value a node: class numbers from 0, or names of any kind.

    Args:
        values: [N] or [N, 1]; negative numbers, NaN and None stand for no label.

    Returns:
        Whole numbers stay the class ids they are; anything else is numbered in sorted order of its text.

    Raises:
        ValueError: more than one value a node, numbers that are not whole, class ids that reach beyond N.
    """
    given = plain_array(values)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim != 1:
        raise ValueError(f"labels are one value a node, not an array of shape {given.shape}")
    if given.dtype.kind in "biuf":
        return _numbered(given)
    is_missing_N = [value is None or value != value for value in given.tolist()]
    texts = [str(value) for value in given.tolist()]
    names = sorted({text for text, missing in zip(texts, is_missing_N, strict=True) if not missing})
    index = {name: k for k, name in enumerate(names)}
    y = [-1 if missing else index[text] for text, missing in zip(texts, is_missing_N, strict=True)]
    return Labels(np.array(y, np.int32), tuple(names))


def plain_array(value: Any) -> np.ndarray:
    """A numpy array of an array, a list, or a torch tensor on any device; not copied where it is one."""
    return np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)


def _positions(value: Any, what: str) -> np.ndarray:
    array = plain_array(value)
    if array.ndim != 1 or (len(array) and array.dtype.kind not in "iu"):
        raise ValueError(
            f"{what} is a list of whole numbers, not an array of {array.dtype} of shape {array.shape}"
        )
    return array.astype(np.int64)


def _weights(value: Any, num_edges: int) -> np.ndarray | None:
    """float32 weights, or None where all are 1."""
    if value is None:
        return None
    given_E = plain_array(value)
    _refuse_complex(given_E, "weights")
    weight_E = np.asarray(given_E, np.float64)
    if weight_E.shape != (num_edges,):
        raise ValueError(f"weights have shape {weight_E.shape} for {num_edges} edges")
    with np.errstate(over="ignore"):  # becomes infinite, which is refused
        return None if (weight_E == 1).all() else weight_E.astype(np.float32)


def checked_features(value: Any) -> Features:
    """float32 features, C order or canonical CSR.

    Args:
        value: [N, F], dense or scipy sparse; not copied where it is of that form already.

    Raises:
        InvalidGraph: a value is not finite.
        ValueError: not a matrix, or complex numbers.
    """
    value = value if sp.issparse(value) else plain_array(value)
    _refuse_complex(value, "x")
    with np.errstate(over="ignore"):  # becomes infinite, which is refused
        x_NF = _sparse(value) if sp.issparse(value) else np.ascontiguousarray(value, np.float32)
    if x_NF.ndim != 2:
        raise ValueError(f"x is a matrix, a row a node; not an array of shape {x_NF.shape}")
    if isinstance(x_NF, np.ndarray):
        broken = np.flatnonzero(~np.isfinite(x_NF).all(axis=1))
    else:
        broken = np.unique(np.searchsorted(x_NF.indptr, np.flatnonzero(~np.isfinite(x_NF.data)), "right") - 1)
    refuse_features("x", "features_finite", [f"node {node}" for node in broken])
    return x_NF


def _refuse_complex(value: Any, what: str) -> None:
    """Complex numbers would lose their imaginary parts without a word."""
    if value.dtype.kind == "c":
        raise ValueError(f"{what}: complex numbers; give their real parts or their magnitudes")


def _sparse(value: Any) -> sp.csr_matrix:
    matrix: sp.csr_matrix = sp.csr_matrix(value).astype(np.float32, copy=False)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()  # it may be the caller's own
        matrix.sum_duplicates()
    return matrix


def _numbered(given: np.ndarray) -> Labels:
    """Labels from numbers; below zero and NaN are none."""
    is_known_N = given >= 0
    y_N = np.full(len(given), -1, np.int32)
    known = given[is_known_N]
    if (known != np.floor(known)).any() or (known >= max(len(given), 1)).any():
        raise ValueError("labels are class numbers 0, 1, ..., fewer than there are nodes")
    y_N[is_known_N] = known
    return Labels(y_N, tuple(str(k) for k in range(int(y_N.max(initial=-1)) + 1)))


def refuse_features(column: str, rule: str, broken: Sequence[str]) -> None:
    """Raise InvalidGraph if there are rows that break a rule of the features.

    Args:
        column: what they break it in.
        rule: what should hold.
        broken: the rows, readable.
    """
    if broken:
        raise InvalidGraph(
            table="graph.features", column=column, rule=rule, num_rows=len(broken), sample=broken
        )
