"""docs/results.md from what is kept: ours, its controls, official code and published figures together."""

import json
import math
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from aims import SOURCES, aims_table, below_aims, below_controls  # noqa: E402  beside this file
from kept_runs import (  # noqa: E402
    CONTROLS,
    METRICS,
    TITLES,
    Record,
    clusters_raw_rows,
    group,
    has_raw_controls,
    spread,
    title,
    with_raw_controls,
)
from speed_page import speed_section  # noqa: E402

from flows.study_record import StudyRecord  # noqa: E402
from flows.study_tables import markdown_table, study_markdown  # noqa: E402

INTRODUCTION = """# Results

Made by `python benchmarks/results.py page` from the JSON files in `benchmarks/results`, and from
`benchmarks/published.toml`. A figure of ours is a mean over encoder seeds with its sample standard deviation,
in percent. Beside a method stand two controls with the same head and budget: the smoothed features
themselves, and the untrained encoder; "What falls short" at the end lists every method that lies below an aim
or below a control. Presets for classification were chosen on validation accuracy alone
and committed before any test figure was computed; validation stands beside test. Presets for clustering are
published settings under a fixed schedule, committed before our runs; that the released code's habits are
among them rests on an earlier measurement of that code by its labels, on Cora and the airports.

**The default presets for classification are no plain NML-GCL.** They are settings of `nml_gcl`: on Cora all
negatives weigh the same, which is InfoNCE with nothing of the metric left; on CiteSeer the weights are the
optimum in closed form, with no network. Both put three encoders side by side; the released code has one.
A row is titled by what it ran.

Published figures stand as published, each with its source: *paper*, *code* (the authors' repository), *table*
(somebody else's table), *rerun* (an independent run of it); *measured* is the authors' code, or its algorithm
checked against it, as run by us. In clustering, figures whose epoch was chosen with labels (class O) stand in
a table of their own: they compare with nothing else. Class F is the last epoch or a fixed schedule. An aim is
what we set out to reach, for all methods or for one (its own). It may lie below the best that is published,
which stands beside it: of the figures printed here, without class O and our own measurements.
"""
_BELOW_AIMS = """
### Below the aim

Of every aim that is missed, the best of our runs; largest gap first.
"""
_BELOW_CONTROLS = """
### Below a control

Every run and variant whose mean lies below the smoothed features or the untrained encoder with the same head.
"""
_UNIT_CONTROLS = """The controls are clustered on rows scaled to length 1 (kmeans-final), while these runs'
own clustering takes rows as they are: they are no controls of it.
"""
_STAGES = ("ingest", "smooth", "train", "uncertainty", "cluster", "evaluate")


def render(results: Path, published: Path) -> str:
    """The page.

    Args:
        results: folder of the kept JSON, with ``studies/`` and ``shortfalls.md``.
        published: the TOML of published figures and targets.
    """
    kept = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    measured = results / "raw_controls.json"
    raw_controls = json.loads(measured.read_text())["datasets"] if measured.exists() else {}
    runs = [with_raw_controls(record, raw_controls) for record in kept if "metrics" in record]
    figures = tomllib.loads(published.read_text())
    parts = [INTRODUCTION]
    for dataset in dict.fromkeys(run["config"]["dataset"]["name"] for run in runs):
        own = [run for run in runs if run["config"]["dataset"]["name"] == dataset]
        parts += [f"## {dataset}\n", *_dataset(dataset, own, figures)]
    studies = [
        StudyRecord.model_validate_json(path.read_text())
        for path in sorted((results / "studies").glob("*.json"))
    ]
    if studies:
        parts.append("## Studies\n\nMade by `gclflow study NAME`; see [studies](studies.md).\n")
        parts += [study_markdown(study, level=3) for study in studies]
    parts += [part for part in [speed_section(results)] if part]
    parts.append(_shortfalls((results / "shortfalls.md").read_text(), runs, studies, figures))
    return "\n".join(parts).rstrip() + "\n"


def _dataset(dataset: str, runs: Sequence[Record], figures: Record) -> Iterator[str]:
    """The sections of one data set: a table a task and protocol, then how the runs were made."""
    found = dict.fromkeys((m["task"], group(m)) for run in runs for m in run["metrics"])
    for task, protocol in found:
        if task in METRICS:
            yield from _section(dataset, task, protocol, runs, figures)
    if oracle := _oracle_table(dataset, runs, figures):
        yield from ("### clustering, epoch chosen with labels (class O): no results\n", *oracle, "")
    yield from ("### How these runs were made\n", *(_making(run) for run in runs))


def _section(
    dataset: str, task: str, protocol: str, runs: Sequence[Record], figures: Record
) -> Iterator[str]:
    metrics = METRICS[task]
    rows = [row for run in runs for row in _own_rows(run, task, protocol)]
    rivals, num_recalled = _published_rows(figures, dataset, task, protocol, classes=("F", "?", ""))
    is_clustering = task == "clustering"
    what = (
        "clustering, number of clusters known" if is_clustering else f"{task.replace('_', ' ')}, {protocol}"
    )
    yield f"### {what}\n"
    header = ["method", *(TITLES[m] for m in metrics), "accuracy, validation", "over or source"]
    if is_clustering:
        header.remove("accuracy, validation")
        rows = [[*row[:-2], row[-1]] for row in rows]
        rivals = [[*row[:-2], row[-1]] for row in rivals]
    yield from markdown_table(header, rows + rivals)
    yield ""
    if num_recalled:
        yield f"{num_recalled} figures quoted from memory are kept out until they are confirmed.\n"
    if is_clustering and any(clusters_raw_rows(run) and not has_raw_controls(run) for run in runs):
        yield _UNIT_CONTROLS
    yield from (*aims_table(dataset, task, protocol, runs, figures), "")


def _own_rows(run: Record, task: str, protocol: str) -> Iterator[list[str]]:
    """The method, then its controls; in clustering a row a protocol."""
    metrics = [m for m in run["metrics"] if m["task"] == task and group(m) == protocol]
    held = [m for m in run["validation_metrics"] if m["task"] == task and group(m) == protocol]
    for name, embedding in dict.fromkeys((m["protocol"], m["embedding"]) for m in metrics):
        rows = {m["metric"]: m for m in metrics if (m["protocol"], m["embedding"]) == (name, embedding)}
        validation = [
            m for m in held if (m["protocol"], m["embedding"], m["metric"]) == (name, embedding, "accuracy")
        ]
        first = next((rows[m] for m in METRICS[task] if m in rows), None)
        if first is None:
            continue
        shown = f"**{title(run)}**" if embedding == "method" else f"{title(run)}: {CONTROLS[embedding]}"
        yield [
            shown + (f", {name}" if task == "clustering" else ""),
            *(spread(rows.get(m)) for m in METRICS[task]),
            spread(validation[0] if validation else None),
            f"ours, {first['n']} {first['over'] or 'run'}",
        ]


def _published_rows(
    figures: Record, dataset: str, task: str, protocol: str, *, classes: Sequence[str]
) -> tuple[list[list[str]], int]:
    """Rows of published figures, best first, measured ones before; and how many are left out as recalled."""
    found: list[tuple[tuple[bool, float], list[str]]] = []
    num_recalled = 0
    for table in figures["tables"]:
        if (table["task"], table["protocol"]) != (task, protocol):
            continue
        for row in table["rows"]:
            if dataset not in row or row.get("class", "") not in classes:
                continue
            if row["tag"] not in SOURCES:
                num_recalled += 1
                continue
            values = dict(zip(table["metrics"], row[dataset], strict=True))
            cells = [_number(values.get(m)) for m in METRICS[task]]
            kind = f"class {row['class']}, " if row.get("class") else ""
            note = f"; {row['note']}" if "note" in row else ""
            best = next((value for value in row[dataset] if not math.isnan(value)), 0.0)
            line = [row["method"], *cells, "-", f"{kind}{row['tag']}{note}"]
            found.append(((row["tag"] != "measured", -best), line))
    return [line for _, line in sorted(found, key=lambda item: item[0])], num_recalled


_SINGLE_START = (
    "kmeans-oracle: the best of ten k-means++ starts at each check. legacy_kmeans-oracle: one start at each "
    "check, as\nreleased codes of deep graph clustering make it, so that labels choose a lucky start too."
)


def _oracle_table(dataset: str, runs: Sequence[Record], figures: Record) -> list[str]:
    rows = [
        row
        for run in runs
        for row in _own_rows(
            {**run, "metrics": run.get("oracle_metrics", []), "validation_metrics": []},
            "clustering",
            "clustering",
        )
    ]
    rivals, _ = _published_rows(figures, dataset, "clustering", "clustering", classes=("O",))
    if not rows + rivals:
        return []
    header = ["method", *(TITLES[m] for m in METRICS["clustering"]), "over or source"]
    table = markdown_table(header, ([*row[:-2], row[-1]] for row in rows + rivals))
    is_single = any("legacy_kmeans-oracle" in cell for row in rows for cell in row)
    return [*table, "", _SINGLE_START] if is_single else table


def _shortfalls(text: str, runs: Sequence[Record], studies: Sequence[StudyRecord], figures: Record) -> str:
    """What is written of the shortfalls, after the lists of them that the figures themselves give."""
    heading, _, rest = text.partition("\n")
    lists = [(_BELOW_AIMS, below_aims(runs, figures)), (_BELOW_CONTROLS, below_controls(runs, studies))]
    tables = "".join(f"{words}\n" + "\n".join(table) + "\n" for words, table in lists if table)
    return f"{heading}\n{tables}{rest}"


def _making(run: Record) -> str:
    machine, versions = run["machine"], run["versions"]
    memory = machine["memory_bytes"] / 2**30
    notes = "".join(f"  Note: {note}.\n" for note in run["notes"])
    others = [other for other in run.get("machines", ()) if other != machine]
    elsewhere = f" ({len(others)} of the runs on another machine)" if others else ""
    return (
        f"- {title(run)}: `{run['command']}`\n"
        f"  {_costs(run)}\n"
        f"  {machine['platform']}, {machine['cores']} cores, {memory:.0f} GB; Python {versions['python']}, "
        f"torch {versions['torch']}, scikit-learn {versions['scikit-learn']}{elsewhere}.\n{notes}"
    )


def _costs(run: Record) -> str:
    """Time and memory of the stages that ran; what came from the store was not measured."""
    seconds = run["stage_seconds"]
    if not seconds:
        return "Time and memory: every stage was cached, not measured."
    times = ", ".join(f"{stage} {value:.1f}" for stage, value in seconds.items())
    cached = [stage for stage in _STAGES if stage not in seconds]
    rest = f" Cached, not measured: {', '.join(cached)}." if cached else ""
    peak = f"{run['peak_rss_bytes'] / 2**20:.0f} MB" + (" of what ran" if cached else "")
    return f"Seconds a stage, median over seeds: {times}. Peak memory {peak}.{rest}"


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"
