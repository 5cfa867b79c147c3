"""The manifest of a heterogeneous graph: GraphStorm's gconstruct-v0.1 in JSON, with our part `x_hetero`.

What GraphStorm has beyond this is refused where it would change the graph (transformations, other tasks), and
ignored where GraphStorm's own reader does (top-level keys).
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gcl.config import Config
from gcl.errors import SourceUnreadable
from gcl.metapath_steps import SelfLoops, WalkWeight
from gcl.readers.printable import printable

MANIFEST = "graph.json"
MAX_BYTES = 1 << 20
_NAME = r"^[A-Za-z0-9_.-]{1,64}$"

Name = Annotated[str, Field(pattern=_NAME)]
Column = Annotated[str, Field(min_length=1, max_length=200)]
FileName = Annotated[str, Field(min_length=1, max_length=1000)]
Columns = Annotated[tuple[Column, ...], Field(min_length=1)] | Column
Files = Annotated[tuple[FileName, ...], Field(min_length=1)] | FileName
Relation = tuple[Name, Name, Name]


class TableFormatName(Config):
    """How files are written."""

    name: Literal["parquet", "csv"]
    separator: Literal[","] = ","


class FeatureEntry(Config):
    """A feature of nodes: columns that are put side by side."""

    feature_col: Columns
    feature_name: str | None = None
    out_dtype: Literal["float32", "float64", "float16"] = "float32"
    transform: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _plain(self) -> "FeatureEntry":
        if self.transform not in (None, {}, {"name": "no-op"}):
            raise ValueError("transformations are not applied here: store the transformed feature")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Its columns."""
        return (self.feature_col,) if isinstance(self.feature_col, str) else self.feature_col


class SplitFiles(Config):
    """Files of node ids, by role."""

    train: Files | None = None
    valid: Files | None = None
    test: Files | None = None
    column: Columns = "node_id"

    @property
    def id_column(self) -> str:
        """The column of ids."""
        return self.column if isinstance(self.column, str) else self.column[0]


class LabelEntry(Config):
    """A label of nodes."""

    label_col: Column | None = None
    task_type: Literal["classification"]
    split_pct: tuple[float, ...] | None = None
    custom_split_filenames: SplitFiles | None = None
    label_stats_type: str | None = None
    label_name: str | None = None

    @model_validator(mode="after")
    def _split_is_given(self) -> "LabelEntry":
        if self.split_pct is not None and self.custom_split_filenames is None:
            raise ValueError(
                "split_pct draws its split at random, which is evaluation's part here: leave it out, or name "
                "custom_split_filenames"
            )
        return self


class NodeEntry(Config):
    """The tables of a node type."""

    node_type: Name
    format: TableFormatName
    files: Files
    node_id_col: Column = "node_id"
    features: tuple[FeatureEntry, ...] = ()
    labels: tuple[LabelEntry, ...] = Field((), max_length=1)


class EdgeEntry(Config):
    """The tables of a relation."""

    relation: Relation
    format: TableFormatName
    files: Files
    source_id_col: Column = "src_id"
    dest_id_col: Column = "dst_id"


class ReverseEntry(Config):
    """A name for a relation walked backward."""

    of: Relation
    as_: Name = Field(alias="as")


class MetapathEntry(Config):
    """A metapath: relation triples, or a path as the configuration takes them."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,64}$")]
    path: tuple[Relation, ...] | Annotated[str, Field(min_length=3, max_length=1000)]
    self_loops: SelfLoops = "keep"
    weight: WalkWeight = "binary"
    max_fanout: int | None = Field(None, ge=1, le=1_000_000)
    nnz: int | None = Field(None, ge=0)


class HeteroPart(Config):
    """What GraphStorm's form has no place for."""

    version: Literal["1"] = Field("1", alias="schema")
    target: Name | None = None
    id_type: dict[str, Literal["int64", "string"]] = {}
    node_count: dict[str, Annotated[int, Field(ge=0, lt=2**31)]] = {}
    classes: tuple[str, ...] | None = Field(None, max_length=100_000)
    reverse: tuple[ReverseEntry, ...] = ()
    metapaths: tuple[MetapathEntry, ...] = Field((), max_length=64)
    split_sets: dict[Name, SplitFiles] = {}
    feature_norm: Literal["none", "l1_row"] = "none"
    sha256: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = {}

    @model_validator(mode="after")
    def _features_are_as_stored(self) -> "HeteroPart":
        if self.feature_norm != "none":
            raise ValueError("feature_norm is not applied here: leave it out, set smooth.normalise_input=l1")
        return self


class HeteroManifest(BaseModel):
    """A heterogeneous graph in tables."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    version: Literal["gconstruct-v0.1"]
    nodes: tuple[NodeEntry, ...] = ()
    edges: tuple[EdgeEntry, ...] = Field(min_length=1)
    x_hetero: HeteroPart = HeteroPart()

    @model_validator(mode="after")
    def _each_once(self) -> "HeteroManifest":
        types = [entry.node_type for entry in self.nodes]
        relations = ["/".join(entry.relation) for entry in self.edges]
        for names in (types, relations):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{twice[0]} is described twice")
        if self.x_hetero.target is None and len([entry for entry in self.nodes if entry.labels]) != 1:
            raise ValueError("x_hetero.target must name the node type that is embedded")
        return self

    @property
    def target(self) -> str:
        """The type that is embedded: as said, or the one with labels."""
        return self.x_hetero.target or next(entry.node_type for entry in self.nodes if entry.labels)


def read_manifest(path: Path) -> HeteroManifest:
    """The checked manifest.

    Raises:
        SourceUnreadable: there is none, or it is not one; the message names the field.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SourceUnreadable(f"{path.name}: more than {MAX_BYTES} bytes")
        document = json.loads(path.read_bytes().decode("utf-8-sig"))
        return HeteroManifest.model_validate(document)
    except OSError as error:
        raise SourceUnreadable(f"there is no readable manifest {path}: {error}") from error
    except ValidationError as error:
        raise SourceUnreadable(f"{path.name}: {explained(error)}") from error
    except (ValueError, RecursionError) as error:
        raise SourceUnreadable(f"{path.name}: not JSON: {printable(error)}") from error


def explained(error: ValidationError) -> str:
    """The first fields that do not fit."""
    return "; ".join(
        f"{printable('.'.join(map(str, one['loc'])))}: {printable(one['msg'])}"
        for one in error.errors(include_url=False)[:5]
    )
