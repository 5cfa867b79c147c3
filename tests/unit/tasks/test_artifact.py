"""Manifests, canonical JSON and digests."""

import json
from pathlib import Path

import pytest

from tasks.artifact import (
    FileEntry,
    Manifest,
    artifact_digest,
    canonical_json,
    files_below,
    hash_file,
    hash_json,
)
from tests.tiny_runs import describe_folder, key_of


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph" / "nodes.bin").write_bytes(b"nodes")
    return describe_folder(tmp_path, "ingest", key_of("a"), inputs={"source:x": "1"})


def test_canonical_json_is_independent_of_order_and_refuses_nan() -> None:
    assert canonical_json({"b": 1, "a": [1, "é"]}) == canonical_json({"a": [1, "é"], "b": 1})
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


def test_manifest_survives_a_round_trip(manifest: Manifest) -> None:
    assert Manifest.load(manifest.dump()) == manifest


def test_every_flipped_bit_of_a_manifest_is_noticed(manifest: Manifest) -> None:
    data = manifest.dump()
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(ValueError):
                Manifest.load(bytes(damaged))


@pytest.mark.parametrize("length", [0, 1, 100, -1, -2])
def test_a_truncated_manifest_is_refused(manifest: Manifest, length: int) -> None:
    with pytest.raises(ValueError):
        Manifest.load(manifest.dump()[:length])


@pytest.mark.parametrize("text", [b"[]", b"{}", b"null", b'{"manifest": 1, "checksum": 2, "more": 3}'])
def test_other_json_is_no_manifest(text: bytes) -> None:
    with pytest.raises(ValueError):
        Manifest.load(text)


def test_a_field_of_a_manifest_that_is_not_known_is_ignored(manifest: Manifest) -> None:
    body = json.loads(manifest.dump())["manifest"] | {"colour": "red"}
    data = canonical_json({"manifest": body, "checksum": hash_json(body)}) + b"\n"
    assert Manifest.load(data) == manifest


def test_an_artifact_digest_depends_on_names_and_bytes_alone() -> None:
    one, other = FileEntry(num_bytes=1, sha256="1"), FileEntry(num_bytes=1, sha256="2")
    assert artifact_digest({"a": one, "b": other}) == artifact_digest({"b": other, "a": one})
    assert artifact_digest({"a": one, "b": other}) != artifact_digest({"a": other, "b": one})
    assert artifact_digest({"a": one}) != artifact_digest({"c": one})


def test_hash_file_streams_beyond_one_chunk(tmp_path: Path) -> None:
    import hashlib

    content = bytes(range(256)) * 5000
    (tmp_path / "f").write_bytes(content)
    assert hash_file(tmp_path / "f") == FileEntry(
        num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )


def test_links_have_no_place_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="link is not a regular file"):
        list(files_below(tmp_path))
