"""The folder of a DGL CSVDataset: meta.yaml, a CSV file a node type, a CSV file a relation.

Source: dgl.data.CSVDataset of DGL 1.1. Of its columns are read ids, features, labels and the three masks.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gcl.errors import SourceUnreadable
from gcl.hetero_findings import Finding, UnreadableHetero
from gcl.readers.base import ArrowArray, Reader, dataset_name, existing_file
from gcl.readers.csv_tables import csv_batches
from gcl.readers.gconstruct_manifest import explained
from gcl.readers.hetero_base import (
    EdgesRead,
    HeteroDatasetConfig,
    HeteroRead,
    HeteroSource,
    NodesRead,
    attempt,
)
from gcl.readers.hetero_checks import checked
from gcl.readers.hetero_columns import (
    TableFiles,
    feature_columns,
    files_below,
    id_column,
    label_column,
    weight_column,
)
from gcl.readers.printable import printable

META = "meta.yaml"
SPLIT_NAME = "given"
_MAX_BYTES = 1 << 20
_MAX_LEVELS = 32
_MASKS = {"train_mask": "train", "val_mask": "validation", "test_mask": "test"}
_TRUE, _FALSE = ("1", "1.0", "true", "True"), ("0", "0.0", "false", "False")

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^/<>\x00-\x1f]+$")]
FileName = Annotated[str, Field(min_length=1, max_length=1000)]


class DglCsvConfig(HeteroDatasetConfig):
    """A folder that dgl.data.CSVDataset reads."""

    format: Literal["dgl_csv"] = "dgl_csv"
    name: str = dataset_name("dgl_csv")
    target: str = Field(
        "_V",
        min_length=1,
        max_length=64,
        description="the node type that is embedded; _V: of a graph with one",
    )
    features: str = Field(
        "feat",
        min_length=1,
        max_length=200,
        description="column of features of every type that has it; NAME* for several",
    )
    label: str = Field("label", min_length=1, max_length=200, description="column of classes of the target")
    id_type: Literal["string", "int64"] = Field("string", description="type of all node ids")


class _Part(BaseModel):
    """A file; what DGL knows beyond this is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file_name: FileName


class _Nodes(_Part):
    ntype: Name = "_V"
    node_id_field: str = "node_id"


class _Edges(_Part):
    etype: tuple[Name, Name, Name] = ("_V", "_E", "_V")
    src_id_field: str = "src_id"
    dst_id_field: str = "dst_id"


class _Meta(BaseModel):
    """What meta.yaml says."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    separator: Literal[","] = ","
    node_data: tuple[_Nodes, ...] = Field(min_length=1)
    edge_data: tuple[_Edges, ...] = Field(min_length=1)
    graph_data: None = None

    @model_validator(mode="after")
    def _each_once(self) -> "_Meta":
        types, relations = [part.ntype for part in self.node_data], [part.etype for part in self.edge_data]
        if len(set(types)) < len(types) or len(set(relations)) < len(relations):
            raise ValueError("a node type or a relation is described twice")
        return self


def source_files(config: DglCsvConfig) -> dict[str, Path]:
    """meta.yaml and the files it names; UnreadableHetero names all that are missing."""
    files = {"meta": existing_file(config.path / META, "meta.yaml")}
    meta, missing = _read_meta(files["meta"]), []
    for name in dict.fromkeys(part.file_name for part in (*meta.node_data, *meta.edge_data)):
        found = files_below(config.path, name)
        if len(found) == 1:
            files[name] = found[0]
        else:
            missing.append(name)
    if missing:
        raise UnreadableHetero([Finding.of("H01", "files_present", META, missing)])
    return files


def open_source(config: DglCsvConfig) -> HeteroSource:
    """The graph; its metapaths are the configuration's to say."""
    files = source_files(config)
    meta, read = _read_meta(files["meta"]), HeteroRead(target=config.target)
    for nodes in meta.node_data:
        table = TableFiles("csv", (files[nodes.file_name],), f"nodes {nodes.ntype}")
        read.nodes[nodes.ntype] = _nodes(read, table, nodes, config)
    for edges in meta.edge_data:
        table = TableFiles("csv", (files[edges.file_name],), f"edges {'/'.join(edges.etype)}")
        read.edges[edges.etype] = _edges(read, table, edges, config)
    _check_asked_for(read, config)
    return checked(read, config)


def _check_asked_for(read: HeteroRead, config: DglCsvConfig) -> None:
    """H02: columns that the configuration names, beyond the usual names, and no table has."""
    if read.findings:  # a table that could not be read may have them
        return
    target, usual = read.nodes.get(config.target), DglCsvConfig.model_fields
    has_features = any(nodes.features is not None for nodes in read.nodes.values())
    has_labels = target is None or target.labels is not None
    missing = [
        name
        for name, default, is_there in (
            (config.features, usual["features"].default, has_features),
            (config.label, usual["label"].default, has_labels),
        )
        if name != default and not is_there
    ]
    if missing:
        read.findings.append(Finding.of("H02", "columns_present", "nodes", missing))


def _read_meta(path: Path) -> _Meta:
    import yaml

    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SourceUnreadable(f"{META}: more than {_MAX_BYTES} bytes")
        text = path.read_bytes().decode("utf-8-sig")
        if _bracket_depth(text) > _MAX_LEVELS:
            raise SourceUnreadable(f"{META}: brackets nested deeper than {_MAX_LEVELS} levels")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise SourceUnreadable(f"{META}: aliases are refused: a few of them can stand for any size")
        return _Meta.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        raise SourceUnreadable(f"{META}: {explained(error)}") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise SourceUnreadable(f"{META}: not YAML: {printable(error)}") from error


def _bracket_depth(text: str) -> int:
    """How deep brackets nest; the parser takes time in the square of it."""
    depth = deepest = 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        deepest = max(deepest, depth)
    return deepest


def _columns(read: HeteroRead, table: TableFiles, wanted: list[str]) -> list[str] | None:
    """The columns of a table; None, and H02, where one that must be there is not."""
    present: list[str] | None = attempt(read, table.where, table.columns, None)
    if present is None:
        return None
    missing = [name for name in wanted if name not in present]
    if missing:
        read.findings.append(Finding.of("H02", "columns_present", table.where, missing))
        return None
    return present


def _nodes(read: HeteroRead, table: TableFiles, part: _Nodes, config: DglCsvConfig) -> NodesRead:
    present = _columns(read, table, [part.node_id_field])
    if present is None:
        return NodesRead(table.where, None)
    ids = attempt(read, table.where, lambda: id_column(table, part.node_id_field, config.id_type), None)
    wanted = config.features
    has_features = wanted in present or any(
        wanted.endswith("*") and name.startswith(wanted[:-1]) for name in present
    )
    features = (
        attempt(read, table.where, lambda: feature_columns(table, [wanted]), None) if has_features else None
    )
    labels = None
    if part.ntype == config.target and ids is not None:
        if config.label in present:
            labels = attempt(read, table.where, lambda: label_column(table, config.label), None)
        if masks := [name for name in _MASKS if name in present]:
            read.splits[SPLIT_NAME] = {_MASKS[name]: _masked(read, table, name, ids) for name in masks}
    return NodesRead(table.where, ids, features, labels)


def _masked(read: HeteroRead, table: TableFiles, name: str, ids: ArrowArray) -> ArrowArray:
    chosen: np.ndarray = attempt(read, table.where, partial(_mask, table, name), np.zeros(len(ids), bool))
    return ids.filter(pa.array(chosen))


def _mask(table: TableFiles, name: str) -> np.ndarray:
    texts: list[Any] = []
    for batch in csv_batches(table.paths[0], {name: pa.string()}):
        texts += batch.column(0).to_pylist()
    strange = [row for row, text in enumerate(texts) if text not in (*_TRUE, *_FALSE)]
    if strange:
        found = f"row {strange[0] + 1}: {str(texts[strange[0]])[:80]!r}"
        raise SourceUnreadable(f"{table.where}: column {name!r}, {found} is neither true nor false")
    return np.array([text in _TRUE for text in texts], bool)


def _edges(read: HeteroRead, table: TableFiles, part: _Edges, config: DglCsvConfig) -> EdgesRead:
    nothing = pa.array([], pa.string() if config.id_type == "string" else pa.int64())
    columns = [part.src_id_field, part.dst_id_field]
    present = _columns(read, table, columns)
    if present is None:
        return EdgesRead(table.where, nothing, nothing)
    ends = [
        attempt(read, table.where, partial(id_column, table, column, config.id_type), nothing)
        for column in columns
    ]
    if len(ends[0]) != len(ends[1]):  # one of them could not be read
        return EdgesRead(table.where, nothing, nothing)
    weight = None
    if "weight" in present:
        weight = attempt(read, table.where, lambda: weight_column(table, "weight"), None)
    return EdgesRead(table.where, ends[0], ends[1], weight)


READER = Reader(
    config=DglCsvConfig,
    description="A folder of dgl.data.CSVDataset, with one graph of one or several node types",
    requires="path: folder with meta.yaml and the CSV files it names; target: the type to embed",
    source_files=source_files,
    open=open_source,
    holds="hetero",
)
