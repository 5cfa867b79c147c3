"""CSR matrices from the three arrays that files hold, checked before scipy trusts them."""

import numpy as np
import scipy.sparse as sp

from gcl.errors import SourceUnreadable

# The width is the one number of a sparse matrix that no bytes stand for.
MAX_COLUMNS = 1 << 24


def check_indptr(indptr: np.ndarray, *, num_rows: int, num_values: int, what: str) -> None:
    """Refuse row pointers that do not ascend from 0 to the number of values."""
    if indptr.dtype.kind not in "iu" or indptr.ndim != 1 or len(indptr) != num_rows + 1:
        raise SourceUnreadable(f"{what}: {num_rows} rows need {num_rows + 1} integer row pointers")
    if indptr[0] != 0 or indptr[-1] != num_values or (indptr[1:] < indptr[:-1]).any():
        raise SourceUnreadable(f"{what}: row pointers do not ascend from 0 to the {num_values} values")


def csr_from_parts(
    data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, *, shape: tuple[int, int], what: str
) -> sp.csr_matrix:
    """A float32 CSR matrix with sorted columns; repeats of a column add up.

    Raises:
        SourceUnreadable: there are more than `MAX_COLUMNS` columns, lengths disagree, row pointers do not
            ascend, or a column lies outside the shape.
    """
    num_rows, num_columns = shape
    if num_rows < 0 or num_columns < 0:
        raise SourceUnreadable(f"{what}: negative size in shape {shape}")
    if num_columns > MAX_COLUMNS:
        raise SourceUnreadable(f"{what}: more than {MAX_COLUMNS} columns")
    if data.ndim != 1 or data.dtype.kind not in "biuf" or data.shape != indices.shape:
        raise SourceUnreadable(f"{what}: {data.shape} values, but {indices.shape} column indices")
    check_indptr(indptr, num_rows=num_rows, num_values=len(data), what=what)
    if indices.dtype.kind not in "iu":
        raise SourceUnreadable(f"{what}: column indices are not integers")
    wrong = np.flatnonzero((indices < 0) | (indices >= num_columns))
    if len(wrong):
        raise SourceUnreadable(
            f"{what}: column index {indices[wrong[0]]} at position {wrong[0]}, but {num_columns} columns"
        )
    with np.errstate(over="ignore"):
        values = data.astype(np.float32)
    matrix = sp.csr_matrix((values, indices.astype(np.int64), indptr.astype(np.int64)), shape=shape)
    matrix.sum_duplicates()
    return matrix
