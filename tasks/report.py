"""Report: one self-contained HTML file with the tables and plots of a run, and the plots as files."""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
import markupsafe
from pydantic import Field

from gcl.config import Config
from gcl.plots import Plot, plot_stage_times
from tasks.artifact import canonical_json
from tasks.convert import read_rows
from tasks.report_plots import run_plots
from tasks.stage import Stage, StageReport
from tasks.work import Work

_TIMES = "<!-- times of the run -->"
_HEADLINE = ("accuracy", "macro_f1", "nmi", "ari", "fmi", "auc", "average_precision", "ece", "aurc")


class ReportConfig(Config):
    """What the report is called."""

    title: str = Field(description="heading of the page")


def report(work: Work, config: ReportConfig) -> None:
    """Render the report. It holds nothing that changes from run to run; times are added on export."""
    plots = run_plots(work)
    folder = work.output("report")
    (folder / "plots").mkdir()
    for plot in plots:
        (folder / "plots" / f"{plot.name}.png").write_bytes(plot.png)
    index = [{"name": plot.name, "title": plot.title, "caption": plot.caption} for plot in plots]
    (folder / "plots.json").write_bytes(canonical_json(index) + b"\n")
    html = (
        _environment()
        .get_template("report.html")
        .render(
            title=config.title,
            graph=work.metadata("graph"),
            hetero=work.metadata("hetero") if "hetero" in work.inputs else None,
            collection=work.metadata("collection") if "collection" in work.inputs else None,
            metapaths=work.metadata("metapaths")["metapaths"] if "metapaths" in work.inputs else [],
            metrics=_metric_rows(work),
            oracle=_oracle(work),
            notes=[note for kind in _NOTED for note in work.metadata(kind).get("notes", [])],
            clusters=work.metadata("clusters"),
            predictions=work.metadata("predictions"),
            plots=[_figure(plot) for plot in plots],
            inputs={kind: artifact.digest for kind, artifact in sorted(work.inputs.items())},
            times_marker=markupsafe.Markup(_TIMES),  # noqa: S704  a constant of ours
            css=markupsafe.Markup(_resource("report.css")),  # noqa: S704  a file of ours
        )
    )
    (folder / "report.html").write_text(html, "utf-8")


def render_with_times(html: str, reports: Sequence[StageReport]) -> str:
    """The report with a section on this run's stages: state, time, memory, contract checks.

    Args:
        html: the report as the artifact holds it.
        reports: what became of the stages in this run.
    """
    section = (
        _environment()
        .get_template("times.html")
        .render(
            reports=reports,
            plot=_figure(
                plot_stage_times(
                    {item.stage: item.seconds for item in reports},
                    [item.stage for item in reports if item.state == "cached"],
                )
            ),
        )
    )
    return html.replace(_TIMES, section, 1)


def templates_digest() -> str:
    """sha256 over the report's templates: sources that no module imports."""
    content = "\0".join(_resource(name) for name in ("report.html", "report.css"))
    return hashlib.sha256(content.encode()).hexdigest()


def _metric_rows(work: Work) -> list[dict[str, Any]]:
    """The metrics as printed: one row a figure, method and controls beside each other."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in read_rows(work.input("metrics") / "metrics.parquet"):
        identity = (row["task"], row["protocol"], row["metric"], row["split"])
        entry = rows.setdefault(identity, {**row, "headline": row["metric"] in _HEADLINE, "values": {}})
        entry["values"][row["embedding"]] = row
    return list(rows.values())


def _oracle(work: Work) -> dict[str, Any] | None:
    """What labels would have chosen, for a box of its own; None where there was nothing to choose."""
    path = work.input("metrics") / "oracle.parquet"
    if not path.exists():
        return None
    return {**work.metadata("metrics")["oracle"], "rows": read_rows(path)}


def _figure(plot: Plot) -> dict[str, str]:
    return {
        "title": plot.title,
        "caption": plot.caption,
        "source": f"data:image/png;base64,{base64.b64encode(plot.png).decode()}",
    }


_NOTED = ("model", "clusters", "metrics")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, loader=jinja2.FunctionLoader(_resource)
    )
    environment.filters["figure"] = _format
    return environment


def _format(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _resource(name: str) -> str:
    return (resources.files("tasks") / "templates" / name).read_text("utf-8")


REPORT = Stage(
    name="report",
    version=1,
    body=report,
    tables=(),
    libraries=("jinja2", "matplotlib", "numpy", "pyarrow", "scikit-learn"),
)
