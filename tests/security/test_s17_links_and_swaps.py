"""S17: links in the store are refused, never followed; a swap during a check is noticed or harmless."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.artifact import MANIFEST
from tasks.errors import ArtifactCorrupted
from tasks.maintenance import collect_garbage, verify_store
from tasks.store import Store
from tests.tiny_runs import key_of, publish

STAGE, KEY = "smooth", key_of("swapped")
CONTENT = b"as published"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store(tmp_path / "store")
    publish(opened, STAGE, KEY, {"smoothed/data.bin": CONTENT, "smoothed/deep/more.bin": b"more"})
    return opened


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that is not the store's to read or change."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "data.bin").write_bytes(CONTENT)
    (folder / "more.bin").write_bytes(b"more")
    return folder


def folder_of(store: Store) -> Path:
    return store.stage_folder(STAGE, KEY)


@pytest.mark.parametrize("name", ["smoothed/data.bin", "smoothed/deep", MANIFEST])
def test_link_inside_a_stage_folder_is_refused_whatever_it_leads_to(
    name: str, store: Store, tmp_path: Path
) -> None:
    path = folder_of(store) / name
    aside = tmp_path / "aside"
    path.rename(aside)  # the very same bytes
    path.symlink_to(aside)
    with pytest.raises(ArtifactCorrupted, match="not a regular file"):
        store.verify(STAGE, KEY)
    assert store.find(STAGE, KEY) is None
    assert aside.exists(), "what the link led to was left alone"


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"]
)
def test_what_is_no_file_is_never_opened(make, store: Store) -> None:  # type: ignore[no-untyped-def]
    """Opening a pipe or an endless device would hang the run."""
    path = folder_of(store) / "smoothed" / "data.bin"
    path.unlink()
    make(path)
    with pytest.raises(ArtifactCorrupted, match="not a regular file"):
        store.verify(STAGE, KEY)


def test_stage_folder_that_is_a_link_is_quarantined_as_a_link(store: Store, tmp_path: Path) -> None:
    folder = folder_of(store)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert store.find(STAGE, KEY) is None
    assert not os.path.lexists(folder)
    assert (tmp_path / "elsewhere" / "smoothed" / "data.bin").read_bytes() == CONTENT


def test_deleting_never_follows_a_link_out_of_the_store(store: Store, outside: Path) -> None:
    for place in (".tmp/1.0-dead", f".scratch/{STAGE}-{KEY}", ".quarantine/x", f"{STAGE}/{key_of('link')}"):
        (store.root / place).symlink_to(outside)
    store.discard_scratch(STAGE, KEY)
    store.remove(store.root / ".quarantine" / "x")
    Store(store.root)  # sweeps what dead writers left
    verify_store(store)
    collect_garbage(store, keep_days=0)
    assert sorted(path.name for path in outside.iterdir()) == ["data.bin", "more.bin"]


def test_publication_refuses_a_link_and_changes_nothing_behind_it(store: Store, outside: Path) -> None:
    mode = (outside / "data.bin").stat().st_mode
    with pytest.raises(ValueError, match="not a regular file"), store.writing(STAGE, key_of("b")) as folder:
        (folder / "smoothed").mkdir()
        (folder / "smoothed" / "data.bin").symlink_to(outside / "data.bin")
        publish_folder(store, folder)
    assert (outside / "data.bin").stat().st_mode == mode
    assert not store.stage_folder(STAGE, key_of("b")).exists()


def publish_folder(store: Store, folder: Path) -> None:
    from tests.tiny_runs import describe_folder

    store.publish(folder, describe_folder(folder, STAGE, key_of("b")))


@contextlib.contextmanager
def swapping(path: Path, others: list[Path]) -> Iterator[None]:
    """While the body runs, another thread swaps the file for others and back, by renames."""
    stop = threading.Event()
    original = path.with_name("original")

    def swap() -> None:
        while not stop.is_set():
            for other in others:
                os.replace(other, path)  # what was there is `original`, by a hard link
                os.link(original, f"{path}.back")
                os.rename(path, other)
                os.replace(f"{path}.back", path)

    outside = path.parents[4] / "kept"
    os.link(path, outside)
    original = outside
    thread = threading.Thread(target=swap, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_swap_during_a_check_is_noticed_or_leaves_the_right_bytes(store: Store, tmp_path: Path) -> None:
    """Whatever a check saw, it ends with yes or no, and follows no link."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret bytes")
    link, wrong = tmp_path / "link", tmp_path / "wrong"
    link.symlink_to(secret)
    wrong.write_bytes(b"AS PUBLISHED")
    outcomes = {"yes": 0, "no": 0}
    with swapping(folder_of(store) / "smoothed" / "data.bin", [link, wrong]):
        for _ in range(400):
            try:
                store.verify(STAGE, KEY, full=True)
                outcomes["yes"] += 1
            except ArtifactCorrupted:
                outcomes["no"] += 1
    assert sum(outcomes.values()) == 400
    assert secret.read_bytes() == b"secret bytes"
    store.verify(STAGE, KEY, full=True)
