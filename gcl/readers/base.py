"""What every reader gives: a GraphSource that streams, opened from a dataset configuration."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from gcl.config import Config, operational
from gcl.edges import EdgeChunk, EdgePolicy
from gcl.errors import InvalidGraph, SourceUnreadable
from gcl.graph import Split

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
# pyarrow's stubs have no type for an array of ids of either kind.
ArrowArray = Any

CHUNK_EDGES = 1 << 20
CHUNK_VALUES = 1 << 24  # feature values a chunk, if dense: 64 MiB


@dataclass(frozen=True, eq=False)
class GraphSource:
    """One attributed graph as its source has it, streamed; nothing is merged, sorted or symmetrised yet.

    Every callable starts a fresh pass. Chunks are as large as is convenient; nobody may rely on their sizes.

    Attributes:
        num_nodes: N; zero for an empty source.
        node_ids: the source's own ids (int64 or string) in node order; None when they are 0..N-1.
        edge_chunks: the raw edges, in positions 0..N-1; endpoints may still lie outside.
        feature_chunks: float32 blocks of rows in node order, CSR when `has_sparse_features`; None without.
        num_features: F.
        has_sparse_features: whether feature blocks are CSR.
        label_chunks: int32 class ids in node order, -1 for a node without label; None without labels.
        class_names: one name a class.
        splits: the source's own splits.
        is_directed: whether the format tells (a, b) from (b, a); if not, an edge listed once is both.
        has_weights: whether edge chunks carry weights.
        notes: facts for the manifest, such as nodes without a label.
    """

    num_nodes: int
    node_ids: ArrowArray | None
    edge_chunks: Callable[[], Iterator[EdgeChunk]]
    feature_chunks: Callable[[], Iterator[np.ndarray | sp.csr_matrix]] | None
    num_features: int
    has_sparse_features: bool
    label_chunks: Callable[[], Iterator[np.ndarray]] | None
    class_names: tuple[str, ...]
    splits: tuple[Split, ...]
    is_directed: bool
    has_weights: bool = False
    notes: dict[str, int | str] = field(default_factory=dict)


class DatasetConfig(Config):
    """Fields every format has."""

    format: str
    self_loops: Literal["remove", "keep", "reject"] = Field(
        "remove", description="edges from a node to itself: dropped, kept, or the graph refused"
    )
    duplicates: Literal["merge", "reject"] = Field(
        "merge", description="repeated (src, dst): merged, weights added up, or the graph refused"
    )
    one_way: Literal["symmetrise", "keep", "reject"] = Field(
        "symmetrise",
        description="edges of a directed format without their opposite: opposite added, graph kept directed, "
        "or the graph refused",
    )
    weights: Literal["refuse", "honour", "discard"] = Field(
        "refuse",
        description="edge weights: a source that has them is refused until one of the others is chosen",
    )
    edge_holdout: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="share in [0, 0.5) of undirected edges held out to test link prediction, "
        "half as many again for validation; 0: none",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="of the generator and the edge holdout, in [0, 2^63)")


class FileDatasetConfig(DatasetConfig):
    """Fields of formats that read files."""

    path: Path = operational(description="file or folder of the source; its content counts, not its place")


def dataset_name(default: str) -> Any:
    """The `name` field of a format.

    Args:
        default: the format's own name; formats whose file names hold the data set's name need another.
    """
    return operational(
        default,
        pattern=NAME_PATTERN,
        description="the data set's name, [a-z0-9][a-z0-9_-]{0,63}; part of the file names in some formats",
    )


@dataclass(frozen=True)
class Reader:
    """One public format.

    Attributes:
        config: its configuration class; its `format` is the reader's name.
        description: what the format is, one line.
        requires: what `path` and `name` must be, one line.
        source_files: the files that hold the data, by role; SourceUnreadable names a missing one.
        open: the graph; SourceUnreadable when the files are not what the format says.
        holds: one graph, a graph of several node types (`open` gives a HeteroSource), or many graphs (a
            CollectionSource).
    """

    config: type[DatasetConfig]
    description: str
    requires: str
    source_files: Callable[[Any], dict[str, Path]]
    open: Callable[[Any], Any]
    holds: Literal["graph", "hetero", "collection"] = "graph"

    @property
    def format(self) -> str:
        """The name in `dataset.format`."""
        return str(self.config.model_fields["format"].default)


def existing_file(path: Path, role: str) -> Path:
    """The path, if it is a regular file; otherwise SourceUnreadable names it and its role."""
    try:
        found = path.is_file()
    except (OSError, ValueError) as error:
        raise SourceUnreadable(f"{role}: cannot look at {path!s}: {error}") from error
    if not found:
        raise SourceUnreadable(f"{role}: there is no file {path}")
    return path


def edge_policy(config: DatasetConfig, source: GraphSource) -> EdgePolicy:
    """The policy for a source; an undirected format lists edges once, so its edges are always both ways."""
    one_way = config.one_way if source.is_directed else "symmetrise"
    return EdgePolicy(self_loops=config.self_loops, duplicates=config.duplicates, one_way=one_way)


def edge_arrays(
    src: np.ndarray, dst: np.ndarray, weight: np.ndarray | None = None
) -> Callable[[], Iterator[EdgeChunk]]:
    """Edges in memory as the chunks of a GraphSource."""

    def chunks() -> Iterator[EdgeChunk]:
        for start in range(0, len(src), CHUNK_EDGES):
            part = slice(start, start + CHUNK_EDGES)
            weight_part = None if weight is None else weight[part].astype(np.float32)
            yield EdgeChunk(src[part].astype(np.int64), dst[part].astype(np.int64), weight_part)

    return chunks


def feature_rows(x_NF: np.ndarray | sp.csr_matrix) -> Callable[[], Iterator[np.ndarray | sp.csr_matrix]]:
    """Features in memory as float32 blocks of rows; CSR blocks are sorted and without repeats."""
    rows = max(1, CHUNK_VALUES // max(1, x_NF.shape[1]))

    def chunks() -> Iterator[np.ndarray | sp.csr_matrix]:
        for start in range(0, x_NF.shape[0], rows):
            block = x_NF[start : start + rows]
            if isinstance(block, sp.csr_matrix):
                block = block.astype(np.float32)
                block.sum_duplicates()
                yield block
            else:
                with np.errstate(over="ignore"):  # becomes infinite, which the contract of features reports
                    yield np.ascontiguousarray(block, dtype=np.float32)

    return chunks


def label_array(y_N: np.ndarray) -> Callable[[], Iterator[np.ndarray]]:
    """Labels in memory as one int32 chunk."""
    return lambda: iter([y_N.astype(np.int32)])


def split_of_masks(name: str, train_N: np.ndarray, validation_N: np.ndarray, test_N: np.ndarray) -> Split:
    """A split from three boolean masks of length N; a node in two roles is refused."""
    twice = np.flatnonzero(train_N.astype(int) + validation_N.astype(int) + test_N.astype(int) > 1)
    if len(twice):
        raise InvalidGraph(
            table="labels.splits",
            column="role",
            rule="roles_disjoint",
            num_rows=len(twice),
            sample=[f"split {name}, node {node}" for node in twice[:10]],
        )
    return Split(name, np.flatnonzero(train_N), np.flatnonzero(validation_N), np.flatnonzero(test_N))


def class_range(y_N: np.ndarray, *, what: str, num_classes: int | None = None) -> tuple[str, ...]:
    """Class names "0".."K-1" for integer labels; a label below zero or beyond `num_classes` is refused."""
    largest = int(y_N.max()) if len(y_N) else -1  # an `initial` of -1 does not fit unsigned labels
    limit = max(largest + 1, 1) if num_classes is None else num_classes
    # A class id far beyond the number of nodes is not a class id, and would name as many classes.
    limit = min(limit, len(y_N)) if num_classes is None else limit
    wrong = np.flatnonzero((y_N < 0) | (y_N >= limit))
    if len(wrong):
        raise InvalidGraph(
            table="labels.labels",
            column="label",
            rule="labels_are_class_ids",
            num_rows=len(wrong),
            sample=[f"{what}, node {node}: {y_N[node]}" for node in wrong[:10]],
        )
    return tuple(str(k) for k in range(limit))


def check_weights(config: DatasetConfig, *, has_weights: bool) -> bool:
    """Whether to give out weights; a source that has them is refused until the configuration decides."""
    if has_weights and config.weights == "refuse":
        raise InvalidGraph(
            table="graph.edges",
            column="weight",
            rule="weights_decided",
            num_rows=1,
            sample=["the source has edge weights: set dataset.weights to honour or discard"],
        )
    return has_weights and config.weights == "honour"
