"""How fast one propagation step is, beside CSR products of torch and scipy on the same graph and features.

    python benchmarks/smoothing.py --json smoothing.json

Every contender computes T x = D^-1 A x for the same float32 features; the results are compared with each
other before anything is timed. Ratios are of medians over interleaved repeats, against the best plan of
each library. "In place" means into memory that is reused from step to step, as a filter does. The last row
of each part is the whole filter (`gcl.smoothing.smooth_features`: input copied, ten steps accumulated,
output assembled), per step.
"""

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from gcl.graph import Graph
from gcl.propagation import Propagation
from gcl.smoothing import BLOCK_COLUMNS, SmoothingConfig, smooth_features

Contenders = dict[str, Callable[[], object]]
NUM_STEPS = 10


def random_graph(num_nodes: int, num_edges: int, num_columns: int, seed: int) -> Graph:
    """Uniform random undirected graph of exactly `num_edges` directed edges: no locality to profit from."""
    generator = np.random.default_rng(seed)
    pairs = generator.integers(0, num_nodes, (2, num_edges))
    low, high = np.minimum(*pairs), np.maximum(*pairs)
    keys = np.unique((low * num_nodes + high)[low < high])
    keys = np.sort(generator.permutation(keys)[: num_edges // 2])
    low, high = keys // num_nodes, keys % num_nodes
    src, dst = np.concatenate([low, high]), np.concatenate([high, low])
    order = np.lexsort((dst, src))
    x_NF = generator.standard_normal((num_nodes, num_columns), dtype=np.float32)
    return Graph(num_nodes, src[order], dst[order], x_NF=x_NF)


def random_walk(graph: Graph) -> sp.csr_matrix:
    adjacency = graph.adjacency_NN()
    degree_N = np.maximum(graph.out_degree_N, 1)
    adjacency.data = (1 / np.repeat(degree_N, graph.out_degree_N)).astype(np.float32)
    return sp.csr_matrix(adjacency)


def torch_csr(walk: sp.csr_matrix, index_type: type[np.signedinteger]) -> torch.Tensor:
    parts = (walk.indptr.astype(index_type), walk.indices.astype(index_type), walk.data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its CSR support a beta
        return torch.sparse_csr_tensor(*map(torch.from_numpy, parts), size=walk.shape, check_invariants=False)


def contenders(graph: Graph, pool: ThreadPoolExecutor, num_threads: int) -> tuple[Contenders, Contenders]:
    """(single steps, the whole filter)."""
    walk, x_NF = random_walk(graph), graph.x_NF
    x = torch.from_numpy(x_NF)
    propagation = Propagation.from_graph(graph)
    int32_csr, int64_csr = torch_csr(walk, np.int32), torch_csr(walk, np.int64)
    half = graph.num_nodes // 2
    row_blocks = [walk[:half], walk[half:]]

    out = torch.empty_like(x)

    def ours_in_place(width: int) -> Callable[[], object]:
        blocks = [x[:, i : i + width].contiguous() for i in range(0, x.shape[1], width)]
        outs = [torch.empty_like(block) for block in blocks]
        scaling_N1 = propagation.degree_scaling(-1.0)
        return lambda: [
            propagation.neighbour_sum(block, out_Nc=out).mul_(scaling_N1)
            for block, out in zip(blocks, outs, strict=True)
        ]

    steps: Contenders = {
        f"ours, in place, blocks of {BLOCK_COLUMNS}": ours_in_place(BLOCK_COLUMNS),
        "ours, in place, blocks of 64": ours_in_place(64),
        "ours, in place, blocks of 32": ours_in_place(32),
        "ours, new memory": lambda: propagation.propagate(x),
        "torch CSR, int32": lambda: int32_csr @ x,
        "torch CSR, int64": lambda: int64_csr @ x,
        "torch CSR, int32, in place": lambda: torch.addmm(out, int32_csr, x, beta=0, out=out),
        "torch CSR, int64, in place": lambda: torch.addmm(out, int64_csr, x, beta=0, out=out),
        "scipy CSR, one block": lambda: walk @ x_NF,
    }
    if num_threads > 1:
        # scipy's product holds no lock: two row blocks on two threads are its best plan on two cores.
        steps["scipy CSR, two row blocks on two threads"] = lambda: list(
            pool.map(lambda rows: rows @ x_NF, row_blocks)
        )
    config = SmoothingConfig(num_steps=NUM_STEPS, self_loops=False)
    return steps, {"smooth_features, a step": lambda: smooth_features(graph, config, seed=0)}


def check(steps: Contenders) -> float:
    """Largest difference between any two contenders."""
    first, largest = None, 0.0
    for name, step in steps.items():
        result = step()
        if isinstance(result, list):
            result = np.concatenate(result, axis=0 if name.startswith("scipy") else 1)
        first = np.array(result) if first is None else first
        largest = max(largest, float(np.abs(np.asarray(result) - first).max()))
    return largest


def measure(steps: Contenders, num_repeats: int) -> dict[str, list[float]]:
    """Seconds of every repeat, contenders taking turns so that a busy moment hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(num_repeats):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def machine() -> dict[str, object]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "processor": model,
        "num_cpus": os.cpu_count(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("dgl", "numpy", "scipy", "torch")},
    }


def ratios(medians: dict[str, float]) -> dict[str, float]:
    """Each library's best plan over ours as `smooth_features` runs it."""
    ours = medians[f"ours, in place, blocks of {BLOCK_COLUMNS}"]
    products = [name for name in medians if name.startswith("torch") and "in place" not in name]
    in_place = [name for name in medians if name.startswith("torch") and "in place" in name]
    row_blocks = [name for name in medians if name.startswith("scipy")]
    return {
        "torch CSR product / ours": min(medians[name] for name in products) / ours,
        "torch CSR in place / ours": min(medians[name] for name in in_place) / ours,
        "scipy / ours": min(medians[name] for name in row_blocks) / ours,
    }


def run(arguments: argparse.Namespace) -> dict[str, object]:
    graph = random_graph(arguments.nodes, arguments.edges, arguments.columns, arguments.seed)
    print(
        f"{graph.num_nodes:,} nodes, {graph.num_edges:,} directed edges stored ({graph.num_edges // 2:,} "
        f"undirected), {graph.num_features} float32 columns; median of {arguments.repeats}"
    )
    report: dict[str, object] = {"machine": machine(), "arguments": vars(arguments), "threads": {}}
    with ThreadPoolExecutor(2) as pool:
        for num_threads in (1, 2):
            torch.set_num_threads(num_threads)
            steps, filters = contenders(graph, pool, num_threads)
            difference = check(steps)
            seconds = measure(steps, arguments.repeats)
            for name, values in measure(filters, max(arguments.repeats // 3, 1)).items():
                seconds[name] = [value / NUM_STEPS for value in values]
            medians = {name: statistics.median(values) for name, values in seconds.items()}
            print(f"\n{num_threads} thread(s); largest difference between results {difference:.1e}")
            for name, median in medians.items():
                print(f"  {name:42s} {median * 1e3:8.1f} ms  (fastest {min(seconds[name]) * 1e3:.1f})")
            for name, ratio in ratios(medians).items():
                print(f"  {name:42s} {ratio:8.2f} x")
            report["threads"][num_threads] = {  # type: ignore[index]
                "largest_difference": difference,
                "median_seconds": medians,
                "fastest_seconds": {name: min(values) for name, values in seconds.items()},
                "ratios": ratios(medians),
            }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=200_000)
    parser.add_argument("--edges", type=int, default=2_000_000, help="directed edges stored")
    parser.add_argument("--columns", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    report = run(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
