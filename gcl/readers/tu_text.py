"""The text layout of the TU Dortmund collections (Morris et al. 2020): NAME_A.txt and its siblings."""

from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from gcl.errors import InvalidGraph, SourceUnreadable
from gcl.readers.base import Reader, dataset_name, edge_arrays
from gcl.readers.collection_base import (
    CollectionConfig,
    CollectionSource,
    check_edges,
    classes_of,
    is_label,
)
from gcl.readers.text_files import TextFile, integer_table, number_table, text_files

_ROLES = {
    "edges": "A",
    "graph_indicator": "graph_indicator",
    "graph_labels": "graph_labels",
    "node_labels": "node_labels",
    "node_attributes": "node_attributes",
}
_REQUIRED = ("edges", "graph_indicator")


class TuTextConfig(CollectionConfig):
    """Text files in one folder or zip archive."""

    format: Literal["tu_text"] = "tu_text"
    name: str = dataset_name("tu_text")


def source_files(config: TuTextConfig) -> dict[str, Path]:
    """The text files, or the archive that holds them."""
    files = _files(config)
    if config.path.is_file():
        return {"archive": config.path}
    return {role: file.path for role, file in files.items()}


def open_source(config: TuTextConfig) -> CollectionSource:
    """The graphs; labels of edges are not read."""
    files = _files(config)
    graph_N = _graphs_of_nodes(files["graph_indicator"])
    y_G: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    num_graphs = int(graph_N.max(initial=-1)) + 1
    if "graph_labels" in files:
        value_G, is_known_G = _labels(files["graph_labels"], num_graphs)
        if num_graphs > len(value_G):
            line = int(np.argmax(graph_N >= len(value_G))) + 1
            raise SourceUnreadable(
                f"{files['graph_indicator'].name}, line {line}: graph {graph_N[line - 1] + 1}, and "
                f"{files['graph_labels'].name} has {len(value_G)} lines"
            )
        num_graphs = len(value_G)
        y_G, class_names = classes_of(value_G, is_known_G)
    elif num_graphs > len(graph_N):  # some may have no nodes, but nothing says that so many have none
        line = int(np.argmax(graph_N >= len(graph_N))) + 1
        raise SourceUnreadable(
            f"{files['graph_indicator'].name}, line {line}: graph {graph_N[line - 1] + 1}, and there are "
            f"{len(graph_N)} nodes and no {files['edges'].name.removesuffix('_A.txt')}_graph_labels.txt"
        )
    edges_E2 = integer_table(files["edges"], num_columns=2) - 1
    src_E, dst_E = edges_E2[:, 0], edges_E2[:, 1]
    check_edges(
        src_E,
        dst_E,
        graph_N,
        lambda place: f"{files['edges'].name}, line {place + 1}: ({src_E[place] + 1}, {dst_E[place] + 1})",
    )
    labels, attributes = (
        read(files[role]) if role in files else None
        for role, read in (("node_labels", _any_integers), ("node_attributes", number_table))
    )
    for role, rows in (("node_labels", labels), ("node_attributes", attributes)):
        if rows is not None and len(rows) != len(graph_N):
            raise SourceUnreadable(f"{files[role].name}: {len(rows)} lines for {len(graph_N)} nodes")
    return CollectionSource(
        num_graphs=num_graphs,
        graph_N=graph_N,
        edge_chunks=edge_arrays(src_E, dst_E),
        graph_ids=pa.array(np.arange(1, num_graphs + 1)),
        node_labels_Nc=labels,
        attributes_NF=attributes,
        y_G=y_G,
        class_names=class_names,
        notes=_notes(graph_N, num_graphs),
    )


def _files(config: TuTextConfig) -> dict[str, TextFile]:
    """The files by role: of the data set of that name, whatever its case, or of the only one there is."""
    found = text_files(config.path)
    stems = [name.removesuffix("_A.txt") for name in found if name.endswith("_A.txt")]
    named = [stem for stem in stems if _plain(stem) == _plain(config.name)]
    chosen = named if len(stems) > 1 else stems
    if len(chosen) != 1:
        raise SourceUnreadable(
            f"tu_text: {config.path} holds the edges of {len(stems)} data sets (NAME_A.txt)"
            + (f", {len(named)} of them named {config.name!r}" if stems else "")
        )
    files = {role: found[name] for role, end in _ROLES.items() if (name := f"{chosen[0]}_{end}.txt") in found}
    for role in _REQUIRED:
        if role not in files:
            raise SourceUnreadable(f"tu_text: there is no {chosen[0]}_{_ROLES[role]}.txt in {config.path}")
    return files


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _labels(file: TextFile, num_graphs: int) -> tuple[np.ndarray, np.ndarray]:
    """int64 labels, and which graphs have one; a blank line is a graph without label.

    Blank lines at the end are such graphs as far as the indicator knows them, and nothing beyond.
    """
    lines = file.lines()
    given = file.read().replace("\r\n", "\n").removesuffix("\n").split("\n")
    lines += [""] * max(0, min(num_graphs, len(given)) - len(lines))
    is_known_G = np.array([is_label(line) for line in lines], bool)
    # Integers with gaps are floats to pandas, which writes 1.0 for 1 and nothing for a gap.
    whole = [line.strip().removesuffix(".0") for line in lines]
    filled = [line if known else "0" for line, known in zip(whole, is_known_G, strict=True)]
    return integer_table(file, num_columns=1, lines=filled)[:, 0], is_known_G


def _notes(graph_N: np.ndarray, num_graphs: int) -> dict[str, int | str]:
    """Graphs that no node belongs to: there may be some, and a file of another data set looks the same."""
    empty = np.flatnonzero(np.bincount(graph_N, minlength=num_graphs) == 0)
    if not len(empty):
        return {}
    return {"graphs_without_nodes": len(empty), "first_graph_without_nodes": int(empty[0]) + 1}


def _any_integers(file: TextFile) -> np.ndarray:
    return integer_table(file, num_columns=None)


def _graphs_of_nodes(file: TextFile) -> np.ndarray:
    """int64 [N] graphs from 0; the file counts from 1."""
    graph_N = integer_table(file, num_columns=1)[:, 0] - 1
    step_N = np.diff(graph_N, prepend=0)
    wrong = np.flatnonzero((graph_N < 0) | (step_N < 0))
    if len(wrong):
        raise InvalidGraph(
            table="collection.nodes",
            column="graph",
            rule="nodes_of_a_graph_consecutive",
            num_rows=len(wrong),
            sample=[f"{file.name}, line {line + 1}: graph {graph_N[line] + 1}" for line in wrong[:10]],
        )
    return graph_N


READER = Reader(
    config=TuTextConfig,
    description="TU Dortmund collections as text (MUTAG, PROTEINS, DD, ...): many graphs, each with a class",
    requires="path: folder or zip with NAME_A.txt, NAME_graph_indicator.txt, ...; name: NAME, of several",
    source_files=source_files,
    open=open_source,
    holds="collection",
)
