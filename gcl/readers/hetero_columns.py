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
_NUMBER = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:nan|inf|infinity))$"
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
        if not parts.parts:
            continue  # the folder itself, which is no file
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
    if table.format == "csv":
        return _texts(
            table, [one for name in wanted for one in expand_columns(name, present, what=table.where)]
        )
    blocks: list[Any] = []
    for name in wanted:
        if name not in present and f"{name}_indices" in present:
            blocks.append(_sparse(table, name))
            continue
        columns = expand_columns((name,), present, what=table.where)
        blocks += [_lists(table, column) for column in columns]
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


@dataclass(frozen=True, eq=False)
class _Vectors:
    """Vectors of numbers, end to end, and the width of each; -1 where there is none."""

    values: np.ndarray
    widths: np.ndarray


def _texts(table: TableFiles, columns: Sequence[str]) -> np.ndarray:
    """Columns of numbers, or of vectors as ``"0.1,0.2"``, side by side; each file is read once, or twice."""
    parts: dict[str, list[_Vectors]] = {column: [] for column in columns}
    for path in table.paths:
        try:
            found = [_plain(batch) for batch in csv_batches(path, dict.fromkeys(parts, pa.float64()))]
        except SourceUnreadable:  # some of them are no plain numbers
            found, first_row = [], 1
            for batch in csv_batches(path, dict.fromkeys(parts, pa.string())):
                found.append([_vectors(batch, column, path.name, first_row) for column in parts])
                first_row += batch.num_rows
        for vectors in found:
            for column, part in zip(parts, vectors, strict=True):
                parts[column].append(part)
    blocks = {column: _one_width(found, column) for column, found in parts.items()}
    return blocks[columns[0]] if len(columns) == 1 else np.hstack([blocks[column] for column in columns])


def _plain(batch: pa.RecordBatch) -> list[_Vectors]:
    widths = [np.where(column.is_null().to_numpy(zero_copy_only=False), -1, 1) for column in batch.columns]
    values = [float_column(column.drop_null(), what="") for column in batch.columns]
    return [_Vectors(*pair) for pair in zip(values, widths, strict=True)]


def _vectors(batch: pa.RecordBatch, column: str, what: str, first_row: int) -> _Vectors:
    texts: ArrowArray = batch.column(column)
    lists = pc.split_pattern(pc.utf8_trim(texts, "[] "), ",")
    widths = pc.list_value_length(lists).fill_null(-1).to_numpy(zero_copy_only=False)
    numbers: ArrowArray = pc.utf8_trim_whitespace(lists.flatten())
    strange = np.flatnonzero(~pc.match_substring_regex(numbers, _NUMBER).to_numpy(zero_copy_only=False))
    if len(strange):
        row = int(np.repeat(np.arange(len(widths)), np.maximum(widths, 0))[strange[0]])
        raise SourceUnreadable(
            f"{what}, row {first_row + row}, column {column!r}: expected numbers: "
            f"{printable(texts[row], max_length=80)}"
        )
    numbers = pc.replace_substring_regex(numbers, r"^\+", "")
    return _Vectors(float_column(numbers.cast(pa.float64()), what=what), widths)


def _one_width(parts: Sequence[_Vectors], column: str) -> np.ndarray:
    """float32 [N, F]; NaN where there is no vector."""
    widths = np.concatenate([part.widths for part in parts]) if parts else np.empty(0, np.int64)
    is_there = widths >= 0
    width = int(widths[is_there][0]) if is_there.any() else int(len(widths) > 0)
    wrong = np.flatnonzero(is_there & (widths != width))
    if len(wrong):
        refuse_width(column, wrong.tolist(), widths[wrong].tolist(), width)
    x_NF = np.full((len(widths), width), np.nan, np.float32)
    if width:
        x_NF[is_there] = np.concatenate([part.values for part in parts]).reshape(-1, width)
    return x_NF


def _stacked(blocks: list[np.ndarray], column: str) -> np.ndarray:
    widths = [block.shape[1] for block in blocks]
    if len(set(widths)) > 1:
        wrong = [number for number, width in enumerate(widths) if width != widths[0]]
        refuse_width(column, wrong, [widths[number] for number in wrong], widths[0])
    return np.concatenate(blocks) if blocks else np.empty((0, 0), np.float32)
