"""Rows taken out of matrices that are read in blocks: the same for any block, all of them checked."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

import gcl.row_blocks
from gcl.row_blocks import ArrayBlocks, row_blocks, take_rows, whole_matrix
from gcl.workspace import Workspace, row_slices

Z_ND = np.random.default_rng(0).normal(size=(50, 3)).astype("f")


@pytest.fixture(params=[1, 12, 100, 10_000])
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(gcl.row_blocks, "row_slices", partial(row_slices, block_bytes=request.param))
    return int(request.param)


@pytest.mark.parametrize("rows", [[], [0], [49], [3, 4, 20, 49], list(range(50))])
def test_rows_are_those_of_the_matrix(block_bytes: int, rows: list[int], tmp_path: Path) -> None:
    rows_R = np.array(rows, np.int64)
    for matrix in (Z_ND, ArrayBlocks(Z_ND), Z_ND.astype("d"), np.asfortranarray(Z_ND)):
        taken_RD = take_rows(matrix, rows_R, Workspace(tmp_path, in_memory_bytes=0))
        assert taken_RD.dtype == np.float32 and taken_RD.flags.c_contiguous
        np.testing.assert_array_equal(taken_RD, Z_ND[rows_R])


def test_all_rows_of_an_array_are_not_copied() -> None:
    assert take_rows(Z_ND, np.arange(50)) is Z_ND


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_every_row_is_checked_also_those_not_taken(block_bytes: int, bad: float) -> None:
    z_ND = Z_ND.copy()
    z_ND[[7, 40], 1] = bad
    with pytest.raises(ValueError, match=r"^2 embedding row"):
        take_rows(z_ND, np.array([0, 1]))


@pytest.mark.parametrize("shape", [(5,), (0, 3), (3, 0), (2, 2, 2)])
def test_what_is_no_matrix_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="non-empty"):
        row_blocks(np.zeros(shape, np.float32))


def test_the_whole_is_put_together_again(block_bytes: int) -> None:
    assert whole_matrix(Z_ND) is Z_ND
    np.testing.assert_array_equal(whole_matrix(ArrayBlocks(Z_ND)), Z_ND)
