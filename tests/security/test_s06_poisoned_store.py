"""S6: what strangers put into a store is neither executed nor believed; the store is its owner's alone."""

import base64
import json
import os
import pickle
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.artifact import Manifest, canonical_json, hash_json
from tasks.errors import ArtifactCorrupted, StoreUnusable
from tasks.prefect_cache import Lookup, VerifyingSerializer, current_lookup
from tasks.store import Store
from tests.tiny_runs import key_of, publish


class Evil:
    """Pickles to a call that leaves a marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.makedirs, (str(self.marker), 0o700, True))


@pytest.fixture
def looking(tmp_path: Path) -> Iterator[Lookup]:
    """A store with one artifact, and a look-up of it as Prefect makes one."""
    store = Store(tmp_path / "store")
    publish(store, "smooth", key_of("a"), {"smoothed/data.bin": b"data"})
    lookup = Lookup(store, "smooth", key_of("a"))
    token = current_lookup.set(lookup)
    yield lookup
    current_lookup.reset(token)


def record(result: bytes, serializer: dict[str, Any]) -> bytes:
    """A result record in Prefect's own form."""
    metadata = {"serializer": serializer, "storage_key": "x", "prefect_version": "3.8.8"}
    return json.dumps({"metadata": metadata, "result": result.decode()}).encode()


def poisoned(marker: Path, kind: str) -> bytes:
    content = base64.encodebytes(pickle.dumps(Evil(marker)))
    if kind == "pickle":
        return record(content, {"type": "pickle"})
    if kind == "compressed":
        import lzma

        packed = base64.encodebytes(lzma.compress(content))
        return record(
            packed, {"type": "compressed", "serializer": {"type": "pickle"}, "compressionlib": "lzma"}
        )
    if kind == "plain":
        return pickle.dumps(Evil(marker))
    if kind == "old_form":  # a serializer at the top, as Prefect once wrote it, wins over the one inside
        document = json.loads(record(content, {"type": "gclflow-artifacts"}))
        return json.dumps(document | {"serializer": {"type": "pickle"}}, separators=(",", ":")).encode()
    if kind == "twice":
        first, second = record(b"{}", {"type": "gclflow-artifacts"}), record(content, {"type": "pickle"})
        return second[:-1] + b", " + first[1:-1].rpartition(b', "result"')[0] + b"}"
    return record(json.dumps({"path": str(marker)}).encode(), {"type": "json", "object_decoder": "os.mkdir"})


def prefect_reads(lookup: Lookup) -> object:
    """Look a record up as Prefect does: whether it exists, and what it holds."""
    from prefect.filesystems import LocalFileSystem
    from prefect.results import ResultStore

    results = ResultStore(
        result_storage=LocalFileSystem(basepath=str(lookup.store.root / ".results")),
        serializer=VerifyingSerializer(),
        cache_result_in_memory=False,
    )
    key = lookup.store.record_path(lookup.stage, lookup.key).name
    return results.read(key).result if results.exists(key) else None


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"null", b"[]", b"{}", b'{"stage": "smooth"}', b"[" * 100_000, b"\xff"]
)
def test_junk_record_is_a_miss(content: bytes, looking: Lookup) -> None:
    looking.store.record_path(looking.stage, looking.key).write_bytes(content)
    assert prefect_reads(looking) is None


@pytest.mark.parametrize(
    "spoken_of", [("smooth", key_of("b")), ("train", key_of("a")), ("..", "x"), ("smooth", "../../x")]
)
def test_record_of_another_stage_or_key_is_a_miss(spoken_of: tuple[str, str], looking: Lookup) -> None:
    stage, key = spoken_of
    content = record(json.dumps({"stage": stage, "key": key}).encode(), {"type": "gclflow-artifacts"})
    looking.store.record_path(looking.stage, looking.key).write_bytes(content)
    assert prefect_reads(looking) is None


def test_record_of_ours_is_read_and_a_result_in_it_is_not_believed(looking: Lookup) -> None:
    own = json.dumps({"stage": looking.stage, "key": looking.key})
    path = looking.store.record_path(looking.stage, looking.key)
    path.write_bytes(record(own.encode(), {"type": "gclflow-artifacts"}))
    assert isinstance(prefect_reads(looking), Manifest)
    false = json.dumps({"stage": looking.stage, "key": looking.key, "artifacts": {"smoothed": "believe me"}})
    path.write_bytes(record(false.encode(), {"type": "gclflow-artifacts"}))
    assert prefect_reads(looking) is None


@pytest.mark.parametrize("kind", ["plain", "pickle", "compressed", "json", "old_form", "twice"])
def test_foreign_record_is_gone_before_prefect_reads_it(kind: str, looking: Lookup, tmp_path: Path) -> None:
    from tasks.prefect_cache import drop_foreign_record

    path, marker = looking.store.record_path(looking.stage, looking.key), tmp_path / "executed"
    path.write_bytes(poisoned(marker, kind))
    drop_foreign_record(path)
    assert not path.exists()
    assert prefect_reads(looking) is None
    assert not marker.exists()


@pytest.mark.slow
def test_run_executes_no_foreign_record(store_copy: Path, tmp_path: Path, prefect_api: str) -> None:
    """End to end, with a poisoned record for every stage."""
    from flows.running import run_pipeline
    from tests.tiny_runs import tiny

    store, markers = Store(store_copy), []
    for stage, key in store.folders():
        markers.append(tmp_path / f"executed-{stage}")
        store.record_path(stage, key).write_bytes(poisoned(markers[-1], "pickle"))
    before = {a.digest for m in store.manifests() for a in m.artifacts.values()}
    record = run_pipeline(tiny(), seeds=[0], store=str(store_copy), out=tmp_path / "out")
    assert [marker.name for marker in markers if marker.exists()] == []
    assert {digest for stage in record.stages for digest in stage["artifacts"].values()} == before
    assert {stage["state"] for stage in record.stages} == {"cached"}


def test_the_poison_is_real(looking: Lookup, tmp_path: Path) -> None:
    """Prefect by itself executes it: that is what the tests above are for."""
    for kind in ("pickle", "compressed", "old_form"):
        marker = tmp_path / kind
        looking.store.record_path(looking.stage, looking.key).write_bytes(poisoned(marker, kind))
        prefect_reads(looking)
        assert marker.exists()


def test_manifest_with_a_right_checksum_for_other_bytes_is_refused(looking: Lookup) -> None:
    """A checksum keeps out accidents; a forged manifest must still agree with files, place and handle."""
    store, stage, key = looking.store, looking.stage, looking.key
    manifest = store.verify(stage, key)
    path = store.stage_folder(stage, key) / "manifest.json"
    for change in ({"stage": "train"}, {"key": key_of("b")}, {"files": {}}, {"artifacts": {}}):
        path.chmod(0o600)
        path.write_bytes(manifest.model_copy(update=change).dump())
        with pytest.raises(ArtifactCorrupted):
            store.open(manifest.artifacts["smoothed"])


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "smoothed/../../x"])
def test_manifest_cannot_name_files_outside_its_folder(name: str, looking: Lookup) -> None:
    store, stage, key = looking.store, looking.stage, looking.key
    manifest = store.verify(stage, key)
    files = {**manifest.files, name: manifest.files["smoothed/data.bin"]}
    path = store.stage_folder(stage, key) / "manifest.json"
    path.chmod(0o600)
    path.write_bytes(manifest.model_copy(update={"files": files}).dump())
    with pytest.raises(ArtifactCorrupted, match="is missing"):
        store.verify(stage, key)


def test_manifest_of_many_levels_is_a_damaged_manifest() -> None:
    with pytest.raises(ValueError, match="manifest"):
        Manifest.load(b"[" * 100_000)


def test_manifest_of_strange_values_is_refused() -> None:
    for body in (None, [], 1, "x", {}, {"stage": 1}, {"a": "\ud800"}, {"format": 2**70}):
        with pytest.raises(ValueError):  # noqa: PT011  of which pydantic's errors are one kind
            Manifest.load(canonical_json({"manifest": body, "checksum": hash_json(body)}) + b"\n")


def test_store_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = Store(tmp_path / "store")
        publish(store, "smooth", key_of("a"), {"smoothed/data.bin": b"data"})
    finally:
        os.umask(before)
    for path in (store.root, *store.root.iterdir()):
        if path.is_dir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o700, path.name


def test_store_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path / "store")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(StoreUnusable, match="another user"):
        Store(tmp_path / "store")


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o720])
def test_store_that_others_can_write_is_refused(mode: int, tmp_path: Path) -> None:
    Store(tmp_path / "store")
    (tmp_path / "store").chmod(mode)
    with pytest.raises(StoreUnusable, match="other users"):
        Store(tmp_path / "store")
