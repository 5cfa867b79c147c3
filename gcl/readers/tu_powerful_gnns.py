"""TU collections in the one-file layout of the code of GIN (Xu et al. 2019), as it is or in a zip archive."""

from pathlib import Path
from typing import Literal

import numpy as np

from gcl.errors import InvalidGraph, SourceUnreadable
from gcl.readers.base import Reader, dataset_name, edge_arrays
from gcl.readers.collection_base import CollectionConfig, CollectionSource, classes_of, is_label
from gcl.readers.printable import printable
from gcl.readers.text_files import TextFile, text_files


class TuPowerfulGnnsConfig(CollectionConfig):
    """One text file, or the archive that holds it."""

    format: Literal["tu_powerful_gnns"] = "tu_powerful_gnns"
    name: str = dataset_name("tu_powerful_gnns")


def source_files(config: TuPowerfulGnnsConfig) -> dict[str, Path]:
    """The text file or the archive."""
    return {"graphs": _file(config).path}


def open_source(config: TuPowerfulGnnsConfig) -> CollectionSource:
    """The graphs; lists of folds that lie beside them are not read."""
    return _Parser(_file(config)).source()


def _file(config: TuPowerfulGnnsConfig) -> TextFile:
    """The text of the data set of that name, whatever its case, or the only one there is."""
    found = {
        name: file
        for name, file in text_files(config.path).items()
        if not name.lower().startswith(("readme", "train_idx", "test_idx"))
    }
    named = [name for name in found if _plain(name.removesuffix(".txt")) == _plain(config.name)]
    chosen = named if len(found) > 1 else list(found)
    if len(chosen) != 1:
        raise SourceUnreadable(
            f"tu_powerful_gnns: {config.path} holds {len(found)} texts, {len(named)} of them named "
            f"{config.name!r}"
        )
    return found[chosen[0]]


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


class _Parser:
    """Reads the file from its first line to its last; `place` is the line it stands at, from 1."""

    def __init__(self, file: TextFile) -> None:
        self.name, self.lines, self.place = file.name, file.lines(), 0
        self.src: list[int] = []
        self.dst: list[int] = []
        self.tags: list[int] = []
        self.attributes: list[list[float]] = []
        self.num_attributes: int | None = None

    def source(self) -> CollectionSource:
        what = "the number of graphs"
        num_graphs = self._integer(self._fields(1, what)[0], what)
        sizes: list[int] = []
        labels: list[int | None] = []
        for _ in range(self._bounded(num_graphs)):
            size, label = self._graph()
            first = len(self.tags)
            for _ in range(self._bounded(size)):
                self._node(first, size)
            sizes.append(size)
            labels.append(label)
        if self.place < len(self.lines):
            raise SourceUnreadable(
                f"{self.name}, line {self.place + 1}: nothing may follow the last of {num_graphs} graphs"
            )
        is_known_G = np.array([label is not None for label in labels], bool)
        y_G, class_names = classes_of(self._array([label or 0 for label in labels]), is_known_G)
        tag_N = self._array(self.tags)
        return CollectionSource(
            num_graphs=num_graphs,
            graph_N=np.repeat(np.arange(num_graphs), sizes),
            edge_chunks=edge_arrays(self._array(self.src), self._array(self.dst)),
            # One tag for all nodes is what the format has for data without node labels.
            node_labels_Nc=tag_N[:, None] if len(np.unique(tag_N)) > 1 else None,
            attributes_NF=np.array(self.attributes, np.float32) if self.num_attributes else None,
            y_G=y_G,
            class_names=class_names,
        )

    def _node(self, first: int, size: int) -> None:
        """A line of tag, number of neighbours, neighbours within the graph, attributes if there are any."""
        fields = self._next("a node")
        try:
            tag, degree = int(fields[0]), int(fields[1])
            neighbours = [int(field) for field in fields[2 : 2 + max(0, degree)]]
            values = [float(field) for field in fields[2 + max(0, degree) :]]
        except (ValueError, IndexError, OverflowError) as error:
            raise self._expected("a tag, a number of neighbours and as many neighbours", error) from error
        if len(neighbours) != degree:
            raise self._expected(f"{degree} neighbours", ValueError(f"found {len(neighbours)}"))
        if len(values) != (len(values) if self.num_attributes is None else self.num_attributes):
            raise self._expected(f"{self.num_attributes} attributes", ValueError(f"found {len(values)}"))
        if neighbours and not 0 <= min(neighbours) <= max(neighbours) < size:
            raise InvalidGraph(
                table="collection.edges",
                column="dst",
                rule="endpoints_in_range",
                num_rows=1,
                sample=[f"{self.name}, line {self.place}: a neighbour outside 0..{size - 1}"],
            )
        self.num_attributes = len(values)
        self.src.extend([len(self.tags)] * degree)
        self.dst.extend([first + neighbour for neighbour in neighbours])
        self.tags.append(tag)
        self.attributes.append(values)

    def _graph(self) -> tuple[int, int | None]:
        """A line of number of nodes and label, None where ``nan`` or ``?`` stands for it."""
        what = "the number of nodes and the label of a graph"
        size, label = self._fields(2, what)
        return self._integer(size, what), self._integer(label, what) if is_label(label) else None

    def _fields(self, count: int, what: str) -> list[str]:
        fields = self._next(what)
        if len(fields) != count:
            raise self._expected(what, ValueError(f"found {len(fields)} fields"))
        return fields

    def _integer(self, field: str, what: str) -> int:
        try:
            return int(field)
        except ValueError as error:
            raise self._expected(what, error) from error

    def _bounded(self, count: int) -> int:
        """A count of things that take a line each, before anything of its size is made."""
        if not 0 <= count <= len(self.lines) - self.place:
            raise SourceUnreadable(
                f"{self.name}, line {self.place}: {count} are announced, and "
                f"{len(self.lines) - self.place} lines follow"
            )
        return count

    def _next(self, what: str) -> list[str]:
        if self.place >= len(self.lines):
            raise SourceUnreadable(
                f"{self.name}, line {self.place + 1}: the file ends where {what} is expected"
            )
        self.place += 1
        return self.lines[self.place - 1].split()

    def _expected(self, what: str, error: Exception) -> SourceUnreadable:
        return SourceUnreadable(f"{self.name}, line {self.place}: expected {what}: {printable(error)}")

    def _array(self, values: list[int]) -> np.ndarray:
        try:
            return np.array(values, np.int64)
        except OverflowError as error:
            raise SourceUnreadable(f"{self.name}: a number beyond 64 bits") from error


READER = Reader(
    config=TuPowerfulGnnsConfig,
    description="TU collections in one file, as GIN's code has them (NCI1, IMDB-BINARY, ...): many graphs",
    requires="path: the txt, or a zip or folder with it; name: its name, if there are more",
    source_files=source_files,
    open=open_source,
    holds="collection",
)
