"""Two or more runs side by side."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows.config import ConfigurationError
from flows.record import RunRecord


@dataclass(frozen=True)
class Comparison:
    """Rows of (label, one cell a run).

    Attributes:
        runs: names of the runs, in order.
        config: settings that differ.
        metrics: value and deviation of each metric that any run has.
        stages: state and seconds of each stage.
    """

    runs: tuple[str, ...]
    config: list[tuple[str, list[str]]]
    metrics: list[tuple[str, list[str]]]
    stages: list[tuple[str, list[str]]]


class _StageTime(BaseModel):
    """What is read of a stage."""

    stage: str
    state: str
    seconds: float


def compare_runs(folders: Sequence[Path]) -> Comparison:
    """Compare the ``run.json`` of several output directories.

    Raises:
        ConfigurationError: fewer than two, or one without a readable ``run.json``.
    """
    if len(folders) < 2:
        raise ConfigurationError("compare takes two or more run directories")
    records = [_read(folder) for folder in folders]
    configs = [_flatten({**record.config, "versions": record.versions}) for record in records]
    names = sorted({name for config in configs for name in config})
    return Comparison(
        runs=tuple(str(folder) for folder in folders),
        config=[
            (name, [config.get(name, "-") for config in configs])
            for name in names
            if len({config.get(name) for config in configs}) > 1
        ],
        metrics=_rows([_metric_cells(record) for record in records]),
        stages=_rows([_stage_cells(record) for record in records]),
    )


def _read(folder: Path) -> RunRecord:
    path = folder
    try:
        path = folder / "run.json" if folder.is_dir() else folder
        record = RunRecord.model_validate(json.loads(path.read_text("utf-8")))
        for stage in record.stages:
            _StageTime.model_validate(stage)
        return record
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # pydantic's errors are ValueErrors
        raise ConfigurationError(f"{path} is not a run.json: {str(error).splitlines()[0]}") from None


def _metric_cells(record: RunRecord) -> dict[str, str]:
    return {
        f"{m.task} {m.protocol} {m.embedding} {m.metric}": "-"
        if m.value is None
        else f"{m.value:.4f} ± {m.std or 0:.4f} (n={m.n})"
        for m in record.metrics
    }


def _stage_cells(record: RunRecord) -> dict[str, str]:
    cells: dict[str, str] = {}
    for stage in record.stages:
        cells.setdefault(stage["stage"], f"{stage['state']} {stage['seconds']:.1f} s")
    return cells


def _rows(cells: Sequence[dict[str, str]]) -> list[tuple[str, list[str]]]:
    labels = dict.fromkeys(label for run in cells for label in run)
    return [(label, [run.get(label, "-") for run in cells]) for label in labels]


def _flatten(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        merged: dict[str, str] = {}
        for key, item in value.items():
            merged |= _flatten(item, f"{prefix}.{key}" if prefix else str(key))
        return merged
    return {prefix: str(value)}
