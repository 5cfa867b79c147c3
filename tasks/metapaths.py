"""Metapaths: a heterogeneous graph becomes an adjacency of target nodes a metapath, and their graph."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from data_contracts.tables import TABLES
from gcl.graph import Features
from gcl.hetero_graph import HeteroGraph, Metapath
from gcl.metapath_steps import MetapathPlan
from gcl.metapaths import UNION, MetapathsConfig, build_metapaths, chosen_metapaths, predicted_sizes
from gcl.workspace import row_slices
from tasks.convert import sparse_lists, write_batches, write_columns, write_matrix
from tasks.hetero_tables import read_hetero, read_plans, read_target_ids, write_metapath_edges
from tasks.limits import Estimate
from tasks.stage import Stage
from tasks.work import Work

# An entry of the adjacency being built, with its copies, pattern and transpose on the way; of their union.
_BYTES_AN_ENTRY, _BYTES_OF_UNION, _BYTES_ON_DISK = 48, 32, 8


def metapaths(work: Work, config: MetapathsConfig) -> None:
    """Walk the metapaths; write their adjacencies, and the target nodes with their features as a graph.

    Raises:
        InvalidHetero: H11, H12, H13 or H16; see `gcl.metapaths`.
    """
    hetero = work.input("hetero")
    graph, node_ids = read_hetero(hetero), read_target_ids(hetero)
    plans = chosen_metapaths(config, read_plans(hetero), sorted(graph.edges), target=graph.target)
    built = build_metapaths(graph, plans, max_entries=config.max_entries, seed=config.seed, node_ids=node_ids)
    num_nodes = graph.num_nodes[graph.target]
    nothing: tuple[np.ndarray, np.ndarray] = (np.empty(0, np.float32), np.empty((2, 0), np.int64))
    joined = sp.csr_matrix((nothing[0], nothing[1]), shape=(num_nodes, num_nodes))
    entries: list[int] = []
    for metapath in _written(work, built, plans):
        entries.append(metapath.adjacency_NN.nnz)
        work.progress(len(entries), len(plans), f"{metapath.name}: {entries[-1]} entries")
        if config.edges in (UNION, metapath.name):
            joined = sp.csr_matrix(joined + _pattern(metapath.adjacency_NN))
    work.describe(
        "metapaths",
        {
            "target": graph.target,
            "num_nodes": num_nodes,
            "metapaths": [_facts(plan, count) for plan, count in zip(plans, entries, strict=True)],
        },
    )
    work.expect("metapaths.edges", num_nodes=num_nodes, num_metapaths=len(plans), num_edges=sum(entries))
    _write_graph(work, graph, joined, node_ids, edges=config.edges)


def estimate(work: Work, config: MetapathsConfig) -> Estimate:
    """The adjacencies, by the bound from degrees that the budget goes by; the union of those it takes."""
    hetero = work.input("hetero")
    graph = read_hetero(hetero)
    plans = chosen_metapaths(config, read_plans(hetero), sorted(graph.edges), target=graph.target)
    sizes = predicted_sizes(graph, plans, max_entries=config.max_entries)
    if max(sizes) > config.max_entries:
        return Estimate()  # the stage refuses it by name
    num_nodes = graph.num_nodes[graph.target]
    joined = sum(size for plan, size in zip(plans, sizes, strict=True) if config.edges in (UNION, plan.name))
    joined = min(2 * joined, num_nodes**2)
    return Estimate(
        memory={
            "the largest metapath": _BYTES_AN_ENTRY * max(sizes),
            "the union of the metapaths": _BYTES_OF_UNION * joined,
        },
        disk={"metapaths": _BYTES_ON_DISK * sum(sizes), "edges": _BYTES_ON_DISK * joined},
        advice="set metapaths.max_fanout lower, choose fewer metapaths.paths, or raise memory_limit",
    )


def _written(work: Work, built: Iterator[Metapath], plans: tuple[MetapathPlan, ...]) -> Iterator[Metapath]:
    has_weights = any(plan.weight != "binary" for plan in plans)
    path = work.output("metapaths") / "edges.parquet"
    return write_metapath_edges(path, built, has_weights=has_weights)


def _facts(plan: MetapathPlan, num_entries: int) -> dict[str, Any]:
    return {
        "name": plan.name,
        "path": "-".join(plan.types),
        "relations": [f"{'<' if step.backward else ''}{'/'.join(step.relation)}" for step in plan.steps],
        "self_loops": plan.self_loops,
        "weight": plan.weight,
        "max_fanout": plan.max_fanout,
        "is_symmetric": plan.is_symmetric and plan.max_fanout is None,
        "num_entries": num_entries,
    }


def _pattern(adjacency_NN: sp.csr_matrix) -> sp.csr_matrix:
    """1 wherever either of two nodes is a neighbour of the other, but for itself."""
    pattern = sp.csr_matrix(
        (np.ones(adjacency_NN.nnz, np.float32), adjacency_NN.indices, adjacency_NN.indptr),
        shape=adjacency_NN.shape,
    )
    pattern = sp.csr_matrix(pattern + pattern.T)
    pattern.setdiag(0)
    pattern.eliminate_zeros()
    return pattern


def _write_graph(work: Work, graph: HeteroGraph, joined: sp.csr_matrix, node_ids: Any, *, edges: str) -> None:
    """The ``graph`` artifact: target nodes, their ids and features, edges without weights or self-loops."""
    folder, num_nodes = work.output("graph"), joined.shape[0]
    joined.sort_indices()
    write_columns(
        folder / "nodes.parquet",
        "graph.nodes",
        {"node": np.arange(num_nodes), "node_id": node_ids},
        node_id_type=node_ids.type,
    )
    src = np.repeat(np.arange(num_nodes), np.diff(joined.indptr))
    write_columns(folder / "edges.parquet", "graph.edges", {"src": src, "dst": joined.indices})
    x_NF = graph.features.get(graph.target)
    num_features = 0 if x_NF is None else int(x_NF.shape[1])
    if x_NF is not None:
        _write_features(work, x_NF)
    work.describe(
        "graph",
        {
            "num_nodes": num_nodes,
            "num_edges": joined.nnz,
            "num_features": num_features,
            "has_features": x_NF is not None,
            "is_undirected": True,
            "has_weights": False,
            "edge_holdout": 0.0,
            "notes": {"target": graph.target, "edges": f"metapaths: {edges}"},
        },
    )
    work.expect("graph.nodes", num_nodes=num_nodes)
    work.expect(
        "graph.edges", num_nodes=num_nodes, num_edges=joined.nnz, is_undirected=True, has_self_loops=False
    )


def _write_features(work: Work, x_NF: Features) -> None:
    path, width = work.output("graph") / "features.parquet", int(x_NF.shape[1])
    notes = {"num_features": str(width)}
    work.expect("graph.features", num_nodes=x_NF.shape[0], num_features=width)
    if isinstance(x_NF, np.ndarray):
        write_matrix(path, "graph.features", x_NF, metadata=notes)
        return
    schema = TABLES["graph.features"].schema(layout="sparse", metadata=notes)
    batches = (
        pa.record_batch(list(sparse_lists(x_NF[rows])), schema=schema)
        for rows in row_slices(x_NF.shape[0], 4 * width)
    )
    write_batches(path, schema, batches)


METAPATHS = Stage(
    name="metapaths",
    version=1,
    body=metapaths,
    tables=("metapaths.edges", "graph.nodes", "graph.edges"),
    libraries=("numpy", "pyarrow", "scipy"),
    estimate=estimate,
)
