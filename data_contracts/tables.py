"""The tables, made of the columns; each has a contract name and a version."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from data_contracts import columns as c
from data_contracts.columns import Column

CONTRACT_KEY = "gclflow.contract"
VERSION_KEY = "gclflow.contract_version"
LAYOUT_KEY = "gclflow.layout"
EXTRA_KEY = "gclflow.extra_columns"

_EXTRA_TYPES = {
    str(type_): type_
    for type_ in (pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string(), pa.bool_())
}


@dataclass(frozen=True)
class Table:
    """What one Parquet table must look like; `suites` says what its rows must satisfy.

    Attributes:
        name: ``artifact.table``, the name of the contract.
        meaning: one line for the Data Docs.
        columns: the columns every file has, in order.
        optional: columns a file may have besides, in this order.
        layouts: alternatives of further columns, by name; a file has exactly one of them.
        has_loss_terms: whether any further float64 columns may follow.
        version: ``major.minor``; a consumer refuses another major version.
    """

    name: str
    meaning: str
    columns: tuple[Column, ...] = ()
    optional: tuple[Column, ...] = ()
    layouts: Mapping[str, tuple[Column, ...]] = field(default_factory=dict)
    has_loss_terms: bool = False
    version: str = "1.0"

    def schema(
        self,
        *,
        width: int | None = None,
        node_id_type: pa.DataType | None = None,
        layout: str | None = None,
        extra_columns: Sequence[str | Column] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> pa.Schema:
        """The schema to write a file with; its metadata name the contract and its version.

        Args:
            width: length of the table's vectors (F or D); required where it has any.
            node_id_type: int64 (the default) or string.
            layout: ``"dense"`` (the default) or ``"sparse"``, for the graph's features.
            extra_columns: names of optional columns or loss terms, or further columns of the caller's.
            metadata: what the writer adds, e.g. ``num_features``, ``class_names`` as JSON.

        Raises:
            ValueError: a name or layout the table does not know, or a missing width.
        """
        layout = layout or next(iter(self.layouts), "")
        if layout and layout not in self.layouts:
            raise ValueError(
                f"{self.name} has no layout {layout!r}; it has: {', '.join(self.layouts) or 'none'}"
            )
        extras = [self._extra(extra) for extra in extra_columns]
        ordered = _in_order((*self.columns, *self.layouts.get(layout, ()), *extras))
        notes: dict[bytes | str, bytes | str] = dict((metadata or {}).items())
        notes |= {CONTRACT_KEY: self.name, VERSION_KEY: self.version}
        if layout:
            notes[LAYOUT_KEY] = layout
        foreign = [column for column in extras if column not in self.optional]
        if foreign and not self.has_loss_terms:
            notes[EXTRA_KEY] = json.dumps([_to_json(column) for column in foreign])
        id_type = pa.int64() if node_id_type is None else node_id_type
        return pa.schema([column.field(width=width, node_id_type=id_type) for column in ordered], notes)

    def _extra(self, extra: str | Column) -> Column:
        if isinstance(extra, Column):
            return extra
        for column in self.optional:
            if column.name == extra:
                return column
        if self.has_loss_terms:
            return c.loss_term(extra)
        known = ", ".join(column.name for column in self.optional) or "none"
        raise ValueError(f"{self.name} has no optional column {extra!r}; it has: {known}")

    def expected_columns(self, schema: pa.Schema) -> tuple[Column, ...]:
        """The columns a file with this schema ought to have: which optional ones it has is its choice."""
        notes = metadata_of(schema)
        layout = notes.get(LAYOUT_KEY, next(iter(self.layouts), ""))
        extras = [column for column in self.optional if column.name in schema.names]
        base = (*self.columns, *self.layouts.get(layout, ()))
        if self.has_loss_terms:
            known = {column.name for column in base}
            extras += [c.loss_term(name) for name in schema.names if name not in known]
        else:
            extras += _declared_extras(notes.get(EXTRA_KEY, "[]"))
        return _in_order((*base, *extras))


def metadata_of(schema: pa.Schema) -> dict[str, str]:
    """The schema's metadata as text; bytes that are not UTF-8 are replaced, not refused."""
    pairs = (schema.metadata or {}).items()
    return {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in pairs}


def _in_order(chosen: Sequence[Column]) -> tuple[Column, ...]:
    return tuple(sorted(chosen, key=lambda column: not column.is_leading))


def _to_json(column: Column) -> dict[str, object]:
    if column.type_name not in _EXTRA_TYPES:
        raise ValueError(f"extra column {column.name!r} must be one of {', '.join(_EXTRA_TYPES)}")
    return {
        "name": column.name,
        "type": column.type_name,
        "nullable": column.nullable,
        "unit": column.unit,
        "meaning": column.meaning,
    }


def _declared_extras(text: str) -> list[Column]:
    """Columns declared in the metadata; a declaration that cannot be read declares nothing."""
    try:
        return [
            Column(
                str(entry["name"]),
                _EXTRA_TYPES[entry["type"]],
                nullable=bool(entry["nullable"]),
                unit=str(entry["unit"]),
                meaning=str(entry["meaning"]),
            )
            for entry in json.loads(text)
        ]
    except (ValueError, KeyError, TypeError):
        return []


_FIGURES = (
    c.TASK,
    c.PROTOCOL,
    c.METRIC_SPLIT,
    c.SEED,
    c.EMBEDDING,
    c.METRIC,
    c.METRIC_VALUE,
    c.STD,
    c.COUNT,
    c.OVER,
)

_ALL = (
    Table("graph.nodes", "The nodes, and what their source calls them.", (c.NODE, c.NODE_ID), (c.GRAPH,)),
    Table("graph.edges", "Directed edges, sorted, without repeats.", (c.SRC, c.DST), (c.GRAPH, c.WEIGHT)),
    Table(
        "graph.features",
        "Node features, row by row in node order.",
        layouts={"dense": (c.X,), "sparse": (c.INDICES, c.VALUES)},
    ),
    Table("hetero.nodes", "The nodes of every type.", (c.NODE_TYPE, c.TYPE_NODE, c.NODE_ID)),
    Table(
        "hetero.edges",
        "The edges of every relation, in one direction.",
        (c.RELATION, c.SRC, c.DST),
        (c.WEIGHT,),
    ),
    Table(
        "hetero.features",
        "Node features of the types that have any.",
        (c.NODE_TYPE, c.TYPE_NODE, c.INDICES, c.VALUES),
    ),
    Table(
        "metapaths.edges",
        "The target nodes that each metapath joins.",
        (c.METAPATH, c.SRC, c.DST),
        (c.WEIGHT,),
    ),
    Table("collection.nodes", "The nodes of all graphs, graph by graph.", (c.GRAPH, c.NODE)),
    Table("collection.edges", "The edges of all graphs, in both directions.", (c.GRAPH, c.SRC, c.DST)),
    Table(
        "collection.features",
        "Node features of all graphs, row by row in node order.",
        (c.GRAPH,),
        layouts={"dense": (c.X,), "sparse": (c.INDICES, c.VALUES)},
    ),
    Table("labels.labels", "The class of each node, if it has one.", (c.NODE, c.LABEL)),
    Table("labels.splits", "Which nodes train, validate and test.", (c.SPLIT_NAME, c.MEMBER, c.ROLE)),
    Table("labels.held_out_edges", "Pairs kept for link prediction.", (c.SRC, c.DST, c.ROLE, c.IS_EDGE)),
    Table("smoothed.features", "Features after the graph filter.", (c.NODE, c.X)),
    Table("model.history", "The loss terms of each epoch.", (c.EPOCH,), has_loss_terms=True),
    Table(
        "negatives.pairs",
        "How the trained method weighs a sample of pairs as negatives.",
        (c.ANCHOR, c.CANDIDATE, c.SIMILARITY, c.PAIR_WEIGHT),
    ),
    Table("embeddings.embeddings", "What the encoder learned.", (c.NODE, c.NODE_ID, c.Z)),
    Table("controls.embeddings", "What the untrained encoder gives.", (c.NODE, c.NODE_ID, c.Z)),
    Table(
        "checks.checks",
        "The embeddings at several epochs of the training, one epoch after the other.",
        (c.CHECK_EPOCH, c.MEMBER, c.CHECK_Z),
    ),
    Table(
        "uncertainty.uncertainty",
        "How uncertain each embedding is.",
        (c.NODE, c.NODE_ID, c.UNCERTAINTY, c.METHOD),
    ),
    Table(
        "clusters.clusters",
        "The cluster of each node.",
        (c.NODE, c.NODE_ID, c.CLUSTER, c.CLUSTER_CONFIDENCE, c.MEMBERSHIP),
    ),
    Table("clusters.centroids", "The centre of each cluster.", (c.CLUSTER, c.CENTROID)),
    Table(
        "clusters.evidence",
        "What speaks for each number of clusters.",
        (c.NUM_CLUSTERS, c.MEASURE, c.EVIDENCE_VALUE),
    ),
    Table("scores.embeddings", "Embeddings of nodes by a trained model.", (c.MEMBER, c.NODE_ID, c.Z)),
    Table(
        "scores.clusters",
        "The nearest of the training's clusters.",
        (c.MEMBER, c.NODE_ID, c.NEAREST_CLUSTER, c.DISTANCE, c.IS_OUTLIER),
    ),
    Table(
        "scores.shift",
        "Whether the model still fits the data it scores.",
        (c.SHIFT_MEASURE, c.SHIFT_VALUE, c.SHIFT_BOUND),
    ),
    Table("victim.history", "The loss of each epoch of a victim.", (c.EPOCH,), has_loss_terms=True),
    Table(
        "attacks.results",
        "What each attack added to each graph, and what the victim made of it.",
        (c.GRAPH, c.ATTACK, c.TRUE_CLASS, c.CLEAN_CLASS, c.ATTACKED_CLASS, c.ADDED_SRC, c.ADDED_DST),
    ),
    Table("metrics.metrics", "Every score, with its protocol and spread.", _FIGURES),
    Table("metrics.oracle", "What the labels would have chosen, apart from every result.", _FIGURES),
    Table(
        "predictions.predictions",
        "Calibrated predictions, one row a node.",
        (c.NODE, c.NODE_ID, c.PREDICTED, c.CONFIDENCE, c.ENTROPY, c.ABSTAIN, c.PREDICTION_SET),
    ),
    Table("predictions.curves", "Curves such as risk against coverage.", (c.CURVE, c.CURVE_X, c.CURVE_Y)),
)

TABLES: dict[str, Table] = {table.name: table for table in _ALL}


def table_named(name: str) -> Table:
    """The table of that name.

    Raises:
        ValueError: no such table; the message lists the known ones.
    """
    try:
        return TABLES[name]
    except KeyError:
        raise ValueError(f"no table {name!r}; known: {', '.join(TABLES)}") from None
