"""How the exact filter and its approximations compare: seconds against error, on the same graph and features.

    python benchmarks/filters.py --json filters.json

The aim is personalised PageRank smoothing, a sum_l (1-a)^l S^l X over all l with S = D^-1/2 A D^-1/2 and
self-loops, computed by conjugate gradients in float64 until nothing changes. Measured against it, on two
threads each: power iteration with the tail on the last level (what `gcl.smoothing` computes), push
(`gcl.bidirectional`), Chebyshev's expansion and conjugate gradients in float32. Errors are relative:
largest difference over largest value, and Frobenius norms. Push also has its error against the filter of
its own L in float64, which is what its bound is about.

The ratio of a push is its processor seconds over those of the power iteration with the fewest steps whose
Frobenius error is no larger: above 1, the exact filter is cheaper. Building the graph's arrays is timed
apart, and the filters start from them. Other work on the machine touches wall seconds, hardly processor ones.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from filter_series import (
    ALPHA,
    CONVOLUTION,
    after,
    chebyshev,
    conjugate_gradients,
    converged,
    power,
    symmetric_operator,
    truncated,
)
from smoothing import machine

from gcl.bidirectional import push_filter, update_filter
from gcl.graph import Graph
from gcl.propagation import Propagation, csr_arrays
from gcl.readers.synthetic import SyntheticConfig, SyntheticGraph
from gcl.smoothing import SmoothingConfig, filter_weights, smooth_features

POWER_STEPS, PUSH_STEPS = (5, 10, 20), 20
R_MAX = (1e-3, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 1e-7, 1e-8)
R_MAX_APART = (1e-4, 3e-5, 1e-5, 1e-6)
NUM_PRODUCTS = 30
PUBLISHED = (
    "Released bidirectional code (github.com/chennnM/GBP at f811fc2) on 200k nodes, 4.2M directed edges, 64 "
    "dense columns, two threads: 3.7 s at 44 % error, 283 s at 5 %. Measured another day on another machine: "
    "only the order of magnitude compares."
)


class Spent(NamedTuple):
    """Seconds of one run."""

    wall: float
    processor: float


def timed(function: Callable[[], object]) -> tuple[object, Spent]:
    """Run once, and twice more if it was quick; the median run."""
    runs: list[Spent] = []
    while len(runs) < 3 and sum(spent.wall for spent in runs) < 3:
        wall, processor = time.perf_counter(), time.process_time()
        result = function()
        runs.append(Spent(time.perf_counter() - wall, time.process_time() - processor))
    return result, Spent(*(statistics.median(column) for column in zip(*runs, strict=True)))


class Errors(NamedTuple):
    """Relative errors."""

    largest: float
    frobenius: float

    @classmethod
    def of(cls, x_NF: np.ndarray, exact_NF: np.ndarray) -> "Errors":
        """Of a result against the exact one."""
        difference = np.asarray(x_NF, np.float64) - exact_NF
        scale = float(np.abs(exact_NF).max())
        return cls(
            float(np.abs(difference).max()) / scale,
            float(np.linalg.norm(difference) / np.linalg.norm(exact_NF)),
        )


# --- graphs and features


def clustered_graph(num_nodes: int, num_columns: int, seed: int) -> Graph:
    """Five classes, four edges in five within a class, average degree about 20; Gaussian class means."""
    config = SyntheticConfig(nodes=num_nodes, average_degree=21, features=num_columns, seed=seed)
    source = SyntheticGraph(config)
    chunks = list(source.edge_chunks())
    src = np.concatenate([chunk.src for chunk in chunks])
    dst = np.concatenate([chunk.dst for chunk in chunks])
    return Graph.from_edges(src, dst, np.concatenate(list(source.feature_chunks())))


def lattice(num_nodes: int, num_columns: int, seed: int) -> Graph:
    """Each node and the ten on either side of it, in a ring: no two graphs mix more slowly."""
    node = np.arange(num_nodes)
    dst = np.concatenate([(node + step) % num_nodes for step in range(1, 11)])
    x_NF = np.random.default_rng(seed).standard_normal((num_nodes, num_columns), np.float32)
    return Graph.from_edges(np.tile(node, 10), dst, x_NF)


def words(num_nodes: int, num_columns: int, seed: int) -> np.ndarray:
    """The first columns of a matrix that has 50 ones among 2,000 columns in each row."""
    word = np.random.default_rng(seed).integers(0, 2000, (num_nodes, 50))
    node, place = np.nonzero(word < num_columns)
    x_NF = np.zeros((num_nodes, num_columns), np.float32)
    x_NF[node, word[node, place]] = 1
    return x_NF


def dense(graph: Graph) -> np.ndarray:
    return graph.x_NF if isinstance(graph.x_NF, np.ndarray) else graph.x_NF.toarray()


def by_column(graph: Graph) -> np.ndarray | sp.csc_matrix:
    return graph.x_NF if isinstance(graph.x_NF, np.ndarray) else graph.x_NF.tocsc()


# --- the comparison


def configured(num_steps: int) -> SmoothingConfig:
    return SmoothingConfig(alpha=ALPHA, num_steps=num_steps, convolution=CONVOLUTION)


def measure_power(graph: Graph, exact_NF: np.ndarray) -> tuple[list[dict[str, object]], list[Errors], float]:
    """(rows of the table, error after 0, 1, 2, ... steps, processor seconds a step)."""
    x_NF = dense(graph)
    propagation = Propagation.from_graph(graph, self_loops=True)
    errors = []
    for step, result_NF in enumerate(power(propagation, torch.from_numpy(x_NF), ALPHA)):
        errors.append(Errors.of(result_NF.numpy(), exact_NF))
        if step == NUM_PRODUCTS:
            break
    _, load = timed(lambda: Propagation.from_graph(graph, self_loops=True))
    rows: list[dict[str, object]] = []
    for num_steps in POWER_STEPS:
        config = configured(num_steps)
        smoothed, whole = timed(lambda config=config: smooth_features(graph, config, seed=0))
        error = Errors.of(smoothed.x_NF, exact_NF)
        spent = Spent(whole.wall - load.wall, whole.processor - load.processor)
        rows.append(row_of("power", f"L = {num_steps}", spent, error))
    slowest, fastest = rows[-1], rows[0]
    per_step = (slowest["processor_seconds"] - fastest["processor_seconds"]) / (
        POWER_STEPS[-1] - POWER_STEPS[0]
    )
    return rows, errors, per_step


def row_of(method: str, setting: str, spent: Spent, error: Errors, **more: object) -> dict[str, object]:
    return {
        "method": method,
        "setting": setting,
        "wall_seconds": spent.wall,
        "processor_seconds": spent.processor,
        "largest_error": error.largest,
        "frobenius_error": error.frobenius,
        **more,
    }


def measure_push(
    graph: Graph, operator: sp.csr_matrix, exact_NF: np.ndarray, num_threads: int
) -> list[dict[str, object]]:
    """Push with the signs of a column together, and apart as published."""
    csr, weights = csr_arrays(graph, self_loops=True), filter_weights(configured(PUSH_STEPS))
    dense_NF, columns = dense(graph), by_column(graph)
    own_NF = truncated(operator, dense_NF, weights)
    degree_N1 = np.diff(csr[0])[:, None] ** CONVOLUTION
    has_both_signs = bool(dense_NF.min() < 0)
    options = {
        "weights": weights,
        "convolution": CONVOLUTION,
        "is_undirected": True,
        "num_threads": num_threads,
    }
    push_filter(dense_NF[:, :1], csr, r_max=0.1, **options)  # compiles
    rows = []
    for signs in ("together", "apart") if has_both_signs else ("together",):
        for r_max in R_MAX if signs == "together" else R_MAX_APART:
            pushed, spent = timed(
                lambda signs=signs, r_max=r_max: push_filter(
                    columns, csr, r_max=r_max, signs=signs, **options
                )
            )
            own = Errors.of(pushed.x_SF, own_NF)
            share = np.abs(pushed.x_SF - own_NF).max() / max(float((degree_N1 * pushed.bound_F).max()), 1e-30)
            rows.append(
                row_of(
                    f"push, signs {signs}" if has_both_signs else "push",
                    f"r_max = {r_max:.0e}",
                    spent,
                    Errors.of(pushed.x_SF, exact_NF),
                    own_largest_error=own.largest,
                    own_frobenius_error=own.frobenius,
                    largest_error_over_largest_bound=float(share) if r_max >= 1e-6 else None,
                    edge_steps=pushed.num_edge_steps,
                    edge_steps_of_power=PUSH_STEPS * len(csr[1]) * dense_NF.shape[1],
                )
            )
    return rows


def add_ratios(rows: list[dict[str, object]], errors: list[Errors], per_step: float, overhead: float) -> None:
    for row in rows:
        steps = next(
            (step for step, error in enumerate(errors) if error.frobenius <= row["frobenius_error"]), None
        )
        row["power_steps_at_equal_error"] = steps
        if steps is not None:
            row["processor_ratio_at_equal_error"] = row["processor_seconds"] / (overhead + steps * per_step)


def measure_few_rows(graph: Graph, operator: sp.csr_matrix, num_threads: int) -> list[dict[str, object]]:
    """1,000 rows by push and walks, 100 changed rows by an update; errors against the filter of L = 10."""
    csr, weights = csr_arrays(graph, self_loops=True), filter_weights(configured(10))
    generator = np.random.default_rng(1)
    dense_NF, columns = dense(graph), by_column(graph)
    own_NF = truncated(operator, dense_NF, weights)
    options = {
        "weights": weights,
        "convolution": CONVOLUTION,
        "is_undirected": True,
        "num_threads": num_threads,
    }
    wanted = np.sort(generator.choice(graph.num_nodes, 1000, replace=False))
    rows = []
    for r_max, num_walks in ((1e-3, 0), (1e-3, 100), (1e-3, 1000), (1e-5, 0), (1e-5, 100), (1e-5, 1000)):
        pushed, spent = timed(
            lambda r_max=r_max, num_walks=num_walks: push_filter(
                columns, csr, r_max=r_max, rows=wanted, num_walks=num_walks, **options
            )
        )
        setting = f"r_max = {r_max:.0e}, {num_walks} walks"
        rows.append(row_of("1,000 rows", setting, spent, Errors.of(pushed.x_SF, own_NF[wanted])))
    changed = generator.choice(graph.num_nodes, 100, replace=False)
    values = generator.standard_normal((100, dense_NF.shape[1])).astype(np.float32)
    place = (np.repeat(changed, dense_NF.shape[1]), np.tile(np.arange(dense_NF.shape[1]), 100))
    change_NF = sp.csc_matrix((values.ravel(), place), shape=dense_NF.shape)
    moved_NF = truncated(operator, change_NF.toarray(), weights)
    for r_max in (1e-2, 1e-3, 1e-4, 1e-5):
        start_NF = np.zeros(dense_NF.shape, np.float32)
        wall, processor = time.perf_counter(), time.process_time()
        updated = update_filter(start_NF, change_NF, csr, r_max=r_max, **options)
        spent = Spent(time.perf_counter() - wall, time.process_time() - processor)
        error = Errors.of(updated.x_SF, moved_NF)
        rows.append(row_of("100 changed rows", f"r_max = {r_max:.0e}", spent, error))
    return rows


def measure_acceleration(graph: Graph, exact_NF: np.ndarray) -> dict[str, object]:
    """Frobenius error after each number of products, and the products needed for given errors."""
    x_NF = torch.from_numpy(dense(graph))
    propagation = Propagation.from_graph(graph, self_loops=True)

    def product(y_NF: torch.Tensor) -> torch.Tensor:
        return propagation.propagate(y_NF, convolution=CONVOLUTION)

    methods = {
        "power": lambda: power(propagation, x_NF, ALPHA),
        "chebyshev": lambda: chebyshev(propagation, x_NF, ALPHA),
        "conjugate gradients": lambda: conjugate_gradients(product, x_NF, ALPHA),
    }
    report: dict[str, object] = {}
    for name, start in methods.items():
        errors = []
        for step, result_NF in enumerate(start()):
            errors.append(Errors.of(result_NF.numpy(), exact_NF).frobenius)
            if step == NUM_PRODUCTS:
                break
        needed = {
            f"{goal:.0e}": next((step for step, error in enumerate(errors) if error <= goal), None)
            for goal in (1e-1, 1e-2, 1e-3, 1e-4)
        }
        _, spent = timed(lambda start=start: after(start(), 10))
        seconds = spent.processor / 10
        report[name] = {
            "frobenius_errors": errors,
            "products_needed": needed,
            "processor_seconds_a_product": seconds,
        }
    return report


def show(rows: list[dict[str, object]]) -> None:
    heads = ("wall s", "cpu s", "largest", "Frobenius", "power L", "ratio")
    print(" " * 47 + "".join(f"{head:>10s}" for head in heads))
    for row in rows:
        steps, ratio = row.get("power_steps_at_equal_error"), row.get("processor_ratio_at_equal_error")
        cells = [f"{row[key]:10.2f}" for key in ("wall_seconds", "processor_seconds")]
        cells += [f"{row[key]:10.1e}" for key in ("largest_error", "frobenius_error")]
        cells += ["" if steps is None else f"{steps:10d}", "" if ratio is None else f"{ratio:10.2f}"]
        print(f"  {row['method']:21s} {row['setting']:22s} " + "".join(cells))


def show_acceleration(report: dict[str, object]) -> None:
    for name, figures in report.items():
        needed = ", ".join(f"{goal}: {steps or 'more'}" for goal, steps in figures["products_needed"].items())
        seconds = figures["processor_seconds_a_product"]
        print(f"  {name:22s} products for an error of {needed}; {seconds:.3f} cpu s each")


def compare(graph: Graph, num_threads: int) -> dict[str, object]:
    _, load = timed(lambda: csr_arrays(graph, self_loops=True))
    operator = symmetric_operator(graph)
    exact_NF = converged(operator, dense(graph))
    rows, errors, per_step = measure_power(graph, exact_NF)
    overhead = max(rows[0]["processor_seconds"] - POWER_STEPS[0] * per_step, 0.0)
    pushes = measure_push(graph, operator, exact_NF, num_threads)
    add_ratios(pushes, errors, per_step, overhead)
    print(
        f"  arrays of the graph {load.wall:.2f} s; a step of power {per_step:.3f} cpu s, and {overhead:.3f}"
    )
    show([*rows, *pushes])
    few = measure_few_rows(graph, operator, num_threads)
    show(few)
    return {
        "load": load._asdict(),
        "power_frobenius_errors": [error.frobenius for error in errors],
        "power_processor_seconds_a_step": per_step,
        "rows": [*rows, *pushes],
        "few_rows": few,
    }


def run(arguments: argparse.Namespace) -> dict[str, object]:
    torch.set_num_threads(arguments.threads)
    graph = clustered_graph(arguments.nodes, arguments.columns, arguments.seed)
    word_NF = words(arguments.nodes, arguments.columns, arguments.seed)
    features = {"dense": graph.x_NF, "words": sp.csr_matrix(word_NF)}
    report: dict[str, object] = {
        "machine": {**machine(), "numba": version("numba")},
        "command": " ".join(["python", "benchmarks/filters.py", *sys.argv[1:]]),
        "published": PUBLISHED,
        "nodes": graph.num_nodes,
        "directed_edges": graph.num_edges,
    }
    print(f"{graph.num_nodes:,} nodes, {graph.num_edges:,} directed edges, {graph.num_features} columns")
    for name, x_NF in features.items():
        print(f"\n{name} features, {arguments.threads} threads; push with L = {PUSH_STEPS}")
        report[name] = compare(replace(graph, x_NF=x_NF), arguments.threads)
    print(f"\n{PUBLISHED}")
    ring = lattice(arguments.nodes // 4, arguments.columns, arguments.seed)
    for name, one in (("clustered graph", graph), ("lattice", ring)):
        print(f"\nacceleration, {name}", flush=True)
        accelerated = measure_acceleration(one, converged(symmetric_operator(one), one.x_NF))
        report[f"acceleration, {name}"] = accelerated
        show_acceleration(accelerated)
    report["load_average_at_end"] = os.getloadavg()
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=200_000)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    report = run(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
