"""Checks a file's Arrow schema and metadata against its table, before any row is read."""

import json

import pyarrow as pa

from data_contracts.clauses import Facts
from data_contracts.errors import ContractIncompatible, Failure
from data_contracts.tables import CONTRACT_KEY, LAYOUT_KEY, VERSION_KEY, Table, metadata_of, table_named

SCHEMA_RULES = (
    "contract_is_named",
    "contract_version_compatible",
    "columns_as_declared",
    "types_as_declared",
    "nullability_as_declared",
    "metadata_agree",
)

_COUNTS = ("num_nodes", "num_features", "num_classes", "num_clusters", "num_graphs", "embedding_size")


def declared_facts(schema: pa.Schema) -> dict[str, int]:
    """Counts that the file's own metadata state; ``num_classes`` also as the length of ``class_names``."""
    notes = metadata_of(schema)
    counts = {name: int(notes[name]) for name in _COUNTS if notes.get(name, "").isdecimal()}
    try:
        class_names = json.loads(notes.get("class_names", "null"))
    except ValueError:
        return counts
    if isinstance(class_names, list):
        counts.setdefault("num_classes", len(class_names))
    return counts


def is_compatible(found: str, expected: str) -> bool:
    """Whether two contract versions share their major number."""
    return found.split(".")[0] == expected.split(".")[0]


def require_contract(schema: pa.Schema, table: str) -> None:
    """Refuse to read a file written under another contract, another major version, or with other columns.

    Raises:
        ContractIncompatible: says what the file declares and what this code reads.
    """
    wanted, notes = table_named(table), metadata_of(schema)
    name, version = notes.get(CONTRACT_KEY, "no contract"), notes.get(VERSION_KEY, "none")
    if name != table or not is_compatible(version, wanted.version):
        major = wanted.version.split(".")[0]
        raise ContractIncompatible(table, f"{name} version {version}", f"{table} version {major}.x")
    # The version is what the writer says of itself; that its columns are those is seen here.
    if drifts := check_schema(schema, wanted, facts={}):
        found = "; ".join(f"{drift.column}: {drift.observed}" for drift in drifts)
        raise ContractIncompatible(table, found, "; ".join(f"{d.column}: {d.expected}" for d in drifts))


def check_schema(schema: pa.Schema, table: Table, *, facts: Facts) -> list[Failure]:
    """Everything the schema gets wrong, each broken rule once a column."""
    failures = [*_check_contract(schema, table), *_check_metadata(schema, facts)]
    expected = {column.name: column for column in table.expected_columns(schema)}
    if list(expected) != schema.names:
        failures.append(
            Failure("table", "columns_as_declared", ", ".join(schema.names) or "none", ", ".join(expected))
        )
    # Of two columns with one name none is usable; the rule above has reported them.
    for name in {name for name in expected if schema.names.count(name) == 1}:
        column, found = expected[name], schema.field(name)
        if not column.accepts(found.type):
            failures.append(Failure(name, "types_as_declared", str(found.type), column.type_name))
        if found.nullable and not column.nullable:
            failures.append(Failure(name, "nullability_as_declared", "nullable", "not nullable"))
    return sorted(failures, key=lambda failure: (SCHEMA_RULES.index(failure.rule), failure.column))


def fit_columns(schema: pa.Schema, table: Table) -> list[str]:
    """The columns that may be profiled: present once and of their declared type."""
    return [
        column.name
        for column in table.expected_columns(schema)
        if schema.names.count(column.name) == 1 and column.accepts(schema.field(column.name).type)
    ]


def _check_contract(schema: pa.Schema, table: Table) -> list[Failure]:
    notes, failures = metadata_of(schema), []
    name, version = notes.get(CONTRACT_KEY, "none"), notes.get(VERSION_KEY, "none")
    if name != table.name:
        failures.append(Failure("table", "contract_is_named", name, table.name))
    if not is_compatible(version, table.version):
        major = table.version.split(".")[0]
        failures.append(Failure("table", "contract_version_compatible", version, f"{major}.x"))
    return failures


def _check_metadata(schema: pa.Schema, facts: Facts) -> list[Failure]:
    declared, failures = declared_facts(schema), []
    for name, value in declared.items():
        known = facts.get(name)
        if known is not None and known != value:
            failures.append(Failure("table", "metadata_agree", f"{name} {value}", f"{name} {known}"))
    if metadata_of(schema).get(LAYOUT_KEY) == "sparse" and "num_features" not in declared:
        failures.append(
            Failure("table", "metadata_agree", "no num_features", "num_features of a sparse table")
        )
    return failures
