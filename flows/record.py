"""What a run leaves behind for people and programs: ``run.json`` and its parts."""

import importlib.metadata
import platform
import statistics
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from tasks.identity import library_versions
from tasks.stage import StageReport

_LIBRARIES = (
    "dask",
    "dgl",
    "great-expectations",
    "numpy",
    "prefect",
    "pyarrow",
    "scikit-learn",
    "scipy",
    "torch",
)


class Metric(BaseModel):
    """One measured value with what it varies over.

    Attributes:
        embedding: ``method``, or a control: ``smoothed`` features, ``random_init`` encoder.
        split: ``test``, ``validation`` or ``all``; ``oracle`` where labels chose what was measured.
        std: sample standard deviation over `n` repetitions; 0 for one.
        over: what was repeated: ``probe seeds``, ``splits``, ``k-means seeds``, ``encoder seeds``.
    """

    model_config = ConfigDict(frozen=True)

    task: str
    protocol: str
    split: str | None
    embedding: str
    metric: str
    value: float | None
    std: float | None
    n: int
    over: str | None


class RunRecord(BaseModel):
    """``run.json``.

    Attributes:
        metrics: scores on test nodes, or on all nodes where the protocol has no split.
        validation_metrics: the same protocols on validation nodes, kept apart so that none is
            taken for a result.
        oracle_metrics: the best check of the training, chosen with labels, and so no result either.
    """

    model_config = ConfigDict(frozen=True)

    config: dict[str, Any]
    preset: str | None = None
    seeds: tuple[int, ...]
    versions: dict[str, str]
    device: str
    machine: dict[str, Any]
    store: str
    stages: list[dict[str, Any]]
    metrics: list[Metric]
    validation_metrics: list[Metric] = []
    oracle_metrics: list[Metric] = []
    notes: list[str] = []


def stage_entry(report: StageReport) -> dict[str, Any]:
    """A stage report as it stands in ``run.json``: artifacts by digest."""
    return {
        **report.model_dump(mode="json", exclude={"artifacts"}),
        "artifacts": {kind: artifact.digest for kind, artifact in report.artifacts.items()},
    }


def versions() -> dict[str, str]:
    """Versions of gclflow, Python and the libraries results depend on."""
    return {"gclflow": importlib.metadata.version("gclflow")} | library_versions(_LIBRARIES)


def machine() -> dict[str, Any]:
    """The machine, as far as figures depend on it; no names."""
    import psutil

    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def over_seeds(runs: Sequence[Sequence[Metric]]) -> list[Metric]:
    """Mean and sample standard deviation over runs with different encoder seeds.

    Args:
        runs: the metrics of each run; a metric that some run lacks is averaged over the others.
    """
    if len(runs) == 1:
        return list(runs[0])
    grouped: dict[tuple[Any, ...], list[Metric]] = {}
    for metric in (metric for run in runs for metric in run):
        identity = (metric.task, metric.protocol, metric.split, metric.embedding, metric.metric)
        grouped.setdefault(identity, []).append(metric)
    return [_summary(same) for same in grouped.values()]


def _summary(same: Sequence[Metric]) -> Metric:
    values = [metric.value for metric in same if metric.value is not None]
    return same[0].model_copy(
        update={
            "value": statistics.fmean(values) if values else None,
            "std": statistics.stdev(values) if len(values) > 1 else 0.0,
            "n": len(values),
            "over": "encoder seeds",
        }
    )
