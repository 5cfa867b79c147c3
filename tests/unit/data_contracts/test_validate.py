import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts import (
    TABLES,
    ContractIncompatible,
    ContractNotEvaluated,
    ContractViolation,
    check_table,
    require_contract,
    validate,
)
from data_contracts.tables import VERSION_KEY


def write_edges(path: Path, src: list[int], dst: list[int]) -> Path:
    schema = TABLES["graph.edges"].schema()
    pq.write_table(pa.table({"src": src, "dst": dst}, schema=schema), path)
    return path


def test_sample_shows_at_most_ten_rows_and_counts_all(tmp_path: Path) -> None:
    path = write_edges(tmp_path / "t.parquet", [0] * 50, list(range(50)))
    with pytest.raises(ContractViolation) as caught:
        check_table(path, "graph.edges", context={"num_nodes": 30})
    (failure,) = caught.value.failures
    assert failure.num_rows == 20
    assert [row["row"] for row in failure.sample] == list(range(30, 40))
    assert failure.sample[0] == {"row": 30, "dst": 30}


def test_sample_of_a_vector_names_node_and_position(tmp_path: Path) -> None:
    x = np.zeros((5, 40), np.float32)
    x[3, [7, 11]] = np.inf, np.nan
    schema = TABLES["smoothed.features"].schema(width=40)
    pq.write_table(pa.table({"node": range(5), "x": list(x)}, schema=schema), tmp_path / "t.parquet")
    with pytest.raises(ContractViolation) as caught:
        check_table(tmp_path / "t.parquet", "smoothed.features", context={})
    assert caught.value.failures[0].sample == ({"row": 3, "node": 3, "x[7]": "inf", "x[11]": "nan"},)


def test_missing_figure_of_a_sound_file_is_not_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate, "profile_table", lambda *_, **__: {"rows": 1})
    with pytest.raises(ContractNotEvaluated):
        check_table(write_edges(tmp_path / "t.parquet", [0], [1]), "graph.edges", context={"num_nodes": 2})


def test_broken_column_does_not_hide_the_others(tmp_path: Path) -> None:
    schema = TABLES["graph.edges"].schema()
    schema = schema.set(0, pa.field("src", pa.string(), nullable=False))
    pq.write_table(pa.table({"src": ["a"], "dst": [9]}, schema=schema), tmp_path / "t.parquet")
    with pytest.raises(ContractViolation) as caught:
        check_table(tmp_path / "t.parquet", "graph.edges", context={"num_nodes": 2})
    assert {(f.rule, f.column) for f in caught.value.failures} == {
        ("types_as_declared", "src"),
        ("endpoints_in_range", "dst"),
    }


def test_facts_of_none_count_as_unknown(tmp_path: Path) -> None:
    path = write_edges(tmp_path / "t.parquet", [0], [1])
    result = check_table(path, "graph.edges", context={"num_edges": None})
    assert "every_edge_present" not in result.rules


def test_result_for_the_manifest_is_json_without_times(tmp_path: Path) -> None:
    path = write_edges(tmp_path / "t.parquet", [0], [1])
    first, second = (check_table(path, "graph.edges", context={}).as_dict() for _ in range(2))
    assert first == second
    assert json.loads(json.dumps(first))["table"] == "graph.edges"


def test_unknown_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"graph\.edges"):
        check_table(tmp_path / "t.parquet", "edges", context={})


def test_consumer_accepts_its_contract() -> None:
    require_contract(TABLES["graph.edges"].schema(), "graph.edges")
    minor = (
        TABLES["graph.edges"].schema().with_metadata({"gclflow.contract": "graph.edges", VERSION_KEY: "1.9"})
    )
    require_contract(minor, "graph.edges")


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        (None, "no contract"),
        ({"gclflow.contract": "graph.edges", VERSION_KEY: "2.0"}, "version 2.0"),
        ({"gclflow.contract": "graph.edges", VERSION_KEY: "11.0"}, "version 11.0"),
        ({"gclflow.contract": "graph.nodes", VERSION_KEY: "1.0"}, "graph.nodes"),
    ],
)
def test_consumer_refuses_another_contract_or_major_version(
    metadata: dict[str, str] | None, found: str
) -> None:
    schema = TABLES["graph.edges"].schema().with_metadata(metadata)
    with pytest.raises(ContractIncompatible, match="1.x") as caught:
        require_contract(schema, "graph.edges")
    assert found in str(caught.value)


def test_import_stays_light() -> None:
    code = (
        "import sys, data_contracts; "
        "sys.exit(bool({'great_expectations', 'pandas', 'jinja2', 'torch', 'gcl'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_sample_counts_rows_from_the_start_of_the_file(tmp_path: Path) -> None:
    num_edges = 150_000  # more than one batch
    schema = TABLES["graph.edges"].schema()
    dst = np.arange(num_edges)
    dst[140_000] = -1
    columns = {"src": np.arange(num_edges), "dst": dst}
    pq.write_table(pa.table(columns, schema=schema), tmp_path / "t.parquet")
    with pytest.raises(ContractViolation) as caught:
        check_table(tmp_path / "t.parquet", "graph.edges", context={})
    assert caught.value.failures[0].sample == ({"row": 140_000, "dst": -1},)
