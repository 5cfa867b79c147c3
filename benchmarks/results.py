"""Results: keep what runs and studies found as JSON, and make docs/results.md from what is kept.

    python benchmarks/results.py add OUT NAME --command "gclflow ..."   # from OUT/run.json
    python benchmarks/results.py add-study OUT           # from OUT/study.json
    python benchmarks/results.py page                    # all of benchmarks/results -> docs/results.md

Kept are settings, versions, machine, seeds, metrics and stage times; no paths, no data.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

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
        **{key: record[key] for key in _KEPT},
        "oracle_metrics": record.get("oracle_metrics", []),
        "stage_seconds": {stage: round(statistics.median(values), 2) for stage, values in seconds.items()},
        "peak_rss_bytes": max(stage["peak_rss_bytes"] for stage in record["stages"]),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")


def add_study(out: Path) -> None:
    """Keep the record of a study under its name; of the metrics of its cells, those that its tables show."""
    from flows.study_record import StudyRecord

    record = StudyRecord.model_validate_json((out / "study.json").read_text())
    cells = [
        cell.model_copy(update={"metrics": [], "validation_metrics": [], "num_cached": 0})
        for cell in record.cells
    ]
    folder = RESULTS / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    kept = record.model_copy(update={"cells": cells}).model_dump_json(indent=1)
    (folder / f"{record.study.name}.json").write_text(kept + "\n")


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
    actions.add_parser("add-study").add_argument("out", type=Path)
    actions.add_parser("page")
    options = parser.parse_args()
    if options.action == "add":
        add(options.out, options.name, options.command)
    elif options.action == "add-study":
        add_study(options.out)
    page()


if __name__ == "__main__":
    main()
