"""The profile: what a table is like, in one flat row of figures, streamed in bounded memory.

Great Expectations sees the profile and never the rows: a suite over 1e8 rows would need gigabytes.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa

from data_contracts import hashing
from data_contracts.predicates import Window
from data_contracts.reading import read_batches, read_schema
from data_contracts.spectrum import Figure
from data_contracts.statistics import BrokenRows, Numbers, Occurrences, Probe, SplitRoles, Spread, Symmetry
from data_contracts.suites import KEYS, clauses_of
from data_contracts.tables import table_named

Profile = dict[str, Figure]


def _spread(schema: pa.Schema) -> Probe:
    return Spread("z", schema.field("z").type.list_size)


def _symmetry(schema: pa.Schema) -> Probe:
    return Symmetry(with_weight="weight" in schema.names)


# Probes beside those every table has, with the columns they need.
_SPECIAL: dict[str, tuple[tuple[str, ...], Callable[[pa.Schema], Probe]]] = {
    "graph.edges": (("src", "dst"), _symmetry),
    "collection.edges": (("src", "dst"), _symmetry),
    "labels.splits": (("split", "role"), lambda _schema: SplitRoles()),
    "embeddings.embeddings": (("z",), _spread),
    "controls.embeddings": (("z",), _spread),
    "checks.checks": (("epoch",), lambda _schema: Occurrences("epoch")),
    "clusters.clusters": (("cluster",), lambda _schema: Occurrences("cluster")),
}


def profile_table(path: Path, table: str, *, columns: Iterable[str] | None = None) -> Profile:
    """Stream a Parquet file once and give its figures.

    Figures are named ``column.figure``, ``rule.broken`` (rows that break a rule), and ``rows``. A figure
    without a value (the minimum of no rows) is None. Keys that must be unique but are not sorted take a
    pass of their own over the key columns (`hashing.duplicated_keys`), giving ``keys.repeats``.

    Args:
        path: the Parquet file.
        table: name of its contract.
        columns: the columns fit to be read, where the schema check found others that are not.

    Raises:
        TableUnreadable: the file is damaged.
        ValueError: no such table.
    """
    schema = read_schema(path, table_named(table).name)
    fit = set(schema.names) if columns is None else set(columns) & set(schema.names)
    schema = pa.schema([field for field in schema if field.name in fit])
    probes = _probes(table, schema)
    needed = [name for name in schema.names if any(name in probe.columns for probe in probes)]
    rows = 0
    previous: pa.RecordBatch | None = None
    for batch in read_batches(path, table, columns=needed):
        window = Window(batch, rows, previous)
        for probe in probes:
            probe.add(window)
        rows += batch.num_rows
        previous = batch.slice(batch.num_rows - 1)
    profile: Profile = {"rows": rows}
    for probe in probes:
        profile |= probe.figures()
    if set(KEYS.get(table, ("",))) <= fit:
        profile["keys.repeats"] = hashing.duplicated_keys(path, table, KEYS[table])[0]
    return profile


def _probes(table: str, schema: pa.Schema) -> list[Probe]:
    probes: list[Probe] = [Numbers(field.name, field.type) for field in schema]
    counted = [clause for clause in clauses_of(table, schema) if clause.counted is not None]
    probes += [BrokenRows(clause.figure, clause.counted) for clause in counted if clause.counted is not None]
    if table in _SPECIAL:
        needed, make = _SPECIAL[table]
        if set(needed) <= set(schema.names):
            probes.append(make(schema))
    return probes
