"""A matrix of a file, read in blocks."""

from pathlib import Path

import numpy as np
import pytest

import tasks.convert
from gcl.row_blocks import take_rows
from tasks.convert import write_matrix
from tasks.parquet_rows import ParquetRows


def test_its_rows_are_those_of_the_file_and_are_read_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.convert, "_ROW_GROUP_BYTES", 200)  # 12 rows
    z_ND = np.random.default_rng(0).normal(size=(101, 4)).astype("f")
    path = tmp_path / "features.parquet"
    write_matrix(path, "smoothed.features", z_ND, others={"node": np.arange(101)})
    rows = ParquetRows(path, "x")
    assert rows.shape == (101, 4)
    assert [len(block) for block in rows.blocks()] == [12] * 8 + [5]
    assert np.concatenate(list(rows.blocks())).tobytes() == z_ND.tobytes()
    chosen = np.array([0, 11, 12, 50, 100])
    assert take_rows(rows, chosen).tobytes() == z_ND[chosen].tobytes()
