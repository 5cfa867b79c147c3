"""S1: archives are read, never unpacked; whatever their members are called, nothing is written."""

import ast
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gcl.errors import SourceUnreadable
from gcl.readers.safe_archive import ArraySpec, read_npz
from tests.sources import npy

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("flows", "tasks", "gcl", "data_contracts")
SOURCES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))
UNPACKING = {"extract", "extractall", "unpack_archive", "Untar", "Unzip", "Decompress"}
ARRAY = npy(np.arange(3))


def entry(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3  # Unix: the upper half of the attributes is the mode
    info.external_attr = mode << 16
    return info


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


HOSTILE = {
    "parent": [("../evil.npy", ARRAY)],
    "parents": [("../../../../tmp/evil.npy", ARRAY)],
    "absolute": [("/tmp/evil.npy", ARRAY)],
    "backslash": [("..\\evil.npy", ARRAY)],
    "drive": [("C:evil.npy", ARRAY)],
    "stream": [("a.npy:evil", ARRAY)],
    "folder": [("evil/", b"")],
    "hidden": [(".bashrc", b"evil")],
    "long": [("a" * 60_000 + ".npy", ARRAY)],
    "unicode": [("\u0430.npy", ARRAY)],
    "dots": [("....//evil.npy", ARRAY)],
    "no_name": [(".npy", ARRAY)],
    "link": [(entry("a.npy", stat.S_IFLNK | 0o777), b"/etc/passwd")],
    "device": [(entry("a.npy", stat.S_IFCHR | 0o666), b"")],
    "pipe": [(entry("a.npy", stat.S_IFIFO | 0o666), b"")],
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_member_is_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "x.npz", "w") as archive:
        for member, content in HOSTILE[name]:
            archive.writestr(member, content)
    before = tree(tmp_path)
    with pytest.raises(SourceUnreadable):
        read_npz(folder / "x.npz", {"a": ArraySpec(1)})
    assert tree(tmp_path) == before


def test_second_member_of_a_name_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.npy", ARRAY)
        archive.writestr("a.npy", npy(np.arange(4)))
    with pytest.raises(SourceUnreadable, match="occurs twice"):
        read_npz(tmp_path / "x.npz", {"a": ArraySpec(1)})


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_nothing_in_the_source_unpacks_an_archive(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Attribute):
            assert node.attr not in UNPACKING, f"line {node.lineno}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert not modules & {"tarfile", "lzma", "bz2", "gzip"}, f"line {node.lineno}"
