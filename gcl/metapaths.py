"""Metapaths: which target nodes are joined by walks of given steps, as sparse matrices.

A symmetric path is computed from its first half, B = bool(A_1 .. A_k), as B B^T > 0: that never meets the
product of the target nodes with the middle ones that a product from left to right would build.

Shape legend: N target nodes, M nodes in the middle of a path, W walks drawn for a node.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from gcl.config import Config, operational
from gcl.hetero_findings import Finding, raise_findings
from gcl.hetero_graph import EdgeType, HeteroGraph, Metapath
from gcl.metapath_steps import (
    MetapathBroken,
    MetapathPlan,
    SelfLoops,
    Step,
    WalkWeight,
    name_of,
    parse_metapath,
)
from gcl.random import numpy_generator

UNION = "union"
_WALKS_AT_A_TIME = 1 << 20
_HALF_WALKS_AT_A_TIME = 1 << 22


class MetapathsConfig(Config):
    """Which metapaths are walked, and what their adjacencies are like."""

    paths: tuple[str, ...] = Field(
        (),
        max_length=64,
        description="metapaths: names of the source's own, or paths as author-paper-author, "
        "author >writes> paper <writes< author, NAME=PATH; none: the source's own",
    )
    self_loops: SelfLoops | None = Field(
        None,
        description="walks that end where they began: keep, remove, or add one for every node; "
        "none: as the source says, else keep",
    )
    weight: WalkWeight | None = Field(
        None,
        description="of a pair of nodes: binary, or the count of walks; none: as the source says, else "
        "binary",
    )
    max_fanout: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="neighbours a node keeps at most beside itself (count), by random walks; none: as the "
        "source says, else all",
    )
    edges: str = Field(
        UNION, description="edges of the graph of target nodes: union of all metapaths, or the name of one"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="of the random walks, in [0, 2^63)")
    max_entries: int = operational(
        100_000_000,
        ge=1,
        description="entries of one metapath's adjacency, predicted before it is built (count); "
        "a denser one is refused",
    )


def chosen_metapaths(
    config: MetapathsConfig,
    declared: Sequence[MetapathPlan],
    relations: Sequence[EdgeType],
    *,
    target: str,
) -> tuple[MetapathPlan, ...]:
    """The metapaths a configuration asks for, with its choices over those of the source.

    Args:
        config: what is asked for.
        declared: the source's own.
        relations: those there are.
        target: where every metapath begins and ends.

    Raises:
        InvalidHetero: H11, a path that does not chain, is no relation's, or does not begin and end at the
            target; no metapath at all; two of one name.
    """
    by_name = {plan.name: plan for plan in declared}
    plans, broken = ([], []) if config.paths else (list(declared), [])
    for text in config.paths:
        if text.strip() in by_name:
            plans.append(by_name[text.strip()])
            continue
        try:
            name, steps = parse_metapath(text, relations)
            plans.append(MetapathPlan(name or name_of(steps), steps))
        except MetapathBroken as error:
            broken.append(f"{text!r}: {error}")
    broken += [
        f"{plan.name}: goes from {plan.types[0]} to {plan.types[-1]}, not from {target} to {target}"
        for plan in plans
        if (plan.types[0], plan.types[-1]) != (target, target)
    ]
    names = [plan.name for plan in plans]
    broken += [
        f"two metapaths are called {name}: name one, as {name}2=..."
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    if not plans and not broken:
        broken = ["the source declares no metapaths: set metapaths.paths, as ['author-paper-author']"]
    if config.edges != UNION and config.edges not in names and not broken:
        broken = [f"metapaths.edges is {config.edges!r}, none of {UNION}, {', '.join(names)}"]
    raise_findings([Finding.of("H11", "metapaths_chain", "metapaths paths", broken)] if broken else [])
    return tuple(_with_choices(plan, config) for plan in plans)


def _with_choices(plan: MetapathPlan, config: MetapathsConfig) -> MetapathPlan:
    changed = MetapathPlan(
        plan.name,
        plan.steps,
        config.self_loops or plan.self_loops,
        config.weight or plan.weight,
        config.max_fanout or plan.max_fanout,
    )
    is_as_declared = changed == MetapathPlan(
        plan.name, plan.steps, plan.self_loops, plan.weight, plan.max_fanout
    )
    return plan if is_as_declared else changed


def build_metapaths(
    graph: HeteroGraph, plans: Sequence[MetapathPlan], *, max_entries: int, seed: int, node_ids: Any = None
) -> Iterator[Metapath]:
    """The adjacencies, one at a time; what is too dense is refused before the first is built.

    Args:
        graph: nodes and relations.
        plans: the metapaths.
        max_entries: entries of one adjacency at most, by a bound from degrees.
        seed: of the random walks of a limited fanout.
        node_ids: what target nodes are called in messages; None: their positions.

    Raises:
        InvalidHetero: H12, a metapath may have more than `max_entries` entries; H13, target nodes that a
            metapath joins to nobody; H16, not as many entries as the source says.
    """
    halves = [_half(graph, plan, max_entries) for plan in plans]
    dense = [
        f"{plan.name}: {half} entries"
        for plan, half in zip(plans, halves, strict=True)
        if isinstance(half, int)
    ]
    advice = f"above metapaths.max_entries={max_entries}: raise it, or set metapaths.max_fanout"
    if dense:
        raise_findings(
            [Finding.of("H12", "metapaths_within_budget", "metapaths edges", dense, advice=advice)]
        )
    findings: list[Finding] = []
    for plan, half in zip(plans, halves, strict=True):
        adjacency_NN = _finished(_adjacency(graph, plan, half, seed=seed), plan)
        findings += check_adjacency(plan, adjacency_NN, node_ids)
        yield Metapath(plan.name, adjacency_NN)
    raise_findings(findings)


def check_adjacency(plan: MetapathPlan, adjacency_NN: sp.csr_matrix, node_ids: Any = None) -> list[Finding]:
    """H13 and H16 of one adjacency: nodes without any neighbour, and the number of entries."""
    findings = []
    empty = np.flatnonzero(np.diff(adjacency_NN.indptr) == 0)
    if len(empty):
        names = [str(row if node_ids is None else node_ids[int(row)]) for row in empty[:10]]
        advice = "set metapaths.self_loops=add to join each node to itself"
        where, rule = f"metapaths {plan.name}", "every_target_node_has_a_neighbour"
        findings.append(Finding("H13", rule, where, len(empty), tuple(names), advice))
    if plan.nnz is not None and plan.nnz != adjacency_NN.nnz:
        found = [f"{adjacency_NN.nnz}, declared {plan.nnz}"]
        findings.append(Finding.of("H16", "metapath_has_declared_entries", f"metapaths {plan.name}", found))
    return findings


def predicted_entries(left: sp.csr_matrix, right: sp.csr_matrix) -> int:
    """No product of these has more entries: the sum over middle nodes of their degrees on both sides.

    Args:
        left: [N, M].
        right: [M, N'].
    """
    into_M = np.bincount(left.indices, minlength=left.shape[1]).astype(np.float64)
    walks = float(into_M @ np.diff(right.indptr))
    return int(min(walks, float(left.shape[0]) * float(right.shape[1])))


def predicted_sizes(graph: HeteroGraph, plans: Sequence[MetapathPlan], *, max_entries: int) -> list[int]:
    """Entries that each adjacency has at most, by the bound that `build_metapaths` holds to its budget.

    Args:
        graph: nodes and relations.
        plans: the metapaths.
        max_entries: where a bound goes beyond this, it may be that of a product on the way.
    """
    return [_predicted(graph, plan, _half(graph, plan, max_entries)) for plan in plans]


def step_matrix(graph: HeteroGraph, step: Step, *, weight: WalkWeight = "binary") -> sp.csr_matrix:
    """A step as a float32 CSR matrix: nodes it leaves by nodes it enters; counts use the edges' weights."""
    src_E, dst_E = graph.edges[step.relation]
    weight_E = graph.weights.get(step.relation) if weight == "count" else None
    shape = (graph.num_nodes[step.relation[0]], graph.num_nodes[step.relation[2]])
    values_E = np.ones(len(src_E), np.float32) if weight_E is None else weight_E
    matrix = sp.csr_matrix((values_E, (src_E, dst_E)), shape=shape)
    return sp.csr_matrix(matrix.T) if step.backward else matrix


def _half(graph: HeteroGraph, plan: MetapathPlan, max_entries: int) -> list[sp.csr_matrix] | int:
    """The two factors of the last product; or the number of entries that goes beyond the budget."""
    if plan.max_fanout is not None:
        predicted = _fanout_entries(graph, plan)
        return predicted if predicted > max_entries else []
    steps = plan.steps[: len(plan.steps) // 2] if plan.is_symmetric else plan.steps
    matrices = [step_matrix(graph, step, weight=plan.weight) for step in steps]
    left = matrices[0]
    rest = matrices[1:] if plan.is_symmetric else matrices[1:-1]
    for right in rest:
        if (predicted := predicted_entries(left, right)) > max_entries:
            return predicted
        left = _product(left, right, plan.weight)
    if plan.is_symmetric:
        factors = [left, sp.csr_matrix(left.T)]
    else:
        factors = [left, matrices[-1]] if len(matrices) > 1 else [left]
    predicted = predicted_entries(*factors) if len(factors) == 2 else factors[0].nnz
    return predicted if predicted > max_entries else factors


def _predicted(graph: HeteroGraph, plan: MetapathPlan, half: list[sp.csr_matrix] | int) -> int:
    if isinstance(half, int):
        return half
    num_nodes = graph.num_nodes[graph.target]
    if plan.max_fanout is not None:
        return _fanout_entries(graph, plan)
    predicted = predicted_entries(*half) if len(half) == 2 else half[0].nnz
    return predicted + num_nodes * (plan.self_loops == "add")


def _fanout_entries(graph: HeteroGraph, plan: MetapathPlan) -> int:
    """Of every node at most so many neighbours, and itself."""
    kept = (plan.max_fanout or 0) + (plan.self_loops != "remove")
    return kept * graph.num_nodes[graph.target]


def _product(left: sp.csr_matrix, right: sp.csr_matrix, weight: WalkWeight) -> sp.csr_matrix:
    product = sp.csr_matrix(left @ right)
    if weight == "binary":
        product.data = np.ones_like(product.data)
    return product


def _adjacency(
    graph: HeteroGraph, plan: MetapathPlan, half: list[sp.csr_matrix] | int, *, seed: int
) -> sp.csr_matrix:
    if plan.max_fanout is not None or isinstance(half, int):
        return _sampled(graph, plan, plan.max_fanout or 1, seed=seed)
    return half[0].copy() if len(half) == 1 else _product(half[0], half[1], plan.weight)


def _finished(adjacency_NN: sp.csr_matrix, plan: MetapathPlan) -> sp.csr_matrix:
    """With its self-loops as asked for, sorted, float32."""
    num_nodes = adjacency_NN.shape[0]
    if plan.self_loops == "remove":
        rows_E = np.repeat(np.arange(num_nodes), np.diff(adjacency_NN.indptr))
        adjacency_NN.data[rows_E == adjacency_NN.indices] = 0
        adjacency_NN.eliminate_zeros()
    if plan.self_loops == "add":
        missing_N = np.asarray(adjacency_NN.diagonal() == 0, np.float32)
        adjacency_NN = sp.csr_matrix(adjacency_NN + sp.diags_array(missing_N))
        adjacency_NN.eliminate_zeros()
    adjacency_NN = adjacency_NN.astype(np.float32)
    adjacency_NN.sum_duplicates()
    return adjacency_NN


def _sampled(graph: HeteroGraph, plan: MetapathPlan, max_fanout: int, *, seed: int) -> sp.csr_matrix:
    """At most `max_fanout` neighbours a node: all that its walks reach, or those that as many walks reach.

    Walks are drawn uniformly from all walks of the node, so a neighbour that many walks reach is likelier.
    Where walks are counted, they are drawn in proportion to the product of their edges' weights, and a
    node's drawn walks stand for all of its walks in equal shares.

    Walks that end where they began are not left to the draw, which would lose most of them where a node has
    many: a node that any leads home joins itself, by as many as there are. So what an entry is on average
    is the entry of the whole adjacency.
    """
    matrices = [step_matrix(graph, step, weight=plan.weight) for step in plan.steps]
    plain = [step_matrix(graph, step) for step in plan.steps] if graph.weights else matrices
    ahead, num_walks_N = _ahead(matrices), _ahead(plain)[0]
    num_nodes = matrices[0].shape[0]
    few_R = np.flatnonzero(num_walks_N <= max_fanout)
    exact = matrices[0][few_R]
    for matrix in matrices[1:]:
        exact = sp.csr_matrix(exact @ matrix)
    rows = [np.repeat(few_R, np.diff(exact.indptr))]
    columns: list[np.ndarray] = [exact.indices]
    values: list[np.ndarray] = [exact.data]
    many_R = np.flatnonzero(num_walks_N > max_fanout)
    if plan.self_loops != "remove":
        home_R = np.ones(len(many_R), np.float32)
        if plan.weight == "count" or not plan.is_symmetric:  # else every walk has a way back
            home_R = _walks_home(matrices, plain, many_R)
        rows.append(many_R[home_R > 0])
        columns.append(many_R[home_R > 0])
        values.append(home_R[home_R > 0])
    generator = numpy_generator(seed, f"metapath_walks {plan.name}")
    step = max(1, _WALKS_AT_A_TIME // max_fanout)
    for first in range(0, len(many_R), step):
        start_W = np.repeat(many_R[first : first + step], max_fanout)
        end_W = start_W
        for matrix, left in zip(matrices, ahead[1:], strict=True):
            end_W = _drawn_step(matrix, left, end_W, generator.random(len(end_W)))
        away_W = start_W != end_W
        start_W, end_W = start_W[away_W], end_W[away_W]
        rows.append(start_W)
        columns.append(end_W)
        values.append((ahead[0][start_W] / max_fanout).astype(np.float32))
    parts = tuple(np.concatenate(part) for part in (values, rows, columns))
    found = sp.csr_matrix((parts[0], (parts[1], parts[2])), shape=(num_nodes, num_nodes))
    if plan.weight == "binary":
        found.data = np.ones_like(found.data)
    return found


def _walks_home(
    matrices: Sequence[sp.csr_matrix], plain: Sequence[sp.csr_matrix], rows_R: np.ndarray
) -> np.ndarray:
    """float32 [R] walks that end where they began, times their edges' weights.

    The diagonal of the product, as the walks of the first half that the second half leads back to: some rows
    of both halves at a time, as either may be large.
    """
    half = len(matrices) // 2
    num_nodes = plain[0].shape[0]
    num_half_walks = np.zeros(num_nodes)
    for part in (plain[:half], [matrix.T for matrix in reversed(plain[half:])]):
        num_half_walks += _ahead(part)[0] if part else 0
    home = [np.zeros(0, np.float32)]
    ends = np.cumsum(num_half_walks[rows_R]) // _HALF_WALKS_AT_A_TIME
    for part_R in np.split(rows_R, np.flatnonzero(np.diff(ends)) + 1):
        start = sp.csr_matrix(sp.eye(num_nodes, dtype=np.float32, format="csr")[part_R])
        ahead, back = start, start
        for matrix in matrices[:half]:
            ahead = sp.csr_matrix(ahead @ matrix)
        for matrix in reversed(matrices[half:]):
            back = sp.csr_matrix(back @ matrix.T)
        home.append(np.asarray(ahead.multiply(back).sum(axis=1), np.float32).ravel())
    return np.concatenate(home)


def _ahead(matrices: Sequence[sp.csr_matrix]) -> list[np.ndarray]:
    """Walks that remain from each node, times their edges' weights: before every step, and at the end."""
    ahead = [np.ones(matrices[-1].shape[1])]
    for matrix in reversed(matrices):
        ahead.append(matrix.astype(np.float64) @ ahead[-1])
    ahead.reverse()
    return ahead


def _drawn_step(
    matrix: sp.csr_matrix, ahead: np.ndarray, at_W: np.ndarray, uniform_W: np.ndarray
) -> np.ndarray:
    """The next node of each walk, in proportion to the walks that remain from it.

    Entries that nothing goes on from are left out, and every row is brought to the sum 1: rounding in the sum
    over all rows can then neither end a walk nor move it to another row's neighbours.
    """
    mass_E = matrix.data * ahead[matrix.indices]
    live_E = np.flatnonzero(mass_E > 0)
    indices, mass_E = matrix.indices[live_E], mass_E[live_E]
    indptr = np.searchsorted(live_E, matrix.indptr)
    total_N = np.bincount(np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)), mass_E, len(indptr) - 1)
    summed_E = np.concatenate([[0.0], np.cumsum(mass_E / np.repeat(total_N, np.diff(indptr)))])
    first_W, last_W = indptr[at_W], indptr[at_W + 1]
    wanted_W = summed_E[first_W] + uniform_W * (summed_E[last_W] - summed_E[first_W])
    entry_W = np.searchsorted(summed_E, wanted_W, side="right") - 1
    return np.asarray(indices[np.clip(entry_W, first_W, last_W - 1)])
