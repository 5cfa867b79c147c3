"""S10: names, labels and errors of hostile data reach report, Data Docs, Prefect and tables as text only."""

import ast
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import ContractViolation
from flows.config import PipelineConfig, load_config
from flows.exit_codes import write_failure
from gcl.errors import InvalidGraph
from tasks.artifact import ContractSummary
from tasks.ingest import INGEST
from tasks.prefect_artifacts import contract_rows, lineage_markdown
from tasks.report import render_with_times
from tasks.stage import StageReport
from tasks.store import Store
from tests.sources import own_csv
from tests.tiny_runs import TINY, DirectRun, run_direct

REPOSITORY = Path(__file__).resolve().parents[2]
# A collection of our own: one for each way in that we know of.
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "</style></title></script><iframe src=//evil.example>",
    "<a href='javascript:alert(1)'>x</a>",
    "<!-- times of the run -->",
    "--><script>alert(1)</script><!--",
    "]]><script>alert(1)</script>",
    "{{ 7 * 7 }}{% include 'report.css' %}",
    "&lt;script&gt;&#60;script&#62;",
    "<ScRiPt/x>alert(1)</sCrIpT ",
    "<base href=//evil.example><meta http-equiv=refresh content=0>",
    "<math><mtext></table><img src onerror=alert(1)>",
    "`${alert(1)}` [x](javascript:alert(1)) ![x](//evil.example/x.png)",
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd",
    "$\\frac{1}{",
    "\u202e<script>\u2028\u0000"[:-1],
]
CSS_ONLY = "default-src 'none'"


class Page(HTMLParser):
    """The elements, attributes and references that a browser would find, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: set[tuple[str, str]] = set()
        self.references: list[str] = []
        self.policies: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.elements[tag] += 1
        self.attributes |= {(tag, name) for name in values}
        self.references += [
            values[name] for name in ("href", "src", "action", "srcset", "data") if name in values
        ]
        if values.get("http-equiv", "").lower() == "content-security-policy":
            self.policies.append(values["content"])

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_harmless(page: Page, tame: Page) -> None:
    """Nothing that the same page of tame data has not; nothing remote; no scripts allowed."""
    assert set(page.elements) <= set(tame.elements)
    assert page.attributes <= tame.attributes
    assert not set(page.elements) & {
        "script",
        "iframe",
        "object",
        "embed",
        "base",
        "link",
        "form",
        "svg",
        "math",
    }
    assert not [name for _, name in page.attributes if name.startswith("on")]
    assert all(reference.startswith(("data:image/png;base64,", "#")) for reference in page.references)
    assert len(page.policies) == 1
    assert CSS_ONLY in page.policies[0]
    assert "script-src" not in page.policies[0]


def graph_of(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """A ring of 72 nodes in CSV, whose ids and classes are these names."""

    def quoted(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    folder.mkdir(parents=True)
    classes, size = names[:3], 72
    ids = [f"{names[i % len(names)]} {i}" for i in range(size)]
    rows = [
        f"{quoted(ids[i])},{quoted(classes[i % 3])},{i % 3},{i % 7},{(i * i) % 11},{1 + i % 2}"
        for i in range(size)
    ]
    nodes = "\n".join(["id,label,a,b,c,d", *rows])
    edges = "\n".join(
        [
            "source,target",
            *(f"{quoted(ids[i])},{quoted(ids[(i + k) % size])}" for i in range(size) for k in (1, 3)),
        ]
    )
    manifest = (
        '[nodes]\nfile = "nodes.csv"\nid = "id"\nlabel = "label"\nfeatures = ["a", "b", "c", "d"]\n'
        '[edges]\nfile = "edges.csv"\n'
    )
    return own_csv(folder, nodes=nodes.encode(), edges=edges.encode(), manifest=manifest.encode())


def config_of(overrides: dict[str, str]) -> PipelineConfig:
    settings = [f"dataset.{name}={value}" for name, value in overrides.items()]
    rest = [text for text in TINY if not text.startswith("dataset.")]
    return load_config(preset="none", overrides=[*settings, *rest])[0]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DirectRun]:
    """The same pipeline on tame and on hostile names."""
    folder = tmp_path_factory.mktemp("s10")
    names = {"tame": [f"name{i}" for i in range(len(HOSTILE))], "hostile": HOSTILE}
    return {
        kind: run_direct(config_of(graph_of(folder / kind, given)), folder / f"{kind}-store")
        for kind, given in names.items()
    }


def pages(run: DirectRun, kind: str) -> dict[str, Page]:
    """Every HTML file of a store, by stage and name."""
    root = run.state.store.root
    found = {}
    for path in sorted(root.glob("*/*/**/*.html")):
        stage, _, *rest = path.relative_to(root).parts
        found["/".join([stage, *rest])] = Page(path.read_text("utf-8"))
    return found


def test_pages_of_a_run_are_harmless(runs: dict[str, DirectRun]) -> None:
    tame, hostile = pages(runs["tame"], "tame"), pages(runs["hostile"], "hostile")
    assert tame.keys() == hostile.keys()
    assert "report/report/report.html" in tame
    assert len(tame) == 8, "the report, and Data Docs of every stage"
    for name, page in hostile.items():
        assert_harmless(page, tame[name])


def test_every_file_of_text_is_free_of_raw_markup(runs: dict[str, DirectRun]) -> None:
    """Also beside the pages: JSON is data, and nobody opens it as a page."""
    for path in runs["hostile"].state.store.root.glob("*/*/**/*.html"):
        text = path.read_text("utf-8")
        assert not [hostile for hostile in HOSTILE[:5] if hostile in text], path.name


def violation(folder: Path) -> ContractViolation:
    """What a hostile table breaks: its ids are given twice, and one feature is missing."""
    overrides = graph_of(folder, HOSTILE)
    path = folder / "nodes.csv"
    lines = path.read_text("utf-8").split("\n")
    path.write_text("\n".join([*lines, lines[1], lines[2].rpartition(",")[0] + ","]), "utf-8")
    store = Store(folder / "store")
    from flows.wiring import PipelineState, request_ingest

    with pytest.raises(ContractViolation) as caught:
        INGEST.execute(request_ingest(PipelineState(config_of(overrides), store)), store)
    return caught.value


def test_data_docs_of_a_violation_are_harmless(tmp_path: Path, runs: dict[str, DirectRun]) -> None:
    error = violation(tmp_path / "broken")
    (page_file,) = (tmp_path / "broken" / "store" / ".quarantine").glob("*/volatile/data_docs/index.html")
    page = Page(page_file.read_text("utf-8"))
    tame = pages(runs["tame"], "tame")["ingest/volatile/data_docs/index.html"]
    tame.attributes |= {("td", "class"), ("code", "class")}
    tame.elements.update(["h3", "br", "code"])
    assert_harmless(page, tame)
    assert str(error).isprintable()


def test_failure_file_is_json_of_text(tmp_path: Path) -> None:
    import json

    write_failure(violation(tmp_path / "broken"), tmp_path)
    document = json.loads((tmp_path / "failure.json").read_bytes())
    assert document["error"] == "ContractViolation"
    assert document["message"].isprintable()


def report_of(reason: str) -> StageReport:
    return StageReport(
        stage="ingest", state="ran", reason=reason, key="0" * 64, seconds=1.0, peak_rss_bytes=1, artifacts={},
        contracts=ContractSummary(),
    )  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_reason_in_the_report_is_text(text: str) -> None:
    page = Page(render_with_times("<!-- times of the run -->", [report_of(text)]))
    tame = Page(render_with_times("<!-- times of the run -->", [report_of("tame")]))
    assert page.elements == tame.elements
    assert page.attributes == tame.attributes
    assert text.split("\u2028")[0] in page.text


def test_prefect_is_given_text(runs: dict[str, DirectRun]) -> None:
    """Its UI renders markdown; what comes from data must have lost its meaning there."""
    state = runs["hostile"].state
    reports = [
        report_of(HOSTILE[0]).model_copy(update={"stage": m.stage, "key": m.key, "artifacts": m.artifacts})
        for m in state.store.manifests()
    ]
    assert not [text for text in HOSTILE if text in lineage_markdown(reports)]
    rows = contract_rows(state.store, reports)
    assert rows
    for cell in (str(value) for row in rows for value in row.values()):
        assert cell.isprintable()
        assert not cell.startswith(("=", "@", "+", "\t")), "a formula, where somebody opens it as a sheet"


def test_comparison_markdown_is_text() -> None:
    from tasks.prefect_artifacts import _plain

    for text in HOSTILE:
        plain = _plain(text)
        assert not set(plain) & set("<>`[]|*"), plain
        assert Page(plain).elements == Counter()


@pytest.mark.parametrize("text", HOSTILE[:5])
def test_tables_of_studies_are_text(text: str) -> None:
    from flows.study_tables import markdown_table

    (line,) = markdown_table(["reason"], [[text]])[2:]
    assert Page(line).elements == Counter()
    assert "](" not in line


def test_error_with_hostile_ids_is_one_printable_line() -> None:
    error = InvalidGraph(
        table="graph.edges", column="src", rule="r", num_rows=1, sample=[repr(t) for t in HOSTILE]
    )
    assert str(error).isprintable()


def test_no_csv_is_written_and_so_no_formula() -> None:
    """Results are Parquet and JSON. Whoever adds CSV has to think of = + - @ first."""
    packages = ("flows", "tasks", "gcl", "data_contracts")
    for path in (path for package in packages for path in (REPOSITORY / package).rglob("*.py")):
        names: list[Any] = [
            node.attr for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Attribute)
        ]
        assert not {"to_csv", "write_csv", "to_excel", "writerow", "writerows", "CSVWriter"} & set(names), (
            path
        )
