"""A heterogeneous graph of one's own: a table a node type, a table a relation, and a manifest in JSON.

The manifest is GraphStorm's gconstruct-v0.1 with a part of ours (`gcl.readers.gconstruct_manifest`); one
folder serves both programs.
"""

import hashlib
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pyarrow as pa

from gcl.hetero_findings import Finding, UnreadableHetero
from gcl.hetero_graph import EdgeType
from gcl.metapath_steps import (
    MetapathBroken,
    MetapathPlan,
    parse_metapath,
    reversed_by_name,
    steps_of_triples,
)
from gcl.readers.base import Reader, dataset_name, existing_file
from gcl.readers.gconstruct_manifest import (
    MANIFEST,
    EdgeEntry,
    HeteroManifest,
    MetapathEntry,
    NodeEntry,
    SplitFiles,
    read_manifest,
)
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
    FormatName,
    TableFiles,
    feature_columns,
    files_below,
    id_column,
    label_column,
    weight_column,
)

GIVEN = "given"
_SUFFIXES: dict[str, FormatName] = {".csv": "csv", ".parquet": "parquet"}
_WEIGHT = "weight"
_CHUNK_BYTES = 1 << 20
_ROLES = {"train": "train", "valid": "validation", "test": "test"}


class GconstructConfig(HeteroDatasetConfig):
    """Tables in Parquet or CSV that a gconstruct manifest describes."""

    format: Literal["gconstruct"] = "gconstruct"
    name: str = dataset_name("gconstruct")


def source_files(config: GconstructConfig) -> dict[str, Path]:
    """The manifest and every file it names, by path below its folder.

    Raises:
        SourceUnreadable: the manifest is missing or is not one.
        UnreadableHetero, InvalidHetero: H01, files are missing; with all else that is wrong.
    """
    path = manifest_path(config.path)
    manifest, folder = read_manifest(path), path.parent
    files, missing = {"manifest": path}, []
    for patterns in _all_patterns(manifest):
        found = files_below(folder, patterns)
        missing += [] if found else [patterns]
        files |= {str(file.relative_to(folder)): file for file in found}
    if missing:
        open_source(config)  # reports the missing files together with what is wrong with the others
        raise UnreadableHetero([Finding.of("H01", "files_present", path.name, missing)])
    return files


def open_source(config: GconstructConfig) -> HeteroSource:
    """The graph that the manifest describes."""
    path = manifest_path(config.path)
    return checked(_Tables(path.parent, read_manifest(path)).read(), config)


def manifest_path(path: Path) -> Path:
    """The manifest: the file that is named, or ``graph.json`` in the folder that is."""
    return path if path.is_file() else existing_file(path / MANIFEST, "manifest")


def _all_patterns(manifest: HeteroManifest) -> list[str]:
    found: list[str] = []
    named_files = [*(entry.files for entry in manifest.nodes), *(entry.files for entry in manifest.edges)]
    for files in named_files:
        found += [files] if isinstance(files, str) else list(files)
    for _, split in _splits(manifest):
        for part in _ROLES:
            named = getattr(split, part)
            found += [] if named is None else [named] if isinstance(named, str) else list(named)
    return list(dict.fromkeys(found))


def _splits(manifest: HeteroManifest) -> list[tuple[str, SplitFiles]]:
    found = [
        (GIVEN, label.custom_split_filenames)
        for entry in manifest.nodes
        for label in entry.labels
        if entry.node_type == manifest.target and label.custom_split_filenames is not None
    ]
    found += list(manifest.x_hetero.split_sets.items())
    return [(name, split) for name, split in found if split.train or split.valid or split.test]


class _Tables:
    """Reads all tables of a manifest; what cannot be read becomes a finding."""

    def __init__(self, folder: Path, manifest: HeteroManifest) -> None:
        self.folder, self.manifest, self.more = folder, manifest, manifest.x_hetero
        self.found = HeteroRead(target=manifest.target)

    def read(self) -> HeteroRead:
        """Everything."""
        found = self.found
        found.classes = self.more.classes
        found.node_count = dict(self.more.node_count)
        self._check_digests()
        for node_entry in self.manifest.nodes:
            found.nodes[node_entry.node_type] = self._nodes(node_entry)
        for edge_entry in self.manifest.edges:
            found.edges[edge_entry.relation] = self._edges(edge_entry)
        found.reverses = self._reverses()
        for name, split in _splits(self.manifest):
            found.splits[name] = self._split(name, split)
        broken: list[str] = []
        for entry in self.more.metapaths:
            try:
                found.metapaths.append(self._metapath(entry))
            except MetapathBroken as error:
                broken.append(f"{entry.name}: {error}")
        if broken:
            found.findings.append(Finding.of("H11", "metapaths_chain", "metapaths path", broken))
        return found

    def _check_digests(self) -> None:
        """H17: the declared sha256 of files."""
        for name, expected in self.more.sha256.items():
            paths = attempt(self.found, name, partial(files_below, self.folder, name), [])
            if len(paths) != 1:
                self._report("H01", "files_present", name, [f"sha256 of {name}: there is no such file"])
            elif (digest := _sha256(paths[0])) != expected:
                self._report("H17", "sha256_as_declared", name, [f"{digest}, declared {expected}"])

    def _report(self, code: str, rule: str, where: str, rows: list[str]) -> None:
        self.found.findings.append(Finding.of(code, rule, where, rows))

    def _table(
        self, where: str, files: str | tuple[str, ...], form: FormatName, wanted: list[str]
    ) -> TableFiles | None:
        """The files of a table with H01, H02 and H18 checked; None where it cannot be read."""
        paths: list[Path] = []
        for pattern in [files] if isinstance(files, str) else files:
            matched = attempt(self.found, pattern, partial(files_below, self.folder, pattern), None)
            if matched == []:
                self._report("H01", "files_present", where, [pattern])
            paths += [path for path in matched or [] if path not in paths]
        table = TableFiles(form, tuple(paths), where)
        columns = attempt(self.found, where, table.columns, None) if paths else None
        if columns is None:
            return None
        missing = [name for name in wanted if not _is_there(name, columns)]
        if missing:
            self._report("H02", "columns_present", where, missing)
            return None
        return table

    def _nodes(self, entry: NodeEntry) -> NodesRead:
        type_ = entry.node_type
        features = [column for feature in entry.features for column in feature.columns]
        label = entry.labels[0].label_col if entry.labels and type_ == self.found.target else None
        wanted = [entry.node_id_col, *features, *([label] if label else [])]
        table = self._table(f"nodes {type_}", entry.files, entry.format.name, wanted)
        if table is None:
            return NodesRead(f"nodes {type_}", None)
        declared = self.more.id_type.get(type_)
        where, read = table.where, self.found
        ids = attempt(read, where, lambda: id_column(table, entry.node_id_col, declared), None)
        return NodesRead(
            where,
            ids,
            attempt(read, where, lambda: feature_columns(table, features), None) if features else None,
            attempt(read, where, lambda: label_column(table, label), None) if label else None,
        )

    def _edges(self, entry: EdgeEntry) -> EdgesRead:
        where = f"edges {'/'.join(entry.relation)}"
        source, _, end = entry.relation
        nothing = EdgesRead(where, self._no_ids(source), self._no_ids(end))
        columns = [entry.source_id_col, entry.dest_id_col]
        table = self._table(where, entry.files, entry.format.name, columns)
        if table is None:
            return nothing
        ends = [
            attempt(self.found, where, partial(id_column, table, column, self.more.id_type.get(type_)), None)
            for column, type_ in zip(columns, (source, end), strict=True)
        ]
        if any(found is None for found in ends):
            return nothing
        weight = None
        if _WEIGHT in table.columns():
            weight = attempt(self.found, where, lambda: weight_column(table, _WEIGHT), None)
        return EdgesRead(where, ends[0], ends[1], weight)

    def _no_ids(self, type_: str) -> Any:
        """No ids, of the type's own type where that is known: a lost table breaks no other rule."""
        table = self.found.nodes.get(type_)
        return pa.array([], pa.string() if table is None or table.ids is None else table.ids.type)

    def _split(self, name: str, split: SplitFiles) -> dict[str, Any]:
        parts, target = {}, self.found.target
        declared = self.more.id_type.get(target)
        for part, role in _ROLES.items():
            if (files := getattr(split, part)) is None:
                continue
            where, form = f"split {name}, {role}", self._split_format(files)
            table = self._table(where, files, form, [split.id_column])
            ids = None
            if table is not None:
                ids = attempt(self.found, where, partial(id_column, table, split.id_column, declared), None)
            parts[role] = self._no_ids(target) if ids is None else ids
        return parts

    def _split_format(self, files: str | tuple[str, ...]) -> FormatName:
        """Which the manifest has no field for: as the suffix says, else that of the target's tables."""
        suffix = PurePosixPath(files if isinstance(files, str) else files[0]).suffix.lower()
        if suffix in _SUFFIXES:
            return _SUFFIXES[suffix]
        of_target = (node.format.name for node in self.manifest.nodes if node.node_type == self.found.target)
        return next(of_target, "parquet")

    def _reverses(self) -> dict[EdgeType, EdgeType]:
        """Names of reverse relations: as declared, and those that say so themselves.

        Where only the reverse has a table, that is the relation, and the other name walks it backward.
        """
        found: dict[EdgeType, EdgeType] = {}
        for entry in self.more.reverse:
            reverse = (entry.of[2], entry.as_, entry.of[0])
            if reverse in self.found.edges and entry.of not in self.found.edges:
                found[entry.of] = reverse
            else:
                found[reverse] = entry.of
        for relation in self.found.edges:
            original = reversed_by_name(relation)
            if original is not None and original in self.found.edges:
                found[relation] = original
        return found

    def _metapath(self, entry: MetapathEntry) -> MetapathPlan:
        relations = [relation for relation in self.found.edges if relation not in self.found.reverses]
        if isinstance(entry.path, str):
            steps = parse_metapath(entry.path, relations, self.found.reverses)[1]
        else:
            steps = steps_of_triples(entry.path, relations, self.found.reverses)
        return MetapathPlan(entry.name, steps, entry.self_loops, entry.weight, entry.max_fanout, entry.nnz)


def _is_there(name: str, columns: list[str]) -> bool:
    if name.endswith("*"):
        return any(column.startswith(name[:-1]) for column in columns)
    return name in columns or {f"{name}_indices", f"{name}_values"} <= set(columns)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()


READER = Reader(
    config=GconstructConfig,
    description="Your own graph with several node types: Parquet or CSV tables and a gconstruct manifest",
    requires="path: folder with graph.json and the files it names, or the JSON file (docs/heterogeneous.md)",
    source_files=source_files,
    open=open_source,
    holds="hetero",
)
