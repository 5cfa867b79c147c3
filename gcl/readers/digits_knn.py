"""The 1,797 handwritten digits of scikit-learn, joined to their nearest neighbours: no files needed."""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from gcl.graph import Split
from gcl.random import numpy_generator
from gcl.readers.base import (
    DatasetConfig,
    GraphSource,
    Reader,
    dataset_name,
    edge_arrays,
    feature_rows,
    label_array,
)

_NUM_TRAIN_A_CLASS = 20
_NUM_VALIDATION = 300
_MAX_PIXEL = 16


class DigitsKnnConfig(DatasetConfig):
    """The k-nearest-neighbour graph of the digits."""

    format: Literal["digits_knn"] = "digits_knn"
    name: str = dataset_name("digits_knn")
    k: int = Field(10, ge=1, le=100, description="nearest neighbours a node points to, count in [1, 100]")


def source_files(config: DigitsKnnConfig) -> dict[str, Path]:
    """None: the digits come with scikit-learn."""
    return {}


def open_source(config: DigitsKnnConfig) -> GraphSource:
    """The graph; pixels in [0, 1]; split `digits-20`: 20 a class, 300 and the rest, drawn by the seed."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels_NF = digits.data.astype(np.int64)
    y_N = digits.target.astype(np.int32)
    src, dst = _neighbours(pixels_NF, config.k)
    return GraphSource(
        num_nodes=len(pixels_NF),
        node_ids=None,
        edge_chunks=edge_arrays(src, dst),
        feature_chunks=feature_rows((pixels_NF / _MAX_PIXEL).astype(np.float32)),
        num_features=pixels_NF.shape[1],
        has_sparse_features=False,
        label_chunks=label_array(y_N),
        class_names=tuple(str(digit) for digit in range(10)),
        splits=(_split(y_N, config.seed),),
        is_directed=True,
    )


def _neighbours(pixels_NF: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges to the k nearest other digits, in whole numbers, so that ties break alike on every machine."""
    squared_N = (pixels_NF**2).sum(axis=1)
    distance_NN = squared_N[:, None] + squared_N[None, :] - 2 * (pixels_NF @ pixels_NF.T)
    np.fill_diagonal(distance_NN, np.iinfo(np.int64).max)
    nearest_NK = np.argsort(distance_NN, axis=1, kind="stable")[:, :k]
    return np.repeat(np.arange(len(pixels_NF)), k), nearest_NK.ravel()


def _split(y_N: np.ndarray, seed: int) -> Split:
    order = numpy_generator(seed, "digits-split").permutation(len(y_N))
    train = np.concatenate([order[y_N[order] == digit][:_NUM_TRAIN_A_CLASS] for digit in range(10)])
    rest = order[~np.isin(order, train)]
    return Split(
        "digits-20", np.sort(train), np.sort(rest[:_NUM_VALIDATION]), np.sort(rest[_NUM_VALIDATION:])
    )


READER = Reader(
    config=DigitsKnnConfig,
    description="Handwritten digits of scikit-learn with their k-nearest-neighbour graph; needs no files",
    requires="nothing; k: number of neighbours",
    source_files=source_files,
    open=open_source,
)
