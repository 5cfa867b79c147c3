"""A run's tables and plots as Prefect artifacts, so that the UI shows what the report shows."""

import base64
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact

from tasks.artifact import Artifact
from tasks.convert import read_rows
from tasks.stage import StageReport
from tasks.store import Store

logger = logging.getLogger(__name__)


def show_run(store: Store, artifacts: Mapping[str, Artifact], reports: Sequence[StageReport]) -> None:
    """Publish stage table, lineage, metrics and plots of the current flow run.

    A server that does not take them must not fail a run whose results are safe: it is logged.
    """
    try:
        create_table_artifact(key="stages", table=_stage_rows(reports), description="Stages of this run")
        create_markdown_artifact(key="lineage", markdown=lineage_markdown(reports), description="Lineage")
        if "metrics" in artifacts:
            rows = read_rows(store.path(artifacts["metrics"]) / "metrics.parquet")
            create_table_artifact(key="metrics", table=rows, description="Metrics with their controls")
        if "report" in artifacts:
            _show_plots(store.path(artifacts["report"]))
    except Exception:
        logger.exception("the run's Prefect artifacts could not be written")


def lineage_markdown(reports: Sequence[StageReport]) -> str:
    """The artifacts of a run and what they were made from, as a mermaid graph."""
    lines = ["```mermaid", "graph LR"]
    for report in reports:
        stage = f"stage_{report.stage}"  # a stage and an artifact may share a name, not an id
        lines.append(f'  {stage}["{report.stage}: {report.state}"]')
        for kind, artifact in report.artifacts.items():
            lines.append(f'  {stage} --> data_{kind}("{kind} {artifact.digest[:8]}")')
        lines += [f"  data_{kind} --> {stage}" for kind in report.opened]
    return "\n".join([*lines, "```"])


def _stage_rows(reports: Sequence[StageReport]) -> list[dict[str, object]]:
    return [
        {
            "stage": report.stage,
            "state": report.state,
            "seconds": report.seconds,
            "peak MB": round(report.peak_rss_bytes / 2**20),
            "contract checks": report.contracts.passed,
            "why": report.reason,
        }
        for report in reports
    ]


def _show_plots(folder: Path) -> None:
    for entry in json.loads((folder / "plots.json").read_bytes()):
        png = (folder / "plots" / f"{entry['name']}.png").read_bytes()
        create_image_artifact(
            key=f"plot-{entry['name'].replace('_', '-')}",
            image_url=f"data:image/png;base64,{base64.b64encode(png).decode()}",
            description=f"{entry['title']}. {entry['caption']}",
        )
