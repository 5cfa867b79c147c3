"""What readers of heterogeneous graphs have in common: their settings, tables as read, and what they give."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from gcl.errors import InvalidGraph, SourceUnreadable, UnsafeSource
from gcl.graph import Features, Split
from gcl.hetero_findings import Finding
from gcl.hetero_graph import EdgeType, HeteroGraph
from gcl.metapath_steps import MetapathPlan
from gcl.readers.base import ArrowArray, DatasetConfig, FileDatasetConfig
from gcl.readers.printable import printable

OF_ONE_TYPE = ("duplicates", "one_way", "edge_holdout")
"""Fields of every format that mean nothing here."""


class HeteroDatasetConfig(FileDatasetConfig):
    """Fields of the formats whose graphs have several node types."""

    on_unknown_node: Literal["error", "skip", "add"] = Field(
        "error",
        description="edges to ids that no node has: the graph refused, the edges left out, or nodes added "
        "without features and labels",
    )
    duplicate_edges: Literal["error", "dedup", "sum"] = Field(
        "error",
        description="an edge listed twice: the graph refused, taken once (its weights must agree), or its "
        "weights added up (1 where there are none)",
    )

    @model_validator(mode="after")
    def _applies(self) -> "HeteroDatasetConfig":
        for name in OF_ONE_TYPE:
            if getattr(self, name) != DatasetConfig.model_fields[name].default:
                raise ValueError(f"{name} does not apply to graphs of several node types: leave it out")
        return self


@dataclass(frozen=True, eq=False)
class HeteroSource:
    """A heterogeneous graph as its source has it, checked; node ids have become positions.

    Attributes:
        graph: nodes, relations and features.
        node_ids: int64 or string ids of each type, in node order.
        y_N: int32 class of each target node, -1 without; None where the source has no labels.
        class_names: one name a class.
        splits: the source's own, of target nodes.
        metapaths: the source's own, in its order.
        notes: facts for the manifest, such as edges left out.
    """

    graph: HeteroGraph
    node_ids: Mapping[str, ArrowArray]
    y_N: np.ndarray | None
    class_names: tuple[str, ...]
    splits: tuple[Split, ...]
    metapaths: tuple[MetapathPlan, ...]
    notes: Mapping[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class NodesRead:
    """A type's nodes as read.

    Attributes:
        where: file or table, for messages.
        ids: int64 or string, in node order; nulls and repeats may still be among them. None: the type has no
            table, its nodes are those that edges name.
        features: float32 [N_t, F_t].
        labels: int64 classes or text, null without; of the target type alone.
    """

    where: str
    ids: ArrowArray | None
    features: Features | None = None
    labels: ArrowArray | None = None


@dataclass(frozen=True, eq=False)
class EdgesRead:
    """A relation's edges as read: ids as in the tables of their types, in any order."""

    where: str
    src: ArrowArray
    dst: ArrowArray
    weight: np.ndarray | None = None


@dataclass(eq=False)
class HeteroRead:
    """All that a source holds, as read; `gcl.readers.hetero_checks.checked` makes a HeteroSource of it.

    Attributes:
        target: the type that is embedded.
        nodes: by type, in the order of the source.
        edges: by relation.
        reverses: names of reverse relations, and whose reverse each is.
        classes: names of the classes, where the source lists them; None: those that occur.
        splits: ids of target nodes by split name and role (train, validation, test).
        metapaths: the source's own.
        node_count: how many nodes of a type there must be, where the source says so.
        findings: what was found wrong while reading.
        notes: facts for the manifest.
    """

    target: str
    nodes: dict[str, NodesRead] = field(default_factory=dict)
    edges: dict[EdgeType, EdgesRead] = field(default_factory=dict)
    reverses: dict[EdgeType, EdgeType] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    splits: dict[str, dict[str, ArrowArray]] = field(default_factory=dict)
    metapaths: list[MetapathPlan] = field(default_factory=list)
    node_count: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    notes: dict[str, int | str] = field(default_factory=dict)


def attempt(read: HeteroRead, where: str, load: Callable[[], Any], otherwise: Any) -> Any:
    """What `load` gives; what is wrong with it becomes a finding, and `otherwise` stands in for it.

    Args:
        read: where the finding is put.
        where: file, or file and column.
        load: reads and checks one thing.
        otherwise: with which the other checks can go on.
    """
    try:
        return load()
    except UnsafeSource as error:
        read.findings.append(Finding.of("H18", "nothing_unsafe", where, [printable(error)]))
    except SourceUnreadable as error:
        read.findings.append(Finding.of("H01", "files_readable", where, [printable(error)]))
    except InvalidGraph as error:
        code = "H10" if error.rule == "same_width_in_every_row" else "H09"
        read.findings.append(Finding(code, error.rule, where, error.num_rows, error.sample))
    return otherwise
