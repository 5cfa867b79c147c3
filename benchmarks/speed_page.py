"""The part of docs/results.md on time and memory, from the JSON that the programs beside this file keep."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flows.study_tables import markdown_table

Record = dict[str, Any]

INTRODUCTION = """## Time and memory

Each table is kept by the program named above it, run on the machine named below it. Machines are noisy: a
ratio within one run says more than a second. Memory is the peak anonymous memory of the process tree.
"""


def speed_section(results: Path) -> str:
    """The section; a program that has kept nothing has no table."""
    parts = [INTRODUCTION]
    for name, title, command, rows in _TABLES:
        path = results / f"{name}.json"
        if not path.exists():
            continue
        kept = json.loads(path.read_text())
        head, *body = list(rows(kept))
        table = "\n".join(markdown_table(head, body))
        parts.append(f"### {title}\n\n`{command}`\n\n{table}\n\n{_machine(kept)}\n")
    return "\n".join(parts) if len(parts) > 1 else ""


def _scale(kept: Record) -> Iterator[list[str]]:
    sizes = sorted(kept, key=int)
    yield ["stage", *(f"{int(size):,} nodes" for size in sizes)]
    for stage in kept[sizes[-1]]["stages"]:
        cells = [kept[size]["stages"][stage] for size in sizes]
        yield [stage, *(f"{cell['seconds']:.1f} s, {cell['peak_rss_bytes'] / 1e9:.2f} GB" for cell in cells)]
    yield ["all", *(f"{kept[size]['seconds']:.0f} s" for size in sizes)]
    yield ["disk at most", *(f"{kept[size]['peak_disk_bytes'] / 1e9:.1f} GB" for size in sizes)]
    loads = [kept[size]["machine"]["load_average"][0] for size in sizes]
    yield ["load average at the end", *(f"{load:.1f}" for load in loads)]


def _own_tables(kept: Record) -> Iterator[list[str]]:
    yield ["format", "source", "directed edges", "time", "memory", "disk at most"]
    for name, found in kept["formats"].items():
        yield [
            name,
            f"{found['source_bytes'] / 1e9:.1f} GB",
            f"{found['directed_edges']:,}",
            f"{found['seconds']:.0f} s",
            f"{found['peak_rss_bytes'] / 1e9:.2f} GB",
            f"{found['peak_disk_bytes'] / 1e9:.1f} GB",
        ]


def _first_run(kept: Record) -> Iterator[list[str]]:
    yield ["turn", "`gclflow up`", "a finished run with artifacts", "allowed", "`gclflow down`"]
    for number, turn in enumerate(kept["turns"], start=1):
        yield [
            str(number),
            f"{turn['up_seconds']:.0f} s",
            f"{turn['finished_seconds']:.0f} s",
            f"{turn['allowed_seconds']:.0f} s",
            f"{turn['down_seconds']:.0f} s",
        ]


def _smoothing(kept: Record) -> Iterator[list[str]]:
    yield ["threads", "torch CSR / ours", "torch CSR in place / ours", "scipy / ours"]
    for threads, found in kept["threads"].items():
        yield [threads, *(f"{ratio:.2f}" for ratio in found["ratios"].values())]


def _reordering(kept: Record) -> Iterator[list[str]]:
    yield ["graph", "order", "found in", "a step", "what must move takes", "a fetch an edge takes"]
    for graph, found in kept["graphs"].items():
        for order, row in found["orders"].items():
            yield [
                graph,
                order,
                f"{row['seconds_to_find']:.2f} s",
                f"{1e3 * row['seconds_a_step']:.0f} ms",
                f"{1e3 * found['least_seconds']:.0f} ms",
                f"{1e3 * found['fetch_seconds']:.0f} ms",
            ]


def _dask_smoothing(kept: Record) -> Iterator[list[str]]:
    yield ["smoothing, by turns", "time", "memory"]
    for name, turn in kept["turns"].items():
        yield [name, f"{turn['seconds']:.0f} s", f"{turn['peak_rss_bytes'] / 1e9:.2f} GB"]
    yield ["Dask without its start, over direct", f"{kept['dask_over_direct']:.2f}", ""]


def _orchestration(kept: Record) -> Iterator[list[str]]:
    yield ["the same work in plain Python", "as a pipeline", "allowed"]
    seconds = kept["medians"]
    yield [f"{seconds['plain']:.1f} s", f"{seconds['pipeline']:.1f} s", f"{kept['allowed']:.1f} s"]


def _losses(kept: Record) -> Iterator[list[str]]:
    yield ["loss", "precision", "nodes", "memory", "dense memory", "dense / ours, processor time"]
    for loss, found in kept.items():
        for figures in (found, *found.values()):  # one comparison, or one for each precision
            if not isinstance(figures, dict) or "dense" not in figures:
                continue
            if loss == "nml":  # at full size ours alone; the comparison is at half the nodes
                nodes, peak = 2 * figures["num_nodes"], found["ours"]["peak_bytes"]
                yield [loss, figures["dtype"], f"{nodes:,}", f"{peak / 1e9:.2f} GB", "not run", "-"]
            yield [
                loss,
                figures["dtype"],
                f"{figures['num_nodes']:,}",
                f"{figures['ours']['peak_bytes'] / 1e9:.2f} GB",
                f"{figures['dense']['peak_bytes'] / 1e9:.2f} GB",
                f"{figures['dense_over_ours']['processor_seconds']:.2f}",
            ]


def _growth(kept: Record) -> Iterator[list[str]]:
    """Of the streamed loss of GRACE: 2 a doubling is linear, 4 quadratic."""
    yield ["nodes", "memory", "of it over what was there before the data", "growth a doubling"]
    slope = kept["slope"]
    for (nodes, run), growth in zip(slope["runs"].items(), [None, *slope["growth_a_doubling"]], strict=True):
        yield [
            f"{int(nodes):,}",
            f"{run['peak_bytes'] / 1e9:.2f} GB",
            f"{run['peak_over_baseline_bytes'] / 1e9:.2f} GB",
            "-" if growth is None else f"{growth:.2f}",
        ]


_ASKED_OF_HSAN = 5.0
"""Dense over ours in processor time."""


def _losses_hsan(kept: Record) -> Iterator[list[str]]:
    """The least of the turns; the dense one is in float32 beside either of ours."""
    yield ["ours in", "processor time", "dense", "dense / ours", "asked", "memory", "dense memory"]
    best = {
        name: {
            key: min(turn[name][key] for turn in kept["turns"]) for key in ("processor_seconds", "peak_bytes")
        }
        for name in kept["turns"][0]
    }
    for name, ratio in kept["dense_over"].items():
        is_met = ratio["processor_seconds"] >= _ASKED_OF_HSAN
        yield [
            "bfloat16" if name.endswith("bfloat16") else "float32",
            f"{best[name]['processor_seconds']:.2f} s",
            f"{best['dense']['processor_seconds']:.2f} s",
            f"{ratio['processor_seconds']:.2f}",
            f"{_ASKED_OF_HSAN:.0f}: " + ("reached" if is_met else "**missed**"),
            f"{best[name]['peak_bytes'] / 1e9:.2f} GB",
            f"{best['dense']['peak_bytes'] / 1e9:.2f} GB",
        ]


def _machine(kept: Record) -> str:
    """The machine of the run, or of its last part."""
    found = kept.get("machine")
    if not isinstance(found, dict):
        found = next((part["machine"] for part in reversed(kept.values()) if "machine" in part), {})
    parts = [
        found.get("processor") or found.get("platform", ""),
        f"{found.get('num_cpus') or found['cores']} cores",
    ]
    versions = {**found.get("versions", {}), **kept.get("versions", {})} or {"torch": found.get("torch", "?")}
    parts.append(f"Python {found.get('python') or versions.pop('python', '?')}")
    parts += [f"{name} {versions[name]}" for name in ("torch", "dgl", "scipy", "prefect") if name in versions]
    return f"On {', '.join(parts)}."


_Rows = Callable[[Record], Iterator[list[str]]]
_TABLES: tuple[tuple[str, str, str, _Rows], ...] = (
    ("first_run", "From nothing to a finished run", "python benchmarks/first_run.py", _first_run),
    ("scale", "Every stage, by the number of nodes", "python benchmarks/scale.py --nodes 10000000", _scale),
    ("own_tables", "Somebody's own edges between string ids", "python benchmarks/own_tables.py", _own_tables),
    ("orchestration", "What orchestration costs", "python benchmarks/orchestration.py", _orchestration),
    ("smoothing", "A propagation step beside other libraries", "python benchmarks/smoothing.py", _smoothing),
    (
        "smoothing_million",
        "The same at a million nodes, ten million edges, 64 columns",
        "python benchmarks/smoothing.py --nodes 1000000 --edges 10000000 --columns 64 --repeats 5",
        _smoothing,
    ),
    ("dask_smoothing", "Smoothing on Dask workers", "python benchmarks/dask_smoothing.py", _dask_smoothing),
    ("reordering", "Orders of the nodes", "python benchmarks/reordering.py", _reordering),
    (
        "losses",
        "Losses over all pairs, streamed and dense",
        "python benchmarks/losses.py all --threads 1",
        _losses,
    ),
    (
        "losses",
        "Memory of the streamed loss (GRACE's), by the number of nodes",
        "python benchmarks/losses.py slope --threads 1",
        _growth,
    ),
    (
        "losses_hsan",
        "A step of HSAN, ours and dense, at the size of Cora",
        "python benchmarks/losses_hsan.py",
        _losses_hsan,
    ),
)  # fmt: skip
