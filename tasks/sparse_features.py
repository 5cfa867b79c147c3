"""Reading sparse features: as a stream of blocks, or whole as one CSR matrix.

Shape legend: N nodes, F features, B rows of a block, S stored values.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import scipy.sparse as sp

from gcl.workspace import BLOCK_BYTES, MEMORY, Workspace

_VALUE_BYTES = 8  # an int32 column and a float32 value


def sparse_shape(path: Path) -> tuple[int, int]:
    """N and F of a sparse features table, from its footer."""
    footer = pq.read_metadata(path)
    return int(footer.num_rows), int(json.loads((footer.metadata or {})[b"num_features"]))


def sparse_blocks(path: Path) -> Iterator[sp.csr_matrix]:
    """The rows as float32 CSR blocks, in order; as high as 32 MiB hold rows of mean length."""
    file, (num_rows, width) = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20), sparse_shape(path)
    height = BLOCK_BYTES * num_rows // (_VALUE_BYTES * (_most_values(path) + num_rows) + 1)
    for batch in file.iter_batches(batch_size=max(1, min(height, num_rows)), columns=["indices", "values"]):
        indices, values = batch.column(0), batch.column(1)
        offset_B = indices.offsets.to_numpy()
        stored = (values.flatten().to_numpy(), indices.flatten().to_numpy(), offset_B - offset_B[0])
        yield sp.csr_matrix(stored, shape=(batch.num_rows, width), dtype=np.float32)


def read_sparse(path: Path, workspace: Workspace = MEMORY) -> sp.csr_matrix:
    """All rows as one float32 CSR matrix.

    Args:
        path: the file.
        workspace: where columns and values are put, 8 bytes a stored value.
    """
    shape, room = sparse_shape(path), _most_values(path)
    index_S, value_S = workspace.empty((room,), np.int32), workspace.empty((room,))
    indptr, start, filled = np.zeros(shape[0] + 1, np.int64), 0, 0
    for x_BF in sparse_blocks(path):
        part = slice(filled, filled + x_BF.nnz)
        index_S[part], value_S[part] = x_BF.indices, x_BF.data
        stop = start + x_BF.shape[0]
        indptr[start + 1 : stop + 1] = x_BF.indptr[1:] + np.int64(filled)
        start, filled = stop, part.stop
    # scipy wants one type for both, and copies what is of the other.
    indptr = indptr.astype(np.int32) if filled < 2**31 else indptr
    return sp.csr_matrix((value_S[:filled], index_S[:filled], indptr), shape=shape)


def _most_values(path: Path) -> int:
    """Stored values, from the footer; a row without any counts as one."""
    footer = pq.read_metadata(path)
    groups = (footer.row_group(group) for group in range(footer.num_row_groups))
    columns = (group.column(column) for group in groups for column in range(group.num_columns))
    return sum(column.num_values for column in columns if column.path_in_schema.startswith("values."))
