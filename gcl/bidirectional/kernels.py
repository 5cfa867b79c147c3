"""The two inner loops of the push, compiled by numba on first use.

Both are plain functions over arrays. Compiled code is kept in memory only: numba's cache on disk is made of
pickles.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Kernels(NamedTuple):
    """The compiled `settle` and `spread`; they hold no lock, so threads run them side by side."""

    settle: Callable[..., tuple[int, float]]
    spread: Callable[..., tuple[int, int]]


@functools.cache
def compiled_kernels() -> Kernels:
    """Compile the loops; types are fixed at the first call, which takes about two seconds.

    Raises:
        ImportError: numba is not installed.
    """
    try:
        import numba
    except ImportError as error:
        raise ImportError(
            "the push filter needs numba, which is not installed: install it, or use the exact filter"
        ) from error
    compile_function: Any = numba.njit(nogil=True)
    return Kernels(compile_function(settle), compile_function(spread))


def settle(
    residue_N: np.ndarray,
    touched: np.ndarray,
    num_touched: int,
    scale_N: np.ndarray,
    weight: float,
    threshold: float,
    out_N: np.ndarray,
    slot_N: np.ndarray,
    left_V: np.ndarray,
    nodes: np.ndarray,
    values: np.ndarray,
) -> tuple[int, float]:
    """Empty the residues of one level: count each in the result, and list those that go on.

    Args:
        residue_N: float64, zero outside the touched nodes; all zero afterwards.
        touched: where residues may be, repeats allowed.
        num_touched: how many of them count; negative: any node may have one.
        scale_N: float64 factors of the residues, or empty.
        weight: of this level, w_t.
        threshold: a residue above it, in magnitude, goes on.
        out_N: float64, takes ``weight`` times each residue.
        slot_N: int32, where in `left_V` a node's residue is kept if it does not go on; -1: nowhere; or empty.
        left_V: float64, residues that stay, of the nodes that have a slot.
        nodes: takes the nodes that go on.
        values: float64, takes their residues.

    Returns:
        How many go on, and the largest magnitude that stays.
    """
    num_pushed = 0
    largest_left = 0.0
    count = len(residue_N) if num_touched < 0 else num_touched
    for position in range(count):
        node = position if num_touched < 0 else touched[position]
        value = residue_N[node]
        if value == 0.0:
            continue
        residue_N[node] = 0.0
        if len(scale_N):
            value *= scale_N[node]
        out_N[node] += weight * value
        if abs(value) > threshold:
            nodes[num_pushed] = node
            values[num_pushed] = value
            num_pushed += 1
        else:
            largest_left = max(largest_left, abs(value))
            if len(slot_N) and slot_N[node] >= 0:
                left_V[slot_N[node]] = value
    return num_pushed, largest_left


def spread(
    indptr: np.ndarray,
    indices: np.ndarray,
    weight_E: np.ndarray,
    nodes: np.ndarray,
    values: np.ndarray,
    num_pushed: int,
    residue_N: np.ndarray,
    touched: np.ndarray,
) -> tuple[int, int]:
    """Add the values of the listed nodes to the residues of their in-neighbours.

    Args:
        indptr: CSR of the in-neighbours.
        indices: CSR of the in-neighbours.
        weight_E: edge weights, or empty.
        nodes: the nodes that go on.
        values: float64, their residues.
        num_pushed: how many of them.
        residue_N: float64, takes the sums.
        touched: takes the nodes reached, if there are so few edges that all fit.

    Returns:
        How many nodes were listed in `touched`, with repeats (-1: too many, look at all), and how many edges
        were passed.
    """
    num_edges = 0
    for position in range(num_pushed):
        num_edges += indptr[nodes[position] + 1] - indptr[nodes[position]]
    is_listed = num_edges <= len(touched)
    num_touched = 0
    for position in range(num_pushed):
        node = nodes[position]
        value = values[position]
        for edge in range(indptr[node], indptr[node + 1]):
            neighbour = indices[edge]
            # A residue cancelled to zero is listed twice; the first visit empties it.
            if is_listed and residue_N[neighbour] == 0.0:
                touched[num_touched] = neighbour
                num_touched += 1
            residue_N[neighbour] += value * weight_E[edge] if len(weight_E) else value
    return (num_touched if is_listed else -1), num_edges
