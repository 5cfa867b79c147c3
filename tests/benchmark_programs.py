"""Programs of benchmarks/ as modules, and a row of what they keep."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
BENCHMARKS = REPOSITORY / "benchmarks"


@contextmanager
def beside_programs() -> Iterator[None]:
    """Programs that import another when they are called find it."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield
    finally:
        sys.path.remove(str(BENCHMARKS))


def program(name: str) -> ModuleType:
    """A program of benchmarks/, which is no package; what it imports at its top lies beside it."""
    with beside_programs():
        return importlib.import_module(name)


def metric(name: str, value: float, **changes: Any) -> dict[str, Any]:
    """A row of metrics as it is kept."""
    return {
        "task": "clustering", "protocol": "kmeans-final", "split": "all", "embedding": "method",
        "metric": name, "value": value, "std": 0.01, "n": 10, "over": "encoder seeds",
    } | changes  # fmt: skip
