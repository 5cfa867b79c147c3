"""How time and memory of every stage grow: the preset `synthetic-large` at 10^4, 10^5, 10^6, 10^7 nodes.

    python benchmarks/scale.py --nodes 10000 100000 1000000 10000000   # writes benchmarks/results/scale.json
    python benchmarks/scale.py --nodes 10000 --no-keep

Each size is one `gclflow run` in a process of its own, with a store of its own that is removed afterwards.
Seconds and peak anonymous memory of each stage are those of its run.json; disk is what the file system lost
at most, sampled, unnamed files included. Sizes that were measured before are kept beside new ones.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from losses import ROOT, machine  # noqa: E402  beside this file, which need not be installed

RESULTS = HERE / "results" / "scale.json"
PRESET = "synthetic-large"
_SAMPLE_SECONDS = 1.0


class PeakDisk:
    """Samples how much of a file system is used while the body runs; `num_bytes` is the largest growth."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.num_bytes = folder, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "PeakDisk":
        self._before = shutil.disk_usage(self.folder).used
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self.num_bytes = max(self.num_bytes, shutil.disk_usage(self.folder).used - self._before)


def measure(num_nodes: int, work: Path, overrides: list[str]) -> dict[str, Any]:
    """One run."""
    folder = Path(tempfile.mkdtemp(prefix="gclflow-scale-", dir=work))
    command = [sys.executable, "-c", "from flows.cli import main; main()", "run", "--preset", PRESET]
    command += [
        "--set",
        f"dataset.nodes={num_nodes}",
        *(part for item in overrides for part in ("--set", item)),
    ]
    command += ["--store", str(folder / "store"), "--out", str(folder / "out")]
    started = time.monotonic()
    try:
        with PeakDisk(work) as disk:
            subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        record = json.loads((folder / "out" / "run.json").read_text())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "nodes": num_nodes,
        "seconds": round(time.monotonic() - started, 1),
        "peak_disk_bytes": disk.num_bytes,
        "stages": {
            stage["stage"]: {"seconds": stage["seconds"], "peak_rss_bytes": stage["peak_rss_bytes"]}
            for stage in record["stages"]
        },
        "metrics": record["metrics"],
        "notes": record["notes"],
        "overrides": overrides,
        "machine": machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()), help="where stores are put")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--no-keep", action="store_true", help=f"do not write {RESULTS.name}")
    options = parser.parse_args()
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for num_nodes in options.nodes:
        found = measure(num_nodes, options.work, options.overrides)
        disk = f"{found['peak_disk_bytes'] / 1e9:.1f} GB of disk"
        print(f"{num_nodes:>12,} nodes: {found['seconds']:8.1f} s, {disk}")
        for name, stage in found["stages"].items():
            print(
                f"  {name:12s} {stage['seconds']:9.1f} s  {stage['peak_rss_bytes'] / 1e9:6.2f} GB", flush=True
            )
        kept[str(num_nodes)] = found
        if not options.no_keep:
            RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
