"""Fixtures of the tests of tasks: a bucket in memory, and machines that share the store in it."""

from pathlib import Path

import pytest

from tasks.remote_store import RemoteStore
from tasks.store import Store
from tests.fake_bucket import FakeBucket, OpenStore


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> FakeBucket:
    """What every store in a bucket finds behind its address."""
    made = FakeBucket()
    monkeypatch.setattr("tasks.remote_store.connect", lambda root: made)
    return made


@pytest.fixture
def machine(bucket: FakeBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenStore:
    """Opens the store as a machine of some name does, with a cache of its own."""

    def opened(name: str) -> RemoteStore:
        monkeypatch.setenv("GCLFLOW_STORE_CACHE", str(tmp_path / name))
        store = Store(bucket.address)
        assert isinstance(store, RemoteStore)
        return store

    return opened
