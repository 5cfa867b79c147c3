"""S2: small files that would unpack to large ones are refused before the memory is spent."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gcl.errors import SourceUnreadable, UnsafeSource
from gcl.readers import parquet_footer, safe_archive
from gcl.readers.safe_archive import ArraySpec, read_npz
from tests.fuzz.formats import read_source
from tests.sources import npy, npy_header, own_parquet

LIMIT_BYTES = 1 << 30
REPOSITORY = Path(__file__).resolve().parents[2]


def test_archive_in_an_archive_is_not_opened(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy(np.zeros(1000)))
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", inner.getvalue())
    with pytest.raises(SourceUnreadable, match="not an npy array"):
        read_npz(tmp_path / "x.npz", {"a": ArraySpec(1)})


def test_sizes_beyond_the_total_are_refused_by_the_directory_alone(tmp_path: Path) -> None:
    """Ten gigabytes claimed in ten megabytes: refused for its sum, with members each below the ratio."""
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for k in range(40):
            archive.writestr(f"m{k}.npy", bytes(260_000))
    content = bytearray(path.read_bytes())
    at = 0
    while (at := content.find(b"PK\x01\x02", at)) >= 0:
        content[at + 20 : at + 28] = (2_600_000).to_bytes(4, "little") + (260_000_000).to_bytes(4, "little")
        at += 4
    path.write_bytes(content)
    with pytest.raises(UnsafeSource, match="unpacks to 10400000000 bytes"):
        read_npz(path, {"m0": ArraySpec(1)})


def test_members_that_share_their_bytes_gain_nothing(tmp_path: Path) -> None:
    """Overlapping members make the densest zip bombs; each counts with its full size."""
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m0.npy", npy_header("|u1", "(1000000,)") + bytes(1_000_000))
        for k in range(1, 6):
            archive.writestr(f"m{k}.npy", b"")
        first = archive.getinfo("m0.npy")
        for info in archive.infolist()[1:]:
            info.header_offset, info.CRC = first.header_offset, first.CRC
            info.compress_size, info.file_size = first.compress_size, first.file_size
    with pytest.raises(UnsafeSource, match="unpacks to 60"):
        read_npz(path, {"m0": ArraySpec(1)}, max_bytes=3_000_000)
    with pytest.raises(SourceUnreadable):
        read_npz(path, {"m3": ArraySpec(1)})


def test_more_data_than_declared_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit holds for the bytes that come out, not for what the directory says of them."""
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy_header("|u1", "(100,)") + bytes(5_000_000))
        archive.getinfo("a.npy").file_size = len(npy_header("|u1", "(100,)")) + 100
    taken = []
    monkeypatch.setattr(safe_archive, "_read_exactly", _counting(safe_archive._read_exactly, taken))
    with pytest.raises(SourceUnreadable):
        read_npz(path, {"a": ArraySpec(1)})
    assert sum(taken) <= 100


def _counting(read, taken):  # type: ignore[no-untyped-def]
    def counted(file, num_bytes, what):  # type: ignore[no-untyped-def]
        data = read(file, num_bytes, what)
        taken.append(len(data))
        return data

    return counted


def write_constant(path: Path, columns: list[str], num_rows: int) -> None:
    """A Parquet file of equal numbers, which it stores as one number and a count."""
    block = pa.table({name: pa.repeat(pa.scalar(0, pa.int64()), 1 << 20) for name in columns})
    with pq.ParquetWriter(path, block.schema, compression="zstd") as writer:
        for _ in range(num_rows >> 20):
            writer.write_table(block, row_group_size=1 << 20)


def test_parquet_with_more_rows_than_its_bytes_can_mean_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_footer, "FREE_VALUES", 1 << 20)
    overrides = own_parquet(tmp_path)
    write_constant(tmp_path / "edges.parquet", ["source", "target"], 1 << 22)
    with pytest.raises(UnsafeSource, match=r"edges\.parquet: .*4194304 values"):
        read_source(overrides)
    assert (tmp_path / "edges.parquet").stat().st_size < 100_000


def test_one_row_of_many_values_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The width of a column of lists multiplies its rows."""
    monkeypatch.setattr(parquet_footer, "FREE_VALUES", 1 << 20)
    wide = pa.ListArray.from_arrays(
        pa.array([0, 1 << 21, 1 << 21, 1 << 21], pa.int32()), pa.repeat(pa.scalar(0.0, pa.float32()), 1 << 21)
    )
    overrides = own_parquet(tmp_path, x=wide)
    with pytest.raises(UnsafeSource, match=r"nodes\.parquet: .*values"):
        read_source(overrides)


@pytest.mark.slow
def test_parquet_bomb_does_not_take_the_memory(tmp_path: Path) -> None:
    """Two gigabytes of ids in two megabytes, in a process that may hold one."""
    overrides = own_parquet(tmp_path)
    write_constant(tmp_path / "nodes.parquet", ["id"], 1 << 28)
    assert (tmp_path / "nodes.parquet").stat().st_size < 3 << 20
    code = (
        "import resource, sys\n"
        "from gcl.errors import UnsafeSource\n"
        "from tests.fuzz.formats import read_source\n"
        f"resource.setrlimit(resource.RLIMIT_DATA, ({LIMIT_BYTES}, {LIMIT_BYTES}))\n"
        "try:\n"
        f"    read_source({overrides!r})\n"
        "except UnsafeSource:\n"
        "    sys.exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 7, done.stderr[-2000:]
