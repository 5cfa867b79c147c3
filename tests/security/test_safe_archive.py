"""S1, S2, S4: npz and npy files of strangers; nothing is extracted, unpickled, or allocated on trust."""

import contextlib
import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gcl.errors import SourceUnreadable, UnsafeSource
from gcl.readers import safe_archive
from gcl.readers.safe_archive import ArraySpec, read_npy, read_npz
from tests.malformed import MALFORMED
from tests.sources import benchmark, benchmark_arrays, npy, npy_header

SPEC = ArraySpec(1)


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.dtype(t) for t in ("<f4", ">f8", "<i8", ">u2", "|b1", "|i1")]),
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=0),
    ),
    st.booleans(),
)
def test_plain_arrays_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, fortran: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "plain"
    array = np.asfortranarray(array) if fortran else array
    path.write_bytes(npy(array))
    assert_same(read_npy(path, ArraySpec(array.ndim)), array)
    zipped(path, a=npy(array))
    assert_same(read_npz(path, {"a": ArraySpec(array.ndim)})["a"], array)


def assert_same(read: np.ndarray, array: np.ndarray) -> None:
    assert read.dtype == array.dtype.newbyteorder("=")
    assert read.shape == array.shape
    assert np.array_equal(read, array, equal_nan=read.dtype.kind == "f")


@pytest.mark.parametrize(
    "dtype",
    ["<c16", "<M8[s]", "<m8[s]", "|S4", "|V8", "<U3"],
    ids=["complex", "date", "delta", "bytes", "void", "text"],
)
def test_type_that_is_not_asked_for_is_refused(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy(np.zeros(2, dtype)))
    with pytest.raises(SourceUnreadable, match="not allowed"):
        read_npy(path, SPEC)


@pytest.mark.parametrize("dtype", [object, [("a", object)]], ids=["object", "record_of_objects"])
def test_object_array_is_refused_unopened(dtype: object, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy(np.zeros(2, dtype)))
    with pytest.raises(UnsafeSource, match="pickles are not loaded"):
        read_npy(path, SPEC)


@pytest.mark.parametrize(
    "shape", [f"({2**60},)", f"({2**31}, {2**31})", f"({2**62}, 4)", "(-1,)", "(True,)", "(1.5,)"]
)
def test_header_alone_allocates_nothing(shape: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy_header("<f8", shape))
    tracemalloc.start()
    with pytest.raises(SourceUnreadable):
        read_npy(path, ArraySpec(2 if ", " in shape else 1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_long_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy_header("<f8", "(" + " " * 50_000 + "1,)") + b"\0" * 8)
    with pytest.raises(SourceUnreadable, match="not an npy"):
        read_npy(path, SPEC)


def test_unwanted_members_are_never_opened(tmp_path: Path) -> None:
    """The benchmark's own files hold pickled names beside the arrays; they stay where they are."""
    path = zipped(tmp_path / "a.npz", a=npy(np.arange(3)), names=npy(np.array([{}], object)))
    assert list(read_npz(path, {"a": SPEC})) == ["a"]


def test_optional_array_may_be_absent_and_required_may_not(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", a=npy(np.arange(3)))
    assert list(read_npz(path, {"a": SPEC, "b": ArraySpec(1, required=False)})) == ["a"]
    with pytest.raises(SourceUnreadable, match="no array named b"):
        read_npz(path, {"b": SPEC})


def test_limits_on_members_and_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "a.npz", **{f"m{i}": npy(np.arange(3)) for i in range(5)})
    with pytest.raises(UnsafeSource, match="unpacks to .* limit of 100"):
        read_npz(path, {"m0": SPEC}, max_bytes=100)
    monkeypatch.setattr(safe_archive, "MAX_MEMBERS", 4)
    with pytest.raises(UnsafeSource, match="5 members"):
        read_npz(path, {"m0": SPEC})


def test_bomb_is_refused_by_its_ratio_before_it_unpacks(tmp_path: Path) -> None:
    overrides = MALFORMED["npz_bomb"].build(tmp_path)
    tracemalloc.start()
    with pytest.raises(UnsafeSource, match="claims to unpack"):
        read_npz(Path(overrides["path"]), {"labels": SPEC})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("claim", [10, 10_000_000])
def test_lying_size_is_refused(claim: int, tmp_path: Path) -> None:
    """The size in the central directory is the limit of what is unpacked, and must be the true one."""
    path = zipped(tmp_path / "a.npz", a=npy(np.arange(1000)))
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = claim.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(SourceUnreadable):
        read_npz(path, {"a": SPEC})


@pytest.mark.parametrize(
    "name", ["../a.npy", "/a.npy", "a/b.npy", "a.txt", "a\\b.npy", "a.npy/", "..npy", "link.npy\n"]
)
def test_member_with_a_strange_name_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, npy(np.arange(3)))
    with pytest.raises(UnsafeSource, match="not the name of an array"):
        read_npz(path, {"a": ArraySpec(1, required=False)})


def test_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", a=npy(np.arange(3)))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(SourceUnreadable):
        read_npz(path, {"a": SPEC})


def test_flipped_byte_of_the_data_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(50))
    clean = path.read_bytes()
    start = clean.index(b"\x93NUMPY") + 128
    for at in range(start, start + 400, 7):
        content = bytearray(clean)
        content[at] ^= 4
        path.write_bytes(content)
        with pytest.raises(SourceUnreadable):
            read_npz(path, {"a": SPEC})


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    clean = zipped(tmp_path / "a.npz", a=npy(np.arange(20))).read_bytes()
    for end in range(len(clean)):
        (tmp_path / "b.npz").write_bytes(clean[:end])
        with pytest.raises(SourceUnreadable):
            read_npz(tmp_path / "b.npz", {"a": SPEC})


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mutated_archive_is_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = Path(benchmark(folder)["path"])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(SourceUnreadable):
        read_npz(path, {name: ArraySpec(1) for name in benchmark_arrays()})


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120))
def test_any_npy_is_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.npy"
    buffer = io.BytesIO(b"\x93NUMPY\x01\x00" + content)
    path.write_bytes(buffer.getvalue())
    with contextlib.suppress(SourceUnreadable):
        read_npy(path, SPEC)
