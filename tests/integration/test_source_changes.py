"""Sources that change while a run is under way, with Prefect between the digest and the reading."""

from pathlib import Path

import pytest

from flows.config import validate_config
from gcl.errors import SourceUnreadable
from tasks.ingest import INGEST, source_digests
from tasks.store import Store
from tests.sources import planetoid


@pytest.mark.slow
def test_a_source_that_changes_before_its_task_starts_is_not_published(
    tmp_path: Path, prefect_api: str
) -> None:
    import asyncio

    from prefect import flow
    from prefect.logging.handlers import APILogHandler
    from prefect.settings import PREFECT_API_URL, temporary_settings

    config = validate_config({"dataset": planetoid(tmp_path)}).dataset
    store = Store(tmp_path / "store")
    index = tmp_path / "ind.tiny.test.index"
    content = index.read_bytes()

    @flow
    def ingested(*, changed: bool) -> str:
        request = INGEST.request(config, store=store, inputs={}, sources=source_digests(config, store))
        index.write_bytes(content + b"\n" * changed)
        return INGEST.run(request, store).state

    with temporary_settings({PREFECT_API_URL: prefect_api}):
        with pytest.raises(SourceUnreadable, match="changed while it was read"):
            ingested(changed=True)
        assert not list(store.folders())
        index.write_bytes(content)
        assert ingested(changed=False) == "ran"
        asyncio.run(APILogHandler.aflush())
