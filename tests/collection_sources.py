"""Tiny well-formed collections of graphs in both layouts, each with a place to break it."""

import zipfile
from pathlib import Path

Overrides = dict[str, str]

# A triangle, a node without edges, and a path of two; node labels 0, 0, 5 | 5 | 0, 7.
TU_FILES: dict[str, str] = {
    "A": "1, 2\n2, 1\n2, 3\n3, 2\n1, 3\n3, 1\n5, 6\n6, 5\n",
    "graph_indicator": "1\n1\n1\n2\n3\n3\n",
    "graph_labels": "1\n-1\n1\n",
    "node_labels": "0\n0\n5\n5\n0\n7\n",
    "node_attributes": "0.5, 1\n1, 2\n2, 3\n3, 4\n4, 5\n5, 6e0\n",
}
ONE_FILE = "3\n3 1\n0 2 1 2\n0 2 0 2\n5 2 0 1\n1 -1\n5 0\n2 1\n0 1 1\n7 1 0\n"
JUNK = {"__MACOSX/TINY/._TINY_A.txt": "junk", "TINY/.DS_Store": "junk", "TINY/README.txt": "about"}


def tu_files(**parts: str | None) -> dict[str, str]:
    """The files by name, some replaced, those that are None left out."""
    files = TU_FILES | parts
    return {f"TINY_{part}.txt": text for part, text in files.items() if text is not None}


def tu_text(folder: Path, **parts: str | None) -> Overrides:
    """A folder."""
    for name, text in tu_files(**parts).items():
        (folder / name).write_text(text)
    return {"format": "tu_text", "path": str(folder), "name": "tiny"}


def tu_text_zip(folder: Path, members: dict[str, str] | None = None, **parts: str | None) -> Overrides:
    """A zip archive with what systems leave in them, and further members."""
    files = {f"TINY/{name}": text for name, text in tu_files(**parts).items()}
    write_zip(folder / "TINY.zip", files | JUNK | (members or {}))
    return {"format": "tu_text", "path": str(folder / "TINY.zip"), "name": "tiny"}


def one_file(folder: Path, text: str = ONE_FILE) -> Overrides:
    """The one-file layout."""
    (folder / "TINY.txt").write_text(text)
    return {"format": "tu_powerful_gnns", "path": str(folder / "TINY.txt"), "name": "tiny"}


def one_file_zip(folder: Path, members: dict[str, str] | None = None) -> Overrides:
    """The same in a zip archive with folds and junk beside it."""
    beside = {"TINY/10fold_idx/test_idx-1.txt": "0\n", "TINY/10fold_idx/train_idx-1.txt": "1\n2\n"}
    write_zip(folder / "TINY.zip", {"TINY/TINY.txt": ONE_FILE} | beside | JUNK | (members or {}))
    return {"format": "tu_powerful_gnns", "path": str(folder / "TINY.zip"), "name": "tiny"}


def write_zip(path: Path, members: dict[str, str]) -> None:
    """A deflated archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
