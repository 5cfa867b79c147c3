"""Shared fixtures: where the real graphs lie, and tiny graphs."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.network import _network_refused, network_attempts  # noqa: F401  fixtures for every test

os.environ.setdefault("DGLBACKEND", "pytorch")
# Not the server that somebody has started in this folder.
os.environ["GCLFLOW_HOME"] = os.path.join(tempfile.gettempdir(), "gclflow-tests-have-no-home")  # noqa: PTH118
REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process more than cores: a third of the time goes into waiting for servers and for limits."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: at the end one of them would run alone, and the other processes wait."""
    slow = {
        item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("fault")
    }
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of public graphs named by GCLFLOW_TEST_DATA; skips where it is absent."""
    folder = Path(os.environ.get("GCLFLOW_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"public graphs not found at {folder}; set GCLFLOW_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def finished_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a finished tiny run; copy it before changing anything in it."""
    from tests.tiny_runs import run_direct, tiny

    store = tmp_path_factory.mktemp("finished") / "store"
    assert len(run_direct(tiny(), store).ran) == 7
    return store


@pytest.fixture
def store_copy(finished_store: Path, tmp_path: Path) -> Path:
    """A copy of the finished store, free to be damaged."""
    import shutil

    return Path(shutil.copytree(finished_store, tmp_path / "store", symlinks=True))


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API of one Prefect server for the whole session; PREFECT_API_URL names it meanwhile."""
    from flows.server import prefect_server

    with prefect_server(tmp_path_factory.mktemp("prefect")) as url:
        yield url
