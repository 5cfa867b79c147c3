"""Time and peak memory of the losses over all pairs of nodes: streamed (ours) beside dense plain torch.

    python benchmarks/losses.py grace             # the loss alone: float32, and bfloat16 beside it
    python benchmarks/losses.py grace-step        # a whole training step: views, encoder, loss, optimiser
    python benchmarks/losses.py nml               # NML-GCL, two logits a pair
    python benchmarks/losses.py slope             # ours at 7.5k, 15k and 30k nodes
    python benchmarks/losses.py all

One step is forward and backward. Each contender runs in a process of its own; ours runs before and after the
dense one, so that a busy machine hits both, and the ratio takes the mean of the two. Peak memory is the
largest resident set of that process (VmHWM: Python, torch and data included), and beside it what it grew
over the resident set before the data were made, after a warm-up on 256 nodes. Seconds are wall clock. On a
machine with other work take `--threads 1` and compare processor seconds: threads that wait for a neighbour
to give back a core count as working. Results go to benchmarks/results/losses.json, a case to a key.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results" / "losses.json"
COMPUTERS_NODES, COMPUTERS_EDGES, COMPUTERS_FEATURES = 13_752, 491_722, 767
"""The size of Amazon Computers; the data are random."""
WARM_UP_NODES = 256

Step = Callable[[], float]
"""Forward and backward once; returns the loss, by which the contenders are told to agree."""


def random_rows(num_nodes: int, size: int, num_sets: int) -> list[Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    common = torch.randn(num_nodes, size, generator=generator)
    return [
        (common + torch.randn(num_nodes, size, generator=generator)).requires_grad_() for _ in range(num_sets)
    ]


def grace_case(variant: str, num_nodes: int) -> Step:
    """The loss on projections of width 256."""
    from dense_losses import dense_grace_loss

    from gcl.losses.contrastive import grace_loss

    u_ND, v_ND = random_rows(num_nodes, 256, 2)
    loss_of = grace_loss if variant == "ours" else dense_grace_loss
    return backward_step(lambda: loss_of(u_ND, v_ND, temperature=0.4), [u_ND, v_ND])


def grace_step_case(variant: str, num_nodes: int) -> Step:
    """A training step of the method: draw two views, encode, project, loss, gradients, Adam."""
    import numpy as np
    import torch
    from dense_losses import dense_grace_loss
    from smoothing import random_graph

    from gcl.methods.base import TrainingData
    from gcl.methods.configs.grace import GraceConfig
    from gcl.methods.grace import Grace

    num_edges = COMPUTERS_EDGES * num_nodes // COMPUTERS_NODES
    graph = random_graph(num_nodes, num_edges, COMPUTERS_FEATURES, seed=0)
    method = Grace(GraceConfig(), num_features=COMPUTERS_FEATURES, num_classes=None, seed=0)
    batch = TrainingData(num_nodes=num_nodes, graph=graph).batch(torch.from_numpy(np.arange(num_nodes)))
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
    epochs = iter(range(1 << 30))

    def step() -> float:
        epoch = next(epochs)
        optimizer.zero_grad()
        if variant == "ours":
            loss = method.training_loss(batch, epoch=epoch, step=0, seed=0)["loss"]
        else:
            views = method.projected_views(batch, epoch=epoch, step=0, seed=0)
            loss = dense_grace_loss(*views, temperature=method.config.temperature)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def nml_case(variant: str, num_nodes: int) -> Step:
    """The loss on embeddings and metric rows of width 512, gradients for all four."""
    from dense_losses import dense_nml_loss

    from gcl.losses.nml import MetricRows, nml_loss

    rows = random_rows(num_nodes, 512, 4)
    u_ND, v_ND, metric_u_NM, metric_v_NM = rows

    def loss() -> Any:
        if variant == "dense":
            return dense_nml_loss(*rows, temperature=0.4, kl_weight=1.0)
        metric = MetricRows(metric_u_NM, metric_v_NM)
        return nml_loss(u_ND, v_ND, metric, temperature=0.4, kl_weight=1.0).loss

    return backward_step(loss, rows)


def backward_step(loss_of: Callable[[], Any], operands: list[Any]) -> Step:
    def step() -> float:
        for operand in operands:
            operand.grad = None
        loss = loss_of()
        loss.backward()
        return float(loss.item())

    return step


CASES: dict[str, Callable[[str, int], Step]] = {
    "grace": grace_case,
    "grace-step": grace_step_case,
    "nml": nml_case,
}
"""A case makes the step of a variant ("ours" or "dense") at a number of nodes. A further loss adds a line."""
IMPORTS = {"grace-step": ("gcl.methods.grace", "dgl")}
"""What a case imports beside torch: loaded before the baseline of memory is taken."""


def measure(case: str, variant: str, num_nodes: int, num_repeats: int, dtype: str) -> dict[str, Any]:
    """Run one contender in this process."""
    import importlib

    import torch

    for name in ("gcl.losses.contrastive", "dense_losses", *IMPORTS.get(case, ())):
        importlib.import_module(name)
    runs = []
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
        CASES[case](variant, WARM_UP_NODES)()  # libraries load on first use, which is no one's loss
        baseline = memory("VmRSS")
        step = CASES[case](variant, num_nodes)
        for _ in range(num_repeats):
            started, processor = time.perf_counter(), time.process_time()
            loss = step()
            runs.append((time.perf_counter() - started, time.process_time() - processor))
    return {
        "loss": loss,
        "seconds": min(seconds for seconds, _ in runs),
        "processor_seconds": min(seconds for _, seconds in runs),
        "all_seconds": [seconds for seconds, _ in runs],
        "peak_bytes": memory("VmHWM"),
        "peak_over_baseline_bytes": memory("VmHWM") - baseline,
        "num_threads": torch.get_num_threads(),
    }


def memory(field: str) -> int:
    """Bytes of a field of /proc/self/status; getrusage would count the parent's memory before exec."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")


def in_child(
    case: str, variant: str, num_nodes: int, *, num_repeats: int = 1, dtype: str = "float32"
) -> dict[str, Any]:
    """`measure` in a fresh process."""
    arguments = [case, variant, str(num_nodes), str(num_repeats), dtype]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
        "DGLBACKEND": "pytorch",  # else dgl writes a line
    }
    done = subprocess.run(
        [sys.executable, __file__, "measure", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"  {case:10s} {variant:5s} {dtype:8s} N={num_nodes:6,}  {result['seconds']:7.2f} s  "
        f"{result['processor_seconds']:7.2f} processor s  peak {result['peak_bytes'] / 1e9:5.2f} GB "
        f"(+{result['peak_over_baseline_bytes'] / 1e9:.2f})  loss {result['loss']:.6f}",
        flush=True,
    )
    return result


def compare(case: str, num_nodes: int, *, dtype: str = "float32", num_repeats: int = 1) -> dict[str, Any]:
    """Ours, dense, ours again; the ratios dense / ours."""
    first = in_child(case, "ours", num_nodes, dtype=dtype, num_repeats=num_repeats)
    dense = in_child(case, "dense", num_nodes, dtype=dtype, num_repeats=num_repeats)
    second = in_child(case, "ours", num_nodes, dtype=dtype, num_repeats=num_repeats)
    ours = {key: [first[key], second[key]] for key in ("seconds", "processor_seconds", "peak_bytes")}
    ratios = {
        "seconds": dense["seconds"] * 2 / sum(ours["seconds"]),
        "processor_seconds": dense["processor_seconds"] * 2 / sum(ours["processor_seconds"]),
        "peak_bytes": dense["peak_bytes"] / max(ours["peak_bytes"]),
    }
    print("  dense / ours: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
    return {
        "num_nodes": num_nodes,
        "dtype": dtype,
        "ours": first,
        "ours_again": second,
        "dense": dense,
        "dense_over_ours": ratios,
        "relative_difference_of_losses": abs(first["loss"] - dense["loss"]) / abs(dense["loss"]),
    }


def run_grace(options: argparse.Namespace) -> dict[str, Any]:
    return {dtype: compare("grace", options.nodes, dtype=dtype) for dtype in ("float32", "bfloat16")}


def run_grace_step(options: argparse.Namespace) -> dict[str, Any]:
    return compare("grace-step", options.nodes)


def run_nml(options: argparse.Namespace) -> dict[str, Any]:
    """Ours at full size; the comparison at half the nodes, where the dense one fits beside other work."""
    return {
        "ours": in_child("nml", "ours", options.nodes),
        "comparison": compare("nml", options.nodes // 2),
    }


def run_slope(options: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of ours as N doubles."""
    sizes = [options.slope_nodes * factor for factor in (1, 2, 4)]
    found = {num_nodes: in_child("grace", "ours", num_nodes) for num_nodes in sizes}
    growth = [
        found[large]["peak_over_baseline_bytes"] / found[small]["peak_over_baseline_bytes"]
        for small, large in zip(sizes, sizes[1:], strict=False)
    ]
    print("  growth of the peak over its baseline a doubling: " + ", ".join(f"{g:.2f}" for g in growth))
    return {"runs": found, "growth_a_doubling": growth}


RUNS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "grace": run_grace,
    "grace-step": run_grace_step,
    "nml": run_nml,
    "slope": run_slope,
}
"""Subcommands. A further loss adds its case above and a line here."""


def machine() -> dict[str, Any]:
    from importlib.metadata import version

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {
        "processor": next(
            (line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown"
        ),
        "num_cpus": os.cpu_count(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def keep(name: str, result: dict[str, Any]) -> None:
    """Put a case's result among those kept."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept[name] = {"machine": machine(), **result}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        case, variant, num_nodes, num_repeats, dtype = sys.argv[2:]
        print(json.dumps(measure(case, variant, int(num_nodes), int(num_repeats), dtype)))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", choices=[*RUNS, "all"])
    parser.add_argument("--nodes", type=int, default=COMPUTERS_NODES)
    parser.add_argument("--slope-nodes", type=int, default=7_500, help="smallest N of the slope")
    parser.add_argument("--no-keep", action="store_true", help="leave benchmarks/results/losses.json alone")
    parser.add_argument("--threads", type=int, help="threads of each contender; all cores if not given")
    options = parser.parse_args()
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(options.threads)
    for name in RUNS if options.case == "all" else [options.case]:
        print(name)
        result = RUNS[name](options)
        if not options.no_keep:
            keep(name, result)


if __name__ == "__main__":
    main()
