"""Whether another order of the nodes makes a propagation step faster, and how far it is from the limit.

    python benchmarks/reordering.py --json benchmarks/results/reordering.json

Graphs of one size, their nodes in random order: uniform (no locality exists), power law (hubs), communities,
and points of a plane joined to near ones (locality that the order hides). Orders: as given, by falling degree
(hubs first), reverse Cuthill-McKee, and the order that was shuffled away, where there is one. A step is a sum
over neighbours, in place. Two limits stand beside it, from a copy bandwidth measured in the same run: what
must move at least (features read and written once, indices), and what moves when every edge fetches its row.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from losses import machine  # noqa: E402  beside this file, which need not be installed

from gcl.graph import Graph  # noqa: E402
from gcl.propagation import Propagation  # noqa: E402

COMMUNITY_NODES = 200


def graph_of(src: np.ndarray, dst: np.ndarray, num_nodes: int, order_N: np.ndarray) -> sp.csr_matrix:
    """The undirected pattern, node v renamed to order_N[v]."""
    keep = src != dst
    src, dst = order_N[src[keep]], order_N[dst[keep]]
    ones = np.ones(2 * len(src), np.float32)
    pattern = sp.csr_matrix((ones, (np.r_[src, dst], np.r_[dst, src])), shape=(num_nodes, num_nodes))
    pattern.sum_duplicates()
    return pattern


def make_graphs(
    num_nodes: int, num_edges: int, seed: int
) -> dict[str, tuple[sp.csr_matrix, np.ndarray | None]]:
    """Patterns by name, their nodes in random order, and the hidden order where there is one."""
    generator = np.random.default_rng(seed)
    pairs, shuffle = num_edges // 2, generator.permutation(num_nodes)
    uniform = generator.integers(0, num_nodes, (2, pairs))
    falling = (np.arange(num_nodes) + 10.0) ** -0.6
    hubs = generator.choice(num_nodes, (2, pairs), p=falling / falling.sum())
    inside = generator.random(pairs) < 0.8
    first = generator.integers(0, num_nodes, pairs)
    near = first // COMMUNITY_NODES * COMMUNITY_NODES + generator.integers(0, COMMUNITY_NODES, pairs)
    second = np.where(inside, np.minimum(near, num_nodes - 1), generator.integers(0, num_nodes, pairs))
    side = int(np.ceil(np.sqrt(num_nodes)))
    steps = generator.integers(-2, 3, (2, pairs))
    row, column = first // side + steps[0], first % side + steps[1]
    there = (row >= 0) & (column >= 0) & (column < side) & (row * side + column < num_nodes)
    plane = first[there], (row * side + column)[there]
    return {
        "uniform": (graph_of(*uniform, num_nodes, shuffle), None),
        "power law": (graph_of(*hubs, num_nodes, shuffle), None),
        "communities": (graph_of(first, second, num_nodes, shuffle), shuffle),
        "plane": (graph_of(*plane, num_nodes, shuffle), shuffle),
    }


def orders(pattern: sp.csr_matrix, hidden: np.ndarray | None) -> dict[str, Callable[[], np.ndarray]]:
    """By name, how the nodes in their new order are found."""
    found: dict[str, Callable[[], np.ndarray]] = {
        "as given": lambda: np.arange(pattern.shape[0]),
        "hubs first": lambda: np.argsort(-np.diff(pattern.indptr), kind="stable"),
        "reverse Cuthill-McKee": lambda: sp.csgraph.reverse_cuthill_mckee(pattern, symmetric_mode=True),
    }
    return found if hidden is None else found | {"the hidden one": lambda: hidden}


def copy_bandwidth(num_bytes: int = 1 << 30) -> float:
    """Bytes a second that a copy reads and writes, best of five."""
    source = torch.ones(num_bytes // 4)
    target = torch.empty_like(source)
    best = min(_seconds(lambda: target.copy_(source)) for _ in range(5))
    return 2 * num_bytes / best


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure(pattern: sp.csr_matrix, order: np.ndarray, columns: int, repeats: int) -> float:
    """Median seconds of a step."""
    permuted = pattern[order][:, order].tocoo()
    by_row = np.lexsort((permuted.col, permuted.row))
    graph = Graph(len(order), permuted.row[by_row].astype(np.int64), permuted.col[by_row].astype(np.int64))
    propagation = Propagation.from_graph(graph)
    x_Nc = torch.rand(len(order), columns)
    out_Nc = torch.empty_like(x_Nc)
    return statistics.median(
        _seconds(lambda: propagation.neighbour_sum(x_Nc, out_Nc=out_Nc)) for _ in range(repeats + 1)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--edges", type=int, default=10_000_000)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    bandwidth = copy_bandwidth()
    results: dict[str, Any] = {
        "machine": machine(),
        "arguments": {k: v for k, v in vars(options).items() if k != "json"},
        "copy_bytes_per_second": bandwidth,
        "threads": torch.get_num_threads(),
        "graphs": {},
    }
    print(f"a copy moves {bandwidth / 1e9:.1f} GB/s on {torch.get_num_threads()} threads")
    for name, (pattern, hidden) in make_graphs(options.nodes, options.edges, options.seed).items():
        row_bytes = 4 * options.columns
        least = (2 * options.nodes * row_bytes + 4 * pattern.nnz) / bandwidth
        every = (pattern.nnz + options.nodes) * row_bytes / bandwidth
        rows = {}
        for order_name, find in orders(pattern, hidden).items():
            started = time.perf_counter()
            order = find()
            finding = time.perf_counter() - started
            seconds = measure(pattern, order, options.columns, options.repeats)
            rows[order_name] = {"seconds_to_find": finding, "seconds_a_step": seconds}
            print(
                f"{name:12s} {order_name:22s} found in {finding:6.2f} s, a step {1e3 * seconds:7.1f} ms, "
                f"{seconds / least:4.1f} x what must move, {seconds / every:4.1f} x a fetch an edge",
                flush=True,
            )
        results["graphs"][name] = {
            "edges": int(pattern.nnz), "least_seconds": least, "fetch_seconds": every, "orders": rows,
        }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
