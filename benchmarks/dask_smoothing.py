"""Smoothing in one process and on Dask workers of the same machine, over one large graph.

    python benchmarks/dask_smoothing.py --nodes 10000000      # writes results/dask_smoothing.json

The graph is that of the preset `synthetic-large`, ingested once into a store of its own. Then its `smooth`
stage runs again and again: directly, on two Dask workers of one thread each, and directly once more, so that
a busy machine hits both. Times are those of the stage, contracts and publication included; the start of the
cluster, which Dask alone has, is measured apart. The bytes of all results must be the same.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from losses import ROOT, machine  # noqa: E402  beside this file, which need not be installed

RESULTS = HERE / "results" / "dask_smoothing.json"


def run(folder: Path, num_nodes: int, until: str, settings: list[str]) -> dict[str, Any]:
    """One `gclflow run` up to a stage; the record of that stage."""
    command = [
        sys.executable,
        "-c",
        "from flows.cli import main; main()",
        "run",
        "--preset",
        "synthetic-large",
    ]
    for setting in (f"dataset.nodes={num_nodes}", *settings):
        command += ["--set", setting]
    command += ["--until", until, "--store", str(folder / "store"), "--out", str(folder / "out")]
    command += ["--refresh", until] if until == "smooth" else []
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    stages: list[dict[str, Any]] = json.loads((folder / "out" / "run.json").read_text())["stages"]
    return stages[-1]


def cluster_seconds() -> float:
    """What starting and stopping the two workers takes, without a block of work."""
    from tasks.dask_pool import dask_map

    started = time.monotonic()
    with dask_map(num_workers=2) as map_blocks:
        map_blocks(str, [0])
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=10_000_000, help="ten directed edges each")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()), help="where stores are put")
    parser.add_argument("--no-keep", action="store_true", help=f"do not write {RESULTS.name}")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gclflow-dask-", dir=options.work))
    try:
        run(folder, options.nodes, "ingest", [])
        direct, dask = ["smooth.backend=direct"], ["smooth.backend=dask", "smooth.num_workers=2"]
        turns = [run(folder, options.nodes, "smooth", settings) for settings in (direct, dask, direct)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if len({json.dumps(turn["artifacts"], sort_keys=True) for turn in turns}) != 1:
        raise SystemExit("the results differ")
    names = ("direct", "dask", "direct again")
    found = {
        "machine": machine(),
        "nodes": options.nodes,
        "cluster_seconds": cluster_seconds(),
        "turns": {
            name: {"seconds": turn["seconds"], "peak_rss_bytes": turn["peak_rss_bytes"]}
            for name, turn in zip(names, turns, strict=True)
        },
    }
    mean = (turns[0]["seconds"] + turns[2]["seconds"]) / 2
    found["dask_over_direct"] = (turns[1]["seconds"] - found["cluster_seconds"]) / mean
    print(json.dumps(found, indent=1))
    if not options.no_keep:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
