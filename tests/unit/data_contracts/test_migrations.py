"""Tables of an older version: a chain of migrations, streamed, or a refusal."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts import TABLES, ContractIncompatible, ContractViolation, check_table, migrations
from data_contracts.columns import Column
from data_contracts.migrations import MIGRATIONS, Migration, migrations_to_current, open_as_current
from data_contracts.tables import CONTRACT_KEY, VERSION_KEY, metadata_of

NAME = "labels.held_out_edges"
WAS_DRAWN = Column("was_drawn", pa.bool_(), nullable=False, unit="", meaning="whether it was drawn")


def rename_role(old: pa.Schema) -> pa.Schema:
    """Version 1 called the role a part."""
    return pa.schema([field.with_name({"part": "role"}.get(field.name, field.name)) for field in old])


def renamed(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterable[pa.RecordBatch]:
    return (pa.record_batch(batch.columns, schema=schema) for batch in batches)


def add_column(old: pa.Schema) -> pa.Schema:
    return old.append(pa.field("was_drawn", pa.bool_(), nullable=False))


def added(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterable[pa.RecordBatch]:
    for batch in batches:
        yield pa.record_batch([*batch.columns, pa.array(np.ones(len(batch), bool))], schema=schema)


TOYS = {
    (NAME, 1): Migration(NAME, 1, "part is called role", rename_role, renamed),
    (NAME, 2): Migration(NAME, 2, "whether it was drawn", add_column, added),
}


@pytest.fixture
def third_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """The contract in its third version, with migrations from both before."""
    table = TABLES[NAME]
    changed = dataclasses.replace(table, version="3.1", columns=(*table.columns, WAS_DRAWN))
    monkeypatch.setitem(TABLES, NAME, changed)
    for start, migration in TOYS.items():
        monkeypatch.setitem(MIGRATIONS, start, migration)


def write(path: Path, version: str, *, name: str = NAME, rows: int = 5, role: str = "role") -> Path:
    columns = {
        "src": np.arange(rows),
        "dst": np.arange(rows) + 1,
        role: np.full(rows, "test"),
        "is_edge": np.arange(rows) % 2 == 0,
    }
    if version.startswith("3."):
        columns["was_drawn"] = np.ones(rows, bool)
    fields = [pa.field(column, pa.array(values).type, nullable=False) for column, values in columns.items()]
    notes = {CONTRACT_KEY: name, VERSION_KEY: version, "num_nodes": str(rows + 1)}
    schema = pa.schema(fields, notes)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table([pa.array(values) for values in columns.values()], schema=schema), path)
    return path


def refuses(path: Path, tmp_path: Path) -> str:
    with pytest.raises(ContractIncompatible) as refused:
        open_as_current(path, NAME, scratch=tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()
    return str(refused.value)


@pytest.mark.usefixtures("third_version")
@pytest.mark.parametrize("version", ["3.0", "3.1", "3.7"])
def test_a_table_of_the_current_version_is_itself(tmp_path: Path, version: str) -> None:
    path = write(tmp_path / "t.parquet", version)
    assert open_as_current(path, NAME, scratch=tmp_path / "scratch") == path
    assert not (tmp_path / "scratch").exists()


@pytest.mark.usefixtures("third_version")
@pytest.mark.parametrize(("version", "role"), [("1.0", "part"), ("1.4", "part"), ("2.0", "role")])
def test_an_older_table_becomes_one_of_the_current_version(tmp_path: Path, version: str, role: str) -> None:
    path = write(tmp_path / "t.parquet", version, role=role)
    before = path.read_bytes()
    found = open_as_current(path, NAME, scratch=tmp_path / "scratch")
    assert found == tmp_path / "scratch" / "t.parquet" and path.read_bytes() == before
    table = pq.read_table(found)
    assert table.column_names == ["src", "dst", "role", "is_edge", "was_drawn"]
    assert table["role"].to_pylist() == ["test"] * 5 and table["was_drawn"].to_pylist() == [True] * 5
    notes = metadata_of(table.schema)
    assert (notes[VERSION_KEY], notes["num_nodes"]) == ("3.1", "6")
    assert check_table(found, NAME, context={"num_nodes": 6}).failed == 0


@pytest.mark.usefixtures("third_version")
@pytest.mark.parametrize("version", ["4.0", "11.0", "0.9", "", "two", "-1.0", "²"])
def test_a_newer_or_unknown_version_is_refused(tmp_path: Path, version: str) -> None:
    message = refuses(write(tmp_path / "t.parquet", version), tmp_path)
    assert "this code reads labels.held_out_edges version 3.x" in message


@pytest.mark.usefixtures("third_version")
def test_another_contract_is_refused_whatever_its_version(tmp_path: Path) -> None:
    refuses(write(tmp_path / "t.parquet", "2.0", name="graph.edges"), tmp_path)


@pytest.mark.usefixtures("third_version")
@pytest.mark.parametrize("missing", [1, 2])
def test_a_chain_with_a_missing_link_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: int
) -> None:
    monkeypatch.delitem(MIGRATIONS, (NAME, missing))
    refuses(write(tmp_path / "t.parquet", "1.0", role="part"), tmp_path)


def test_without_migrations_an_older_table_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TABLES, NAME, dataclasses.replace(TABLES[NAME], version="2.0"))
    refuses(write(tmp_path / "t.parquet", "1.0"), tmp_path)


@pytest.mark.usefixtures("third_version")
def test_a_migration_holds_a_batch_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.parquet", "2.0", rows=400_000)
    sizes: list[int] = []

    def watched(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterable[pa.RecordBatch]:
        for batch in added(batches, schema):
            sizes.append(batch.num_rows)
            yield batch

    monkeypatch.setitem(MIGRATIONS, (NAME, 2), dataclasses.replace(TOYS[NAME, 2], rows=watched))
    found = open_as_current(path, NAME, scratch=tmp_path / "scratch")
    assert sum(sizes) == pq.read_metadata(found).num_rows == 400_000
    assert max(sizes) <= 1 << 17


@pytest.mark.usefixtures("third_version")
def test_what_was_migrated_before_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.parquet", "2.0")
    first = open_as_current(path, NAME, scratch=tmp_path / "scratch")
    monkeypatch.setattr(migrations, "_write", None)
    assert open_as_current(path, NAME, scratch=tmp_path / "scratch") == first


@pytest.mark.usefixtures("third_version")
def test_a_migration_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterable[pa.RecordBatch]:
        yield from added(batches, schema)
        raise ZeroDivisionError

    monkeypatch.setitem(MIGRATIONS, (NAME, 2), dataclasses.replace(TOYS[NAME, 2], rows=failing))
    with pytest.raises(ZeroDivisionError):
        open_as_current(write(tmp_path / "t.parquet", "2.0"), NAME, scratch=tmp_path / "scratch")
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.usefixtures("third_version")
def test_a_migration_to_another_form_than_the_contracts_is_a_violation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = dataclasses.replace(TOYS[NAME, 2], schema=lambda old: old, rows=lambda batches, schema: batches)
    monkeypatch.setitem(MIGRATIONS, (NAME, 2), lazy)
    with pytest.raises(ContractViolation, match="columns_as_declared"):
        open_as_current(write(tmp_path / "t.parquet", "2.0"), NAME, scratch=tmp_path / "scratch")


def test_two_migrations_from_one_version_are_refused() -> None:
    with pytest.raises(ValueError, match="two migrations"):
        migrations._table([TOYS[NAME, 1], TOYS[NAME, 1]])


def test_every_migration_belongs_to_a_table_and_leads_up_to_its_version() -> None:
    for (table, from_major), migration in MIGRATIONS.items():
        assert (migration.table, migration.from_major) == (table, from_major)
        assert from_major < int(TABLES[table].version.split(".")[0])


@pytest.mark.parametrize("name", ["graph.nodes", "graph.edges", "labels.labels", "model.history"])
def test_what_this_code_writes_needs_no_migration(name: str) -> None:
    assert migrations_to_current(TABLES[name].schema(), name) == []
