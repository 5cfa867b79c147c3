"""The text layout of Geom-GCN (Pei et al. 2020): WebKB graphs with dense features, and ten given splits."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from gcl.config import operational
from gcl.errors import InvalidGraph, SourceUnreadable
from gcl.graph import Split
from gcl.readers.base import (
    FileDatasetConfig,
    GraphSource,
    Reader,
    class_range,
    dataset_name,
    edge_arrays,
    existing_file,
    feature_rows,
    label_array,
    split_of_masks,
)
from gcl.readers.printable import printable
from gcl.readers.safe_archive import ArraySpec, read_npz

_NUM_SPLITS = 10
_MAX_FILE_BYTES = 1 << 30
_MASKS = {name: ArraySpec(1, "biu") for name in ("train_mask", "val_mask", "test_mask")}


class GeomGcnConfig(FileDatasetConfig):
    """Two text files, and a folder of splits."""

    format: Literal["geom_gcn"] = "geom_gcn"
    name: str = dataset_name("geom_gcn")
    splits: Path | None = operational(
        None, description="folder with NAME_split_0.6_0.2_{0..9}.npz; none: the graph comes without splits"
    )


def source_files(config: GeomGcnConfig) -> dict[str, Path]:
    """The two text files, and the ten splits if a folder of them is given."""
    files = {
        "edges": existing_file(config.path / "out1_graph_edges.txt", "geom_gcn edges"),
        "nodes": existing_file(config.path / "out1_node_feature_label.txt", "geom_gcn nodes"),
    }
    if config.splits is not None:
        stem = _split_stem(config.splits, config.name)
        for i in range(_NUM_SPLITS):
            files[f"split_{i}"] = existing_file(config.splits / f"{stem}_{i}.npz", f"geom_gcn split {i}")
    return files


def open_source(config: GeomGcnConfig) -> GraphSource:
    """The graph with its splits `geom-10-0` to `geom-10-9`."""
    files = source_files(config)
    x_NF, y_N = _nodes(files["nodes"])
    edges_E2 = _edges(files["edges"])
    splits = [_split(files[f"split_{i}"], i, len(y_N)) for i in range(_NUM_SPLITS) if f"split_{i}" in files]
    return GraphSource(
        num_nodes=len(y_N),
        node_ids=None,
        edge_chunks=edge_arrays(edges_E2[:, 0], edges_E2[:, 1]),
        feature_chunks=feature_rows(x_NF),
        num_features=x_NF.shape[1],
        has_sparse_features=False,
        label_chunks=label_array(y_N),
        class_names=class_range(y_N, what=files["nodes"].name),
        splits=tuple(splits),
        is_directed=True,
    )


def _split_stem(folder: Path, name: str) -> str:
    """How the names of the splits begin: with the data set's name, or however the only set of splits does."""
    stems = {path.stem.rpartition("_")[0] for path in folder.glob("*_split_0.6_0.2_*.npz")}
    if f"{name}_split_0.6_0.2" in stems:
        return f"{name}_split_0.6_0.2"
    if len(stems) != 1:
        raise SourceUnreadable(
            f"geom_gcn splits: {folder} holds splits of {len(stems)} data sets, none of them named {name!r}"
        )
    return stems.pop()


def _rows(path: Path, num_fields: int) -> Iterator[tuple[str, list[str]]]:
    """Where a row stands and its tab-separated fields, without the header."""
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise SourceUnreadable(f"{path.name}: more than {_MAX_FILE_BYTES} bytes")
    try:
        with path.open(encoding="utf-8-sig") as lines:
            if not next(lines, "").startswith("node_id\t"):
                raise SourceUnreadable(f"{path.name}, line 1: expected a header that begins with node_id")
            for number, line in enumerate(lines, start=2):
                fields = line.rstrip("\n").split("\t")
                if len(fields) != num_fields:
                    raise SourceUnreadable(
                        f"{path.name}, line {number}: expected {num_fields} fields, found {len(fields)}"
                    )
                yield f"{path.name}, line {number}", fields
    except UnicodeDecodeError as error:
        raise SourceUnreadable(f"{path.name}: not UTF-8 text: {error}") from error


def _integers(where: str, fields: list[str]) -> np.ndarray:
    try:
        return np.array([int(field) for field in fields], np.int64)
    except (ValueError, OverflowError) as error:
        raise SourceUnreadable(f"{where}: expected integers: {printable(error)}") from error


def _edges(path: Path) -> np.ndarray:
    edges = [_integers(where, fields) for where, fields in _rows(path, 2)]
    return np.stack(edges) if edges else np.empty((0, 2), np.int64)


def _nodes(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels by node; the file lists each of 0..N-1 once, in any order."""
    ids, labels, features = [], [], []
    for where, (node, values, label) in _rows(path, 3):
        id_label = _integers(where, [node, label])
        ids.append(id_label[0])
        labels.append(id_label[1])
        try:
            features.append(np.array(values.split(","), np.float32))
        except ValueError as error:
            raise SourceUnreadable(f"{where}: expected numbers: {printable(error)}") from error
        if len(features[-1]) != len(features[0]):
            raise SourceUnreadable(f"{where}: {len(features[-1])} features, but {len(features[0])} before")
    if not ids:
        return np.empty((0, 0), np.float32), np.empty(0, np.int64)
    order = np.argsort(np.array(ids), kind="stable")
    sorted_ids = np.array(ids)[order]
    wrong = np.flatnonzero(sorted_ids != np.arange(len(ids)))
    if len(wrong):
        raise InvalidGraph(
            table="graph.nodes",
            column="node_id",
            rule="ids_are_0_to_n_minus_1",
            num_rows=len(wrong),
            sample=[f"{path.name}: {sorted_ids[i]} in place of {i}" for i in wrong[:10]],
        )
    return np.stack(features)[order], np.array(labels)[order]


def _split(path: Path, number: int, num_nodes: int) -> Split:
    masks = read_npz(path, _MASKS)
    if any(len(mask) != num_nodes for mask in masks.values()):
        raise SourceUnreadable(
            f"{path.name}: masks of {len(masks['train_mask'])} nodes for {num_nodes} nodes"
        )
    return split_of_masks(f"geom-10-{number}", *(masks[name] != 0 for name in _MASKS))


READER = Reader(
    config=GeomGcnConfig,
    description="Geom-GCN text files (Texas, Wisconsin, Cornell, ...) with their ten splits",
    requires="path: folder with out1_graph_edges.txt and out1_node_feature_label.txt; splits: their folder",
    source_files=source_files,
    open=open_source,
)
