"""The npz layout of the GNN benchmark of Shchur et al. 2018: Amazon and Coauthor graphs as CSR parts."""

from pathlib import Path
from typing import Literal

import numpy as np

from gcl.errors import SourceUnreadable
from gcl.readers.base import (
    FileDatasetConfig,
    GraphSource,
    Reader,
    check_weights,
    class_range,
    dataset_name,
    edge_arrays,
    existing_file,
    feature_rows,
    label_array,
)
from gcl.readers.safe_archive import ArraySpec, read_npz
from gcl.readers.sparse_parts import check_indptr, csr_from_parts

_SPECS = {
    "adj_data": ArraySpec(1),
    "adj_indices": ArraySpec(1, "iu"),
    "adj_indptr": ArraySpec(1, "iu"),
    "adj_shape": ArraySpec(1, "iu"),
    "attr_data": ArraySpec(1),
    "attr_indices": ArraySpec(1, "iu"),
    "attr_indptr": ArraySpec(1, "iu"),
    "attr_shape": ArraySpec(1, "iu"),
    "labels": ArraySpec(1, "iu", required=False),
}


class GnnBenchmarkNpzConfig(FileDatasetConfig):
    """One npz file with `adj_*`, `attr_*` and `labels`."""

    format: Literal["gnn_benchmark_npz"] = "gnn_benchmark_npz"
    name: str = dataset_name("gnn_benchmark_npz")


def source_files(config: GnnBenchmarkNpzConfig) -> dict[str, Path]:
    """The one file."""
    return {"npz": existing_file(config.path, "gnn_benchmark_npz")}


def open_source(config: GnnBenchmarkNpzConfig) -> GraphSource:
    """The graph; entries of the adjacency other than 1 are edge weights."""
    path = source_files(config)["npz"]
    parts = read_npz(path, _SPECS)
    num_nodes = int(parts["attr_shape"][0]) if len(parts["attr_shape"]) == 2 else -1
    if parts["adj_shape"].tolist() != [num_nodes, num_nodes]:
        raise SourceUnreadable(
            f"{path.name}: adjacency of shape {parts['adj_shape']}, features of shape {parts['attr_shape']}"
        )
    x_NF = csr_from_parts(
        parts["attr_data"],
        parts["attr_indices"],
        parts["attr_indptr"],
        shape=(num_nodes, int(parts["attr_shape"][1])),
        what=f"{path.name}:attr",
    )
    weight, dst, indptr = parts["adj_data"], parts["adj_indices"], parts["adj_indptr"]
    if len(weight) != len(dst):
        raise SourceUnreadable(f"{path.name}: {len(weight)} adjacency values, but {len(dst)} column indices")
    check_indptr(indptr, num_rows=num_nodes, num_values=len(dst), what=f"{path.name}:adj")
    src = np.repeat(np.arange(num_nodes), np.diff(indptr))
    use_weights = check_weights(config, has_weights=bool((weight != 1).any()))
    y_N = parts.get("labels")
    if y_N is not None and len(y_N) != num_nodes:
        raise SourceUnreadable(f"{path.name}: {len(y_N)} labels for {num_nodes} nodes")
    return GraphSource(
        num_nodes=num_nodes,
        node_ids=None,
        edge_chunks=edge_arrays(src, dst, weight if use_weights else None),
        feature_chunks=feature_rows(x_NF),
        num_features=x_NF.shape[1],
        has_sparse_features=True,
        label_chunks=None if y_N is None else label_array(y_N),
        class_names=() if y_N is None else _class_names(path, y_N),
        splits=(),
        is_directed=True,
        has_weights=use_weights,
    )


def _class_names(path: Path, y_N: np.ndarray) -> tuple[str, ...]:
    """The names in the file, where it has them as plain strings for every class; otherwise numbers."""
    numbers = class_range(y_N, what=path.name)
    try:
        names = read_npz(path, {"class_names": ArraySpec(1, "U", required=False)}).get("class_names")
    except SourceUnreadable:  # the benchmark's own files have them as a pickle, which nobody needs
        return numbers
    if names is None or len(names) < len(numbers):
        return numbers
    try:
        texts = names.tolist()
        "".join(texts).encode()
    except (ValueError, SystemError):  # code points that are none
        return numbers
    return tuple(texts) if len(set(texts)) == len(texts) else numbers


READER = Reader(
    config=GnnBenchmarkNpzConfig,
    description="GNN benchmark npz (Amazon Photo and Computers, Coauthor CS and Physics)",
    requires="path: the npz file",
    source_files=source_files,
    open=open_source,
)
