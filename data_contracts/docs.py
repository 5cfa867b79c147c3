"""Data Docs of an artifact: one self-contained page, readable offline, safe with hostile data.

The page is ours, built from Great Expectations' suites and results. Its own renderer loads style sheets
and scripts from eight remote hosts, puts names and descriptions into the page unescaped, and cannot
print numpy numbers.
"""

import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.tables import table_named

if TYPE_CHECKING:
    import jinja2

    from data_contracts.validate import ContractResult

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>Data contracts</title>
<style>{{ css }}</style>
</head>
<body>
<h1>Data contracts</h1>
<table>
<tr><th>table</th><th>version</th><th>clauses that hold</th><th>that do not</th><th>seconds</th></tr>
{%- for page in pages %}
<tr><td><a href="#table-{{ loop.index }}">{{ page.result.table }}</a></td><td>{{ page.result.version }}</td>
<td class="number">{{ page.result.passed }}</td>
<td class="number{{ ' bad' if page.result.failed }}">{{ page.result.failed }}</td>
<td class="number">{{ '%.3f' % page.result.seconds }}</td></tr>
{%- endfor %}
</table>
{%- for page in pages %}
<h2 id="table-{{ loop.index }}">{{ page.result.table }}</h2>
<p>{{ page.meaning }}</p>
{%- if page.result.failures %}
<h3>What is broken</h3>
<table>
<tr><th>rule</th><th>column</th><th>found</th><th>expected</th><th>rows</th><th>first rows</th></tr>
{%- for failure in page.result.failures %}
<tr><td class="bad">{{ failure.rule }}</td><td>{{ failure.column }}</td><td>{{ failure.observed }}</td>
<td>{{ failure.expected }}</td>
<td class="number">{{ '' if failure.num_rows is none else failure.num_rows }}</td>
<td>{% for row in failure.sample %}<code>{{ row }}</code><br>{% endfor %}</td></tr>
{%- endfor %}
</table>
{%- endif %}
<h3>Clauses</h3>
<table>
<tr><th></th><th>rule</th><th>column</th><th>figure</th><th>found</th><th>least</th><th>most</th></tr>
{%- for clause in page.clauses %}
<tr><td class="{{ 'good' if clause.holds else 'bad' }}">{{ 'holds' if clause.holds else 'broken' }}</td>
<td>{{ clause.rule }}</td><td>{{ clause.column }}</td><td><code>{{ clause.figure }}</code></td>
<td class="number">{{ clause.found }}</td><td class="number">{{ clause.least }}</td>
<td class="number">{{ clause.most }}</td></tr>
{%- endfor %}
</table>
<details><summary>Columns</summary>
<table>
<tr><th>column</th><th>type</th><th>may be null</th><th>unit or range</th><th>meaning</th></tr>
{%- for column in page.columns %}
<tr><td><code>{{ column.name }}</code></td><td>{{ column.type_name }}</td>
<td>{{ 'yes' if column.nullable else 'no' }}</td><td>{{ column.unit }}</td><td>{{ column.meaning }}</td></tr>
{%- endfor %}
</table></details>
<details><summary>Profile</summary>
<table>
{%- for name, value in page.result.profile.items() %}
<tr><td><code>{{ name }}</code></td><td class="number">{{ 'none' if value is none else value }}</td></tr>
{%- endfor %}
</table></details>
{%- endfor %}
</body>
</html>
"""


@cache
def _template() -> "jinja2.Template":
    import jinja2

    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(_PAGE)


def write_data_docs(folder: Path, results: Sequence["ContractResult"]) -> None:
    """Write ``index.html``, and for each table ``TABLE.suite.json`` and ``TABLE.result.json``.

    Args:
        folder: made if it is not there; files of an earlier check are replaced.
        results: one for each table of the artifact; of a violation, the one it carries.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        _write(folder / f"{result.table}.suite.json", _json(result.suite))
        _write(folder / f"{result.table}.result.json", _json(result.validation))
    css = Path(__file__).with_name("docs.css").read_text(encoding="utf-8")
    _write(folder / "index.html", _template().render(css=css, pages=[_page(result) for result in results]))


def _page(result: "ContractResult") -> dict[str, Any]:
    table = table_named(result.table)
    layouts = [column for columns in table.layouts.values() for column in columns]
    return {
        "result": result,
        "meaning": table.meaning,
        "columns": [*table.columns, *layouts, *table.optional],
        "clauses": [_clause(outcome) for outcome in result.validation.get("results", [])],
    }


def _clause(outcome: dict[str, Any]) -> dict[str, Any]:
    config = outcome["expectation_config"]
    kwargs = config["kwargs"]
    return {
        "holds": outcome["success"],
        "rule": config["meta"]["rule"],
        "column": config["meta"]["column"],
        "figure": kwargs["column"],
        "found": outcome["result"].get("observed_value"),
        "least": kwargs.get("min_value", ""),
        "most": kwargs.get("max_value", ""),
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, default=str) + "\n"


def _write(path: Path, text: str) -> None:
    """Through a Python file object and flushed to the disk, like every file of an artifact."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
