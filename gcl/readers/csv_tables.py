"""CSV files of strangers, streamed: declared types only, UTF-8 only, errors with the row they stand in."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from gcl.errors import SourceUnreadable
from gcl.readers.printable import printable

MAX_ROW_BYTES = 16 << 20
_SCAN_BYTES = 1 << 22


def csv_columns(path: Path) -> list[str]:
    """The column names of the header; repeated names are refused."""
    try:
        with path.open("rb") as file:
            line = file.readline(MAX_ROW_BYTES)
        options = pa_csv.ReadOptions(use_threads=False)
        header = io.BytesIO(line.rstrip(b"\r\n") + b"\n")
        names: list[str] = pa_csv.read_csv(header, read_options=options).column_names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceUnreadable(f"{path.name}, line 1: not a CSV header: {_first_line(error)}") from error
    if len(set(names)) < len(names):
        raise SourceUnreadable(f"{path.name}, line 1: a column name occurs twice")
    return names


def csv_batches(path: Path, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    """The columns in `types`, batch by batch, in that order; an empty field is null, nothing else is.

    Rows are counted as in the file, the header is row 1; without line breaks inside quotes that is the line.

    Raises:
        SourceUnreadable: a missing column, a row with too many or too few fields, a value that is not of its
            type, bytes that are not UTF-8 text, or a row beyond `MAX_ROW_BYTES`.
    """
    present = csv_columns(path)
    missing = [name for name in types if name not in present]
    if missing:
        raise SourceUnreadable(f"{path.name}, line 1: no column named {', '.join(map(repr, missing))}")
    _check_text(path)
    convert = pa_csv.ConvertOptions(
        column_types=dict(types),
        include_columns=list(types),
        null_values=[""],
        strings_can_be_null=True,
        true_values=[],
        false_values=[],
    )
    parse = pa_csv.ParseOptions(newlines_in_values=True)
    read = pa_csv.ReadOptions(use_threads=False, block_size=MAX_ROW_BYTES)
    try:
        with pa_csv.open_csv(
            path, read_options=read, parse_options=parse, convert_options=convert
        ) as batches:
            is_empty = True
            for batch in batches:
                is_empty = False
                yield batch
            if is_empty:  # a header alone gives one empty batch, or none
                columns = [pa.nulls(0, type_) for type_ in types.values()]
                yield pa.RecordBatch.from_arrays(columns, names=list(types))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceUnreadable(f"{path.name}: {_first_line(error)}") from error


def _check_text(path: Path) -> None:
    """Refuse what parsers disagree about: NUL bytes, bare carriage returns as line ends, an open quote."""
    offset = num_quotes = num_lines = 0
    with path.open("rb") as file:
        while block := file.read(_SCAN_BYTES):
            if (at := block.find(b"\0")) >= 0:
                line = num_lines + block.count(b"\n", 0, at) + 1
                raise SourceUnreadable(f"{path.name}, line {line}: a NUL byte at offset {offset + at}")
            num_quotes += block.count(b'"')
            num_lines += block.count(b"\n")
            offset += len(block)
    if num_quotes % 2:
        raise SourceUnreadable(f"{path.name}: a quoted field is not closed before the end of the file")


def _first_line(error: BaseException) -> str:
    return printable(str(error).split("\n", 1)[0])
