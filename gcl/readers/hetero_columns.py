"""Columns of the tables of heterogeneous graphs, each over all files of a type or relation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp

from gcl.errors import InvalidGraph, SourceUnreadable, UnsafeSource
from gcl.graph import Features
from gcl.readers import csv_layout, parquet_layout
from gcl.readers.base import ArrowArray
from gcl.readers.csv_tables import csv_batches, csv_columns
from gcl.readers.manifest import NodeTable
from gcl.readers.node_ids import exact_ids
from gcl.readers.own_tables import expand_columns, float_column
from gcl.readers.parquet_footer import check_num_values
from gcl.readers.printable import printable

FormatName = Literal["parquet", "csv"]
MAX_FILES = 10_000
_TABLES = {"parquet": parquet_layout.TABLES, "csv": csv_layout.TABLES}
_PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))


@dataclass(frozen=True)
class TableFiles:
    """The files of one table, all of one format.

    Attributes:
        format: of the files.
        paths: in the order of their names.
        where: what the table is called in messages.
    """

    format: FormatName
    paths: tuple[Path, ...]
    where: str

    def columns(self) -> list[str]:
        """The names of the columns that every file has.

        Raises:
            SourceUnreadable: a file is not of its format; UnsafeSource: a pickle, or a bomb.
        """
        found = [_columns(path, self.format) for path in self.paths]
        return [name for name in found[0] if all(name in others for others in found)] if found else []


def files_below(folder: Path, patterns: str | Sequence[str]) -> list[Path]:
    """The files that paths or globs name, relative to a folder and below it, sorted by name; empty if none.

    Raises:
        UnsafeSource: a pattern or a link leads out of the folder, or there are too many files.
    """
    found: set[Path] = set()
    root = folder.resolve()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        parts = PurePosixPath(pattern)
        if parts.is_absolute() or ".." in parts.parts or "\0" in pattern:
            raise UnsafeSource(f"{printable(pattern)!r}: files lie below the manifest's folder")
        try:
            matches = list(folder.glob(pattern))
        except (ValueError, OSError, NotImplementedError) as error:
            raise SourceUnreadable(f"{printable(pattern)!r}: {printable(error)}") from error
        for path in matches:
            if path.is_file() and not path.resolve().is_relative_to(root):
                raise UnsafeSource(f"{path.name}: a link leads out of the manifest's folder")
        found |= {path for path in matches if path.is_file()}
        if len(found) > MAX_FILES:
            raise UnsafeSource(f"{printable(pattern)!r}: more than {MAX_FILES} files")
    return sorted(found)


def id_column(table: TableFiles, column: str, declared: str | None) -> ArrowArray:
    """Ids as int64 or string: as declared, else the file's own type; text in CSV.

    Raises:
        SourceUnreadable: neither integers nor text, or files that disagree.
    """
    parts: list[ArrowArray] = []
    for path in table.paths:
        id_type = declared or _id_type(path, column, table.format)
        batches = _TABLES[table.format].ids(path, [column], id_type)
        parts += [exact_ids(batch.column(0), id_type, what=path.name) for batch in batches]
    if len({part.type for part in parts}) > 1:
        raise SourceUnreadable(
            f"{table.where}: column {column!r} holds integers in one file, text in another"
        )
    return pa.concat_arrays(parts) if parts else pa.array([], pa.string())


def label_column(table: TableFiles, column: str) -> ArrowArray:
    """Labels as int64 or text; an empty or null field is no label."""
    parts: list[ArrowArray] = []
    for path in table.paths:
        for batch in _TABLES[table.format].texts(path, [column]):
            values = batch.column(0)
            values = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
            if pa.types.is_integer(values.type) or pa.types.is_string(values.type):
                parts.append(values.cast(pa.string()))
            else:
                raise SourceUnreadable(
                    f"{path.name}: column {column!r} holds {values.type}, expected classes"
                )
    texts = pa.concat_arrays(parts) if parts else pa.array([], pa.string())
    return _integers_where_all_are(_without_empty(texts))


def weight_column(table: TableFiles, column: str) -> np.ndarray:
    """float32 weights; null becomes NaN."""
    parts = [np.empty(0, np.float32)]
    for path in table.paths:
        if table.format == "csv":
            batches: Iterable[pa.RecordBatch] = csv_batches(path, {column: pa.float32()})
        else:
            batches = _TABLES[table.format].texts(path, [column])
        parts += [float_column(batch.column(0), what=f"{path.name}: {column}") for batch in batches]
    return np.concatenate(parts)


def feature_columns(table: TableFiles, wanted: Sequence[str]) -> Features:
    """Columns side by side as float32 [N, F]: numbers, lists, or a pair of lists of indices and values.

    Args:
        table: the node table.
        wanted: names; ``NAME*`` stands for all that begin so; a Parquet column NAME may be the pair
            ``NAME_indices``, ``NAME_values``, with F as ``num_features`` in the former's metadata.

    Raises:
        InvalidGraph: rows of different width.
        SourceUnreadable: a column is missing or holds no numbers.
    """
    present = table.columns()
    blocks: list[Any] = []
    for name in wanted:
        if name not in present and f"{name}_indices" in present and table.format == "parquet":
            blocks.append(_sparse(table, name))
            continue
        for column in expand_columns((name,), present, what=table.where):
            blocks.append(_text_vectors(table, column) if table.format == "csv" else _lists(table, column))
    if len(blocks) == 1:
        return blocks[0]  # type: ignore[no-any-return]
    if any(sp.issparse(block) for block in blocks):
        return sp.csr_matrix(sp.hstack(blocks).astype(np.float32))
    return np.hstack([np.asarray(block) for block in blocks])


def refuse_width(where: str, rows: Sequence[int], widths: Sequence[int], expected: int) -> None:
    """Raise InvalidGraph for rows of features that are not as wide as the first."""
    sample = [f"row {row + 1}: {width}, not {expected}" for row, width in zip(rows, widths, strict=True)]
    raise InvalidGraph(
        table="hetero.features",
        column=where,
        rule="same_width_in_every_row",
        num_rows=len(rows),
        sample=sample[:10],
    )


def _columns(path: Path, format_name: FormatName) -> list[str]:
    with path.open("rb") as file:
        head = file.read(2)
    if head in _PICKLES:
        raise UnsafeSource(f"{path.name}: a pickle, and pickles are not loaded")
    if format_name == "csv":
        return csv_columns(path)
    check_num_values(path)
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceUnreadable(f"{path.name}: not a readable Parquet file: {printable(error)}") from error
    for field in schema:
        if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            raise UnsafeSource(
                f"{path.name}: column {printable(field.name)!r} holds bytes, which are no data"
            )
    return [field.name for field in schema]


def _id_type(path: Path, column: str, format_name: FormatName) -> str:
    """CSV ids are text unless declared: 007 is not 7, and nothing is guessed."""
    if format_name == "csv":
        return "string"
    found = pq.read_schema(path).field(column).type
    value = found.value_type if pa.types.is_dictionary(found) else found
    return "int64" if pa.types.is_integer(value) else "string"


def _without_empty(texts: ArrowArray) -> ArrowArray:
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def _integers_where_all_are(texts: ArrowArray) -> ArrowArray:
    try:
        numbers = texts.cast(pa.int64())
    except pa.ArrowInvalid:
        return texts
    return numbers if numbers.cast(pa.string()).equals(texts) else texts  # 01 is a name, not a number


def _sparse(table: TableFiles, name: str) -> sp.csr_matrix:
    pair = (f"{name}_indices", f"{name}_values")
    blocks: list[Any] = []
    for path in table.paths:
        metadata = pq.read_schema(path).field(pair[0]).metadata or {}
        declared = metadata.get(b"num_features", b"").decode("utf-8", "replace")
        if not declared.isascii() or not declared.isdecimal() or not 1 <= int(declared[:9]) <= 2**24:
            raise SourceUnreadable(f"{path.name}: column {pair[0]!r} needs num_features in its metadata")
        layout = NodeTable(file="nodes", id="id", sparse_features=pair, num_features=int(declared[:9]))
        blocks += list(_TABLES["parquet"].feature_blocks(path, layout)[1]())
    widths = {block.shape[1] for block in blocks}
    if len(widths) > 1:
        refuse_width(name, [0], [max(widths)], min(widths))
    return sp.csr_matrix(sp.vstack(blocks).astype(np.float32))


def _lists(table: TableFiles, column: str) -> np.ndarray:
    blocks: list[np.ndarray] = []
    for path in table.paths:
        layout = NodeTable(file="nodes", id="id", features=(column,))
        blocks += [np.asarray(block) for block in _TABLES["parquet"].feature_blocks(path, layout)[1]()]
    return _stacked(blocks, column)


def _text_vectors(table: TableFiles, column: str) -> np.ndarray:
    """A column of numbers, or of vectors as ``"0.1,0.2"``."""
    rows: list[np.ndarray] = []
    for path in table.paths:
        for batch in csv_batches(path, {column: pa.string()}):
            for text in batch.column(0).to_pylist():
                rows.append(_numbers(text, f"{path.name}, row {len(rows) + 1}, column {column!r}"))
    width = len(rows[0]) if rows else 0
    wrong = [row for row, values in enumerate(rows) if len(values) != width]
    if wrong:
        refuse_width(column, wrong, [len(rows[row]) for row in wrong], width)
    return np.stack(rows) if rows else np.empty((0, width), np.float32)


def _numbers(text: str | None, where: str) -> np.ndarray:
    if text is None:
        return np.full(1, np.nan, np.float32)
    try:
        return np.array(text.strip("[] ").split(","), np.float32)
    except ValueError as error:
        raise SourceUnreadable(f"{where}: expected numbers: {printable(error)}") from error


def _stacked(blocks: list[np.ndarray], column: str) -> np.ndarray:
    widths = [block.shape[1] for block in blocks]
    if len(set(widths)) > 1:
        wrong = [number for number, width in enumerate(widths) if width != widths[0]]
        refuse_width(column, wrong, [widths[number] for number in wrong], widths[0])
    return np.concatenate(blocks) if blocks else np.empty((0, 0), np.float32)
