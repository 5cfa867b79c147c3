"""The store: atomic publication, verification of every byte, quarantine, and what it refuses to touch."""

import json
import multiprocessing
import os
import random
import shutil
import stat
import time
from pathlib import Path

import pytest

from tasks.artifact import Artifact, Manifest
from tasks.errors import ArtifactCorrupted, StoreUnusable, UnknownArtifact
from tasks.store import Store
from tests.tiny_runs import key_of, publish

KEY = key_of("one")
FILES = {
    "graph/nodes.bin": b"nodes" * 40,
    "graph/plots/one.png": b"\0\1",
    "labels/empty.bin": b"",
    "volatile/timing.json": b"{}",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def published(store: Store) -> Manifest:
    return publish(store, "ingest", KEY, FILES)


def flip(path: Path, position: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.chmod(0o600)
    path.write_bytes(content)


def test_published_artifacts_are_found_verified_and_opened(store: Store, published: Manifest) -> None:
    assert store.find("ingest", KEY) == published
    assert list(store.recent("ingest", 5)) == [published]
    assert (store.open(published.artifacts["graph"]) / "nodes.bin").read_bytes() == FILES["graph/nodes.bin"]
    assert list(published.artifacts) == ["graph", "labels"], "what is volatile is no artifact"
    assert not list((store.root / ".tmp").iterdir())


def test_the_most_recent_come_first_and_damaged_ones_not_at_all(store: Store) -> None:
    for number, name in enumerate(("one", "two", "three", "four")):
        publish(store, "ingest", key_of(name), FILES)
        path = store.stage_folder("ingest", key_of(name)) / "manifest.json"
        os.utime(path, ns=(number, number))
        if name == "three":
            path.chmod(0o600)
            path.write_text("{")
            os.utime(path, ns=(number, number))
    assert [manifest.key for manifest in store.recent("ingest", 2)] == [key_of("four"), key_of("two")]
    assert len(list(store.recent("ingest", 9))) == 3


def test_what_vanishes_meanwhile_is_not_among_the_recent_and_has_no_age(
    store: Store, published: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = publish(store, "ingest", key_of("gone"), FILES)
    glob = Path.glob

    def glob_too_early(self: Path, pattern: str) -> list[Path]:
        found = list(glob(self, pattern))
        shutil.rmtree(store.stage_folder("ingest", gone.key), ignore_errors=True)
        return found

    monkeypatch.setattr(Path, "glob", glob_too_early)
    assert list(store.recent("ingest", 5)) == [published]
    assert store.published_at(gone) is None
    assert store.published_at(published) == pytest.approx(time.time(), abs=60)


def test_volatile_files_do_not_reach_a_digest(store: Store, published: Manifest) -> None:
    other = publish(store, "ingest", key_of("two"), FILES | {"volatile/timing.json": b'{"seconds": 9}'})
    assert other.artifacts["graph"].digest == published.artifacts["graph"].digest


def test_the_store_and_its_files_are_private_and_read_only(store: Store, published: Manifest) -> None:
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
    for name in FILES:
        assert stat.S_IMODE((store.stage_folder("ingest", KEY) / name).stat().st_mode) == 0o444


def test_an_unknown_key_is_not_found(store: Store) -> None:
    assert store.find("ingest", KEY) is None
    assert list(store.recent("ingest", 5)) == []
    assert not list((store.root / ".quarantine").iterdir())


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_noticed_and_quarantined_with_its_reason(
    store: Store, published: Manifest, name: str
) -> None:
    (store.stage_folder("ingest", KEY) / name).unlink()
    with pytest.raises(ArtifactCorrupted, match=name.rpartition("/")[2]):
        store.verify("ingest", KEY)
    assert store.find("ingest", KEY) is None
    (reason,) = (store.root / ".quarantine").glob("*.json")
    assert name in json.loads(reason.read_text())["reason"]
    assert not store.stage_folder("ingest", KEY).exists()


@pytest.mark.parametrize("name", [name for name, content in FILES.items() if content] + ["manifest.json"])
@pytest.mark.parametrize("length", [0, -1])
def test_a_truncated_file_is_noticed(store: Store, published: Manifest, name: str, length: int) -> None:
    path = store.stage_folder("ingest", KEY) / name
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ArtifactCorrupted, match=name.rpartition("/")[2]):
        store.verify("ingest", KEY)


@pytest.mark.parametrize("name", ["graph/extra.bin", "extra.bin", "manifest.json.bak"])
def test_an_added_file_is_noticed(store: Store, published: Manifest, name: str) -> None:
    (store.stage_folder("ingest", KEY) / name).write_bytes(b"x")
    with pytest.raises(ArtifactCorrupted, match=f"{name.rpartition('/')[2]} is unexpected"):
        store.verify("ingest", KEY)


def test_every_flipped_bit_of_small_files_is_noticed(store: Store, published: Manifest) -> None:
    folder = store.stage_folder("ingest", KEY)
    for name, content in FILES.items():
        for position in range(len(content)):
            flip(folder / name, position, position % 8)
            with pytest.raises(ArtifactCorrupted, match="does not hold the bytes"):
                store.verify("ingest", KEY, full=True)
            flip(folder / name, position, position % 8)
    assert store.verify("ingest", KEY, full=True) == published


def test_flipped_bits_are_noticed_in_every_file_of_every_stage(store_copy: Path) -> None:
    store, draws = Store(store_copy), random.Random(0)
    num_flips = 0
    for stage, key in store.folders():
        folder = store.stage_folder(stage, key)
        for path in (path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size):
            for position in draws.sample(range(path.stat().st_size), k=min(8, path.stat().st_size)):
                bit = draws.randrange(8)
                flip(path, position, bit)
                with pytest.raises(ArtifactCorrupted):
                    store.verify(stage, key, full=True)
                flip(path, position, bit)
                num_flips += 1
        store.verify(stage, key, full=True)
    assert num_flips >= 500


def test_a_file_known_unchanged_is_not_hashed_again(
    store: Store, published: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.verify("ingest", KEY)
    hashed: list[Path] = []

    def count(path: Path) -> object:
        hashed.append(path)
        return original(path)

    import tasks.store

    original = tasks.store.hash_file
    monkeypatch.setattr(tasks.store, "hash_file", count)
    store.verify("ingest", KEY)
    assert hashed == []
    store.verify("ingest", KEY, full=True)
    assert len(hashed) == len(FILES)


def test_a_folder_under_another_key_or_behind_a_link_is_refused(store: Store, published: Manifest) -> None:
    other = key_of("two")
    shutil.copytree(store.stage_folder("ingest", KEY), store.stage_folder("ingest", other))
    with pytest.raises(ArtifactCorrupted, match="another stage or key"):
        store.verify("ingest", other)
    link = store.stage_folder("ingest", key_of("three"))
    link.symlink_to(store.stage_folder("ingest", KEY))
    with pytest.raises(ArtifactCorrupted, match="is a link"):
        store.verify("ingest", link.name)
    assert store.find("ingest", link.name) is None
    assert store.find("ingest", KEY) == published, "the target of the link is untouched"


@pytest.mark.parametrize(
    "uri",
    ["/etc/passwd", "/a/graph", "../x/graph", "ingest/../graph", f"ingest/{KEY}", f"ingest/{KEY}/.tmp",
     f"ingest/{KEY}/../graph", f".tmp/{KEY}/graph", f"ingest/{KEY}/labels", "", f"ingest/{KEY}/graph/x"],
)  # fmt: skip
def test_a_handle_that_leads_elsewhere_is_refused(store: Store, published: Manifest, uri: str) -> None:
    handle = published.artifacts["graph"].model_copy(update={"uri": uri})
    for use in (store.open, store.path):
        with pytest.raises(ArtifactCorrupted, match="address"):
            use(handle)


@pytest.mark.parametrize("change", [{"digest": key_of("x")}, {"num_bytes": 1}, {"num_rows": {"nodes": 3}}])
def test_a_handle_of_another_artifact_is_refused(
    store: Store, published: Manifest, change: dict[str, object]
) -> None:
    with pytest.raises(ArtifactCorrupted, match="not the artifact its handle describes"):
        store.open(published.artifacts["graph"].model_copy(update=change))


def test_two_stores_never_mix(store: Store, published: Manifest, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    assert other.find("ingest", KEY) is None
    with pytest.raises(ArtifactCorrupted, match="not in the store"):
        other.open(published.artifacts["graph"])


def test_a_store_can_be_moved(store: Store, published: Manifest, tmp_path: Path) -> None:
    moved = Store(shutil.move(store.root, tmp_path / "moved"))
    assert moved.open(published.artifacts["graph"]).is_relative_to(tmp_path / "moved")


def test_what_was_published_first_stays_unless_replaced(store: Store, published: Manifest) -> None:
    other = FILES | {"graph/nodes.bin": b"other"}
    store.scratch("ingest", KEY)
    assert publish(store, "ingest", KEY, other) == published
    assert not store.scratch("ingest", KEY).parent.joinpath("x").exists()
    replaced = publish(store, "ingest", KEY, other, replace=True)
    assert replaced.artifacts["graph"] != published.artifacts["graph"]
    assert store.find("ingest", KEY) == replaced
    (reason,) = (store.root / ".quarantine").glob("*.json")
    assert "forced re-run" in reason.read_text()


@pytest.mark.parametrize("replace", [False, True])
def test_publication_removes_the_scratch_even_where_another_was_first(
    store: Store, published: Manifest, replace: bool
) -> None:
    (store.scratch("ingest", KEY) / "checkpoint").write_bytes(b"x")
    publish(store, "ingest", KEY, FILES, replace=replace)
    assert not list((store.root / ".scratch").iterdir()), "a forced re-run would resume from it"


def test_a_damaged_folder_gives_way_to_a_publication(store: Store, published: Manifest) -> None:
    flip(store.stage_folder("ingest", KEY) / "graph/nodes.bin", 0, 0)
    assert publish(store, "ingest", KEY, FILES) == published
    assert store.verify("ingest", KEY, full=True) == published


def test_an_abandoned_write_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.writing("ingest", KEY) as folder:
        (folder / "half").write_bytes(b"x")
        raise RuntimeError
    assert not list((store.root / ".tmp").iterdir())


def _race(roots: list[Path], barrier, results, content: bytes) -> None:  # type: ignore[no-untyped-def]
    for root in roots:
        barrier.wait()
        manifest = publish(Store(root), "ingest", KEY, FILES | {"graph/nodes.bin": content})
        results.put((root, manifest.artifacts["graph"].digest))
    results.close()
    results.join_thread()
    os._exit(0)  # what other libraries do at exit is not meant for a fork of the process they live in


@pytest.mark.fault
@pytest.mark.parametrize("same_bytes", [True, False])
def test_publish_race_of_eight_processes_has_one_winner(tmp_path: Path, same_bytes: bool) -> None:
    context = multiprocessing.get_context("fork")
    roots = [tmp_path / f"store{attempt}" for attempt in range(20)]
    barrier, results = context.Barrier(8), context.Queue()
    contents = [b"same" if same_bytes else b"%d" % i for i in range(8)]
    processes = [
        context.Process(target=_race, args=(roots, barrier, results, content)) for content in contents
    ]
    for process in processes:
        process.start()
    told = [results.get(timeout=60) for _ in range(8 * len(roots))]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    for root in roots:
        winner = Store(root).find("ingest", KEY, full=True)
        assert winner is not None
        digests = {digest for place, digest in told if place == root}
        assert digests == {winner.artifacts["graph"].digest}, "all hold the winner's artifact"
        assert not list((root / ".tmp").iterdir())
        assert not list((root / ".quarantine").iterdir())


@pytest.mark.parametrize("content", ["", "[]", "null", "{}", '{"format": 2}', "\0"])
def test_a_store_of_another_format_is_refused(tmp_path: Path, content: str) -> None:
    root = Store(tmp_path / "store").root
    (root / "store.json").write_text(content)
    with pytest.raises(StoreUnusable):
        Store(root)


def test_a_folder_of_other_things_is_not_made_a_store(tmp_path: Path) -> None:
    (tmp_path / "photos" / "2024").mkdir(parents=True)
    with pytest.raises(StoreUnusable, match="holds photos"):
        Store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize(
    "address", ["gs://bucket/store", "s3://Bucket", "file-is-here", "file-is-here/store", "/proc/store"]
)
def test_an_unusable_place_is_refused(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file-is-here").write_text("")
    with pytest.raises(StoreUnusable):
        Store(address)


def test_a_file_url_and_a_path_are_the_same_store(store: Store, published: Manifest) -> None:
    assert Store(f"file://{store.root}").find("ingest", KEY) == published


def test_a_store_of_another_user_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: store.root.stat().st_uid + 1)
    with pytest.raises(StoreUnusable, match="another user"):
        Store(store.root)


def test_an_artifact_is_located_by_the_start_of_its_digest_or_key(store: Store, published: Manifest) -> None:
    graph: Artifact = published.artifacts["graph"]
    assert store.locate(graph.digest[:12]) == (published, graph)
    assert store.locate(KEY[:12])[0] == published
    for prefix in ("f" * 64, ""):
        with pytest.raises(UnknownArtifact):
            publish(store, "smooth", key_of("two"), {"smoothed/x": b"1"})
            store.locate(prefix)
