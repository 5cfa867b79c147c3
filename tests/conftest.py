"""Shared fixtures: where the real graphs lie, and tiny graphs."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("DGLBACKEND", "pytorch")
REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of public graphs named by GCLFLOW_TEST_DATA; skips where it is absent."""
    folder = Path(os.environ.get("GCLFLOW_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"public graphs not found at {folder}; set GCLFLOW_TEST_DATA")
    return folder
