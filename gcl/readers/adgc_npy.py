"""The npy layout of deep graph clustering code (ADGC): NAME_feat.npy, NAME_label.npy, NAME_adj.npy, dense."""

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
from gcl.readers.safe_archive import ArraySpec, read_npy


class AdgcNpyConfig(FileDatasetConfig):
    """Three dense arrays."""

    format: Literal["adgc_npy"] = "adgc_npy"
    name: str = dataset_name("adgc_npy")


def source_files(config: AdgcNpyConfig) -> dict[str, Path]:
    """The three files."""
    return {
        role: existing_file(config.path / f"{config.name}_{role}.npy", f"adgc_npy {role}")
        for role in ("feat", "label", "adj")
    }


def open_source(config: AdgcNpyConfig) -> GraphSource:
    """The graph; entries of the adjacency other than 0 and 1 are edge weights."""
    files = source_files(config)
    x_NF = read_npy(files["feat"], ArraySpec(2))
    adjacency_NN = read_npy(files["adj"], ArraySpec(2))
    y_N = read_npy(files["label"], ArraySpec(1, "iu"))
    num_nodes = len(x_NF)
    if adjacency_NN.shape != (num_nodes, num_nodes) or len(y_N) != num_nodes:
        raise SourceUnreadable(
            f"adgc_npy {config.name}: features of {num_nodes} nodes, {len(y_N)} labels, "
            f"adjacency of shape {adjacency_NN.shape}"
        )
    src, dst = np.nonzero(adjacency_NN)
    weight = adjacency_NN[src, dst]
    use_weights = check_weights(config, has_weights=bool((weight != 1).any()))
    return GraphSource(
        num_nodes=num_nodes,
        node_ids=None,
        edge_chunks=edge_arrays(src, dst, weight if use_weights else None),
        feature_chunks=feature_rows(x_NF),
        num_features=x_NF.shape[1],
        has_sparse_features=False,
        label_chunks=label_array(y_N),
        class_names=class_range(y_N, what=files["label"].name),
        splits=(),
        is_directed=True,
        has_weights=use_weights,
    )


READER = Reader(
    config=AdgcNpyConfig,
    description="Dense npy files of deep graph clustering (BAT, EAT, UAT, DBLP, ACM, ...)",
    requires="path: folder with NAME_{feat,label,adj}.npy; name: NAME",
    source_files=source_files,
    open=open_source,
)
