"""One stage of a run, again: what the deployments ``stage/train``, ``stage/cluster``, ... start."""

from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows.config import ConfigurationError, PipelineConfig, StageName, validate_config
from flows.exit_codes import failures_left_in
from flows.pipeline import pipeline
from flows.record import RunRecord
from tasks.runs import Runs, SeriesName, UnknownRun
from tasks.store import Store


def _run_name() -> str:
    """Data set, method and seed as of whole runs, and the stage."""
    given = flow_run.parameters
    name, series = given.get("name", ""), given.get("series", "nightly")
    try:
        config, _ = _settings(series, given.get("store", ".store"), given.get("config"))
    except Exception:  # the run itself says what is wrong
        return f"{series}-{name}-again"
    return f"{config.dataset.name}-{config.method.name}-seed{config.seed}-{name}-again"


@flow(name="stage", flow_run_name=_run_name, persist_result=False)
def stage(
    name: StageName,
    series: SeriesName = "nightly",
    store: str = ".store",
    out: str | None = None,
    config: PipelineConfig | None = None,
) -> RunRecord:
    """Compute one stage again, and after it what its new bytes change; all else is taken from the store.

    Args:
        name: the stage to compute again.
        series: whose last good run it is a stage of.
        store: directory of the artifacts.
        out: directory for ``run.json``, ``report.html`` and the result tables; none writes none.
        config: other settings than those of the last good run.

    Returns:
        What happened, stage by stage, and the metrics.

    Raises:
        UnknownRun: the series has no good run yet, and no settings were given.
        ConfigurationError: the settings of the last good run are no longer understood.
    """
    with failures_left_in(out):
        config, preset = _settings(series, store, config)
        again = pipeline.fn  # within this flow run, not as a run of its own
        return again(config, store=store, out=out, refresh=(name,), preset=preset, series=series)


def _settings(
    series: str, store: str, config: PipelineConfig | dict[str, Any] | None
) -> tuple[PipelineConfig, str | None]:
    """The settings that were given, or those of the series' last good run, with the preset they rest on."""
    if config is not None:
        return PipelineConfig.model_validate(config), None
    last = Runs(Store(store)).last_good(series)
    if last is None:
        raise UnknownRun(f"series {series} has no good run yet: run it once, or give the settings")
    try:
        return validate_config(last.config), last.preset
    except ConfigurationError as error:
        reasons = "; ".join(str(error).splitlines())
        raise ConfigurationError(
            f"the settings of {series}'s last good run {last.run} are from another version of gclflow: "
            f"{reasons}. Run {series} once, or give the settings"
        ) from None
