"""Large arrays lie in files without a name, small ones in memory; both are plain arrays."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gcl.workspace import MEMORY, Workspace, row_slices

PROGRAM = """
import sys
from pathlib import Path
from gcl.workspace import Workspace
array = Workspace(Path(sys.argv[1])).empty((300, 1 << 20))
for row in array:
    row[:] = 1
lines = Path("/proc/self/status").read_text().splitlines()
print([int(line.split()[1]) for line in lines if line.startswith("RssAnon")][0])
"""


def test_a_large_array_is_a_file_and_a_small_one_is_not(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, in_memory_bytes=1000)
    small, large = workspace.empty((10, 10)), workspace.empty((26, 10))
    assert not isinstance(small.base, np.memmap)
    assert isinstance(large.base, np.memmap)
    assert type(large) is np.ndarray
    large[:] = np.arange(10)
    assert (large.sum(1) == 45).all()
    assert large.flags.c_contiguous and large.flags.writeable and large.dtype == np.float32
    assert list(tmp_path.iterdir()) == [], "nothing to clean up after a kill"


def test_a_workspace_without_a_folder_is_memory() -> None:
    assert not isinstance(MEMORY.empty((1 << 10, 1 << 10), np.int64).base, np.memmap)


def test_the_file_goes_with_its_array(tmp_path: Path) -> None:
    def open_files() -> int:
        return sum(str(tmp_path) in line for line in Path("/proc/self/maps").read_text().splitlines())

    array = Workspace(tmp_path, in_memory_bytes=0).empty((1000,))
    part = array[10:20]
    del array
    gc.collect()
    assert open_files() == 1, "a part keeps the whole"
    del part
    gc.collect()
    assert open_files() == 0


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_an_empty_array_is_one(tmp_path: Path, shape: tuple[int, ...]) -> None:
    assert Workspace(tmp_path, in_memory_bytes=0).empty(shape).shape == shape


def test_a_full_disk_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        Workspace(tmp_path, in_memory_bytes=0).empty((10,))


def test_its_pages_are_not_memory_of_the_process(tmp_path: Path) -> None:
    """1.2 GB are written; what the process holds is the interpreter and numpy."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 < 150e6


@pytest.mark.parametrize(("rows", "row_bytes", "block"), [(0, 4, 8), (10, 4, 8), (10, 100, 8), (7, 0, 8)])
def test_row_slices_cover_all_rows_in_order(rows: int, row_bytes: int, block: int) -> None:
    found = list(row_slices(rows, row_bytes, block_bytes=block))
    assert [row for part in found for row in range(part.start, part.stop)] == list(range(rows))
    assert all((part.stop - part.start) * row_bytes <= max(block, row_bytes) for part in found)
