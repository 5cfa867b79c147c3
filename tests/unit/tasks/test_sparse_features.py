"""Sparse features are read block by block, and whole in eight bytes a stored value."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

from data_contracts.tables import TABLES
from gcl.workspace import Workspace
from tasks import sparse_features
from tasks.convert import read_feature_rows, sparse_lists, write_batches
from tasks.sparse_features import read_sparse, sparse_blocks, sparse_shape
from tests.programs import reported


def written(path: Path, x_NF: sp.csr_matrix, *, height: int) -> Path:
    """A sparse features table with row groups of so many rows."""
    metadata = {"num_features": str(x_NF.shape[1])}
    schema = TABLES["graph.features"].schema(layout="sparse", width=x_NF.shape[1], metadata=metadata)
    blocks = (x_NF[start : start + height] for start in range(0, x_NF.shape[0], height))
    write_batches(path, schema, (pa.record_batch(list(sparse_lists(x)), schema=schema) for x in blocks))
    return path


def random_rows(num_rows: int, width: int = 30) -> sp.csr_matrix:
    found = sp.random(num_rows, width, 0.1, "csr", np.float32, random_state=3)
    return sp.csr_matrix(sp.vstack([found, sp.csr_matrix((5, width), dtype=np.float32)], format="csr"))


@pytest.mark.parametrize(("height", "block_bytes"), [(1000, 1 << 20), (7, 300), (100, 300)])
def test_blocks_are_the_rows_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, height: int, block_bytes: int
) -> None:
    monkeypatch.setattr(sparse_features, "BLOCK_BYTES", block_bytes)
    x_NF = random_rows(200)
    path = written(tmp_path / "features.parquet", x_NF, height=height)
    found = list(sparse_blocks(path))
    assert (len(found) > 10) == (block_bytes == 300)
    assert (sp.vstack(found) != x_NF).nnz == 0
    assert sparse_shape(path) == x_NF.shape
    assert {x_BF.dtype for x_BF in found} == {np.dtype(np.float32)}


def test_features_are_streamed_and_may_be_passed_over_again(tmp_path: Path) -> None:
    x_NF = random_rows(50)
    written(tmp_path / "features.parquet", x_NF, height=20)
    rows = read_feature_rows(tmp_path)
    assert rows is not None
    assert rows.shape == x_NF.shape
    for _ in range(2):
        assert (rows.whole() != x_NF).nnz == 0


@pytest.mark.parametrize("num_rows", [0, 40])
def test_a_whole_matrix_has_small_indices_and_may_lie_in_a_file(tmp_path: Path, num_rows: int) -> None:
    x_NF = random_rows(num_rows)
    path = written(tmp_path / "features.parquet", x_NF, height=16)
    for workspace in (Workspace(), Workspace(tmp_path, in_memory_bytes=0)):
        found = read_sparse(path, workspace)
        assert (found != x_NF).nnz == 0
        assert (found.indices.dtype, found.indptr.dtype) == (np.int32, np.int32)


PROGRAM = """
import json, sys
from pathlib import Path
from gcl.workspace import Workspace
from tasks.convert import read_feature_rows
from tasks.memory import PeakMemory, anonymous_bytes
from tasks.sparse_features import read_sparse

folder = Path(sys.argv[1])
next(read_feature_rows(folder).blocks())  # what the library keeps once it has read
before = anonymous_bytes()
with PeakMemory() as streamed:
    count = sum(x_BF.nnz for x_BF in read_feature_rows(folder).blocks())
with PeakMemory() as mapped:
    whole = read_sparse(folder / "features.parquet", Workspace(folder, in_memory_bytes=0))
peaks = [peak.num_bytes - before for peak in (streamed, mapped)]
print(json.dumps({"count": count, "peaks": peaks, "held": anonymous_bytes() - before}))
"""


def test_a_stream_holds_a_block_of_many(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    column_S = np.sort(generator.integers(0, 5000, (150_000, 100)), axis=1).ravel()
    pointers = np.arange(0, column_S.size + 1, 100)
    x_NF = sp.csr_matrix((np.ones(column_S.size, np.float32), column_S, pointers), shape=(150_000, 5000))
    written(tmp_path / "features.parquet", x_NF, height=10_000)
    found = reported(PROGRAM, tmp_path)
    assert found["count"] == column_S.size
    assert max(found["peaks"]) < 8 * column_S.size, "what all of it would take, were none of it in a file"
