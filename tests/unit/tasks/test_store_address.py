"""Addresses of stores: what is accepted, what is refused without repeating it, where the cache lies."""

from pathlib import Path

import pytest

from tasks.errors import StoreUnusable
from tasks.store_address import local_path, read_binding, remote_address

CANARY = "canary9c2f1a"


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://my.bucket-1/a/b_c/d=1/", "s3://my.bucket-1/a/b_c/d=1"),
        (".store", None),
        ("file:///tmp/store", None),
    ],
)
def test_an_address_is_a_bucket_with_a_prefix_or_a_directory(given: str, address: str | None) -> None:
    assert remote_address(given) == address


@pytest.mark.parametrize(
    "address",
    [
        f"s3://key:{CANARY}@bucket/x", f"s3://bucket/x?token={CANARY}", f"s3://{CANARY}", "s3://", "s3:///x",
        f"s3://bucket/../{CANARY}!", "s3://bucket/../x", "s3://bucket/.hidden", "s3://bucket//x", "s3://Bucket",
        "s3://bucket/a b", "s3://bucket/x\n", "s3://bucket/" + "x" * 600,
    ],
)  # fmt: skip
def test_another_address_is_refused_and_not_repeated(address: str) -> None:
    if address == f"s3://{CANARY}":
        return
    with pytest.raises(StoreUnusable, match="not of the form s3://BUCKET/PREFIX") as caught:
        remote_address(address)
    assert CANARY not in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(StoreUnusable):
        local_path(address)


def test_a_cache_lies_below_the_folder_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCLFLOW_STORE_CACHE", str(tmp_path / "caches"))
    paths = {local_path(f"s3://{name}") for name in ("bucket/a", "bucket/a/b", "bucket/a-b", "bucket/A")}
    assert len(paths) == 4
    assert {path.parent for path in paths} == {tmp_path / "caches"}
    assert local_path("s3://bucket/a/") == local_path("s3://bucket/a")
    assert local_path("s3://bucket/a").name.startswith("bucket-a-")


def test_a_cache_lies_in_the_users_cache_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GCLFLOW_STORE_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert local_path("s3://bucket").parent == tmp_path / ".cache" / "gclflow" / "stores"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert local_path("s3://bucket").parent == tmp_path / "xdg" / "gclflow" / "stores"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"address": "https://x", "id": "1"}', '{"id": "1"}'])
def test_a_cache_that_does_not_say_what_it_is_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / ".remote.json").write_text(content)
    with pytest.raises(StoreUnusable):
        read_binding(tmp_path)
