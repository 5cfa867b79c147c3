"""Controls of the presets for clustering on rows as they are, for kept runs from before they had any.

    python benchmarks/raw_controls.py --data DIR             # the five data sets, ten seeds
    python benchmarks/raw_controls.py --data DIR --only bat

These presets cluster rows as they are (cluster.normalise=false); runs that are kept from before there was a
protocol for that have controls on rows of length 1 alone. Smoothed features and untrained encoders do not
depend on training, so a run of one epoch gives them. What the method reached after that epoch is thrown away.
Figures go to benchmarks/results/raw_controls.json, a data set to a key.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from losses import machine

RESULTS = Path(__file__).resolve().parent / "results" / "raw_controls.json"
# Place below --data, and the seeds of the run that is kept.
DATASETS = {
    "bat": ("adgc_npy/bat", "0..9"),
    "eat": ("adgc_npy/eat", "0..9"),
    "uat": ("adgc_npy/uat", "0..9"),
    "cora": ("planetoid", "0..9"),
    "citeseer": ("planetoid", "0..9"),
}
METRICS = ("accuracy", "nmi", "ari", "macro_f1")


def arguments(name: str, place: str, seeds: str) -> list[str]:
    """Of ``gclflow``: an untrained run that is judged by k-means alone."""
    settings = ["train.epochs=1", "train.num_checks=1", 'evaluate.protocols=["kmeans-final","kmeans-raw"]']
    words = ["run", "--preset", f"{name}-clustering", "--set", f"dataset.path={place}"]
    words += [word for setting in settings for word in ("--set", setting)]
    return [*words, "--seeds", seeds, "--until", "evaluate"]


def controls(name: str, data: Path) -> dict[str, Any]:
    """Run one data set in a store of its own, and keep its controls."""
    place, seeds = DATASETS[name]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [str(Path(sys.executable).with_name("gclflow")), *arguments(name, str(data / place), seeds)]
        subprocess.run([*command, "--store", f"{folder}/store", "--out", str(out)], check=True)
        record = json.loads((out / "run.json").read_text())
    rows = [
        row
        for row in record["metrics"]
        if row["task"] == "clustering" and row["embedding"] != "method" and row["metric"] in METRICS
    ]
    return {
        "command": shlex.join(["gclflow", *arguments(name, f"DIR/{place}", seeds)]),
        "seeds": record["seeds"],
        "versions": record["versions"],
        "controls": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the public graphs")
    parser.add_argument("--only", choices=DATASETS, action="append", help="repeatable; all if not given")
    options = parser.parse_args()
    for name in options.only or DATASETS:
        found = controls(name, options.data)
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        datasets = {**kept.get("datasets", {}), name: found}
        RESULTS.write_text(json.dumps({"machine": machine(), "datasets": datasets}, indent=1) + "\n")


if __name__ == "__main__":
    main()
