"""Fixtures of the fault tests."""

import functools
from collections.abc import Iterable, Iterator

import pytest


@functools.cache
def _digest(modules: tuple[str, ...]) -> str:
    from tasks.closure import closure_digest

    return closure_digest(modules)


# Not of the whole folder: without an __init__.py that lasts to the end of the session.
@pytest.fixture(scope="module", autouse=True)
def sources_read_once() -> Iterator[None]:
    """Digests of sources, true ones, are computed once: no fault here changes a source file."""
    import tasks.identity

    def closure_digest(modules: Iterable[str]) -> str:
        return _digest(tuple(modules))

    original = tasks.identity.closure_digest
    tasks.identity.closure_digest = closure_digest
    yield
    tasks.identity.closure_digest = original


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contracts pass unread and their docs are one file, where a test is about something else."""
    from types import SimpleNamespace

    from tests.faults.injection import one_page

    monkeypatch.setattr("tasks.stage.check_table", lambda *_, **__: SimpleNamespace(passed=1))
    monkeypatch.setattr("data_contracts.docs.write_data_docs", one_page)
