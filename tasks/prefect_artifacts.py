"""A run's tables and plots as Prefect artifacts, so that the UI shows what the report shows.

Whatever comes from data is put on one line and cut; in markdown it is escaped for HTML and markdown both.
"""

import base64
import html
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact

from data_contracts.errors import ContractViolation, one_line
from gcl.errors import InvalidGraph
from tasks.artifact import VOLATILE, Artifact
from tasks.convert import read_rows
from tasks.events import broken_rules
from tasks.regression import Comparison
from tasks.stage import StageReport
from tasks.store import Store

logger = logging.getLogger(__name__)

_MAX_TEXT = 300
_MAX_RESULT_BYTES = 4 << 20


def show_run(
    store: Store,
    artifacts: Mapping[str, Artifact],
    reports: Sequence[StageReport],
    *,
    error: Exception | None = None,
) -> None:
    """Publish stage table, lineage, contracts, metrics and plots of the current flow run.

    A server that does not take them must not fail a run whose results are safe: it is logged.

    Args:
        store: where the artifacts lie.
        artifacts: those of the run so far, by kind.
        reports: the stages that were finished.
        error: what ended the run early; the rules that a contract violation names join the contracts.
    """
    try:
        create_table_artifact(key="stages", table=_stage_rows(reports), description="Stages of this run")
        create_markdown_artifact(key="lineage", markdown=lineage_markdown(reports), description="Lineage")
        create_table_artifact(
            key="contracts",
            table=[*_broken_rows(error), *contract_rows(store, reports)],
            description="Data contracts of this run: every rule of every table, broken ones first",
        )
        if "metrics" in artifacts:
            rows = read_rows(store.path(artifacts["metrics"]) / "metrics.parquet")
            create_table_artifact(key="metrics", table=rows, description="Metrics with their controls")
        if "report" in artifacts:
            _show_plots(store.path(artifacts["report"]))
    except Exception:
        logger.exception("the run's Prefect artifacts could not be written")


def show_comparison(comparison: Comparison) -> None:
    """Publish how the run compares with the last good one of its series; failing to is logged."""
    try:
        create_markdown_artifact(
            key="regression",
            markdown=comparison_markdown(comparison),
            description="Beside the last good run",
        )
    except Exception:
        logger.exception("the comparison could not be shown")


def comparison_markdown(comparison: Comparison) -> str:
    """The comparison as a markdown table."""
    against = f"last good run `{comparison.against}`" if comparison.against else "no good run before it"
    verdict = "passed" if comparison.passed else "**regressed**"
    lines = [f"Series `{comparison.series}`, run `{comparison.run}`: {verdict} ({against})", ""]
    if comparison.rows:
        lines += ["| what | before | now | bound | passed | why |", "|---|--:|--:|--:|---|---|"]
    for row in comparison.rows:
        verdict = ("yes" if row.passed else "**no**") if row.is_comparable else "not comparable"
        numbers = ("" if value is None else f"{value:.4f}" for value in (row.before, row.now, row.bound))
        lines.append("| " + " | ".join([_plain(row.name), *numbers, verdict, _plain(row.reason)]) + " |")
    lines += [f"\nDiffers from it: {_plain(note)}" for note in comparison.notes]
    return "\n".join(lines)


def contract_rows(store: Store, reports: Sequence[StageReport]) -> list[dict[str, Any]]:
    """Every rule that the tables of these stages were checked by, from the results kept beside them."""
    rows: list[dict[str, Any]] = []
    for report in reports:
        docs = store.stage_folder(report.stage, report.key) / VOLATILE / "data_docs"
        for path in sorted(docs.glob("*.result.json")):
            try:
                rows += _rule_rows(report.stage, path)
            except (OSError, ValueError, TypeError, LookupError) as error:
                logger.warning("contracts of %s, %s: %s", report.stage, path.name, one_line(error))
    return rows


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


def _rule_rows(stage: str, path: Path) -> list[dict[str, Any]]:
    """The evaluated expectations of a table; rule and column lie in the meta data our suites give them."""
    if path.stat().st_size > _MAX_RESULT_BYTES:
        raise ValueError(f"larger than {_MAX_RESULT_BYTES:,} bytes")
    rows = []
    for found in json.loads(path.read_bytes())["results"]:
        config = found["expectation_config"]
        meta, bounds = config["meta"], config["kwargs"]
        rows.append(
            _contract_row(
                stage=stage,
                table=path.name.removesuffix(".result.json"),
                rule=meta["rule"],
                column=meta["column"],
                passed=bool(found["success"]),
                observed=f"{bounds['column']} = {found['result'].get('observed_value')}",
                expected=_bounds(bounds.get("min_value"), bounds.get("max_value")),
            )
        )
    return rows


def _broken_rows(error: Exception | None) -> list[dict[str, Any]]:
    if not isinstance(error, ContractViolation | InvalidGraph):
        return []
    return [
        _contract_row(
            stage="failed",
            table=error.table,
            rule=rule["rule"],
            column=rule["column"],
            passed=False,
            observed=f"{rule['observed']}; first rows: {rule['sample'][:3]}",
            expected=rule["expected"],
        )
        for rule in broken_rules(error)
    ]


def _contract_row(*, passed: bool, **cells: object) -> dict[str, Any]:
    text = {name: one_line(value)[:_MAX_TEXT] for name, value in cells.items()}
    return {"passed": "yes" if passed else "no", **text}


def _bounds(low: object, high: object) -> str:
    if low == high:
        return str(low)
    parts = [f"at least {low}"] if low is not None else []
    return " and ".join(parts + ([f"at most {high}"] if high is not None else []))


def _plain(text: str) -> str:
    """Text that stays text: no HTML, no markdown, no end of a table's cell."""
    line = html.escape(one_line(text)[:_MAX_TEXT])
    return re.sub(r"([\\`*_\[\]|<>!#~])", lambda found: f"&#{ord(found[0])};", line.replace("&#x27;", "'"))


def _show_plots(folder: Path) -> None:
    for entry in json.loads((folder / "plots.json").read_bytes()):
        png = (folder / "plots" / f"{entry['name']}.png").read_bytes()
        create_image_artifact(
            key=f"plot-{entry['name'].replace('_', '-')}",
            image_url=f"data:image/png;base64,{base64.b64encode(png).decode()}",
            description=f"{entry['title']}. {entry['caption']}",
        )
