"""Data Docs open offline and are safe with hostile data."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts import TABLES, ContractResult, ContractViolation, check_table
from data_contracts.docs import write_data_docs

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "</style><link rel=stylesheet href=//evil.example/x.css>",
    "</code><svg onload=alert(1)>",
]


class Elements(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.references: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.references += [value or "" for name, value in attrs if name in ("href", "src", "action")]


def result_of(folder: Path, ids: list[str], *, context: dict[str, int]) -> ContractResult:
    path = folder / "nodes.parquet"
    schema = TABLES["graph.nodes"].schema(node_id_type=pa.string())
    pq.write_table(pa.table({"node": range(len(ids)), "node_id": ids}, schema=schema), path)
    try:
        return check_table(path, "graph.nodes", context=context)
    except ContractViolation as violation:
        assert violation.result is not None
        return violation.result


def test_page_refers_to_nothing_remote(tmp_path: Path) -> None:
    write_data_docs(tmp_path, [result_of(tmp_path, ["a", "b"], context={"num_nodes": 2})])
    page = (tmp_path / "index.html").read_text()
    assert "http:" not in page
    assert "https:" not in page
    assert "//" not in page
    elements = Elements(page)
    assert all(reference.startswith("#") for reference in elements.references)
    assert not elements.tags & {"script", "link", "img", "iframe", "object"}
    assert "default-src 'none'" in page


def test_page_shows_clauses_columns_and_figures(tmp_path: Path) -> None:
    write_data_docs(tmp_path, [result_of(tmp_path, ["a", "b"], context={"num_nodes": 2})])
    page = (tmp_path / "index.html").read_text()
    for part in ("graph.nodes", "one_row_per_node", "ids_dense.broken", "own identifier", "holds"):
        assert part in page
    assert "What is broken" not in page


def test_hostile_strings_add_no_element_and_no_attribute(tmp_path: Path) -> None:
    tame = result_of(tmp_path, ["a", "a"] * len(HOSTILE), context={"num_nodes": 2})
    write_data_docs(tmp_path / "tame", [tame])
    hostile = result_of(tmp_path, [text for text in HOSTILE for _ in range(2)], context={"num_nodes": 2})
    write_data_docs(tmp_path / "hostile", [hostile])
    expected = Elements((tmp_path / "tame" / "index.html").read_text())
    page = (tmp_path / "hostile" / "index.html").read_text()
    found = Elements(page)
    assert found.tags == expected.tags
    assert found.attributes == expected.attributes
    assert found.references == expected.references
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page


def test_suite_and_result_lie_beside_the_page(tmp_path: Path) -> None:
    write_data_docs(tmp_path / "docs", [result_of(tmp_path, ["a", "a"], context={"num_nodes": 2})])
    suite = json.loads((tmp_path / "docs" / "graph.nodes.suite.json").read_text())
    result = json.loads((tmp_path / "docs" / "graph.nodes.result.json").read_text())
    assert suite["name"] == "graph.nodes"
    assert result["success"] is False


def test_one_page_holds_all_tables_of_an_artifact(tmp_path: Path) -> None:
    result = result_of(tmp_path, ["a"], context={})
    write_data_docs(tmp_path / "docs", [result, result])
    assert (tmp_path / "docs" / "index.html").read_text().count("<h2") == 2


def test_check_writes_docs_of_a_violation(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"node": [1]}), path)
    with pytest.raises(ContractViolation):
        check_table(path, "graph.nodes", context={}, docs_dir=tmp_path / "docs")
    assert "contract_is_named" in (tmp_path / "docs" / "index.html").read_text()
