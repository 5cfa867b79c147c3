"""The npz layout of Platonov et al. 2023: heterophilous graphs, filtered Chameleon and Squirrel."""

from pathlib import Path
from typing import Literal

from gcl.errors import SourceUnreadable
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
from gcl.readers.safe_archive import ArraySpec, read_npz

_MASKS = ("train_masks", "val_masks", "test_masks")
_SPECS = {
    "node_features": ArraySpec(2),
    "node_labels": ArraySpec(1, "iu"),
    "edges": ArraySpec(2, "iu"),
    **{mask: ArraySpec(2, "b") for mask in _MASKS},
}


class HeterophilousNpzConfig(FileDatasetConfig):
    """One npz file with features, labels, undirected edges listed once, and ten splits."""

    format: Literal["heterophilous_npz"] = "heterophilous_npz"
    name: str = dataset_name("heterophilous_npz")


def source_files(config: HeterophilousNpzConfig) -> dict[str, Path]:
    """The one file."""
    return {"npz": existing_file(config.path, "heterophilous_npz")}


def open_source(config: HeterophilousNpzConfig) -> GraphSource:
    """The graph with its splits `geom-10-0` to `geom-10-9`."""
    path = source_files(config)["npz"]
    parts = read_npz(path, _SPECS)
    x_NF, y_N, edges_E2 = parts["node_features"], parts["node_labels"], parts["edges"]
    if len(y_N) != len(x_NF) or edges_E2.shape[1] != 2:
        raise SourceUnreadable(
            f"{path.name}: {len(x_NF)} nodes, {len(y_N)} labels, edges of shape {edges_E2.shape}"
        )
    masks = [parts[mask] for mask in _MASKS]
    if any(mask.shape != (len(masks[0]), len(x_NF)) for mask in masks):
        raise SourceUnreadable(f"{path.name}: masks of shapes {[mask.shape for mask in masks]}")
    return GraphSource(
        num_nodes=len(x_NF),
        node_ids=None,
        edge_chunks=edge_arrays(edges_E2[:, 0], edges_E2[:, 1]),
        feature_chunks=feature_rows(x_NF),
        num_features=x_NF.shape[1],
        has_sparse_features=False,
        label_chunks=label_array(y_N),
        class_names=class_range(y_N, what=path.name),
        splits=tuple(
            split_of_masks(f"geom-10-{i}", *rows) for i, rows in enumerate(zip(*masks, strict=True))
        ),
        is_directed=False,
    )


READER = Reader(
    config=HeterophilousNpzConfig,
    description="Heterophilous graphs npz (Roman-empire, Amazon-ratings, filtered Chameleon, ...)",
    requires="path: the npz file",
    source_files=source_files,
    open=open_source,
)
