"""Edges held out for link prediction, decided pair by pair, with as many pairs that are no edges."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from gcl.edge_buckets import EdgeChunk
from gcl.random import derive_seed, numpy_generator

_MAX_TRIALS = 100


@dataclass(frozen=True, eq=False)
class HeldOutPairs:
    """Unordered node pairs to score a link predictor with, sorted by (src, dst), src < dst.

    Attributes:
        src: int64 smaller node of each pair.
        dst: int64 larger node of each pair.
        is_edge: bool, True for edges held out, False for as many pairs that are no edges.
    """

    src: np.ndarray
    dst: np.ndarray
    is_edge: np.ndarray


@dataclass(frozen=True, eq=False)
class HeldOutEdges:
    """A graph's edges, divided for link prediction.

    Attributes:
        training: the edges that stay, in canonical order, as often iterable as the edges given.
        test: pairs for the final score.
        validation: pairs for choices on the way; half as many.
    """

    training: "TrainingEdges"
    test: HeldOutPairs
    validation: HeldOutPairs


@dataclass(frozen=True, eq=False)
class TrainingEdges:
    """The edges of `edges` that were not held out; both directions of an edge share one fate."""

    edges: Iterable[EdgeChunk]
    rate: float
    seed: int

    def __iter__(self) -> Iterator[EdgeChunk]:
        for chunk in self.edges:
            yield chunk.where(_draws(chunk.src, chunk.dst, self.seed) >= 1.5 * self.rate)


def hold_out_edges(edges: Iterable[EdgeChunk], *, num_nodes: int, rate: float, seed: int) -> HeldOutEdges:
    """Divide canonical edges into training, validation and test edges, with sampled non-edges.

    Every unordered pair draws a number from a hash of (seed, pair), so that the decision needs no memory
    and does not depend on the other edges or their order; the sizes are binomial. Self-loops stay in
    training. Memory is proportional to the pairs held out.

    Args:
        edges: canonical edges; iterated three times or more.
        num_nodes: N.
        rate: share of undirected edges held out for the test, in [0, 0.5); half as many again for validation.
        seed: of the division and of the non-edges.

    Raises:
        ValueError: the rate is out of range, or the graph has too few non-edges.
    """
    if not 0 <= rate < 0.5:
        raise ValueError(f"edge holdout rate must lie in [0, 0.5), not {rate}")
    # Of a directed graph this counts some pairs only; then the search for non-edges gives up instead.
    test, validation, num_pairs = _held_out_keys(edges, num_nodes, rate, seed)
    num_wanted = len(test) + len(validation)
    if num_wanted > num_nodes * (num_nodes - 1) // 2 - num_pairs:
        raise _too_dense(num_wanted)
    absent = _non_edges(edges, num_nodes, num_wanted, seed)
    return HeldOutEdges(
        TrainingEdges(edges, rate, seed),
        test=_pairs(test, absent[: len(test)], num_nodes),
        validation=_pairs(validation, absent[len(test) :], num_nodes),
    )


def _held_out_keys(
    edges: Iterable[EdgeChunk], num_nodes: int, rate: float, seed: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Keys of the test and the validation pairs, sorted, and the number of all unordered pairs joined."""
    test, validation = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    num_pairs = 0
    for chunk in edges:
        chunk = chunk.where(chunk.src != chunk.dst)
        draw = _draws(chunk.src, chunk.dst, seed)
        key = _pair_keys(chunk, num_nodes)
        test.append(key[draw < rate])
        validation.append(key[(draw >= rate) & (draw < 1.5 * rate)])
        num_pairs += int((chunk.src < chunk.dst).sum())
    return np.unique(np.concatenate(test)), np.unique(np.concatenate(validation)), num_pairs


def _non_edges(edges: Iterable[EdgeChunk], num_nodes: int, num_wanted: int, seed: int) -> np.ndarray:
    """Keys of distinct pairs without an edge, uniform, in random order."""
    found = np.empty(0, np.int64)
    for trial in range(_MAX_TRIALS):
        if len(found) >= num_wanted:
            return found[:num_wanted]
        num_drawn = 2 * (num_wanted - len(found)) + 64 * (trial + 1)
        draws = numpy_generator(seed, "edge-holdout-absent", trial).integers(num_nodes, size=(num_drawn, 2))
        low, high = draws.min(axis=1), draws.max(axis=1)
        key = (low * num_nodes + high)[low < high]
        found = np.concatenate([found, key])
        distinct, first = np.unique(found, return_index=True)
        found = found[np.sort(first[~_are_edges(distinct, edges, num_nodes)])]
    raise _too_dense(num_wanted)


def _are_edges(sorted_keys: np.ndarray, edges: Iterable[EdgeChunk], num_nodes: int) -> np.ndarray:
    """Which of the pairs are joined, in either direction."""
    joined = np.zeros(len(sorted_keys), bool)
    for chunk in edges:
        key = np.sort(_pair_keys(chunk, num_nodes))  # searching in ascending order is several times faster
        at = np.searchsorted(sorted_keys, key)
        inside = at < len(sorted_keys)
        at, key = at[inside], key[inside]
        joined[at[sorted_keys[at] == key]] = True
    return joined


def _too_dense(num_wanted: int) -> ValueError:
    return ValueError(f"too dense for link prediction: fewer than {num_wanted} pairs of nodes are no edges")


def _pairs(present: np.ndarray, absent: np.ndarray, num_nodes: int) -> HeldOutPairs:
    key = np.concatenate([present, absent])
    order = np.argsort(key)
    is_edge = order < len(present)
    return HeldOutPairs(key[order] // num_nodes, key[order] % num_nodes, is_edge)


def _pair_keys(chunk: EdgeChunk, num_nodes: int) -> np.ndarray:
    """int64 keys of the unordered pairs, self-loops left out."""
    low, high = np.minimum(chunk.src, chunk.dst), np.maximum(chunk.src, chunk.dst)
    keys: np.ndarray = (low * num_nodes + high)[low < high]
    return keys


def _draws(src: np.ndarray, dst: np.ndarray, seed: int) -> np.ndarray:
    """float64 uniform in [0, 1) for every unordered pair; 1 for self-loops, which are never held out."""
    start = np.uint64(derive_seed(seed, "edge-holdout"))
    low, high = np.minimum(src, dst).astype(np.uint64), np.maximum(src, dst).astype(np.uint64)
    mixed = _mix(_mix(low ^ start) + high)
    return np.where(src == dst, 1.0, (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _mix(value: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014), elementwise on uint64 with wrap-around."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = value ^ (value >> np.uint64(31))
    return mixed
