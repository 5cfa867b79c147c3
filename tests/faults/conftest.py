"""Fixtures of the fault tests."""

import functools
from collections.abc import Iterable, Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def sources_read_once() -> Iterator[None]:
    """Digests of sources, true ones, are computed once: no fault here changes a source file."""
    import tasks.identity

    original = tasks.identity.closure_digest
    cached = functools.cache(lambda modules: original(modules))

    def closure_digest(modules: Iterable[str]) -> str:
        return str(cached(tuple(modules)))

    tasks.identity.closure_digest = closure_digest
    yield
    tasks.identity.closure_digest = original
