"""The pipeline as a Prefect flow: what a deployment, the UI's form and ``gclflow run`` all start."""

from pathlib import Path

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from flows.config import ConfigurationError, PipelineConfig, StageName
from flows.exit_codes import failures_left_in
from flows.orphan import ends_with_worker
from flows.outputs import export_run, run_record
from flows.record import RunRecord
from flows.series import conclude
from flows.wiring import PipelineState, run_stages
from tasks.identity import resolve_device
from tasks.prefect_artifacts import show_run
from tasks.runs import SeriesName
from tasks.store import Store


def _run_name() -> str:
    """Data set, method and seed, as the runs are listed in the UI."""
    config = PipelineConfig.model_validate(flow_run.parameters.get("config", {}))
    return f"{config.dataset.name}-{config.method.name}-seed{config.seed}"


@flow(name="pipeline", flow_run_name=_run_name, persist_result=False)
@ends_with_worker()
def pipeline(
    config: PipelineConfig = PipelineConfig(),  # noqa: B008  frozen
    store: str = ".store",
    out: str | None = None,
    refresh: tuple[StageName, ...] = (),
    until: StageName | None = None,
    preset: str | None = None,
    series: SeriesName | None = None,
) -> RunRecord:
    """Turn a source graph into embeddings, clusters, uncertainties, metrics and a report.

    Args:
        config: every setting, by stage.
        store: directory of the artifacts; stages whose key it knows are not computed again.
        out: directory for ``run.json``, ``report.html`` and the result tables; none writes none. A run that
            fails leaves ``failure.json`` there, in the place of ``run.json``.
        refresh: stages to compute again even if their results are known.
        until: last stage to run; none runs all.
        preset: name of the preset the configuration rests on, for the record.
        series: name of the series the run belongs to, such as ``nightly``: it is compared with the series'
            last good run, recorded, and becomes the last good one if it passes; none compares nothing.

    Returns:
        What happened, stage by stage, and the metrics.

    Raises:
        RunRegressed: it is worse than the last good run of its series allows; its results are kept.
    """
    with failures_left_in(out):
        _check_device(config.device)
        state = PipelineState(config, Store(store), refresh=refresh)
        try:
            run_stages(state, until=until)
        except Exception as error:
            show_run(state.store, state.artifacts, state.reports, error=error)
            raise
        record = run_record(state, preset=preset)
        if out is not None:
            export_run(state, record, Path(out))
            get_run_logger().info("results in %s", Path(out).resolve())
        show_run(state.store, state.artifacts, state.reports)
        conclude(state, record, series=series, preset=preset)
        return record


def _check_device(device: str) -> None:
    """Refuse a device that is not there before anything is computed for it."""
    if device == "cuda" and resolve_device("auto") != "cuda":
        raise ConfigurationError(
            "device: there is no CUDA device here, or torch was built without CUDA; set auto or cpu"
        )
