"""Ingesting somebody's own large graph: edges between string ids, in Parquet and in CSV.

    python benchmarks/own_tables.py --nodes 10000000 --edges 100000000   # writes results/own_tables.json

The edge list is drawn at random, with ids such as ``user-0001234567`` in no order; every edge stands once,
and its opposite is added. Each format is one `gclflow run --until ingest` in a process of its own: sorting,
contracts and publication included. Memory is the peak of the anonymous memory of the process tree, as in
run.json; disk is what the file system lost at most, sampled.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from losses import ROOT, machine  # noqa: E402  beside this file, which need not be installed
from scale import PeakDisk  # noqa: E402

RESULTS = HERE / "results" / "own_tables.json"
_ROWS = 1 << 20


def ids_of(node: np.ndarray) -> pa.Array:
    """String ids of node numbers."""
    digits = pc.utf8_lpad(pa.array(node).cast(pa.string()), width=10, padding="0")
    return pc.binary_join_element_wise("user", digits, "-")


def tables(num_nodes: int, num_edges: int, seed: int = 0) -> dict[str, Iterator[pa.Table]]:
    """The two tables in blocks of rows; half of the edges are written, the other half are their opposites."""
    generator = np.random.default_rng(seed)
    number_N = generator.permutation(num_nodes)  # so that ids come in no order

    def nodes() -> Iterator[pa.Table]:
        for first in range(0, num_nodes, _ROWS):
            yield pa.table({"user": ids_of(number_N[first : first + _ROWS])})

    def edges() -> Iterator[pa.Table]:
        for first in range(0, num_edges // 2, _ROWS):
            size = min(_ROWS, num_edges // 2 - first)
            src, dst = generator.integers(0, num_nodes, (2, size))
            yield pa.table({"from": ids_of(src), "to": ids_of(dst)})

    return {"nodes": nodes(), "edges": edges()}


def write(folder: Path, suffix: str, num_nodes: int, num_edges: int) -> int:
    """Write a source folder; its size in bytes."""
    folder.mkdir()
    for name, blocks in tables(num_nodes, num_edges).items():
        path, writer = folder / f"{name}.{suffix}", None
        for block in blocks:
            if writer is None:
                kind: Any = pa_csv.CSVWriter if suffix == "csv" else pq.ParquetWriter
                writer = kind(path, block.schema)
            writer.write_table(block)
        if writer is not None:
            writer.close()
    (folder / "graph.toml").write_text(
        f'[nodes]\nfile = "nodes.{suffix}"\nid = "user"\n'
        f'[edges]\nfile = "edges.{suffix}"\nsource = "from"\ntarget = "to"\n'
    )
    return sum(path.stat().st_size for path in folder.iterdir())


def measure(suffix: str, num_nodes: int, num_edges: int, work: Path) -> dict[str, Any]:
    """Ingest one format."""
    folder = Path(tempfile.mkdtemp(prefix="gclflow-tables-", dir=work))
    try:
        num_bytes = write(folder / "source", suffix, num_nodes, num_edges)
        command = [sys.executable, "-c", "from flows.cli import main; main()", "run", "--until", "ingest"]
        command += ["--set", f"dataset.format={suffix}", "--set", f"dataset.path={folder / 'source'}"]
        command += ["--store", str(folder / "store"), "--out", str(folder / "out")]
        started = time.monotonic()
        with PeakDisk(work) as disk:
            subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        seconds = time.monotonic() - started
        stage = json.loads((folder / "out" / "run.json").read_text())["stages"][0]
        (described,) = (folder / "store" / "ingest").glob("*/graph/metadata.json")
        graph = json.loads(described.read_text())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "source_bytes": num_bytes,
        "seconds": round(seconds, 1),
        "peak_rss_bytes": stage["peak_rss_bytes"],
        "peak_disk_bytes": disk.num_bytes,
        "directed_edges": graph["num_edges"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=10_000_000)
    parser.add_argument("--edges", type=int, default=100_000_000, help="directed, opposites included")
    parser.add_argument("--formats", nargs="+", default=["parquet", "csv"])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()), help="where stores are put")
    parser.add_argument("--no-keep", action="store_true", help=f"do not write {RESULTS.name}")
    options = parser.parse_args()
    found: dict[str, Any] = {
        "machine": machine(),
        "arguments": {"nodes": options.nodes, "edges": options.edges},
        "formats": {},
    }
    for suffix in options.formats:
        result = measure(suffix, options.nodes, options.edges, options.work)
        found["formats"][suffix] = result
        print(
            f"{suffix:8s} {result['source_bytes'] / 1e9:5.2f} GB in {result['seconds']:7.1f} s, "
            f"{result['peak_rss_bytes'] / 1e9:5.2f} GB of memory, "
            f"{result['peak_disk_bytes'] / 1e9:5.2f} GB of disk",
            flush=True,
        )
        if not options.no_keep:
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
