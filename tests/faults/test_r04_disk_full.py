"""R4: a store whose disk is full, out of inodes, read-only or not ours to write; and what it says.

Small disks are mounted in a namespace of the test's own; where the kernel allows none, those tests skip.
Run as a program this file is what runs inside: ``python test_r04_disk_full.py FOLDER``.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.errors import StoreFull, StoreUnusable
from tasks.maintenance import verify_store
from tasks.store import Store
from tests.faults.injection import REPOSITORY, quick_contracts
from tests.tiny_runs import key_of, publish, tiny

pytestmark = pytest.mark.fault
NOBODY = 65534
KEPT = {"graph/kept": b"kept" * 100}


def mount(folder: Path, options: str) -> None:
    """A file system of its own at a folder, in this namespace alone."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)  # noqa: S607


def check_intact(store: Store) -> None:
    """What was there before is there, and nothing else."""
    assert [key for _, key in store.folders()] == [key_of("kept")]
    assert verify_store(store) == []
    assert not list((store.root / ".tmp").iterdir())
    assert not list((store.root / ".quarantine").iterdir())


def full_disk(folder: Path) -> None:
    """2 MB of disk and 3 MB of data; with 1 MB of them there is room again."""
    mount(folder, "size=2m")
    store = Store(folder / "store")
    publish(store, "ingest", key_of("kept"), KEPT)
    with pytest.raises(StoreFull) as caught:
        publish(store, "ingest", key_of("large"), {f"graph/{i}": os.urandom(1 << 18) for i in range(12)})
    assert 1 << 20 < caught.value.needed_bytes < 3 << 20
    assert caught.value.free_bytes < 1 << 18
    check_intact(store)
    publish(store, "ingest", key_of("small"), {"graph/x": os.urandom(1 << 20)})
    assert len(list(store.folders())) == 2


def no_inodes(folder: Path) -> None:
    """Room for bytes and none for names: many small files."""
    mount(folder, "size=64m,nr_inodes=60")
    store = Store(folder / "store")
    publish(store, "ingest", key_of("kept"), KEPT)
    with pytest.raises(StoreFull):
        publish(store, "ingest", key_of("many"), {f"graph/{i}": b"x" for i in range(100)})
    check_intact(store)
    publish(store, "ingest", key_of("few"), {f"graph/{i}": b"x" for i in range(5)})


def full_before_it_begins(folder: Path) -> None:
    """Not even the store's own folders fit."""
    mount(folder, "size=1m,nr_inodes=4")
    with pytest.raises(StoreUnusable, match="No space left"):
        Store(folder / "store")


def read_only(folder: Path) -> None:
    """A disk that was remounted read-only after an error: nothing can be written, all can be verified."""
    mount(folder, "size=8m")
    store = Store(folder / "store")
    kept = publish(store, "ingest", key_of("kept"), KEPT)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)  # noqa: S607
    with pytest.raises(OSError, match="Read-only"):
        publish(store, "ingest", key_of("more"), KEPT)
    assert store.verify("ingest", kept.key, full=True) == kept
    check_intact(store)
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)  # noqa: S607
    publish(store, "ingest", key_of("more"), KEPT)


def stage_on_a_full_disk(folder: Path) -> None:
    """A whole stage, its Parquet written by C++, its spilled edges and Data Docs; then with room."""
    from tests.tiny_runs import run_direct

    quick_contracts()
    mount(folder, "size=700k")
    config = tiny("dataset.nodes=3000", "dataset.features=64")
    with pytest.raises(StoreFull) as caught:
        run_direct(config, folder / "store", until="ingest")
    assert "bytes were being written" in str(caught.value)
    store = Store(folder / "store")
    assert not list(store.folders())
    assert not list((store.root / ".tmp").iterdir())
    subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)  # noqa: S607
    assert run_direct(config, folder / "store", until="ingest").ran == ["ingest"]


CASES = (full_disk, no_inodes, full_before_it_begins, read_only, stage_on_a_full_disk)


def in_namespace(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", *command],  # noqa: S607
        capture_output=True, text=True, check=False, timeout=120, cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def namespaces(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where a test may not have mounts of its own."""
    folder = str(tmp_path_factory.mktemp("probe"))
    try:
        done = in_namespace("mount", "-t", "tmpfs", "none", folder)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if done.returncode:
        pytest.skip(f"no mounts of one's own here: {done.stderr.strip()}")


@pytest.mark.usefixtures("namespaces")
def test_store_survives_small_and_read_only_disks(tmp_path: Path) -> None:
    done = in_namespace(sys.executable, __file__, str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [case.__name__ for case in CASES]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("place", ["store", "ingest", ".tmp"])
def test_store_survives_a_folder_it_may_not_write(tmp_path: Path, place: str) -> None:
    """As a user without the rights; root is asked by no permission bit."""
    from tests.faults.injection import fork

    for folder in (tmp_path, *tmp_path.parents[:3]):  # a process of several tests has one of its own
        folder.chmod(0o755)
    tmp_path.chmod(0o777)

    def become_nobody() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)

    def check() -> None:
        become_nobody()
        store = Store(tmp_path / "store")
        kept = publish(store, "ingest", key_of("kept"), KEPT)
        target = store.root if place == "store" else store.root / place
        target.chmod(0o500)
        with pytest.raises(PermissionError):
            publish(store, "smooth" if place == "store" else "ingest", key_of("more"), KEPT)
        assert store.verify("ingest", kept.key, full=True) == kept
        if place == ".tmp":
            target.chmod(0o000)
            with pytest.raises(StoreUnusable, match="Permission denied"):
                Store(store.root)
        target.chmod(0o700)
        check_intact(Store(store.root))
        publish(store, "ingest", key_of("more"), KEPT)

    assert fork(check) == 0


@pytest.mark.slow
def test_run_on_a_full_disk_fails_in_prefect_and_is_never_completed_uncached(
    tmp_path: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect logs a failing write of a result and goes on; a stage publishes in its body, which fails."""
    import errno

    from flows.exit_codes import describe, exit_code
    from flows.running import run_pipeline
    from tests.integration.test_prefect_runs import prefect_states

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tasks.store._sync", full)
        (tmp_path / "store").mkdir(mode=0o700)
        (tmp_path / "store" / "store.json").write_text('{"format": 1}\n')
        with pytest.raises(StoreFull) as caught:
            run_pipeline(
                tiny(), seeds=[0], store=str(tmp_path / "store"), out=tmp_path / "out", until="smooth"
            )
    assert exit_code(caught.value) == 5
    assert "gclflow store gc" in describe(caught.value)
    states = prefect_states()
    assert (states["flow"], states["ingest"]) == ("Failed", "Failed")
    assert set(states) == {"flow", "ingest"}
    assert not list(Store(tmp_path / "store").folders())


if __name__ == "__main__":
    for case in CASES:
        place = Path(sys.argv[1], case.__name__)
        place.mkdir()
        case(place)
        print(case.__name__)
