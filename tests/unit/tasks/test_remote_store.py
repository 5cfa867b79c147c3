"""A store in a bucket: what is visible when, two caches, races, damage, a connection that breaks."""

import json
import random
import shutil
import threading
from pathlib import Path

import pytest

from tasks.artifact import Manifest
from tasks.errors import ArtifactCorrupted, StoreFull, StoreUnusable
from tasks.maintenance import open_store
from tasks.remote import Publication, RemoteUnreachable, manifest_name
from tasks.remote_store import RemoteStore
from tasks.runs import Runs
from tasks.store import Store
from tests.fake_bucket import ADDRESS, FakeBucket, OpenStore, notes
from tests.tiny_runs import key_of, publish

KEY = key_of("one")
FILES = {"graph/nodes.bin": b"nodes" * 40, "labels/empty.bin": b"", "volatile/timing.json": b"{}"}
OTHER = FILES | {"graph/nodes.bin": b"other"}


def quarantined_here(store: Store) -> list[str]:
    return [json.loads(p.read_text())["reason"] for p in (store.root / ".quarantine").glob("*.json")]


def attempt(bucket: FakeBucket, key: str = KEY) -> str:
    return Publication.load(bucket.objects[manifest_name("ingest", key)], "ingest", key).attempt


def test_what_one_machine_publishes_another_finds_verified(bucket: FakeBucket, machine: OpenStore) -> None:
    published = publish(machine("a"), "ingest", KEY, FILES)
    other = machine("b")
    assert list(other.folders()) == [("ingest", KEY)]
    assert list(other.manifests()) == [published]
    assert list(other.recent("ingest", 2)) == [published]
    assert other.locate(published.artifacts["graph"].digest)[0] == published
    assert list(other.folders_here()) == [], "looking fetches nothing"
    assert other.find("ingest", KEY) == published
    assert (other.path(published.artifacts["graph"]) / "nodes.bin").read_bytes() == FILES["graph/nodes.bin"]
    assert Store.verify(other, "ingest", KEY, full=True) == published
    assert not list((other.root / ".tmp").iterdir())


def test_an_artifact_is_fetched_when_it_is_opened(bucket: FakeBucket, machine: OpenStore) -> None:
    published = publish(machine("a"), "ingest", KEY, FILES)
    folder = machine("b").open(published.artifacts["graph"])
    assert (folder / "nodes.bin").read_bytes() == FILES["graph/nodes.bin"]
    stranger = published.artifacts["graph"].model_copy(update={"digest": key_of("x")})
    with pytest.raises(ArtifactCorrupted, match="not the artifact its handle describes"):
        machine("b").open(stranger)
    absent = publish(Store(machine("b").root.parent / "elsewhere"), "ingest", key_of("two"), FILES)
    with pytest.raises(ArtifactCorrupted, match="not in the store"):
        machine("b").open(absent.artifacts["graph"])


def test_the_publication_is_written_last_and_only_where_there_is_none(
    bucket: FakeBucket, machine: OpenStore
) -> None:
    store = machine("a")
    bucket.calls.clear()
    publish(store, "ingest", KEY, FILES)
    writes = [call for call in bucket.calls if call[0] not in ("read", "list")]
    assert [call for call, _ in writes] == ["upload"] * len(FILES) + ["put_if_absent"]
    assert writes[-1][1] == manifest_name("ingest", KEY)
    assert {name for _, name in writes[:-1]} == {
        f"data/ingest/{KEY}/{attempt(bucket)}/{name}" for name in FILES
    }


@pytest.mark.parametrize("call", ["upload", "put_if_absent"])
def test_a_connection_that_breaks_leaves_nothing_visible_and_the_next_find_goes_on(
    bucket: FakeBucket, machine: OpenStore, call: str
) -> None:
    store = machine("a")
    bucket.unreachable(call)
    with pytest.raises(RemoteUnreachable, match="cannot be reached"):
        publish(store, "ingest", KEY, FILES)
    bucket.reachable()
    assert machine("b").find("ingest", KEY) is None
    assert list(machine("b").manifests()) == []
    found = machine("a").find("ingest", KEY)
    assert found is not None, "what was computed is not lost"
    assert machine("b").find("ingest", KEY) == found


def test_a_lookup_without_connection_fails_and_does_not_pass_for_a_miss(
    bucket: FakeBucket, machine: OpenStore
) -> None:
    store = machine("a")
    publish(store, "ingest", KEY, FILES)
    bucket.unreachable("read", "manifests/")
    assert store.find("ingest", KEY) is not None, "this one has been compared with the bucket"
    for name in ("a", "b"):
        with pytest.raises(RemoteUnreachable):
            machine(name).find("ingest", KEY)


def test_each_result_is_compared_with_the_bucket_once(bucket: FakeBucket, machine: OpenStore) -> None:
    publish(machine("a"), "ingest", KEY, FILES)
    store = machine("a")
    bucket.calls.clear()
    for _ in range(3):
        found = store.find("ingest", KEY)
        assert found is not None
        store.open(found.artifacts["graph"])
    assert bucket.calls == [("read", manifest_name("ingest", KEY))]


def test_results_are_uploaded_again_where_the_bucket_has_lost_them(
    bucket: FakeBucket, machine: OpenStore
) -> None:
    published = publish(machine("a"), "ingest", KEY, FILES)
    for name in [*bucket.below("manifests/"), *bucket.below("data/")]:
        del bucket.objects[name]
    assert machine("a").find("ingest", KEY) == published
    assert machine("b").find("ingest", KEY) == published


def test_a_forced_run_that_cannot_be_uploaded_is_committed_here_and_the_bucket_keeps_what_it_has(
    bucket: FakeBucket, machine: OpenStore
) -> None:
    old = publish(machine("a"), "ingest", KEY, FILES)
    store = machine("a")
    bucket.unreachable("read", "manifests/")
    with pytest.raises(RemoteUnreachable):
        publish(store, "ingest", KEY, OTHER, replace=True)
    bucket.reachable()
    assert (store.stage_folder("ingest", KEY) / "graph/nodes.bin").read_bytes() == b"other"
    assert machine("a").find("ingest", KEY) == machine("b").find("ingest", KEY) == old, "what all see counts"


@pytest.mark.fault
@pytest.mark.parametrize("same_bytes", [True, False])
def test_publishers_that_race_end_with_one_publication_and_no_orphan(
    bucket: FakeBucket, machine: OpenStore, same_bytes: bool
) -> None:
    stores = [machine(f"m{number}") for number in range(6)]
    for turn in range(5):
        key, told = key_of(f"race {turn}"), []
        barrier = threading.Barrier(len(stores))

        def race(number: int, store: RemoteStore, key: str = key, told: list[Manifest] = told) -> None:
            content = b"same" if same_bytes else b"%d" % number
            with store.writing("ingest", key) as folder:
                from tests.tiny_runs import describe_folder

                (folder / "graph").mkdir()
                (folder / "graph" / "x").write_bytes(content)
                manifest = describe_folder(folder, "ingest", key)
                barrier.wait()  # noqa: B023  joined below
                told.append(store.publish(folder, manifest))

        threads = [threading.Thread(target=race, args=pair) for pair in enumerate(stores)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(told) == len(stores)
        assert len({manifest.artifacts["graph"].digest for manifest in told}) == 1
        assert bucket.below(f"data/ingest/{key}/") == [f"data/ingest/{key}/{attempt(bucket, key)}/graph/x"]
        for store in stores:
            assert store.find("ingest", key, full=True) is not None
            assert store.open(told[0].artifacts["graph"])


def test_who_is_second_takes_the_other_bytes(bucket: FakeBucket, machine: OpenStore) -> None:
    first = publish(machine("a"), "ingest", KEY, FILES)
    late = machine("b")
    assert publish(late, "ingest", KEY, OTHER) == first
    assert (late.open(first.artifacts["graph"]) / "nodes.bin").read_bytes() == FILES["graph/nodes.bin"]
    assert "other bytes are published" in quarantined_here(late)[0]


def test_an_answer_that_was_lost_does_not_lose_the_race(
    bucket: FakeBucket, machine: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write got through, its answer did not, and the library has sent it again: refused, by ourselves."""
    store = machine("a")
    write = bucket.put_if_absent
    monkeypatch.setattr(bucket, "put_if_absent", lambda name, data: write(name, data) and False)
    published = publish(store, "ingest", KEY, FILES)
    assert len(bucket.below("data/")) == len(FILES)
    assert machine("b").find("ingest", KEY) == published


def test_a_forced_run_with_other_bytes_replaces_what_is_published(
    bucket: FakeBucket, machine: OpenStore
) -> None:
    old = publish(machine("a"), "ingest", KEY, FILES)
    stale = machine("b")
    stale.find("ingest", KEY)
    new = publish(machine("a"), "ingest", KEY, OTHER, replace=True)
    assert new.artifacts["graph"] != old.artifacts["graph"]
    assert machine("a").find("ingest", KEY) == machine("c").find("ingest", KEY) == new
    assert machine("b").find("ingest", KEY) == new, "a copy of the old bytes gives way"
    assert (stale.open(new.artifacts["graph"]) / "nodes.bin").read_bytes() == b"other"
    assert notes(bucket) == ["replaced by a forced re-run with other bytes"]


@pytest.mark.parametrize("is_first", [True, False])
def test_of_two_forced_runs_the_first_to_publish_counts(
    bucket: FakeBucket, machine: OpenStore, is_first: bool
) -> None:
    """What a forced run may replace is what it has found, not what others have published since."""
    if not is_first:
        publish(machine("a"), "ingest", KEY, FILES)
    slow, fast = machine("a"), machine("b")
    newer: list[Manifest] = []

    def overtake(call: str, name: str) -> None:
        if call.startswith("put_if"):
            bucket.reachable()
            files = FILES | {"graph/nodes.bin": b"newer"}
            newer.append(publish(fast, "ingest", KEY, files, replace=True))

    bucket.before = overtake
    assert publish(slow, "ingest", KEY, OTHER, replace=True) == newer[0]
    assert (slow.open(newer[0].artifacts["graph"]) / "nodes.bin").read_bytes() == b"newer"
    assert machine("c").find("ingest", KEY) == newer[0]
    assert [bucket.objects[n] for n in bucket.below(f"data/ingest/{KEY}/{attempt(bucket)}/graph/")] == [
        b"newer"
    ]
    assert b"other" not in bucket.objects.values()


def test_large_files_are_transferred_where_a_signal_stops_it(
    bucket: FakeBucket, machine: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread cannot be stopped; whoever waits for an upload of gigabytes must not have to."""
    monkeypatch.setattr("tasks.remote_publications.LARGE_BYTES", 100)
    seen: dict[str, bool] = {}

    def note(call: str, name: str) -> None:
        if call in ("upload", "stream"):
            seen[f"{call} {name.rpartition('/')[2]}"] = threading.current_thread() is threading.main_thread()

    bucket.before = note
    publish(machine("a"), "ingest", KEY, FILES)
    assert machine("b").find("ingest", KEY)
    assert seen == {
        f"{call} {name}": name == "nodes.bin"
        for call in ("upload", "stream")
        for name in ("nodes.bin", "empty.bin", "timing.json")
    }


def test_a_forced_run_with_the_same_bytes_changes_nothing(bucket: FakeBucket, machine: OpenStore) -> None:
    publish(machine("a"), "ingest", KEY, FILES)
    before = dict(bucket.objects)
    publish(machine("b"), "ingest", KEY, FILES, replace=True)
    assert bucket.objects == before


def damage(bucket: FakeBucket, name: str, kind: str) -> None:
    content = bucket.objects[name]
    position = random.Random(name).randrange(len(content))
    flipped = content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]
    changed = {"flipped": flipped, "cut": content[:-1], "longer": content + b"x"}
    if kind == "gone":
        del bucket.objects[name]
    else:
        bucket.objects[name] = changed[kind]


@pytest.mark.parametrize("kind", ["flipped", "cut", "longer", "gone"])
@pytest.mark.parametrize("what", ["data", "manifest"])
def test_damage_in_the_bucket_is_noticed_noted_and_published_anew(
    bucket: FakeBucket, machine: OpenStore, what: str, kind: str
) -> None:
    published = publish(machine("a"), "ingest", KEY, FILES)
    damaged = attempt(bucket)
    name = manifest_name("ingest", KEY)
    if what == "data":
        name = f"data/ingest/{KEY}/{damaged}/graph/nodes.bin"
    damage(bucket, name, kind)
    store = machine("b")
    assert store.is_there("ingest", KEY) == (what == "data" or kind != "gone")
    assert store.find("ingest", KEY) is None
    assert not store.stage_folder("ingest", KEY).exists()
    assert not list((store.root / ".tmp").iterdir())
    expected = "nodes.bin" if what == "data" else "manifests/ingest"
    assert [expected in reason for reason in notes(bucket)] == [True] * (what == "data" or kind != "gone")
    assert publish(store, "ingest", KEY, FILES) == published
    assert attempt(bucket) != damaged
    assert machine("c").find("ingest", KEY) == published


def test_damage_here_is_mended_from_the_bucket(bucket: FakeBucket, machine: OpenStore) -> None:
    store = machine("a")
    published = publish(store, "ingest", KEY, FILES)
    path = store.stage_folder("ingest", KEY) / "graph" / "nodes.bin"
    path.chmod(0o600)
    path.write_bytes(b"x" * len(FILES["graph/nodes.bin"]))
    assert store.open(published.artifacts["graph"])
    assert path.read_bytes() == FILES["graph/nodes.bin"]
    assert len(quarantined_here(store)) == 1
    assert notes(bucket) == []


@pytest.mark.parametrize(
    "name", ["../../escaped", "graph/../../x", "/absolute", "graph//x", "./x", "manifest.json"]
)
def test_a_manifest_whose_files_lead_elsewhere_is_refused(
    bucket: FakeBucket, machine: OpenStore, name: str
) -> None:
    manifest = publish(machine("a"), "ingest", KEY, FILES)
    entry = manifest.files["graph/nodes.bin"]
    hostile = manifest.model_copy(update={"files": {name: entry}})
    publication = Publication(attempt=attempt(bucket), manifest=manifest).model_copy(
        update={"manifest": hostile}
    )
    bucket.objects[manifest_name("ingest", KEY)] = publication.dump()
    bucket.objects[publication.name_of(name)] = FILES["graph/nodes.bin"]
    store = machine("b")
    assert store.find("ingest", KEY) is None
    assert "not the name of a file" in notes(bucket)[0]
    assert not [path for path in store.root.parent.rglob("*") if path.name in ("escaped", "x")]


def test_a_publication_under_another_key_is_damage(bucket: FakeBucket, machine: OpenStore) -> None:
    publish(machine("a"), "ingest", KEY, FILES)
    other = key_of("two")
    bucket.objects[manifest_name("ingest", other)] = bucket.objects[manifest_name("ingest", KEY)]
    bucket.modified[manifest_name("ingest", other)] = 0.0
    assert machine("b").find("ingest", other) is None
    assert machine("b").find("ingest", KEY) is not None


def test_what_is_larger_than_the_disk_is_not_fetched(
    bucket: FakeBucket, machine: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(machine("a"), "ingest", KEY, FILES)
    store = machine("b")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 9))  # type: ignore[attr-defined]
    bucket.calls.clear()
    with pytest.raises(StoreFull):
        store.find("ingest", KEY)
    assert "stream" not in {call for call, _ in bucket.calls}


def test_the_path_of_a_cache_is_an_address_of_its_store(bucket: FakeBucket, machine: OpenStore) -> None:
    store = machine("a")
    again = Store(store.root)
    assert isinstance(again, RemoteStore)
    assert (again.address, again.root) == (store.address, store.root) == (ADDRESS, store.root)
    published = publish(again, "ingest", KEY, FILES)
    assert machine("b").find("ingest", KEY) == published


def test_a_cache_of_another_store_is_refused(bucket: FakeBucket, machine: OpenStore) -> None:
    machine("a")
    bucket.objects.clear()  # made anew
    with pytest.raises(StoreUnusable, match="cache of another store") as caught:
        machine("a")
    assert "GCLFLOW_STORE_CACHE" in str(caught.value)
    assert machine("b").find("ingest", KEY) is None


def test_looking_after_a_store_makes_none(bucket: FakeBucket, tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="there is no store at s3://bucket/prefix"):
        open_store(ADDRESS)
    assert bucket.objects == {}


def test_the_register_of_runs_is_shared(bucket: FakeBucket, machine: OpenStore) -> None:
    from tests.unit.tasks.test_runs import entry

    here, there = Runs(machine("a")), Runs(machine("b"))
    first, second = here.record(entry(1)), there.record(entry(2))
    there.advance(second)
    assert here.entries() == there.entries() == [first, second]
    assert here.last_good("nightly") == here.find("nightly") == second
    assert there.pin(first.run).pinned
    assert here.entries()[0].pinned
    assert ("train", first.keys["train"]) in here.roots().addresses
    there.unpin(first.run)
    there.advance(first)
    found = here.last_good("nightly")
    assert found is not None and not found.pinned, "what was read before is not what counts"
    assert not (machine("a").root / ".runs" / "nightly").exists()
