"""What the UI shows of a run: contracts of every stage, the comparison, and nothing of data as markup."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import ContractViolation, Failure
from tasks import prefect_artifacts
from tasks.prefect_artifacts import comparison_markdown, contract_rows, show_comparison, show_run
from tasks.regression import Comparison, ComparisonRow
from tasks.stage import StageReport
from tasks.store import Store

HOSTILE = "<img src=x onerror=alert(1)> | [x](javascript:alert(1)) `` **b** \n# head \x1b[31m"
Made = dict[str, Any]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """What would have been sent to the server, by key."""
    found: Made = {}
    for kind, field in (("table", "table"), ("markdown", "markdown"), ("image", "image_url")):

        def record(key: str, field: str = field, **given: Any) -> None:
            found[key] = given[field]

        monkeypatch.setattr(prefect_artifacts, f"create_{kind}_artifact", record)
    return found


def reports(store: Store) -> list[StageReport]:
    return [
        StageReport(
            stage=manifest.stage, state="ran", reason="", key=manifest.key, seconds=0.0, peak_rss_bytes=0,
            artifacts=manifest.artifacts, contracts=manifest.contracts,
        )
        for manifest in store.manifests()
    ]  # fmt: skip


def row(**changes: Any) -> ComparisonRow:
    given = {"name": "cluster_agreement", "before": None, "now": 0.5, "bound": 0.6, "passed": False}
    return ComparisonRow(**{**given, "reason": "is 0.5", **changes})


def comparison(*rows: ComparisonRow, **changes: Any) -> Comparison:
    given = {"series": "nightly", "run": "now", "against": "before", "rows": rows}
    return Comparison(**{**given, **changes})


def test_every_rule_of_every_stage_is_shown(finished_store: Path, made: Made) -> None:
    store = Store(finished_store)
    found = reports(store)
    show_run(store, {}, found)
    rows = made["contracts"]
    assert {entry["stage"] for entry in rows} == {report.stage for report in found} - {"report"}
    for report in found:  # cached stages too: the results lie beside their tables
        checked = [entry for entry in rows if entry["stage"] == report.stage]
        assert len(checked) <= report.contracts.passed
        tables = {
            f"{kind}.{name}" for kind, artifact in report.artifacts.items() for name in artifact.num_rows
        }
        assert {entry["table"] for entry in checked} == tables
    assert all(entry["passed"] == "yes" for entry in rows)
    sample = next(
        entry for entry in rows if entry["rule"] == "endpoints_in_range" and "src" in entry["column"]
    )
    assert sample.keys() == {"passed", "stage", "table", "rule", "column", "observed", "expected"}
    assert "=" in sample["observed"]


def test_a_broken_rule_is_shown_first_with_its_rows(finished_store: Path, made: Made) -> None:
    store = Store(finished_store)
    failure = Failure("src", "endpoints_in_range", "9", "at most 3", 1, ({"src": HOSTILE},))
    show_run(store, {}, reports(store)[:1], error=ContractViolation("graph.edges", [failure]))
    first, *others = made["contracts"]
    assert first["passed"] == "no"
    assert (first["table"], first["rule"], first["expected"]) == (
        "graph.edges",
        "endpoints_in_range",
        "at most 3",
    )
    assert "onerror" in first["observed"]
    assert all(text.isprintable() and len(text) <= 300 for text in first.values())
    assert all(entry["passed"] == "yes" for entry in others)


def test_another_error_shows_what_was_finished(finished_store: Path, made: Made) -> None:
    store = Store(finished_store)
    show_run(store, {}, reports(store)[:2], error=ValueError("x"))
    assert len(made["stages"]) == 2
    assert all(entry["passed"] == "yes" for entry in made["contracts"])


def test_results_that_cannot_be_read_fail_no_run(store_copy: Path, made: Made) -> None:
    store = Store(store_copy)
    path = next(store_copy.glob("smooth/*/volatile/data_docs/*.result.json"))
    path.chmod(0o600)
    path.write_text("{")
    show_run(store, {}, reports(store))
    stages = {entry["stage"] for entry in made["contracts"]}
    assert "smooth" not in stages
    assert "train" in stages


def test_the_comparison_is_a_table_of_text(made: Made) -> None:
    show_comparison(
        comparison(
            row(),
            row(name="accuracy (p)", before=0.9, now=0.91, bound=0.02, passed=True, reason="rose"),
            row(name="neighbour_overlap", now=None, passed=True, is_comparable=False, reason="gone"),
        )
    )
    lines = made["regression"].splitlines()
    assert "**regressed**" in lines[0]
    assert "`before`" in lines[0]
    assert "| cluster&#95;agreement |  | 0.5000 | 0.6000 | **no** | is 0.5 |" in lines
    assert "| accuracy (p) | 0.9000 | 0.9100 | 0.0200 | yes | rose |" in lines
    assert any("not comparable | gone" in line for line in lines)


def test_data_in_the_comparison_is_no_markup() -> None:
    text = comparison_markdown(comparison(row(name=HOSTILE, reason=HOSTILE), notes=(HOSTILE,)))
    for line in text.splitlines()[4:]:
        cells = line.removeprefix("| ").removesuffix(" |")
        for mark in ("<", "`", "[", "]", "\x1b", "# "):
            assert mark not in cells.replace("**no**", "")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.count("|") == 7 for line in table), "no cell ends a cell"


def test_a_first_run_has_nothing_to_be_compared_with() -> None:
    text = comparison_markdown(comparison(against=None))
    assert "no good run before it" in text
    assert "passed" in text
    assert "|" not in text


def test_a_server_that_takes_nothing_fails_no_run(
    finished_store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses(**given: Any) -> None:
        raise OSError("refused")

    for kind in ("table", "markdown"):
        monkeypatch.setattr(prefect_artifacts, f"create_{kind}_artifact", refuses)
    store = Store(finished_store)
    show_run(store, {}, reports(store))
    show_comparison(comparison(row()))
    assert caplog.text.count("could not be") == 2


def test_rows_are_json(finished_store: Path) -> None:
    store = Store(finished_store)
    json.dumps(contract_rows(store, reports(store)), allow_nan=False)
