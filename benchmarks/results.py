"""Results: keep what a run found as JSON, and make docs/results.md from what is kept.

    python benchmarks/results.py add OUT NAME --command "gclflow ..."   # from OUT/run.json
    python benchmarks/results.py page                    # all of benchmarks/results -> docs/results.md

Kept are settings, versions, machine, seeds, metrics and stage times; no paths, no data.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "results.md"
INTRODUCTION = """# Results

Made by `python benchmarks/results.py page` from the JSON files in `benchmarks/results`. Each figure is a mean
over encoder seeds with its sample standard deviation, in percent. Beside the method stand two controls with
the same head and budget: the smoothed features themselves, and the untrained encoder. Presets were chosen on
validation accuracy of node classification alone and committed before any test figure was computed; validation
stands beside test.
"""
ROWS = (
    ("node_classification", "accuracy", "accuracy"),
    ("node_classification", "macro_f1", "macro-F1"),
    ("clustering", "accuracy", "k-means ACC"),
    ("clustering", "nmi", "k-means NMI"),
    ("clustering", "ari", "k-means ARI"),
    ("clustering", "macro_f1", "k-means macro-F1"),
    ("link_prediction", "auc", "AUC"),
    ("link_prediction", "average_precision", "AP"),
)


def add(out: Path, name: str, command: str) -> None:
    """Keep the record of a run under `name`."""
    record = json.loads((out / "run.json").read_text())
    record["config"]["dataset"].pop("path", None)
    seconds: dict[str, list[float]] = {}
    for stage in record["stages"]:
        if stage["state"] == "ran":
            seconds.setdefault(stage["stage"], []).append(stage["seconds"])
    kept = {
        "name": name,
        "command": command,
        **{key: record[key] for key in ("config", "preset", "seeds", "versions", "device", "machine")},
        "metrics": record["metrics"],
        "validation_metrics": record["validation_metrics"],
        "stage_seconds": {stage: round(statistics.median(values), 2) for stage, values in seconds.items()},
        "peak_rss_bytes": max(stage["peak_rss_bytes"] for stage in record["stages"]),
        "notes": record["notes"],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")


def page() -> None:
    """Write docs/results.md."""
    kept = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    parts = [INTRODUCTION]
    for record in kept:
        if "metrics" in record:
            parts += section(record)
    parts.append((RESULTS / "shortfalls.md").read_text())
    PAGE.write_text("\n".join(parts).rstrip() + "\n")


def section(record: dict[str, Any]) -> list[str]:
    """One data set's table."""
    machine, versions = record["machine"], record["versions"]
    lines = [
        f"## {record['name']}\n",
        f"    {record['command']}\n",
        "| metric | protocol | method | smoothed | untrained | method, validation | n |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, metric, title in ROWS:
        for protocol in dict.fromkeys(m["protocol"] for m in record["metrics"] if m["task"] == task):
            if protocol == "clusters-artifact":
                continue
            cells = [
                cell(record["metrics"], task, protocol, metric, e)
                for e in ("method", "smoothed", "random_init")
            ]
            held = cell(record["validation_metrics"], task, protocol, metric, "method")
            count = next(
                (
                    f"{m['n']} {m['over']}"
                    for m in record["metrics"]
                    if (m["task"], m["metric"]) == (task, metric)
                ),
                "",
            )
            lines.append(
                f"| {title} | {protocol} | {cells[0]} | {cells[1]} | {cells[2]} | {held} | {count} |"
            )
    times = ", ".join(f"{stage} {value:.1f}" for stage, value in record["stage_seconds"].items())
    lines += [
        "",
        f"Seconds a stage (median over seeds): {times}.",
        f"Peak memory {record['peak_rss_bytes'] / 2**20:.0f} MB.",
        f"{machine['platform']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GB; Python "
        f"{versions['python']}, torch {versions['torch']}, scikit-learn {versions['scikit-learn']}.\n",
    ]
    return lines


def cell(metrics: list[dict[str, Any]], task: str, protocol: str, metric: str, embedding: str) -> str:
    """Mean and deviation in percent, or a dash."""
    wanted = (task, protocol, metric, embedding)
    for row in metrics:
        if (row["task"], row["protocol"], row["metric"], row["embedding"]) == wanted and row[
            "value"
        ] is not None:
            return f"{100 * row['value']:.2f} ± {100 * (row['std'] or 0):.2f}"
    return "-"


def main() -> None:
    """Parse and act."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    adding = actions.add_parser("add")
    adding.add_argument("out", type=Path)
    adding.add_argument("name")
    adding.add_argument("--command", required=True)
    actions.add_parser("page")
    options = parser.parse_args()
    if options.action == "add":
        add(options.out, options.name, options.command)
    page()


if __name__ == "__main__":
    main()
