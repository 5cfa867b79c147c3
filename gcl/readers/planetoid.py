"""The Planetoid originals of Cora, CiteSeer and PubMed: eight files `ind.NAME.*`.

`allx` and `ally` hold every node but the test nodes, `tx` and `ty` the test nodes in the order of
`test.index`; `x`, `y` are the first rows, the training nodes of the public split, and the 500 nodes after
them are its validation nodes (Yang, Cohen and Salakhutdinov 2016). CiteSeer's `test.index` skips 15
isolated nodes: they get no label and all-zero features here.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import scipy.sparse as sp

from gcl.errors import InvalidGraph, SourceUnreadable
from gcl.graph import Split
from gcl.readers.base import (
    FileDatasetConfig,
    GraphSource,
    Reader,
    dataset_name,
    edge_arrays,
    existing_file,
    feature_rows,
    label_array,
)
from gcl.readers.printable import printable
from gcl.readers.safe_pickle import load_pickle

_PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")
_NUM_VALIDATION = 500
_MAX_INDEX_BYTES = 64 << 20


class PlanetoidConfig(FileDatasetConfig):
    """Planetoid's own files."""

    format: Literal["planetoid"] = "planetoid"
    name: str = dataset_name("planetoid")


def source_files(config: PlanetoidConfig) -> dict[str, Path]:
    """The eight files."""
    return {
        part: existing_file(config.path / f"ind.{config.name}.{part}", f"planetoid {part}") for part in _PARTS
    }


def open_source(config: PlanetoidConfig) -> GraphSource:
    """The graph with its public split."""
    files = source_files(config)
    allx, tx = _sparse(files["allx"]), _sparse(files["tx"])
    ally, ty, y = _one_hot(files["ally"]), _one_hot(files["ty"]), _one_hot(files["y"])
    if allx.shape[1] != tx.shape[1] or ally.shape[1] != ty.shape[1]:
        raise SourceUnreadable(f"planetoid {config.name}: allx and tx, or ally and ty, differ in width")
    if allx.shape[0] != len(ally) or tx.shape[0] != len(ty) or len(y) > len(ally):
        raise SourceUnreadable(f"planetoid {config.name}: features and labels differ in their number of rows")
    test = _test_index(files["test.index"], first=len(ally), num_rows=len(ty))
    num_nodes = int(test.max(initial=len(ally) - 1)) + 1
    src, dst = _edges(files["graph"])

    # Row i of tx belongs to node test[i]; nodes of the range that test.index skips get an empty row.
    order = np.full(num_nodes, len(ally) + len(ty), np.int64)
    order[: len(ally)] = np.arange(len(ally))
    order[test] = len(ally) + np.arange(len(ty))
    empty_row = sp.csr_matrix(np.zeros((1, allx.shape[1]), np.float32))
    x_NF = sp.csr_matrix(sp.vstack([allx, tx, empty_row], format="csr")[order])
    y_N = np.concatenate([_class_ids(ally), _class_ids(ty), [-1]])[order]
    num_train = len(y)
    split = Split(
        "planetoid-public",
        np.arange(num_train),
        np.arange(num_train, min(num_train + _NUM_VALIDATION, len(ally))),
        np.sort(test),
    )
    return GraphSource(
        num_nodes=num_nodes,
        node_ids=None,
        edge_chunks=edge_arrays(src, dst),
        feature_chunks=feature_rows(x_NF),
        num_features=x_NF.shape[1],
        has_sparse_features=True,
        label_chunks=label_array(y_N),
        class_names=tuple(str(k) for k in range(ally.shape[1])),
        splits=(split,),
        is_directed=True,
        notes={
            "nodes_without_label": int((y_N < 0).sum()),
            "nodes_not_in_files": num_nodes - len(ally) - len(ty),
        },
    )


def _sparse(path: Path) -> sp.csr_matrix:
    value = load_pickle(path)
    if not isinstance(value, sp.csr_matrix):
        raise SourceUnreadable(f"{path.name}: expected a sparse matrix")
    return value


def _one_hot(path: Path) -> np.ndarray:
    value = load_pickle(path)
    if not isinstance(value, np.ndarray) or value.ndim != 2:
        raise SourceUnreadable(f"{path.name}: expected a matrix of one-hot labels")
    wrong = np.flatnonzero(((value != 0) & (value != 1)).any(axis=1) | ((value != 0).sum(axis=1) > 1))
    if len(wrong):
        raise InvalidGraph(
            table="labels.labels",
            column="label",
            rule="one_class_a_node",
            num_rows=len(wrong),
            sample=[f"{path.name}, row {row}" for row in wrong[:10]],
        )
    return value


def _class_ids(one_hot: np.ndarray) -> np.ndarray:
    """The class of every row, -1 for a row of zeros."""
    if one_hot.shape[1] == 0:
        return np.full(len(one_hot), -1)
    return np.where(one_hot.any(axis=1), one_hot.argmax(axis=1), -1)


def _test_index(path: Path, *, first: int, num_rows: int) -> np.ndarray:
    if path.stat().st_size > _MAX_INDEX_BYTES:
        raise SourceUnreadable(f"{path.name}: more than {_MAX_INDEX_BYTES} bytes")
    try:
        index = np.array([int(line) for line in path.read_text("ascii").split()], np.int64)
    except (ValueError, OverflowError) as error:
        raise SourceUnreadable(f"{path.name}: expected one node a line: {printable(error)}") from error
    if len(index) != num_rows:
        raise SourceUnreadable(f"{path.name}: {len(index)} nodes, but tx has {num_rows} rows")
    # A skipped node costs a row of the tables, so a wild index must not be able to ask for billions.
    beyond = np.flatnonzero((index < first) | (index >= first + 2 * num_rows + 1000))
    _, position = np.unique(index, return_index=True)
    repeated = np.setdiff1d(np.arange(num_rows), position)
    for rule, rows in (("test_nodes_after_the_others", beyond), ("test_nodes_unique", repeated)):
        if len(rows):
            sample = [f"{path.name}, line {row + 1}: {index[row]}" for row in rows[:10]]
            raise InvalidGraph(
                table="labels.splits", column="node", rule=rule, num_rows=len(rows), sample=sample
            )
    return index


def _edges(path: Path) -> tuple[np.ndarray, np.ndarray]:
    lists = load_pickle(path)
    if not isinstance(lists, dict):
        raise SourceUnreadable(f"{path.name}: expected a dictionary of neighbours")
    try:
        src = np.repeat(
            np.fromiter(lists, np.int64, len(lists)),
            np.fromiter(map(len, lists.values()), np.int64, len(lists)),
        )
        dst = np.fromiter((node for nodes in lists.values() for node in nodes), np.int64)
    except OverflowError as error:
        raise SourceUnreadable(f"{path.name}: a node id does not fit 64 bits") from error
    return src, dst


READER = Reader(
    config=PlanetoidConfig,
    description="Planetoid originals (Cora, CiteSeer, PubMed), read without executing their pickles",
    requires="path: folder with ind.NAME.{x,y,tx,ty,allx,ally,graph,test.index}; name: NAME",
    source_files=source_files,
    open=open_source,
)
