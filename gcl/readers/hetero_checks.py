"""From tables as read to a checked heterogeneous graph: all checks are made, one report lists what failed.

The codes H01 to H18 are those of docs/heterogeneous.md. Checks of files (H01, H02, H10, H17, H18) are made
while reading and arrive here as findings.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from gcl.graph import Features, Split
from gcl.hetero_findings import MAX_SAMPLE, Finding, raise_findings
from gcl.hetero_graph import EdgeType, HeteroGraph
from gcl.readers.base import ArrowArray, check_weights
from gcl.readers.hetero_base import EdgesRead, HeteroDatasetConfig, HeteroRead, HeteroSource, NodesRead
from gcl.readers.node_ids import MISSING, NodeIds
from gcl.readers.printable import printable

ROLES = ("train", "validation", "test")
_MAX_CLASSES = 100_000


def checked(read: HeteroRead, config: HeteroDatasetConfig) -> HeteroSource:
    """The graph, if every check holds.

    Args:
        read: what the files say; its findings so far are part of the report.
        config: the policies.

    Raises:
        UnreadableHetero, InvalidHetero: with all findings.
        InvalidGraph: edge weights, and no decision about them.
    """
    checks = _Checks(read, config)
    checks.relations()
    checks.nodes()
    edges, weights = checks.edges()
    features = checks.features()
    y_N, class_names = checks.labels()
    splits = checks.splits(y_N)
    checks.metapaths()
    raise_findings(read.findings)
    ids = {type_: index.ids for type_, index in checks.ids.items()}
    graph = HeteroGraph(
        target=read.target,
        num_nodes={type_: len(found) for type_, found in ids.items()},
        edges=edges,
        features=features,
        weights=weights,
    )
    return HeteroSource(graph, ids, y_N, class_names, splits, tuple(read.metapaths), read.notes)


class _Checks:
    """The checks of one source, in order; each adds its findings and goes on with what is sound."""

    def __init__(self, read: HeteroRead, config: HeteroDatasetConfig) -> None:
        self.read, self.config = read, config
        self.ids: dict[str, NodeIds] = {}
        self.added: dict[str, int] = {}

    def report(
        self, code: str, rule: str, where: str, rows: np.ndarray | list[str], advice: str = ""
    ) -> None:
        """Add a finding, if there are rows."""
        if len(rows):
            shown = [printable(row, max_length=120) for row in rows[:MAX_SAMPLE]]
            self.read.findings.append(Finding(code, rule, where, len(rows), tuple(shown), advice))

    def relations(self) -> None:
        """H07: every relation joins declared types, the target is one of them; reverses are of relations."""
        declared = {*self.read.nodes, *self.read.node_count}
        unknown = [
            f"{'/'.join(relation)}: {type_}"
            for relation in self.read.edges
            for type_ in dict.fromkeys((relation[0], relation[2]))
            if type_ not in declared
        ]
        if self.read.target not in declared:
            unknown.append(f"target: {self.read.target}")
        self.report("H07", "types_declared", "hetero.edges relation", unknown)
        lost = [
            f"{reverse[1]}: of {'/'.join(original)}"
            for reverse, original in self.read.reverses.items()
            if original not in self.read.edges
        ]
        self.report("H07", "reverses_of_relations", "hetero.edges relation", lost)

    def nodes(self) -> None:
        """H03, H04, H05, H16: ids of each type, with those that only edges name where that is allowed."""
        for type_ in dict.fromkeys([*self.read.nodes, *self.read.node_count, *self._types_of_edges()]):
            table = self.read.nodes.get(type_, NodesRead(type_, None))
            ids = self._named_by_edges(type_) if table.ids is None else self._sound_ids(type_, table)
            self.ids[type_] = NodeIds(self._with_unknown(type_, ids, table))
            found, declared = len(self.ids[type_].ids), self.read.node_count.get(type_)
            if declared is not None and declared != found:
                mismatch = [f"{type_}: {found} nodes, declared {declared}"]
                self.report("H16", "node_counts_as_declared", "hetero.nodes node", mismatch)
        empty = [type_ for type_ in [self.read.target] if type_ in self.ids and not len(self.ids[type_].ids)]
        self.report("H16", "target_has_nodes", "hetero.nodes node", empty)

    def _sound_ids(self, type_: str, table: NodesRead) -> ArrowArray:
        ids: ArrowArray = table.ids
        nulls = np.flatnonzero(ids.is_null().to_numpy(zero_copy_only=False))
        where = f"{table.where} node_id"
        self.report("H03", "ids_present", where, [f"{type_}, row {row + 1}" for row in nulls])
        counted = pc.value_counts(ids.drop_null())
        repeated = counted.field("values").filter(pc.greater(counted.field("counts"), 1))
        self.report("H04", "ids_unique", where, [f"{type_} {node}" for node in repeated.to_pylist()])
        return ids

    def _types_of_edges(self) -> list[str]:
        return [type_ for relation in self.read.edges for type_ in (relation[0], relation[2])]

    def _ends(self, type_: str) -> list[tuple[str, str, ArrowArray]]:
        """Every column of edges that names nodes of a type: (where, column, ids)."""
        found = []
        for relation, edges in self.read.edges.items():
            if relation[0] == type_:
                found.append((edges.where, "src", edges.src))
            if relation[2] == type_:
                found.append((edges.where, "dst", edges.dst))
        return found

    def _named_by_edges(self, type_: str) -> ArrowArray:
        columns = [ids for _, _, ids in self._ends(type_)]
        types = {column.type for column in columns}
        if len(types) > 1:
            mixed = [f"{type_}: {' and '.join(sorted(map(str, types)))}"]
            self.report("H05", "id_types_equal", "hetero.edges", mixed)
            columns = [column for column in columns if column.type == columns[0].type]
        if not columns:
            return pa.array([], pa.int64())
        distinct: ArrowArray = pc.unique(pa.chunked_array(columns)).drop_null()
        return distinct.take(pc.sort_indices(distinct))

    def _with_unknown(self, type_: str, ids: ArrowArray, table: NodesRead) -> ArrowArray:
        """H05 and, where unknown nodes are added, the ids that edges name beside the known ones."""
        for where, column, found in self._ends(type_):
            if found.type != ids.type and table.ids is not None:
                mismatch = [f"{type_}: {found.type}, in its node table {ids.type}"]
                self.report("H05", "id_types_equal", f"{where} {column}", mismatch)
        if self.config.on_unknown_node != "add" or table.ids is None:
            return ids
        columns = [found for _, _, found in self._ends(type_) if found.type == ids.type]
        if not columns:
            return ids
        distinct: ArrowArray = pc.unique(pa.chunked_array(columns)).drop_null()
        new = distinct.filter(pc.invert(pc.is_in(distinct, value_set=ids)))
        self.added[type_] = len(new)
        self.read.notes[f"nodes_added_{type_}"] = len(new)
        return pa.concat_arrays([ids, new.take(pc.sort_indices(new))])

    def edges(self) -> tuple[dict[EdgeType, tuple[np.ndarray, np.ndarray]], dict[EdgeType, np.ndarray]]:
        """H03, H06, H08, and weights finite and positive: sorted edges without repeats."""
        edges, weights = {}, {}
        has_weights = any(table.weight is not None for table in self.read.edges.values())
        honoured = check_weights(self.config, has_weights=has_weights)
        for relation, table in self._one_way():
            src_E, dst_E, kept_E = self._positions(relation, table)
            weight_E = None
            if honoured and table.weight is not None:
                weight_E = table.weight[kept_E]
                broken = kept_E[~(np.isfinite(weight_E) & (weight_E > 0))]
                self.report("H09", "weights_finite_and_positive", f"{table.where} weight", _rows(broken))
            edges[relation], merged_E = self._distinct(relation, table, (src_E, dst_E), weight_E, kept_E)
            if merged_E is not None:
                weights[relation] = merged_E
        return edges, weights

    def _one_way(self) -> list[tuple[EdgeType, EdgesRead]]:
        """The relations without those that only repeat another one backward; H08 where they do not."""
        kept = []
        for relation, table in self.read.edges.items():
            original = self.read.reverses.get(relation)
            if original is None or original not in self.read.edges:  # the latter is reported
                kept.append((relation, table))
                continue
            differs = _not_turned_round(table, self.read.edges[original], "/".join(original))
            self.report("H08", "reverse_relations_agree", f"{table.where} src, dst", differs)
        return kept

    def _positions(self, relation: EdgeType, table: EdgesRead) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        kept_E = np.full(len(table.src), True)
        ends = []
        for type_, column, ids in ((relation[0], "src", table.src), (relation[2], "dst", table.dst)):
            where = f"{table.where} {column}"
            known = self.ids[type_]
            if ids.type != known.ids.type:
                return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)
            null_E = ids.is_null().to_numpy(zero_copy_only=False)
            self.report("H03", "ids_present", where, _rows(np.flatnonzero(null_E)))
            position_E = known.positions(ids)
            unknown = np.flatnonzero((position_E == MISSING) & ~null_E)
            if self.config.on_unknown_node == "skip":
                self.read.notes[f"edges_skipped_{'/'.join(relation)}_{column}"] = len(unknown)
            else:
                shown = [f"row {row + 1}: {type_} {ids[int(row)]}" for row in unknown[:MAX_SAMPLE]]
                shown += [""] * (len(unknown) - len(shown))
                advice = "dataset.on_unknown_node may be skip or add"
                self.report("H06", "endpoints_known", where, shown, advice)
            kept_E &= position_E != MISSING
            ends.append(position_E)
        rows = np.flatnonzero(kept_E)
        return ends[0][rows], ends[1][rows], rows

    def _distinct(
        self,
        relation: EdgeType,
        table: EdgesRead,
        ends: tuple[np.ndarray, np.ndarray],
        weight_E: np.ndarray | None,
        row_E: np.ndarray,
    ) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray | None]:
        """Edges in order, repeats merged; `row_E` are the rows of the file that they stand in."""
        src_E, dst_E = ends
        if relation[0] == relation[2] and self.config.self_loops != "keep":
            is_other = src_E != dst_E
            if self.config.self_loops == "reject":
                self.report("H08", "no_self_loops", f"{table.where} src, dst", _rows(row_E[~is_other]))
            src_E, dst_E, row_E = src_E[is_other], dst_E[is_other], row_E[is_other]
            weight_E = None if weight_E is None else weight_E[is_other]
        order = np.lexsort((dst_E, src_E))
        src_E, dst_E = src_E[order], dst_E[order]
        weight_E = None if weight_E is None else weight_E[order]
        is_first = np.concatenate([[True], (src_E[1:] != src_E[:-1]) | (dst_E[1:] != dst_E[:-1])])[
            : len(src_E)
        ]
        first = np.flatnonzero(is_first)
        if len(first) == len(src_E):
            return (src_E, dst_E), weight_E
        self.read.notes[f"duplicate_edges_{'/'.join(relation)}"] = len(src_E) - len(first)
        if self.config.duplicate_edges == "error":
            source, target = self.ids[relation[0]].ids, self.ids[relation[2]].ids
            again = np.flatnonzero(~is_first)
            shown = [f"{source[int(src_E[row])]}, {target[int(dst_E[row])]}" for row in again[:MAX_SAMPLE]]
            shown += [""] * (len(again) - len(shown))
            advice = "dataset.duplicate_edges may be dedup or sum"
            self.report("H08", "edges_unique", f"{table.where} src, dst", shown, advice)
        if self.config.duplicate_edges == "sum":
            values = np.ones(len(src_E)) if weight_E is None else weight_E.astype(np.float64)
            return (src_E[first], dst_E[first]), np.add.reduceat(values, first).astype(np.float32)
        if weight_E is not None:
            differs = np.flatnonzero(weight_E != np.repeat(weight_E[first], np.diff([*first, len(src_E)])))
            rows = np.sort(row_E[order[differs]])
            self.report("H08", "weights_of_repeats_agree", f"{table.where} weight", _rows(rows))
        return (src_E[first], dst_E[first]), None if weight_E is None else weight_E[first]

    def features(self) -> dict[str, Features]:
        """H09: finite values; nodes that were added have none, which is zeros."""
        found: dict[str, Features] = {}
        for type_, table in self.read.nodes.items():
            if table.features is None:
                continue
            x_NF = table.features
            broken = _rows_not_finite(x_NF)
            if table.ids is not None and len(table.ids) == x_NF.shape[0]:
                shown = [f"{type_} {table.ids[int(row)]}" for row in broken[:MAX_SAMPLE]]
            else:
                shown = [f"{type_}, row {row + 1}" for row in broken[:MAX_SAMPLE]]
            shown += [""] * (len(broken) - len(shown))
            self.report("H09", "features_finite", f"{table.where} features", shown)
            found[type_] = _with_empty_rows(x_NF, self.added.get(type_, 0))
        return found

    def labels(self) -> tuple[np.ndarray | None, tuple[str, ...]]:
        """H15: classes that are declared; text is numbered in its order, integers by value."""
        table = self.read.nodes.get(self.read.target)
        if table is None or table.labels is None:
            return None, ()
        labels: ArrowArray = table.labels
        texts = labels.cast(pa.string())
        distinct = [name for name in pc.unique(texts).to_pylist() if name is not None]
        names = self.read.classes
        if names is None:
            key = int if pa.types.is_integer(labels.type) else str
            names = tuple(sorted(distinct, key=key)[:_MAX_CLASSES])
        found = pc.index_in(texts, value_set=pa.array(names, pa.string()), skip_nulls=True)
        strange = pc.and_(found.is_null(), texts.is_valid()).to_numpy(zero_copy_only=False)
        shown = [f"{_id_at(table, int(row))}: {texts[int(row)]}" for row in np.flatnonzero(strange)]
        self.report("H15", "labels_are_classes", f"{table.where} label", shown)
        y_N = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        return np.concatenate([y_N, np.full(self.added.get(self.read.target, 0), -1, np.int32)]), names

    def splits(self, y_N: np.ndarray | None) -> tuple[Split, ...]:
        """H03, H14: split ids are known, have a label, and one role each."""
        known, splits = self.ids.get(self.read.target), []
        for name, roles in self.read.splits.items():
            if known is None:
                continue
            parts: dict[str, np.ndarray] = {}
            for role in ROLES:
                ids = roles.get(role, pa.array([], known.ids.type))
                parts[role] = self._members(f"split {name}, {role}", ids, known, y_N)
            together = np.concatenate([np.unique(part) for part in parts.values()])
            again, count = np.unique(together, return_counts=True)
            shown = [f"{name}: {known.ids[int(node)]}" for node in again[count > 1]]
            self.report("H14", "split_roles_disjoint", "labels.splits role", shown)
            splits.append(Split(name, *(np.unique(parts[role]) for role in ROLES)))
        return tuple(splits)

    def _members(self, what: str, ids: ArrowArray, known: NodeIds, y_N: np.ndarray | None) -> np.ndarray:
        if ids.type != known.ids.type:
            mismatch = [f"{what}: {ids.type}, in the node table {known.ids.type}"]
            self.report("H05", "id_types_equal", "labels.splits node", mismatch)
            return np.empty(0, np.int64)
        nulls = np.flatnonzero(ids.is_null().to_numpy(zero_copy_only=False))
        self.report("H03", "ids_present", "labels.splits node", [f"{what}, row {row + 1}" for row in nulls])
        ids = ids.drop_null()
        position = known.positions(ids)
        unknown = [f"{what}: {ids[int(row)]}" for row in np.flatnonzero(position == MISSING)]
        self.report("H14", "split_ids_known", "labels.splits node", unknown)
        position = position[position != MISSING]
        if y_N is not None:
            unlabelled = [f"{what}: {known.ids[int(node)]}" for node in position[y_N[position] < 0]]
            self.report("H14", "split_nodes_labelled", "labels.splits node", unlabelled)
        return np.asarray(position)

    def metapaths(self) -> None:
        """H11: the source's own begin and end at the target, and have names of their own."""
        target, names = self.read.target, [plan.name for plan in self.read.metapaths]
        broken = [
            f"{plan.name}: goes from {plan.types[0]} to {plan.types[-1]}, not from {target} to {target}"
            for plan in self.read.metapaths
            if (plan.types[0], plan.types[-1]) != (target, target)
        ]
        broken += [f"{name}: declared twice" for name in sorted({n for n in names if names.count(n) > 1})]
        self.report("H11", "metapaths_chain", "metapaths path", broken)


def _rows(rows: np.ndarray) -> list[str]:
    return [f"row {row + 1}" for row in rows]


def _id_at(table: NodesRead, row: int) -> str:
    return f"row {row + 1}" if table.ids is None else str(table.ids[row])


def _rows_not_finite(x_NF: Features) -> np.ndarray:
    if isinstance(x_NF, np.ndarray):
        return np.flatnonzero(~np.isfinite(x_NF).all(axis=1))
    broken = np.flatnonzero(~np.isfinite(x_NF.data))
    return np.unique(np.searchsorted(x_NF.indptr, broken, side="right") - 1)


def _with_empty_rows(x_NF: Features, count: int) -> Features:
    if not count:
        return x_NF
    if isinstance(x_NF, np.ndarray):
        return np.concatenate([x_NF, np.zeros((count, x_NF.shape[1]), np.float32)])
    indptr = np.concatenate([x_NF.indptr, np.full(count, x_NF.indptr[-1])])
    return sp.csr_matrix((x_NF.data, x_NF.indices, indptr), shape=(x_NF.shape[0] + count, x_NF.shape[1]))


def _not_turned_round(table: EdgesRead, original: EdgesRead, name: str) -> list[str]:
    """Pairs that a reverse relation has more or less often than its original; the first of them readable."""
    src, other_dst, sources = _numbered(table.src, original.dst)
    dst, other_src, ends = _numbered(table.dst, original.src)
    key_E, other_key_E = src * len(ends) + dst, other_dst * len(ends) + other_src
    found = np.unique(np.concatenate([key_E, other_key_E]), return_inverse=True)
    key_P, number_E = found[0], found[1].ravel()
    here_P, there_P = (np.bincount(part, minlength=len(key_P)) for part in np.split(number_E, [len(key_E)]))
    differs = np.flatnonzero(here_P != there_P)
    shown = [
        f"{sources[int(key_P[pair] // len(ends))]}, {ends[int(key_P[pair] % len(ends))]}: "
        f"{here_P[pair]} time(s), turned round in {name} {there_P[pair]}"
        for pair in differs[:MAX_SAMPLE]
    ]
    return shown + [""] * (len(differs) - len(shown))


def _numbered(first: ArrowArray, second: ArrowArray) -> tuple[np.ndarray, np.ndarray, ArrowArray]:
    """Both columns as int64 numbers of their distinct ids, and these; integers meet text as text."""
    if first.type != second.type:
        first, second = first.cast(pa.string()), second.cast(pa.string())
    values: ArrowArray = pc.unique(pa.chunked_array([first, second]))
    numbers = (
        pc.index_in(ids, value_set=values).to_numpy(zero_copy_only=False).astype(np.int64)
        for ids in (first, second)
    )
    return (*numbers, values)
