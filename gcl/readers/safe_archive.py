"""Arrays from npy and npz files of strangers: no pickles, nothing allocated on a header's word alone."""

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO, cast

import numpy as np

from gcl.errors import SourceUnreadable, UnsafeSource
from gcl.readers.printable import printable

MAX_MEMBERS = 64
MAX_TOTAL_BYTES = 8 << 30
# Deflate packs a run of zeros at most 1032 to 1, and sparse features stored dense come near it; only a
# member that is large as well is suspect.
MAX_RATIO = 200
RATIO_FREE_BYTES = 256 << 20
_MEMBER_NAME = re.compile(r"[A-Za-z0-9_]{1,64}\.npy\Z")
_MAX_HEADER_BYTES = 10_000
_BLOCK_BYTES = 1 << 20
_ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
)


@dataclass(frozen=True)
class ArraySpec:
    """What an array must be.

    Attributes:
        ndim: number of axes.
        kinds: numpy kinds allowed: b bool, i and u integers, f floats, U strings.
        required: whether its absence is an error.
    """

    ndim: int
    kinds: str = "biuf"
    required: bool = True


def read_npy(path: Path, spec: ArraySpec, *, max_bytes: int = MAX_TOTAL_BYTES) -> np.ndarray:
    """One array of an npy file.

    Raises:
        SourceUnreadable: not an npy file, cut short, or not as `spec` says.
        UnsafeSource: an object array, or larger than `max_bytes`.
    """
    what = path.name
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size > max_bytes:
                raise UnsafeSource(f"{what}: {size} bytes, more than the limit of {max_bytes}")
            return _read_array(file, what, spec, num_bytes=size)
    except OSError as error:
        raise SourceUnreadable(f"{what}: {error}") from error


def read_npz(
    path: Path, specs: Mapping[str, ArraySpec], *, max_bytes: int = MAX_TOTAL_BYTES
) -> dict[str, np.ndarray]:
    """The arrays named by `specs` of an npz file; other members are never opened.

    Raises:
        SourceUnreadable: not an npz file, cut short, a required array is missing or not as its spec says.
        UnsafeSource: object arrays, strange or repeated members, or sizes of a decompression bomb.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _checked_members(archive, path.name, max_bytes)
            missing = [name for name, spec in specs.items() if spec.required and name not in members]
            if missing:
                raise SourceUnreadable(f"{path.name}: no array named {', '.join(missing)}")
            return {
                name: _read_member(archive, members[name], f"{path.name}:{name}", spec)
                for name, spec in specs.items()
                if name in members
            }
    except _ARCHIVE_ERRORS as error:
        raise SourceUnreadable(f"{path.name}: not a readable npz file: {printable(error)}") from error


def _checked_members(archive: zipfile.ZipFile, what: str, max_bytes: int) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise UnsafeSource(f"{what}: {len(infos)} members, more than the limit of {MAX_MEMBERS}")
    for info in infos:
        if not _MEMBER_NAME.match(info.filename):
            raise UnsafeSource(f"{what}: member {info.filename[:80]!r} is not the name of an array")
        name = info.filename.removesuffix(".npy")
        if name in members:
            raise UnsafeSource(f"{what}: member {name!r} occurs twice")
        if info.file_size > RATIO_FREE_BYTES and info.file_size > MAX_RATIO * max(1, info.compress_size):
            raise UnsafeSource(
                f"{what}: member {name!r} claims to unpack {info.compress_size} bytes to {info.file_size}"
            )
        members[name] = info
    total = sum(info.file_size for info in infos)
    if total > max_bytes:
        raise UnsafeSource(f"{what}: unpacks to {total} bytes, more than the limit of {max_bytes}")
    return members


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, what: str, spec: ArraySpec) -> np.ndarray:
    # ZipExtFile gives at most the size that the directory declares, and checks the CRC at the end.
    with archive.open(info) as file:
        return _read_array(cast(BinaryIO, file), what, spec, num_bytes=info.file_size)


def _read_array(file: BinaryIO, what: str, spec: ArraySpec, *, num_bytes: int) -> np.ndarray:
    shape, is_fortran, dtype, header_bytes = _header(file, what)
    _check_dtype(dtype, spec, what)
    if len(shape) != spec.ndim:
        raise SourceUnreadable(f"{what}: expected {spec.ndim} axes, found shape {shape}")
    if any(size < 0 for size in shape):
        raise SourceUnreadable(f"{what}: negative size in shape {shape}")
    expected = math.prod(shape) * dtype.itemsize
    if header_bytes + expected != num_bytes:
        raise SourceUnreadable(
            f"{what}: shape {shape} of {dtype} needs {expected} bytes, but {num_bytes - header_bytes} follow"
        )
    data = _read_exactly(file, expected, what)
    array: np.ndarray = np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if is_fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _header(file: BinaryIO, what: str) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    header = np.lib.format
    try:
        version = header.read_magic(file)
        if version != (1, 0):  # later versions are for headers beyond 64 KiB, which only records need
            raise ValueError(f"version {version} of the format")
        shape, is_fortran, dtype = header.read_array_header_1_0(file, max_header_size=_MAX_HEADER_BYTES)
    except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        raise SourceUnreadable(f"{what}: not an npy array: {printable(error)}") from error
    return shape, is_fortran, dtype, file.tell()


def _check_dtype(dtype: np.dtype, spec: ArraySpec, what: str) -> None:
    if dtype.hasobject:
        raise UnsafeSource(f"{what}: an array of Python objects is a pickle, and pickles are not loaded")
    if dtype.kind not in spec.kinds or dtype.subdtype is not None or dtype.itemsize == 0:
        raise SourceUnreadable(f"{what}: values of type {dtype} are not allowed here")


def _read_exactly(file: BinaryIO, num_bytes: int, what: str) -> bytearray:
    data = bytearray()
    while len(data) < num_bytes:
        block = file.read(min(_BLOCK_BYTES, num_bytes - len(data)))
        if not block:
            raise SourceUnreadable(f"{what}: cut short after {len(data)} of {num_bytes} bytes")
        data += block
    return data
