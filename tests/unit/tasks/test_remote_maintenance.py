"""Verification and garbage collection of a store in a bucket, from one of the machines that use it."""

import os
import threading
import time
from pathlib import Path

import pytest

from tasks.artifact import Manifest
from tasks.locks import FlockLockManager
from tasks.maintenance import collect_garbage, verify_store
from tasks.remote import Publication, RemoteUnreachable, manifest_name
from tasks.remote_store import RemoteStore
from tasks.runs import Runs
from tasks.sealed import unseal
from tests.fake_bucket import FakeBucket, OpenStore, notes
from tests.tiny_runs import key_of, publish

DAY = 86_400


def add(
    store: RemoteStore, stage: str, name: str, *, made_from: Manifest | None = None, days: float
) -> Manifest:
    inputs = {} if made_from is None else {k: a.digest for k, a in made_from.artifacts.items()}
    manifest = publish(store, stage, key_of(name), {f"{stage}/data": name.encode()}, inputs=inputs)
    fake = store.remote
    assert isinstance(fake, FakeBucket)
    fake.age(manifest_name(stage, manifest.key), days)
    fake.age(f"data/{stage}/{manifest.key}/", days)
    return manifest


def published(fake: FakeBucket) -> set[str]:
    return {name.rpartition("/")[2].removesuffix(".json") for name in fake.below("manifests/")}


def with_data(fake: FakeBucket) -> set[str]:
    return {name.split("/")[2] for name in fake.below("data/")}


def age_copy(store: RemoteStore, manifest: Manifest, days: float) -> Path:
    path = store.stage_folder(manifest.stage, manifest.key)
    os.utime(path / "manifest.json", (time.time() - days * DAY,) * 2)
    return path


def test_roots_and_their_ancestry_are_kept_by_the_ages_in_the_bucket(
    bucket: FakeBucket, machine: OpenStore
) -> None:
    store = machine("a")
    old_graph = add(store, "ingest", "old graph", days=30)
    used_graph = add(store, "ingest", "used graph", days=20)
    new_graph = add(store, "ingest", "newest graph", days=10)
    old = add(store, "smooth", "old", made_from=old_graph, days=30)
    recent = add(store, "smooth", "recent", made_from=used_graph, days=1)
    before = dict(bucket.objects)
    said = collect_garbage(machine("b"), keep_days=7, dry_run=True)
    assert bucket.objects == before
    collected = collect_garbage(machine("b"), keep_days=7)
    assert collected == said
    assert published(bucket) == with_data(bucket) == {used_graph.key, new_graph.key, recent.key}
    assert set(collected.folders) == {f"ingest/{old_graph.key}", f"smooth/{old.key}"}
    assert collected.num_bytes == len("old graph") + len("old")


def test_pinned_and_last_good_runs_are_kept(bucket: FakeBucket, machine: OpenStore) -> None:
    from tests.unit.tasks.test_runs import entry

    store = machine("a")
    manifests = [add(store, "ingest", f"graph {n}", days=30 - n) for n in range(4)]
    runs = Runs(store)
    kept = [
        runs.record(entry(day, keys={"ingest": m.key}, artifacts={}))
        for day, m in enumerate(manifests[:3], start=1)
    ]
    runs.pin(kept[0].run)
    runs.advance(kept[1])
    collect_garbage(machine("b"), keep_days=7)
    assert published(bucket) == {manifests[n].key for n in (0, 1, 3)}


def test_what_was_published_lately_is_kept_whatever_is_asked(bucket: FakeBucket, machine: OpenStore) -> None:
    """Another machine may be about to use it, and nobody here can see that."""
    store = machine("a")
    older = add(store, "ingest", "an hour ago", days=0.06)
    lately = [add(store, "ingest", f"minutes ago {n}", days=0.01 + n / 1000) for n in range(2)]
    collect_garbage(machine("b"), keep_days=0)
    assert published(bucket) == {m.key for m in lately}
    assert not store.publications.is_there("ingest", older.key)


def test_orphans_go_after_a_day_of_grace(bucket: FakeBucket, machine: OpenStore) -> None:
    store = machine("a")
    bucket.unreachable("put_if_absent")
    for name in ("abandoned", "under way"):
        with pytest.raises(RemoteUnreachable):
            publish(store, "ingest", key_of(name), {"graph/x": b"x", "graph/y": b"yy"})
    bucket.reachable()
    bucket.num_unfinished_uploads = 1
    bucket.age(f"data/ingest/{key_of('abandoned')}/", 2)
    bucket.age(f"data/ingest/{key_of('under way')}/", 2)
    bucket.age(bucket.below(f"data/ingest/{key_of('under way')}/")[0], 0.9)
    said = collect_garbage(machine("b"), keep_days=30, dry_run=True)
    assert len(bucket.below("data/")) == 4 and bucket.num_unfinished_uploads == 1
    assert collect_garbage(machine("b"), keep_days=30) == said
    assert [(kind.kind, kind.num_paths, kind.num_bytes) for kind in said.kinds] == [
        ("uploads that are not published", 1, 3)
    ]
    assert with_data(bucket) == {key_of("under way")}
    assert bucket.num_unfinished_uploads == 0


def test_replaced_files_stay_as_long_as_the_note_about_them(bucket: FakeBucket, machine: OpenStore) -> None:
    store, key = machine("a"), key_of("x")
    publish(store, "ingest", key, {"graph/x": b"old"})
    publish(store, "ingest", key, {"graph/x": b"new"}, replace=True)
    bucket.age("", 3)
    collect_garbage(machine("b"), keep_days=7)
    assert len(bucket.below("data/")) == 2
    bucket.age("", 8)
    collected = collect_garbage(machine("b"), keep_days=7)
    assert {kind.kind for kind in collected.kinds} == {
        "uploads that are not published",
        "items of the bucket's quarantine",
    }
    assert [bucket.objects[name] for name in bucket.below("data/")] == [b"new"]
    assert bucket.below("quarantine/") == []


def test_a_result_that_is_published_anew_while_it_is_collected_stays(
    bucket: FakeBucket, machine: OpenStore
) -> None:
    store = machine("a")
    doomed = add(store, "ingest", "old", days=30)
    add(store, "ingest", "newest", days=1)
    name = manifest_name("ingest", doomed.key)

    def publish_anew(call: str, asked: str) -> None:
        if (call, asked) == ("read", name):
            bucket.before = lambda call, name: None
            publication = Publication.load(bucket.objects[name], "ingest", doomed.key)
            again = publication.model_copy(update={"attempt": "20260101T000000Z-0123456789ab"})
            bucket.put(name, again.dump())

    collector = machine("b")
    list(collector.manifests())
    bucket.before = publish_anew
    collected = collect_garbage(collector, keep_days=7)
    assert "stage folders" not in {kind.kind for kind in collected.kinds}
    assert doomed.key in published(bucket)


def test_copies_of_what_the_bucket_has_lost_go(bucket: FakeBucket, machine: OpenStore) -> None:
    here = machine("a")
    old, lately = (add(here, "ingest", name, days=30) for name in ("old", "lately"))
    add(here, "ingest", "newest", days=1)
    collect_garbage(machine("b"), keep_days=7)
    copies = age_copy(here, old, 30), age_copy(here, lately, 0.01)
    lock = FlockLockManager(here.root / ".locks")
    lock.acquire_lock("train-x", "me")
    assert collect_garbage(machine("a"), keep_days=7).folders == (), "a stage may be reading them"
    lock.release_lock("train-x", "me")
    collected = collect_garbage(machine("a"), keep_days=7)
    assert [kind.kind for kind in collected.kinds] == ["copies of results that are gone"]
    assert [copy.exists() for copy in copies] == [False, True]


def test_copies_of_pinned_runs_and_what_they_were_made_from_stay(
    bucket: FakeBucket, machine: OpenStore
) -> None:
    """The bucket's bytes are damaged and withdrawn: these copies are the last intact ones."""
    from tests.unit.tasks.test_runs import entry

    here = machine("a")
    graph = add(here, "ingest", "graph", days=60)
    smoothed = add(here, "smooth", "smoothed", made_from=graph, days=60)
    other = add(here, "smooth", "other", made_from=graph, days=60)
    newest = [add(here, stage, "newest", days=1) for stage in ("ingest", "smooth")]
    pinned = Runs(here).record(entry(1, keys={"smooth": smoothed.key}, artifacts={}))
    Runs(here).pin(pinned.run)
    for manifest in (graph, smoothed, other):
        (name,) = bucket.below(f"data/{manifest.stage}/{manifest.key}/")
        bucket.objects[name] = b"?"
        age_copy(here, manifest, 60)
    assert len(verify_store(machine("a"))) == 3
    assert published(bucket) == {m.key for m in newest}
    said = collect_garbage(machine("a"), keep_days=30, dry_run=True)
    assert collect_garbage(machine("a"), keep_days=30) == said
    assert said.folders == (f"smooth/{other.key}",)
    assert machine("a").find("smooth", smoothed.key) == smoothed
    assert machine("b").find("smooth", smoothed.key) == smoothed, "it is uploaded again"


def test_results_that_were_never_uploaded_stay(bucket: FakeBucket, machine: OpenStore) -> None:
    here = machine("a")
    bucket.unreachable("upload")
    key = key_of("kept")
    with pytest.raises(RemoteUnreachable):
        publish(here, "ingest", key, {"graph/x": b"x"})
    bucket.reachable()
    path = here.stage_folder("ingest", key)
    os.utime(path / "manifest.json", (time.time() - 30 * DAY,) * 2)
    assert collect_garbage(machine("a"), keep_days=0).folders == ()
    kept = machine("a").find("ingest", key)
    assert kept is not None
    assert machine("b").find("ingest", key) == kept


def test_a_result_that_is_computed_anew_and_not_uploaded_stays(
    bucket: FakeBucket, machine: OpenStore
) -> None:
    """That an earlier copy under its key has been in the bucket says nothing about this one."""
    here = machine("a")
    old = add(here, "ingest", "old", days=30)
    add(here, "ingest", "newest", days=1)
    collect_garbage(machine("b"), keep_days=7)
    here.quarantine(here.stage_folder("ingest", old.key), "damaged")
    bucket.unreachable("upload")
    with pytest.raises(RemoteUnreachable):
        publish(machine("a"), "ingest", old.key, {"graph/x": b"x"})
    bucket.reachable()
    copy = age_copy(here, old, 30)
    collect_garbage(machine("a"), keep_days=7)
    assert copy.exists()


def test_copies_that_a_cache_says_nothing_of_count_as_uploaded_once_they_are_seen_in_the_bucket(
    bucket: FakeBucket, machine: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that dies right after publishing has not noted it."""
    with monkeypatch.context() as patch:
        patch.setattr(RemoteStore, "mark_uploaded", lambda store, stage, key: None)
        old = add(machine("a"), "ingest", "old", days=30)
    add(machine("a"), "ingest", "newest", days=1)
    copy = age_copy(machine("a"), old, 30)
    collect_garbage(machine("a"), keep_days=60, dry_run=True)
    assert not machine("a").is_uploaded("ingest", old.key), "a dry run writes nothing"
    collect_garbage(machine("a"), keep_days=60)
    collect_garbage(machine("b"), keep_days=7)
    assert copy.exists()
    collect_garbage(machine("a"), keep_days=7)
    assert not copy.exists()
    assert not machine("a").is_uploaded("ingest", old.key)


def test_notes_of_the_quarantine_are_read_several_at_once(bucket: FakeBucket, machine: OpenStore) -> None:
    store, key = machine("a"), key_of("x")
    for content in (b"1", b"2", b"3"):
        publish(store, "ingest", key, {"graph/x": content}, replace=True)
    together = threading.Barrier(2)

    def meet(call: str, name: str) -> None:
        if call == "read" and name.startswith("quarantine/"):
            together.wait(10)

    bucket.before = meet
    collect_garbage(machine("b"), keep_days=7)
    assert len(bucket.below("data/")) == 3


def test_collecting_removes_the_copy_here_too(bucket: FakeBucket, machine: OpenStore) -> None:
    store = machine("a")
    old = add(store, "ingest", "old", days=30)
    add(store, "ingest", "newest", days=1)
    collect_garbage(machine("a"), keep_days=7)
    assert not store.stage_folder("ingest", old.key).exists()


@pytest.mark.parametrize("what", ["data", "manifest"])
def test_verification_reads_every_byte_of_the_bucket(
    bucket: FakeBucket, machine: OpenStore, what: str
) -> None:
    good, bad = (add(machine("a"), "ingest", name, days=1) for name in ("good", "bad"))
    (file,) = bucket.below(f"data/ingest/{bad.key}/")
    name = file if what == "data" else manifest_name("ingest", bad.key)
    bucket.objects[name] = bucket.objects[name][:-1] + b"x"
    (message,) = verify_store(machine("b"), quarantine=False)
    assert bad.key in message
    assert bucket.below("quarantine/") == []
    assert verify_store(machine("b")) == [message]
    assert published(bucket) == {good.key}
    assert len(notes(bucket)) == 1
    assert verify_store(machine("b")) == []
    assert machine("a").find("ingest", bad.key) == bad, "who has a copy publishes it again"
    assert machine("b").find("ingest", bad.key) == bad
    assert list(machine("c").folders_here()) == [], "verification keeps nothing"


def test_verification_reads_the_copies_too(bucket: FakeBucket, machine: OpenStore) -> None:
    store = machine("a")
    manifest = add(store, "ingest", "x", days=1)
    path = store.stage_folder("ingest", manifest.key) / "ingest" / "data"
    path.chmod(0o600)
    path.write_bytes(b"y")
    (message,) = verify_store(machine("a"))
    assert "does not hold the bytes" in message
    assert published(bucket) == {manifest.key}
    assert machine("a").find("ingest", manifest.key) == manifest


def test_damaged_entries_of_the_register_go_to_the_quarantine(bucket: FakeBucket, machine: OpenStore) -> None:
    from tests.unit.tasks.test_runs import entry

    runs = Runs(machine("a"))
    bad, good = runs.record(entry(1)), runs.record(entry(2))
    runs.advance(bad)
    bucket.objects[f"runs/nightly/{bad.run}.json"] += b"x"
    messages = verify_store(machine("b"))
    assert [message.partition(":")[0] for message in messages] == [
        f"run nightly/{bad.run}",
        "last good run of nightly",
    ]
    assert runs.entries() == [good]
    assert runs.last_good("nightly") == good
    assert any(
        unseal(bucket.objects[n]).get("run") for n in bucket.below("quarantine/") if n.endswith(".json")
    )
    assert verify_store(machine("b")) == []


@pytest.mark.parametrize("verified", [False, True])
def test_while_an_entry_cannot_be_read_no_artifact_and_no_copy_goes(
    bucket: FakeBucket, machine: OpenStore, verified: bool
) -> None:
    from tests.unit.tasks.test_runs import entry

    store = machine("a")
    paper, newest = add(store, "ingest", "paper", days=200), add(store, "ingest", "newest", days=1)
    copy = add(store, "ingest", "copy", days=200)
    copied = age_copy(store, copy, 200)
    machine("b").remove(machine("b").stage_folder("ingest", copy.key))
    runs = Runs(store)
    pinned = runs.record(entry(1, keys={"ingest": paper.key}, artifacts={}))
    runs.pin(pinned.run)
    runs.advance(runs.record(entry(2, keys={"ingest": newest.key}, artifacts={})))
    bucket.objects[f"runs/nightly/{pinned.run}.json"] += b"x"
    if verified:
        verify_store(store)
        bucket.age("quarantine/", 90)
    collected = collect_garbage(store, keep_days=30)
    assert published(bucket) == {paper.key, newest.key} and copied.exists()
    assert pinned.run in collected.blocked[0] and collected.folders == ()
    assert len(bucket.below("quarantine/")) == 2 * verified
    for name in [*bucket.below("quarantine/"), f"runs/nightly/{pinned.run}.json"]:
        bucket.objects.pop(name, None)
    assert collect_garbage(store, keep_days=30).blocked == ()
    assert published(bucket) == {newest.key} and not copied.exists()


def test_forgotten_runs_are_gone_for_all(bucket: FakeBucket, machine: OpenStore) -> None:
    from tests.unit.tasks.test_runs import entry

    runs = Runs(machine("a"))
    recorded = [runs.record(entry(day)) for day in range(1, 5)]
    assert Runs(machine("b")).forget("nightly", keep=2) == [e.run for e in recorded[:2]]
    assert runs.entries() == recorded[2:]
