"""The heterogeneous graphs of HeCo (Wang et al. 2021): ACM, DBLP, Freebase, AMiner.

Read are the relations (``*.txt``), features, labels and splits. Neighbour lists and metapath matrices follow
from the relations; the former are pickles, and neither is opened.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from gcl.errors import SourceUnreadable, UnsafeSource
from gcl.graph import Features
from gcl.hetero_findings import Finding, UnreadableHetero
from gcl.metapath_steps import MetapathPlan, parse_metapath
from gcl.readers.base import Reader, dataset_name, existing_file
from gcl.readers.hetero_base import (
    EdgesRead,
    HeteroDatasetConfig,
    HeteroRead,
    HeteroSource,
    NodesRead,
    attempt,
)
from gcl.readers.hetero_checks import checked
from gcl.readers.printable import printable
from gcl.readers.safe_archive import ArraySpec, read_npy, read_npz
from gcl.readers.sparse_parts import csr_from_parts

_RATES = (20, 40, 60)
_ROLES = {"train": "train", "val": "validation", "test": "test"}
_MAX_TEXT_BYTES = 1 << 30
# Ids count from 0, and a type of which there are edges alone may skip some. An id far beyond the number of
# its edges is a mistake, and does not stand for as many nodes.
_NODES_A_ROW, _FEW_NODES = 100, 1 << 16
_PARTS = {
    "data": ArraySpec(1),
    "shape": ArraySpec(1, "iu"),
    "format": ArraySpec(0, "S"),
    "indices": ArraySpec(1, "iu", required=False),
    "indptr": ArraySpec(1, "iu", required=False),
    "row": ArraySpec(1, "iu", required=False),
    "col": ArraySpec(1, "iu", required=False),
}
_FORMATS = {b"csr": ("indices", "indptr"), b"coo": ("row", "col")}


@dataclass(frozen=True)
class _Layout:
    """One of the data sets.

    Attributes:
        target: the type that has labels.
        types: a type a letter, as file names abbreviate them.
        relations: files of edges; their two letters are source and target type.
        features: letters of the types that have features.
        metapaths: as letters, in the order of the published loaders.
    """

    target: str
    types: dict[str, str]
    relations: tuple[str, ...]
    features: str
    metapaths: tuple[str, ...]


_LAYOUTS = {
    "acm": _Layout(
        "paper", {"p": "paper", "a": "author", "s": "subject"}, ("pa", "ps"), "pa", ("PAP", "PSP")
    ),
    "dblp": _Layout(
        "author",
        {"a": "author", "p": "paper", "c": "conference", "t": "term"},
        ("pa", "pc", "pt"),
        "apt",
        ("APA", "APCPA", "APTPA"),
    ),
    "freebase": _Layout(
        "movie",
        {"m": "movie", "a": "actor", "d": "director", "w": "writer"},
        ("ma", "md", "mw"),
        "",
        ("MDM", "MAM", "MWM"),
    ),
    "aminer": _Layout(
        "paper", {"p": "paper", "a": "author", "r": "reference"}, ("pa", "pr"), "", ("PAP", "PRP")
    ),
}


class HecoConfig(HeteroDatasetConfig):
    """A folder of HeCo's data."""

    format: Literal["heco"] = "heco"
    name: str = dataset_name("heco")


def source_files(config: HecoConfig) -> dict[str, Path]:
    """The files that are read, by role; UnreadableHetero names all that are missing."""
    layout = _layout(config)
    names = {"labels": "labels.npy"}
    names |= {relation: f"{relation}.txt" for relation in layout.relations}
    names |= {f"{letter}_feat": f"{letter}_feat.npz" for letter in layout.features}
    names |= {f"{part}_{rate}": f"{part}_{rate}.npy" for rate in _RATES for part in _ROLES}
    missing = [name for name in names.values() if not (config.path / name).is_file()]
    if missing:
        raise UnreadableHetero([Finding.of("H01", "files_present", str(config.path), missing)])
    return {role: existing_file(config.path / name, f"heco {role}") for role, name in names.items()}


def open_source(config: HecoConfig) -> HeteroSource:
    """The graph with its splits ``heco-20``, ``heco-40`` and ``heco-60``."""
    files, layout = source_files(config), _layout(config)
    read = HeteroRead(target=layout.target)
    pairs: dict[str, np.ndarray] = {}
    for relation in layout.relations:
        path = files[relation]
        pairs[relation] = attempt(read, path.name, partial(_edges, path), np.empty((0, 2), np.int64))
    for letter, type_ in layout.types.items():
        read.nodes[type_] = _nodes(read, files, letter, pairs, is_target=type_ == layout.target)
    for relation, edges_E2 in pairs.items():
        source, end = (layout.types[letter] for letter in relation)
        where = files[relation].name
        read.edges[source, relation, end] = EdgesRead(
            where, pa.array(edges_E2[:, 0]), pa.array(edges_E2[:, 1])
        )
    for rate in _RATES:
        read.splits[f"heco-{rate}"] = {
            role: pa.array(_split(read, files[f"{part}_{rate}"])) for part, role in _ROLES.items()
        }
    for name in layout.metapaths:
        types = "-".join(layout.types[letter.lower()] for letter in name)
        read.metapaths.append(MetapathPlan(name, parse_metapath(types, list(read.edges))[1]))
    return checked(read, config)


def _layout(config: HecoConfig) -> _Layout:
    if config.name not in _LAYOUTS:
        raise SourceUnreadable(f"heco: no data set {config.name!r}; dataset.name is {', '.join(_LAYOUTS)}")
    return _LAYOUTS[config.name]


def _nodes(
    read: HeteroRead, files: dict[str, Path], letter: str, pairs: dict[str, np.ndarray], *, is_target: bool
) -> NodesRead:
    """A type's nodes, 0 to N_t - 1: as many as labels or rows of features, or as edges name within reason."""
    ends = [pairs[name][:, side] for name in pairs for side in (0, 1) if name[side] == letter]
    most = _most_nodes(sum(map(len, ends)))
    num_nodes = max((int(end[end < most].max(initial=-1)) + 1 for end in ends), default=0)
    where, features, labels = "nodes", None, None
    if f"{letter}_feat" in files:
        source = files[f"{letter}_feat"]
        where = source.name
        features = attempt(read, where, lambda: _features(source), None)
        num_nodes = num_nodes if features is None else int(features.shape[0])
    if is_target:
        path = files["labels"]
        labels = attempt(read, path.name, lambda: pa.array(_integers(path)), pa.array([], pa.int64()))
        where, num_nodes = path.name, len(labels)
        if features is not None and features.shape[0] != num_nodes:
            found = [f"{features.shape[0]} rows of features, {num_nodes} labels"]
            read.findings.append(Finding.of("H16", "a_row_of_features_a_node", where, found))
            features = None
    return NodesRead(where, pa.array(np.arange(num_nodes)), features, labels)


def _most_nodes(num_rows: int) -> int:
    return max(_FEW_NODES, _NODES_A_ROW * num_rows)


def _split(read: HeteroRead, path: Path) -> np.ndarray:
    found: np.ndarray = attempt(read, path.name, lambda: _integers(path), np.empty(0, np.int64))
    return found


def _edges(path: Path) -> np.ndarray:
    """int64 [E, 2]: a tab-separated pair a line."""
    if path.stat().st_size > _MAX_TEXT_BYTES:
        raise UnsafeSource(f"{path.name}: more than {_MAX_TEXT_BYTES} bytes")
    try:
        text = path.read_text("utf-8")
        if "_" in text:
            raise ValueError("an underscore")  # which int() takes for part of a number
        lines = text.splitlines()
        pairs = [(int(source), int(end)) for source, end in (line.split("\t") for line in lines if line)]
        return np.array(pairs, np.int64).reshape(-1, 2)
    except (ValueError, OverflowError) as error:
        raise SourceUnreadable(
            f"{path.name}: expected two whole numbers a line: {printable(error)}"
        ) from error


def _integers(path: Path) -> np.ndarray:
    """int64 values of an npy file, which may store them as floats."""
    values = read_npy(path, ArraySpec(1))
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.floor(values))).all():
        raise SourceUnreadable(f"{path.name}: holds fractions, expected whole numbers")
    return values.astype(np.int64)


def _features(path: Path) -> Features:
    """float32 features: a scipy matrix, or (whatever the name of the file says) a plain array."""
    with path.open("rb") as file:
        is_plain = file.read(6) == b"\x93NUMPY"
    if is_plain:
        return np.ascontiguousarray(read_npy(path, ArraySpec(2)), np.float32)
    parts = read_npz(path, _PARTS)
    layout, shape = bytes(parts["format"]), parts["shape"]
    if len(shape) != 2 or layout not in _FORMATS or not set(_FORMATS[layout]) <= set(parts):
        raise SourceUnreadable(f"{path.name}: expected a scipy matrix in CSR or COO form")
    size = (int(shape[0]), int(shape[1]))
    if layout == b"csr":
        return csr_from_parts(parts["data"], parts["indices"], parts["indptr"], shape=size, what=path.name)
    row = parts["row"]
    if size[0] > _most_nodes(len(row)):
        raise SourceUnreadable(f"{path.name}: {size[0]} rows, of which at most {len(row)} hold a number")
    if len(row) != len(parts["col"]) or ((row < 0) | (row >= size[0])).any():
        raise SourceUnreadable(f"{path.name}: rows of the matrix lie outside its shape {size}")
    order = np.argsort(row, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=size[0]))])
    return csr_from_parts(parts["data"][order], parts["col"][order], indptr, shape=size, what=path.name)


READER = Reader(
    config=HecoConfig,
    description="HeCo's heterogeneous graphs (ACM, DBLP, Freebase, AMiner) with their splits",
    requires="path: folder with labels.npy, relations and splits; name: acm, dblp, freebase or aminer",
    source_files=source_files,
    open=open_source,
    holds="hetero",
)
