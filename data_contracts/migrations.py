"""Migrations: how a table written under an older version of its contract becomes one of the current version.

A contract's major version rises when its rows change their form or meaning. Files of the version before
are then refused, unless somebody writes down here how to get from the one to the other: one function
from each major version to the next, on a stream of batches. A chain of them leads to the current version.
"""

import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.errors import ContractViolation
from data_contracts.reading import read_batches, read_schema
from data_contracts.schema_check import check_schema, require_contract
from data_contracts.tables import CONTRACT_KEY, VERSION_KEY, Table, metadata_of, table_named


@dataclass(frozen=True)
class Migration:
    """From one major version of a table to the next.

    Attributes:
        table: name of the contract.
        from_major: the major version it starts from; it leads to ``from_major + 1``.
        meaning: one line for the release notes: what has changed, and what becomes of it.
        schema: the new schema from the old one. Without metadata it keeps the old one's; name and version of
            the contract are set for it.
        rows: the new batches from the old ones, given the new schema; holds no more than a batch at a time.
    """

    table: str
    from_major: int
    meaning: str
    schema: Callable[[pa.Schema], pa.Schema]
    rows: Callable[[Iterator[pa.RecordBatch], pa.Schema], Iterable[pa.RecordBatch]]


# One line a migration; never taken out as long as stores may hold such files.
_ALL: tuple[Migration, ...] = ()


def _table(migrations: Iterable[Migration]) -> dict[tuple[str, int], Migration]:
    table: dict[tuple[str, int], Migration] = {}
    for migration in migrations:
        start = (migration.table, migration.from_major)
        if start in table:
            raise ValueError(f"two migrations of {migration.table} from version {migration.from_major}")
        table[start] = migration
    return table


MIGRATIONS = _table(_ALL)


def migrations_to_current(schema: pa.Schema, table: str) -> list[Migration]:
    """The chain that leads a file to the current version of its contract; empty where it has that version.

    Raises:
        ContractIncompatible: another contract, a newer version, one that is no version, or a link is missing.
        ValueError: no such table.
    """
    wanted, notes = table_named(table), metadata_of(schema)
    found, current = _major(notes.get(VERSION_KEY, "")), _major(wanted.version)
    chain: list[Migration] = []
    if notes.get(CONTRACT_KEY) == table and found is not None and current is not None and found < current:
        chain = [MIGRATIONS[table, m] for m in range(found, current) if (table, m) in MIGRATIONS]
        if len(chain) == current - found:
            return chain
    require_contract(schema, table)
    return []


def open_as_current(path: Path, table: str, *, scratch: Path) -> Path:
    """A file of the current version that holds what `path` holds: `path` itself, or its migration.

    The migration is streamed, written beside its final name and renamed, so that a file under that name is
    complete and a second call finds it.

    Args:
        path: a Parquet file of any version.
        table: name of its contract.
        scratch: a folder of the caller's for the migrated file, used for this file alone.

    Raises:
        ContractIncompatible: no chain of migrations leads from its version to the current one.
        ContractViolation: the migrated table has not the schema of the current version.
        TableUnreadable: the file is damaged.
    """
    schema = read_schema(path, table)
    chain = migrations_to_current(schema, table)
    if not chain:
        return path
    target = scratch / path.name
    if not target.exists():
        _write(target, *_migrated(path, schema, table_named(table), chain))
    return target


def _migrated(
    path: Path, schema: pa.Schema, table: Table, chain: list[Migration]
) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    batches: Iterable[pa.RecordBatch] = read_batches(path, table.name, columns=schema.names)
    for migration in chain:
        changed = migration.schema(schema)
        version = table.version if migration is chain[-1] else f"{migration.from_major + 1}.0"
        notes = metadata_of(changed) or metadata_of(schema)
        schema = changed.with_metadata(notes | {CONTRACT_KEY: table.name, VERSION_KEY: version})
        batches = migration.rows(iter(batches), schema)
    failures = check_schema(schema, table, facts={})
    if failures:
        raise ContractViolation(table.name, failures)
    return schema, batches


def _write(target: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        with (
            temporary.open("wb") as file,
            pq.ParquetWriter(
                file, schema, compression="zstd", compression_level=1, write_page_checksum=True
            ) as writer,
        ):
            for batch in batches:
                writer.write_batch(batch.cast(schema) if batch.schema != schema else batch)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _major(version: str) -> int | None:
    number = version.partition(".")[0]
    return int(number) if number.isascii() and number.isdecimal() else None
