"""The marker of a store in a bucket: where one is made, which are refused, and what the service must know."""

import pytest

from tasks.errors import StoreUnusable
from tasks.sealed import seal
from tests.fake_bucket import FakeBucket, OpenStore


def test_a_prefix_of_other_things_is_not_made_a_store(bucket: FakeBucket, machine: OpenStore) -> None:
    bucket.put("photos/2024.jpg", b"x")
    with pytest.raises(StoreUnusable, match="holds photos/2024.jpg"):
        machine("a")
    assert list(bucket.objects) == ["photos/2024.jpg"]


@pytest.mark.parametrize("content", [b"", b"[]", b"\0", b'{"format": 1}'])
def test_a_marker_that_is_none_is_refused(bucket: FakeBucket, machine: OpenStore, content: bytes) -> None:
    bucket.put("store.json", content)
    with pytest.raises(StoreUnusable, match="not a store marker"):
        machine("a")


def test_a_store_of_another_format_is_refused(bucket: FakeBucket, machine: OpenStore) -> None:
    bucket.put("store.json", seal({"format": 2, "id": "x"}))
    with pytest.raises(StoreUnusable, match="has format 2"):
        machine("a")


def refuse_nothing(bucket: FakeBucket, monkeypatch: pytest.MonkeyPatch, header: str) -> None:
    """Have the service ignore a condition."""
    if header == "If-None-Match":
        monkeypatch.setattr(bucket, "put_if_absent", lambda name, data: bucket.put(name, data) or True)
    else:
        monkeypatch.setattr(
            bucket, "put_if_unchanged", lambda name, data, tag: bucket.put(name, data) or True
        )


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_service_without_conditional_writes_is_refused_every_time(
    bucket: FakeBucket, machine: OpenStore, monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    refuse_nothing(bucket, monkeypatch, header)
    for _ in range(2):
        with pytest.raises(StoreUnusable, match=f"does not honour {header}"):
            machine("a")
        assert bucket.objects == {}


def test_a_service_whose_conditions_never_hold_is_refused(
    bucket: FakeBucket, machine: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "put_if_unchanged", lambda name, data, tag: False)
    with pytest.raises(StoreUnusable, match="does not honour If-Match"):
        machine("a")


def test_a_store_is_made_though_answers_are_lost_and_another_is_trying_the_service(
    bucket: FakeBucket, machine: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writes get through, their answers do not, and sent again they are refused, by ourselves."""
    bucket.put("quarantine/probe-of-another-machine", b"first")
    absent, unchanged = bucket.put_if_absent, bucket.put_if_unchanged
    monkeypatch.setattr(bucket, "put_if_absent", lambda *given: absent(*given) and False)
    monkeypatch.setattr(bucket, "put_if_unchanged", lambda *given: unchanged(*given) and False)
    machine("a")
    assert sorted(bucket.objects) == ["quarantine/probe-of-another-machine", "store.json"]
