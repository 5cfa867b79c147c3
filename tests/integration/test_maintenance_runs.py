"""The maintenance flow on a Prefect server."""

import asyncio
from pathlib import Path

import pytest

from tasks.store import Store
from tests.tiny_runs import key_of, publish


@pytest.mark.slow
def test_damage_fails_the_flow_run_and_the_page_about_it_is_kept(tmp_path: Path, prefect_api: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.logging.handlers import APILogHandler
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.maintenance import maintenance

    store = Store(tmp_path / "store")
    publish(store, "ingest", key_of("a"), {"graph/x": b"graph"})
    path = store.stage_folder("ingest", key_of("a")) / "graph" / "x"
    path.chmod(0o600)
    path.write_bytes(b"GRAPH")
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        state = maintenance(str(store.root), return_state=True)
        assert state.is_failed() and "1 damaged in store" in (state.message or "")
        assert maintenance(str(store.root), return_state=True).is_completed()
        asyncio.run(APILogHandler.aflush())
        with get_client(sync_client=True) as client:
            names = {run.name.rpartition("-")[0] for run in client.read_task_runs()}
            assert {"verify", "collect garbage", "forget runs"} <= names
            found = [artifact.data for artifact in client.read_artifacts() if artifact.key == "maintenance"]
            pages = [page for page in found if str(store.root) in str(page)]  # others of this session too
    assert sorted("## Damaged" in str(page) for page in pages) == [False, True]
