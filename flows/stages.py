"""One stage of a run, again: what the deployments ``stage/train``, ``stage/cluster``, ... start."""

from prefect import flow
from prefect.runtime import flow_run

from flows.config import PipelineConfig, StageName
from flows.pipeline import pipeline
from flows.record import RunRecord
from tasks.runs import Runs, SeriesName, UnknownRun
from tasks.store import Store


def _run_name() -> str:
    return f"{flow_run.parameters.get('series', '')}-{flow_run.parameters.get('name', '')}-again"


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
    """
    preset = None
    if config is None:
        last = Runs(Store(store)).last_good(series)
        if last is None:
            raise UnknownRun(f"series {series} has no good run yet: run it once, or give the settings")
        config, preset = PipelineConfig.model_validate(last.config), last.preset
    again = pipeline.fn  # within this flow run, not as a run of its own
    return again(config, store=store, out=out, refresh=(name,), preset=preset, series=series)
