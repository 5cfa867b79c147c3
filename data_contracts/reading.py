"""Reads Parquet in batches of bounded memory; a damaged file becomes TableUnreadable and nothing else."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.errors import TableUnreadable

# About 1 MB of float32: large enough for vectorised work, small enough to stay in the cache.
_LEAVES_PER_BATCH = 1 << 18
_MIN_ROWS_PER_BATCH = 64
_MAX_ROWS_PER_BATCH = 1 << 17


@contextmanager
def reading(path: Path, table: str) -> Iterator[None]:
    """Turn whatever pyarrow raises on a damaged file into TableUnreadable."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise TableUnreadable(table, str(path), f"{type(error).__name__}: {error}") from error


def read_schema(path: Path, table: str) -> pa.Schema:
    """The Arrow schema of the file, with its metadata."""
    with reading(path, table), pq.ParquetFile(path, pre_buffer=False) as file:
        schema = file.schema_arrow
        # Names are decoded when they are asked for; a damaged one must fail here and not later.
        for field in schema:
            field.name.encode()
        return schema


def count_rows(path: Path, table: str) -> int:
    """The number of rows the footer declares."""
    with reading(path, table), pq.ParquetFile(path, pre_buffer=False) as file:
        return int(file.metadata.num_rows)


def read_batches(path: Path, table: str, *, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Stream the file once, some megabytes at a time.

    Without pre-buffering and with a read buffer of 1 MiB: pyarrow's defaults hold whole row groups.
    Page checksums are verified where the writer left any, and every batch is fully validated (offsets,
    UTF-8), since a damaged page may decode into arrays that only look sound.

    Raises:
        TableUnreadable: the file cannot be opened or a batch cannot be decoded.
    """
    with reading(path, table):
        # The file object is ours, so that it is closed even when the footer cannot be parsed.
        source = path.open("rb")
    with source:
        with reading(path, table):
            file = pq.ParquetFile(
                source, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True
            )
            size = _batch_rows(file.metadata, columns)
            batches = file.iter_batches(batch_size=size, columns=list(columns), use_threads=False)
        while True:
            with reading(path, table):
                batch = next(batches, None)
                if batch is not None:
                    batch.validate(full=True)
            if batch is None:
                return
            if batch.num_rows:
                yield batch


def _batch_rows(metadata: pq.FileMetaData, columns: Sequence[str]) -> int:
    """How many rows make about a megabyte, by the footer's count of values in the widest row group."""
    leaves_per_row = 1
    for position in range(metadata.num_row_groups):
        group = metadata.row_group(position)
        chunks = (group.column(number) for number in range(group.num_columns))
        num_leaves = sum(
            chunk.num_values for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns
        )
        leaves_per_row = max(leaves_per_row, num_leaves // max(group.num_rows, 1))
    return max(_MIN_ROWS_PER_BATCH, min(_MAX_ROWS_PER_BATCH, _LEAVES_PER_BATCH // leaves_per_row))
