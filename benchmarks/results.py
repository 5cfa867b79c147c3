"""Results: keep what runs and studies found as JSON, and make docs/results.md from what is kept.

    python benchmarks/results.py add OUT NAME --command "gclflow ..."   # from OUT/run.json
    python benchmarks/results.py add OUT NAME --command "..." --pool    # more seeds for what is kept already
    python benchmarks/results.py add OUT NAME --command "..." --chosen-with-labels  # no aim judges it
    python benchmarks/results.py add-study OUT           # from OUT/study.json
    python benchmarks/results.py add-study OUT --pool    # more data sets for what is kept already
    python benchmarks/results.py page                    # all of benchmarks/results -> docs/results.md

Kept are settings, versions, machine, seeds, metrics and stage times; no paths, no data.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.study_record import StudyRecord

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import results_page  # noqa: E402  beside this file, which need not be installed

RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "results.md"
_KEPT = (
    "config",
    "preset",
    "seeds",
    "versions",
    "device",
    "machine",
    "metrics",
    "validation_metrics",
    "notes",
)


def add(
    out: Path, name: str, command: str, *, pool: bool = False, is_chosen_with_labels: bool = False
) -> None:
    """Keep the record of a run under `name`, or pool it with what is kept there of other seeds."""
    kept = _kept(out, name, command)
    if is_chosen_with_labels:
        kept["chosen_with_labels"] = True
    if pool:
        kept = pooled(json.loads((RESULTS / f"{name}.json").read_text()), kept)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")


def pooled(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two results of one configuration over different seeds as one.

    Raises:
        SystemExit: another configuration or versions, common seeds, or a figure that is not over seeds.
    """
    for key in ("config", "preset", "device", "versions", "chosen_with_labels"):
        if _without_seed(first.get(key)) != _without_seed(second.get(key)):
            raise SystemExit(f"the results differ in {key}: they cannot be pooled")
    if set(first["seeds"]) & set(second["seeds"]):
        raise SystemExit("the results have seeds in common")
    tables = ("metrics", "validation_metrics", "oracle_metrics")
    joined = {table: _pooled_rows(first[table], second[table]) for table in tables}
    machines = [*first.get("machines", [first["machine"]]), second["machine"]]
    return {
        **first,
        **joined,
        "command": f"{first['command']}; {second['command']}",
        "seeds": sorted([*first["seeds"], *second["seeds"]]),
        "machines": machines,
        "peak_rss_bytes": max(first["peak_rss_bytes"], second["peak_rss_bytes"]),
    }


def _without_seed(value: Any) -> Any:
    return (
        {name: item for name, item in value.items() if name != "seed"} if isinstance(value, dict) else value
    )


def _pooled_rows(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and sample standard deviation of all seeds from those of two groups of them.

    A figure that one group has not is defined for none of its seeds (a risk where every node abstains), and
    stays what it is over the seeds of the other.
    """
    identity = ("task", "protocol", "split", "embedding", "metric")
    others = {tuple(row[key] for key in identity): row for row in second}
    rows = []
    for row in first:
        other = others.pop(tuple(row[key] for key in identity), None)
        if other is None:
            rows.append(row)
            continue
        if {row["over"], other["over"]} != {"encoder seeds"} or min(row["n"], other["n"]) < 2:
            raise SystemExit("only figures over at least two encoder seeds on either side can be pooled")
        count = row["n"] + other["n"]
        mean = (row["n"] * row["value"] + other["n"] * other["value"]) / count
        squares = sum(
            (part["n"] - 1) * part["std"] ** 2 + part["n"] * (part["value"] - mean) ** 2
            for part in (row, other)
        )
        rows.append({**row, "value": mean, "std": (squares / (count - 1)) ** 0.5, "n": count})
    return [*rows, *others.values()]


def _kept(out: Path, name: str, command: str) -> dict[str, Any]:
    """What is kept of a run."""
    record = json.loads((out / "run.json").read_text())
    record["config"]["dataset"].pop("path", None)
    seconds: dict[str, list[float]] = {}
    ran = [stage for stage in record["stages"] if stage["state"] == "ran"]
    for stage in ran:
        seconds.setdefault(stage["stage"], []).append(stage["seconds"])
    return {
        "name": name,
        "command": command,
        **{key: record[key] for key in _KEPT},
        "oracle_metrics": record.get("oracle_metrics", []),
        "stage_seconds": {stage: round(statistics.median(values), 2) for stage, values in seconds.items()},
        "peak_rss_bytes": max((stage["peak_rss_bytes"] for stage in ran), default=0),
    }


def add_study(out: Path, *, pool: bool = False) -> None:
    """Keep the record of a study under its name; of the metrics of its cells, those that its tables show.

    With `pool`, join it with what is kept of other data sets.
    """
    from flows.study_record import StudyRecord

    record = StudyRecord.model_validate_json((out / "study.json").read_text())
    folder = RESULTS / "studies"
    path = folder / f"{record.study.name}.json"
    if pool:
        record = joined(StudyRecord.model_validate_json(path.read_text()), record)
    cells = [
        cell.model_copy(update={"metrics": [], "validation_metrics": [], "num_cached": 0})
        for cell in record.cells
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(record.model_copy(update={"cells": cells}).model_dump_json(indent=1) + "\n")


def joined(first: "StudyRecord", second: "StudyRecord") -> "StudyRecord":
    """One study over two groups of data sets; its figures are within a data set, so they stay what they are.

    Raises:
        SystemExit: another study, call, versions or machine, or common data sets.
    """
    for key in ("study", "seeds", "settings", "versions", "machine"):
        if getattr(first, key) != getattr(second, key):
            raise SystemExit(f"the studies differ in {key}: they cannot be joined")
    if {cell.dataset for cell in first.cells} & {cell.dataset for cell in second.cells}:
        raise SystemExit("the studies have data sets in common")
    calls = [record.call and record.call.model_copy(update={"only": ()}) for record in (first, second)]
    if calls[0] != calls[1]:
        raise SystemExit("the studies were called otherwise: they cannot be joined")
    only = (*first.call.only, *second.call.only) if first.call and second.call else ()
    call = calls[0] and calls[0].model_copy(update={"only": only})
    return first.model_copy(
        update={
            "call": call,
            "num_planned": first.num_planned + second.num_planned,
            "cells": [*first.cells, *second.cells],
            "summary": [*first.summary, *second.summary],
            "slopes": [*first.slopes, *second.slopes],
        }
    )


def page() -> None:
    """Write docs/results.md."""
    PAGE.write_text(results_page.render(RESULTS, HERE / "published.toml"))


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
    adding.add_argument("--pool", action="store_true", help="join with what is kept of other seeds")
    adding.add_argument("--chosen-with-labels", action="store_true", help="no aim judges it")
    adding = actions.add_parser("add-study")
    adding.add_argument("out", type=Path)
    adding.add_argument("--pool", action="store_true", help="join with what is kept of other data sets")
    actions.add_parser("page")
    options = parser.parse_args()
    if options.action == "add":
        is_chosen = options.chosen_with_labels
        add(options.out, options.name, options.command, pool=options.pool, is_chosen_with_labels=is_chosen)
    elif options.action == "add-study":
        add_study(options.out, pool=options.pool)
    page()


if __name__ == "__main__":
    main()
