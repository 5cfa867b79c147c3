"""A series of runs: each finished run is compared with the last good one, recorded, and becomes the next."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flows.config import stages_of
from tasks.events import RUN_FINISHED, RUN_REGRESSED, emit, resource
from tasks.prefect_artifacts import show_comparison
from tasks.regression import Comparison, RunRegressed, compare_with_last_good
from tasks.runs import RunEntry, Runs

if TYPE_CHECKING:
    from flows.record import RunRecord
    from flows.wiring import PipelineState

logger = logging.getLogger(__name__)


def conclude(
    state: "PipelineState", record: "RunRecord", *, series: str | None, preset: str | None
) -> Comparison | None:
    """Tell that a run has finished; as a run of a series, compare and record it first.

    A run that stopped before the last stage says nothing about the series and leaves it as it was.

    Args:
        state: the pipeline after its last stage.
        record: what happened, with the metrics.
        series: name of the series; none compares and records nothing.
        preset: name of the preset the configuration rests on.

    Returns:
        The comparison, where there was one.

    Raises:
        RunRegressed: the run is worse than the last good one allows; it is recorded as not good.
    """
    if {report.stage for report in state.reports} != set(stages_of(state.config)):
        if series is not None:
            logger.warning("series %s: not all stages ran; the run is neither compared nor recorded", series)
        return None
    if series is None:
        _emit_finished(state, record, resource("dataset", state.config.dataset.name), {})
        return None
    runs, entry = Runs(state.store), _entry(state, record, series=series, preset=preset)
    comparison = compare_with_last_good(runs, entry, state.config.regression)
    entry = entry.model_copy(update={"good": comparison.passed, "reason": comparison.reason})
    runs.record(entry)
    show_comparison(comparison)
    about, identity = resource("series", series), {"id": entry.run, "against": comparison.against}
    if not comparison.passed:
        broken = [row.model_dump() for row in comparison.rows if not row.passed]
        emit(RUN_REGRESSED, about, {**identity, "reason": comparison.reason, "rows": broken})
        raise RunRegressed(comparison, state.store.address)
    runs.advance(entry)
    _emit_finished(state, record, about, identity)
    return comparison


def _entry(state: "PipelineState", record: "RunRecord", *, series: str, preset: str | None) -> RunEntry:
    """The run as the register keeps it; whether it is good is for the comparison to say."""
    metrics = [*record.metrics, *record.validation_metrics]
    return RunEntry(
        series=series,
        config=state.config.model_dump(mode="json"),
        preset=preset,
        seed=state.config.seed,
        keys={report.stage: report.key for report in state.reports},
        artifacts=state.artifacts,
        metrics=[metric.model_dump(mode="json") for metric in metrics],
        good=True,
        reason=None,
    )


def _emit_finished(
    state: "PipelineState", record: "RunRecord", about: Mapping[str, str], identity: Mapping[str, Any]
) -> None:
    payload = {
        **identity,
        "dataset": state.config.dataset.name,
        "method": state.config.method.name,
        "seed": state.config.seed,
        "stages": {report.stage: report.state for report in state.reports},
        "metrics_digest": state.artifacts["metrics"].digest,
        "metrics": {
            f"{metric.metric} ({metric.protocol})": metric.value
            for metric in record.metrics
            if metric.embedding == "method"
        },
    }
    emit(RUN_FINISHED, about, payload)
