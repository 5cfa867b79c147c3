"""R24: from smoothing to clustering nothing opens a file of labels, except to hash it.

An audit hook sees every open of the process; it cannot be taken away, so the run has a process of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.injection import REPOSITORY

pytestmark = [pytest.mark.fault, pytest.mark.slow]
PROGRAM = """
import json, sys
from pathlib import Path
import pyarrow.parquet as pq
from tests.faults.injection import quick_contracts
from tests.tiny_runs import run_direct, tiny

quick_contracts()
store, opened = Path(sys.argv[1]), {}
METHODS = {"dmat_i": (), "nml_gcl": (), "hsan": ("method.num_clusters=3",)}
run_direct(tiny(), store, until="ingest")

def watch(event, arguments):
    if event == "open" and "/labels/" in str(arguments[0]):
        frame, names = sys._getframe(1), []
        while frame is not None:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
        reader = "hash_file" if "hash_file" in names else names[0]
        opened.setdefault(Path(str(arguments[0])).name, set()).add(reader)

def watched(function):
    def call(path, *arguments, **options):
        if "/labels/" in str(path):
            opened.setdefault(Path(str(path)).name, set()).add("arrow")
        return function(path, *arguments, **options)

    return call

# Arrow opens files in C++, where no hook sees it.
for name in ("ParquetFile", "read_table", "read_schema", "read_metadata"):
    setattr(pq, name, watched(getattr(pq, name)))
sys.addaudithook(watch)
for name, settings in METHODS.items():
    assert run_direct(tiny(f"method.name={name}", *settings), store, until="cluster").ran
before = {name: sorted(readers) for name, readers in opened.items()}
run_direct(tiny(), store, until="evaluate")
print(json.dumps([before, {name: sorted(readers) for name, readers in opened.items()}]))
"""


def test_label_files_are_hashed_and_never_read_before_the_evaluation(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "store")], capture_output=True, text=True,
        check=False, timeout=200, cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    before, after = json.loads(done.stdout.splitlines()[-1])
    assert set(before) <= {"labels.parquet", "metadata.json"}
    assert all(readers == ["hash_file"] for readers in before.values()), before
    assert after["labels.parquet"] != before.get("labels.parquet"), "the evaluation reads them, and is seen"
