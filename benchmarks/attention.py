"""Attention over metapaths: from which density on dense products beat sums over edges.

    python -m benchmarks.attention [--nodes 4057] [--width 256] [--device cpu]

Prints, for each density, the seconds of a head forward and backward, dropout on, and the density at which
the dense way becomes the faster one; `gcl.han_attention.DENSE_DENSITY` is set by it.
"""

import argparse
import time

import numpy as np
import scipy.sparse as sp
import torch

from gcl.dropout import Dropout
from gcl.han_attention import DenseNeighbours, EdgeNeighbours, Neighbours, attend
from gcl.propagation import resolve_backend

DENSITIES = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.3)
DROPOUT = Dropout(0.3, 0, "benchmark")


def main() -> None:
    """Measure all densities and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=int, default=4057)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    backends = ["torch"] + ["dgl"] * (resolve_backend("auto", args.device) == "dgl")
    print("density", "dense", *backends, sep="\t")
    ratios = []
    for density in DENSITIES:
        pattern = random_pattern(args.nodes, density)
        ways: list[Neighbours] = [DenseNeighbours(pattern, device=args.device)]
        ways += [EdgeNeighbours(pattern, backend=name, device=args.device) for name in backends]
        seconds = [seconds_of(way, args.nodes, args.width, args.device, args.repeats) for way in ways]
        ratios.append(min(seconds[1:]) / seconds[0])
        print(f"{density:.3f}", *(f"{value:.4f}" for value in seconds), sep="\t")
    print(f"dense is faster from a density of about {crossing(np.array(ratios)):.3f} on")


def random_pattern(num_nodes: int, density: float) -> sp.csr_matrix:
    """Random neighbours, each node its own."""
    generator = np.random.default_rng(0)
    picked = generator.integers(0, num_nodes, (2, int(density * num_nodes**2)))
    rows, columns = np.hstack([picked, np.tile(np.arange(num_nodes), (2, 1))])
    pattern = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(num_nodes, num_nodes))
    pattern.sum_duplicates()
    return pattern


def seconds_of(way: Neighbours, num_nodes: int, width: int, device: str, repeats: int) -> float:
    """Median seconds of one head, forward and backward."""
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(num_nodes, 1, width, generator=generator).to(device).requires_grad_()
    logits = [torch.randn(num_nodes, 1, generator=generator).to(device).requires_grad_() for _ in range(2)]
    found = []
    for _ in range(repeats + 1):  # the first warms up
        _wait(device)
        started = time.perf_counter()
        attend(way, value, *logits, DROPOUT).sum().backward()
        _wait(device)
        found.append(time.perf_counter() - started)
    return float(np.median(found[1:]))


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def crossing(ratio_S: np.ndarray) -> float:
    """The density where edges take as long as pairs, between two measured ones on a log scale."""
    above = np.flatnonzero(ratio_S >= 1)
    if not len(above):
        return float("nan")
    if above[0] == 0:
        return DENSITIES[0]
    i = above[0]
    low, high = np.log(ratio_S[i - 1 : i + 1])
    share = -low / (high - low)
    return float(np.exp((1 - share) * np.log(DENSITIES[i - 1]) + share * np.log(DENSITIES[i])))


if __name__ == "__main__":
    main()
