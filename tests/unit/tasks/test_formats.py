"""What older and newer versions of gclflow have written: read, refused in one line, never damaged."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.exit_codes import describe, exit_code
from tasks.artifact import Manifest, canonical_json, hash_json
from tasks.errors import NewerFormat
from tasks.maintenance import collect_garbage, verify_store
from tasks.remote import manifest_name
from tasks.remote_store import RemoteStore
from tasks.runs import Runs
from tasks.sealed import seal, unseal
from tasks.store import Store
from tests.fake_bucket import FakeBucket, OpenStore
from tests.tiny_runs import key_of, publish
from tests.unit.tasks.test_runs import entry, file_of

PAST = Path(__file__).parent / "past"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def rewrite_entry(path: Path, **fields: Any) -> bytes:
    data = seal(unseal(path.read_bytes()) | fields)
    path.write_bytes(data)
    return data


def rewrite_manifest(path: Path, **fields: Any) -> bytes:
    body = json.loads(path.read_bytes())["manifest"] | fields
    data = canonical_json({"manifest": body, "checksum": hash_json(body)}) + b"\n"
    path.chmod(0o600)
    path.write_bytes(data)
    return data


@pytest.mark.parametrize("path", sorted(PAST.glob("entry-*.json")), ids=lambda path: path.stem)
def test_entries_of_past_versions_are_read(store: Store, path: Path) -> None:
    body = unseal(path.read_bytes())
    runs = Runs(store)
    target = runs.folder / body["series"] / f"{body['run']}.json"
    target.parent.mkdir(parents=True)
    target.write_bytes(path.read_bytes())
    (found,) = runs.entries()
    assert (found.format, found.seed, found.good) == (1, 0, True)
    assert verify_store(store) == [] and runs.roots().unreadable == ()
    assert runs.pin(found.run).pinned and runs.record(runs.entries()[0]).pinned


@pytest.mark.parametrize("path", sorted(PAST.glob("manifest-*.json")), ids=lambda path: path.stem)
def test_manifests_of_past_versions_are_read(path: Path) -> None:
    manifest = Manifest.load(path.read_bytes())
    assert (manifest.format, manifest.stage, list(manifest.artifacts)) == (1, "ingest", ["graph"])


def test_there_are_files_of_past_versions() -> None:
    assert {path.stem for path in PAST.iterdir()} == {"entry-without-format", "manifest-1"}


def test_fields_that_this_version_does_not_know_are_ignored_and_stay(store: Store) -> None:
    runs = Runs(store)
    recorded = runs.record(entry(1))
    rewrite_entry(file_of(runs, recorded), host="n1")
    assert runs.verify() == []
    assert runs.last_good("nightly") is not None and runs.pin(recorded.run).pinned
    body = unseal(file_of(runs, recorded).read_bytes())
    assert (body["host"], body["format"], body["pinned"]) == ("n1", 1, True)
    manifest = publish(store, "ingest", key_of("x"), {"graph/x": b"x"})
    rewrite_manifest(store.stage_folder("ingest", manifest.key) / "manifest.json", host="n1")
    assert store.find("ingest", manifest.key) == manifest
    assert verify_store(store) == []


def test_an_entry_of_a_newer_version_is_refused_and_stays(store: Store) -> None:
    runs = Runs(store)
    newer, old = runs.record(entry(2)), runs.record(entry(1))
    runs.advance(newer)
    rewrite_entry(file_of(runs, newer), format=2, series=["of", "another", "kind"])
    data = rewrite_entry(file_of(runs, newer), format=2, series="nightly", seed="new")
    damaged = publish(store, "ingest", key_of("x"), {"graph/x": b"x"})
    (store.stage_folder("ingest", damaged.key) / "graph" / "x").unlink()
    calls = (
        runs.entries,
        runs.verify,
        runs.roots,
        lambda: runs.last_good("nightly"),
        lambda: runs.forget("nightly", keep=0),
        lambda: runs.pin(old.run),
        lambda: collect_garbage(store, keep_days=0),
        lambda: verify_store(store),
    )
    for call in calls:
        with pytest.raises(NewerFormat) as refused:
            call()
        assert describe(refused.value).startswith(
            f"nightly/{newer.run} has format 2, written by a newer gclflow"
        )
        assert exit_code(refused.value) == 2 and "\n" not in describe(refused.value)
    assert file_of(runs, newer).read_bytes() == data
    assert not list((store.root / ".quarantine").iterdir()), "nothing is moved before all formats are read"
    assert runs.entries("weekly") == [], "other series go on"


def test_a_manifest_of_a_newer_version_is_refused_and_stays(store: Store) -> None:
    manifest, other = (publish(store, "ingest", key_of(x), {"graph/x": x.encode()}) for x in "ab")
    path = store.stage_folder("ingest", manifest.key) / "manifest.json"
    data = rewrite_manifest(path, format=2, files="elsewhere")
    for call in (
        lambda: store.find("ingest", manifest.key),
        lambda: store.open(manifest.artifacts["graph"]),
        lambda: list(store.manifests()),
        lambda: collect_garbage(store, keep_days=0),
        lambda: verify_store(store),
        lambda: publish(store, "ingest", manifest.key, {"graph/x": b"c"}),
    ):
        with pytest.raises(NewerFormat, match=f"ingest/{manifest.key} has format 2"):
            call()
    assert path.read_bytes() == data and not list((store.root / ".quarantine").iterdir())
    assert list(store.recent("ingest", 5)) == [other], "the reason of a stage is told without it"


@pytest.mark.parametrize("value", [0, -1, True, "1", None, 1.0, 2**70])
def test_a_format_that_is_none_is_damage(store: Store, value: object) -> None:
    runs = Runs(store)
    recorded = runs.record(entry(1))
    rewrite_entry(file_of(runs, recorded), format=value)
    assert "is no format" in runs.verify()[0]


def test_a_publication_of_a_newer_version_is_refused_and_stays(
    bucket: FakeBucket, machine: OpenStore
) -> None:
    store: RemoteStore = machine("a")
    manifest, other = (publish(store, "ingest", key_of(x), {"graph/x": x.encode()}) for x in "ab")
    name = manifest_name("ingest", manifest.key)
    body = unseal(bucket.objects[name])
    bucket.objects[name] = seal(body | {"host": "n1"})
    assert machine("b").find("ingest", manifest.key) == manifest, "a field that it does not know is ignored"
    body["manifest"]["format"] = 2
    bucket.objects[name] = seal(body)
    before = dict(bucket.objects)
    for call in (
        lambda: machine("c").find("ingest", manifest.key),
        lambda: list(machine("c").manifests()),
        lambda: collect_garbage(machine("c"), keep_days=0),
        lambda: verify_store(machine("c")),
    ):
        with pytest.raises(NewerFormat, match=f"ingest/{manifest.key} has format 2"):
            call()
    assert bucket.objects == before
    assert list(machine("c").recent("ingest", 5)) == [other]
