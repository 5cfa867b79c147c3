"""Text files of strangers in a folder or a zip archive, found by name; nothing is unpacked to disk."""

import io
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from gcl.errors import SourceUnreadable, UnsafeSource
from gcl.readers.printable import printable
from gcl.readers.safe_archive import MAX_RATIO, RATIO_FREE_BYTES

MAX_MEMBERS = 10_000
MAX_FILE_BYTES = 1 << 29
_ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)


@dataclass(frozen=True)
class TextFile:
    """One text file.

    Attributes:
        name: without its folders, as messages have it.
        path: on disk: the file itself, or the archive that holds it.
        member: its name in the archive; None for a file.
    """

    name: str
    path: Path
    member: str | None = None

    def read(self) -> str:
        """The text.

        Raises:
            SourceUnreadable: gone, damaged, or not UTF-8.
            UnsafeSource: larger than `MAX_FILE_BYTES`, or packed like a decompression bomb.
        """
        try:
            return (self._from_disk() if self.member is None else self._from_archive()).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise SourceUnreadable(f"{self.name}: not UTF-8 text: {printable(error)}") from error

    def lines(self) -> list[str]:
        """The lines, without those that are blank at the end."""
        lines = self.read().replace("\r\n", "\n").split("\n")
        while lines and not lines[-1].strip():
            lines.pop()
        return lines

    def _from_disk(self) -> bytes:
        try:
            _check_size(self.name, self.path.stat().st_size)
            return self.path.read_bytes()
        except OSError as error:
            raise SourceUnreadable(f"{self.name}: {printable(error)}") from error

    def _from_archive(self) -> bytes:
        try:
            with zipfile.ZipFile(self.path) as archive:
                info = archive.getinfo(str(self.member))
                _check_size(self.name, info.file_size)
                if info.file_size > RATIO_FREE_BYTES and info.file_size > MAX_RATIO * max(
                    1, info.compress_size
                ):
                    raise UnsafeSource(
                        f"{self.name}: claims to unpack {info.compress_size} bytes to {info.file_size}"
                    )
                with archive.open(info) as file:  # gives no more than is declared, and checks the CRC
                    return file.read()
        except (*_ARCHIVE_ERRORS, KeyError) as error:
            raise SourceUnreadable(f"{self.path.name}: {self.name}: {printable(error)}") from error


def text_files(path: Path) -> dict[str, TextFile]:
    """The ``.txt`` files right in a folder, or anywhere in a zip archive, or the file itself, by name.

    What systems leave behind in archives (``__MACOSX``, hidden files) is passed over.

    Args:
        path: folder, zip archive or text file.

    Raises:
        SourceUnreadable: there is nothing, or no archive where the name says there is one.
        UnsafeSource: an archive with very many members, paths outside itself, or a name twice.
    """
    try:
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix == ".txt" and file.is_file())
            return {file.name: TextFile(file.name, file) for file in found}
        if not path.is_file():
            raise SourceUnreadable(f"there is no file or folder {path}")
    except (OSError, ValueError) as error:
        raise SourceUnreadable(f"cannot look at {path!s}: {printable(error)}") from error
    return _members(path) if path.suffix == ".zip" else {path.name: TextFile(path.name, path)}


def _members(path: Path) -> dict[str, TextFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except _ARCHIVE_ERRORS as error:
        raise SourceUnreadable(f"{path.name}: not a readable zip archive: {printable(error)}") from error
    if len(names) > MAX_MEMBERS:
        raise UnsafeSource(f"{path.name}: {len(names)} members, more than the limit of {MAX_MEMBERS}")
    found: dict[str, TextFile] = {}
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if ".." in parts or parts[:1] == ("/",):
            raise UnsafeSource(
                f"{path.name}: member {printable(name, max_length=80)!r} points outside the archive"
            )
        if parts[:1] == ("__MACOSX",) or not parts or parts[-1].startswith("."):
            continue
        if not parts[-1].endswith(".txt") or name.endswith("/"):
            continue
        if parts[-1] in found:
            raise UnsafeSource(f"{path.name}: member {printable(parts[-1], max_length=80)!r} occurs twice")
        found[parts[-1]] = TextFile(parts[-1], path, name)
    return found


def integer_table(file: TextFile, *, num_columns: int | None, lines: list[str] | None = None) -> np.ndarray:
    """int64 [lines, columns] of comma-separated integers.

    Args:
        file: the file.
        num_columns: in every line; None: as many as in the first.
        lines: what is read in the place of its lines; None for them as they are.

    Raises:
        SourceUnreadable: a line of anything else; the message names it.
    """
    return _table(file.name, file.lines() if lines is None else lines, np.dtype(np.int64), num_columns)


def number_table(file: TextFile) -> np.ndarray:
    """float32 [lines, columns] of comma-separated numbers, as many in every line; arguments as above."""
    return _table(file.name, file.lines(), np.dtype(np.float32), None)


def _table(name: str, lines: list[str], dtype: np.dtype, num_columns: int | None) -> np.ndarray:
    if not lines:
        return np.empty((0, num_columns or 0), dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an integer with a fraction is only warned of
            table = np.loadtxt(io.StringIO("\n".join(lines)), dtype, delimiter=",", comments=None, ndmin=2)
        if len(table) == len(lines) and num_columns in (None, table.shape[1]):
            return table
    except (ValueError, OverflowError, Warning):
        pass
    return _slowly(name, lines, dtype, num_columns)  # which line it is


def _slowly(name: str, lines: list[str], dtype: np.dtype, num_columns: int | None) -> np.ndarray:
    width = len(lines[0].split(",")) if num_columns is None else num_columns
    table = np.empty((len(lines), width), dtype)
    what, number = ("integers", int) if dtype.kind == "i" else ("numbers", float)
    for place, line in enumerate(lines):
        fields = line.split(",")
        try:
            if len(fields) != width:
                raise ValueError(f"found {len(fields)} fields")
            table[place] = [number(field) for field in fields]
        except (ValueError, OverflowError) as error:
            raise SourceUnreadable(
                f"{name}, line {place + 1}: expected {width} {what}: {printable(error)}"
            ) from error
    return table


def _check_size(name: str, num_bytes: int) -> None:
    if num_bytes > MAX_FILE_BYTES:
        raise UnsafeSource(f"{name}: {num_bytes} bytes, more than the limit of {MAX_FILE_BYTES}")
