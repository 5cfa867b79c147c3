"""A seeded permutation of 0..N-1 that is computed, not stored: any element, and back, in constant memory."""

from collections.abc import Callable

import numpy as np

from gcl.random import derive_seed

_NUM_ROUNDS = 6


class NodeOrder:
    """A permutation by a Feistel network on the next even number of bits, walked until it falls below N.

    A Feistel network is a bijection whatever its round function (Luby and Rackoff 1988); walking its
    cycles until the value is in range restricts it to 0..N-1 (Black and Rogaway 2002), after less than
    four steps on average.
    """

    def __init__(self, num_nodes: int, seed: int) -> None:
        self._num_nodes = num_nodes
        half_bits = max(1, (max(num_nodes - 1, 1).bit_length() + 1) // 2)
        self._shift, self._mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
        self._keys = [np.uint64(derive_seed(seed, "node-order", i)) for i in range(_NUM_ROUNDS)]

    def rank(self, node: np.ndarray) -> np.ndarray:
        """int64 ranks of nodes."""
        return self._walk(node, self._forward)

    def node(self, rank: np.ndarray) -> np.ndarray:
        """int64 nodes of ranks; the inverse of `rank`."""
        return self._walk(rank, self._backward)

    def _walk(self, start: np.ndarray, step: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        value = step(start.astype(np.uint64))
        outside = np.flatnonzero(value >= self._num_nodes)
        while len(outside):
            value[outside] = step(value[outside])
            outside = outside[value[outside] >= self._num_nodes]
        return value.astype(np.int64)

    def _forward(self, value: np.ndarray) -> np.ndarray:
        left, right = value >> self._shift, value & self._mask
        for key in self._keys:
            left, right = right, left ^ self._round(right, key)
        return (left << self._shift) | right

    def _backward(self, value: np.ndarray) -> np.ndarray:
        left, right = value >> self._shift, value & self._mask
        for key in reversed(self._keys):
            left, right = right ^ self._round(left, key), left
        return (left << self._shift) | right

    def _round(self, half: np.ndarray, key: np.uint64) -> np.ndarray:
        """The multiply-and-shift mixing of MurmurHash3's finaliser, cut to half the bits."""
        mixed = half ^ key
        mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
        mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
        rounded: np.ndarray = (mixed ^ (mixed >> np.uint64(33))) & self._mask
        return rounded
