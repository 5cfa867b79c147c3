"""Who writes below a store, and what is swept of those that are gone."""

import os
import subprocess
import sys
from pathlib import Path

from tasks.store import Store
from tasks.writers import this_writer
from tests.tiny_runs import key_of

KEY = key_of("one")


def test_a_writer_has_one_name_and_another_process_another() -> None:
    code = "from tasks.writers import this_writer; print(this_writer())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert this_writer() == this_writer() != other.stdout.strip()
    assert this_writer().startswith(f"{os.getpid()}.")


def test_what_dead_writers_left_is_swept_and_live_ones_are_spared(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = [f"{dead.pid}.1-ingest-x", f"{os.getpid()}.1-same-pid-long-ago", f"{dead.pid}.1-store.json"]
    for name in left[:2]:
        (store.root / ".tmp" / name / "graph").mkdir(parents=True)
    (store.root / ".tmp" / left[2]).write_text("{}")
    with store.writing("ingest", KEY) as folder:
        Store(store.root)
        assert list((store.root / ".tmp").iterdir()) == [folder]
