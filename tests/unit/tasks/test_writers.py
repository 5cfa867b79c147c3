"""Who writes below a store, and what is swept of those that are gone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.store import Store
from tasks.writers import claimed, this_writer
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
        assert set((store.root / ".tmp").iterdir()) == {folder, lock_of(folder)}
    assert not list((store.root / ".tmp").iterdir())


def lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def test_a_writer_in_another_container_is_spared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    with store.writing("train", KEY) as folder:
        (folder / "half").write_text("of a night")
        monkeypatch.setattr("tasks.writers._start_of", lambda pid: None)  # there, nobody has this pid
        Store(store.root)
        assert (folder / "half").read_text() == "of a night"


def test_a_writer_outside_is_spared_from_inside_a_pid_namespace(tmp_path: Path) -> None:
    inside = ["unshare", "-rpf", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("no namespaces may be made here")
    store = Store(tmp_path / "store")
    opening = f"from tasks.store import Store; Store({str(store.root)!r})"
    with store.writing("train", KEY) as folder:
        (folder / "half").write_text("of a night")
        subprocess.run([*inside, sys.executable, "-c", opening], check=True)
        assert (folder / "half").read_text() == "of a night"


def test_what_a_killed_writer_left_is_swept_although_its_pid_lives(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    code = (
        "import sys, time; from tasks.store import Store\n"
        "with Store(sys.argv[1]).writing('train', '0' * 64) as folder:\n"
        "    (folder / 'half').write_text('x'); print(folder, flush=True); time.sleep(60)"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(store.root)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    folder = Path(writer.stdout.readline().strip())
    Store(store.root)
    assert folder.is_dir()
    writer.kill()
    writer.wait()
    renamed = folder.with_name(f"{this_writer()}-train-of-this-very-process")
    folder.rename(renamed)
    lock_of(folder).rename(lock_of(renamed))
    Store(store.root)
    assert not list((store.root / ".tmp").iterdir())


def test_a_lock_without_a_folder_is_swept_unless_it_is_held(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    path = store.root / ".tmp" / "1.1-train-x"
    lock_of(path).write_bytes(b"")
    with claimed(path):
        Store(store.root)
        assert lock_of(path).exists()
    lock_of(path).write_bytes(b"")
    Store(store.root)
    assert not lock_of(path).exists()
