"""Smooth: the graph filter over node features, in this process or on Dask workers; or along metapaths."""

import tempfile
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

import numpy as np

from gcl.smoothing import NUM_BUFFERS, NUM_SPECTRAL_FEATURES, SmoothingConfig, smooth_features, takes_dask
from gcl.smoothing_blocks import MapBlocks
from gcl.workspace import IN_MEMORY_BYTES
from tasks.convert import read_feature_rows, read_graph, write_matrix_blocks
from tasks.limits import LIBRARY_BYTES, Estimate, total_memory
from tasks.memory import anonymous_bytes
from tasks.stage import Stage
from tasks.work import Work

_BYTES_A_NODE = 100  # degrees, their powers, places in the graph
_BYTES_AN_ENTRY = 24  # of a metapath's adjacency, as read and as rows that sum to 1
_WIDTH_OF_COMPONENTS = 128
# Found by name: the key of a plain graph does not cover them.
METAPATH_MODULES = ("gcl.metapath_features", "tasks.hetero_tables")
_SEED = 0  # of the randomised decompositions alone: smoothing is the same for every run seed


def smooth(work: Work, config: SmoothingConfig) -> None:
    """Filter the features; the result does not depend on where or in which blocks it was computed."""
    if "metapaths" in work.inputs:
        _along_metapaths(work, config)
        return
    workspace = work.workspace()
    graph = read_graph(work.input("graph"), with_features=False, workspace=workspace)
    attributes = read_feature_rows(work.input("graph"))
    with ExitStack() as stack:
        map_blocks, scratch = None, None
        if takes_dask(config):
            map_blocks, scratch = _dask(stack, work, config)
        smoothed = smooth_features(
            graph,
            config,
            seed=_SEED,
            attributes=attributes,
            map_blocks=map_blocks,
            scratch=scratch,
            workspace=workspace,
            memory_limit=work.memory_limit,
            machine_memory=total_memory(),
            held_bytes=anonymous_bytes() + LIBRARY_BYTES + _BYTES_A_NODE * graph.num_nodes,
        )
        write_matrix_blocks(
            work.output("smoothed") / "features.parquet",
            "smoothed.features",
            smoothed.row_blocks(),
            width=smoothed.num_features,
            others={"node": np.arange(graph.num_nodes)},
        )
    work.describe(
        "smoothed",
        {
            "num_nodes": graph.num_nodes,
            "num_features": smoothed.num_features,
            "weights": smoothed.weights.tolist(),
            "graph": work.inputs["graph"].digest,
        },
    )
    work.expect(
        "smoothed.features",
        num_nodes=graph.num_nodes,
        num_features=smoothed.num_features,
        max_abs=smoothed.bound,
    )


def _along_metapaths(work: Work, config: SmoothingConfig) -> None:
    """The features before and after one step along each metapath, side by side."""
    science, tables = (import_module(name) for name in METAPATH_MODULES)
    graph = read_graph(work.input("graph"), with_features=False)
    metapaths = tables.read_metapaths(work.input("metapaths"))
    attributes = read_feature_rows(work.input("graph"))
    found = science.metapath_features(graph, metapaths, config, seed=_SEED, attributes=attributes)
    write_matrix_blocks(
        work.output("smoothed") / "features.parquet",
        "smoothed.features",
        found.blocks,
        width=found.num_features,
        others={"node": np.arange(graph.num_nodes)},
    )
    facts = {"num_nodes": graph.num_nodes, "num_features": found.num_features}
    parts = [{"name": name, "num_features": width} for name, width in found.parts]
    work.describe("smoothed", {**facts, "parts": parts, "graph": work.inputs["graph"].digest})
    work.expect("smoothed.features", **facts, max_abs=found.bound)


def estimate(work: Work, config: SmoothingConfig) -> Estimate:
    """The graph, and blocks of one column if need be; with Dask, the workers' limit is theirs."""
    if "metapaths" in work.inputs:
        return _metapath_estimate(work, config)
    facts = work.metadata("graph")
    num_nodes, num_edges = int(facts["num_nodes"]), int(facts["num_edges"]) + int(facts["num_nodes"])
    width = {"attributes": int(facts["num_features"]), "degree": config.max_degree + 1}.get(
        config.features, 0
    )
    width = config.num_components or width or NUM_SPECTRAL_FEATURES
    whole = config.num_components is not None or config.features == "spectral"
    return Estimate(
        memory={
            "the graph": _BYTES_A_NODE * num_nodes + 4 * num_edges,
            "features that are not in files": min(4 * num_nodes * width, IN_MEMORY_BYTES),
            "a block of columns": NUM_BUFFERS * 4 * num_nodes * (config.block_columns or 1),
            # float64 copies of the features, and of the components with their projections
            "principal components": 8 * num_nodes * (int(facts["num_features"]) + 3 * width) * whole,
        },
        disk={
            "edges": (16 + 4) * num_edges,
            "features being smoothed": 4 * num_nodes * width,
            "smoothed features": 4 * num_nodes * width,
        },
        advice="set smooth.block_columns to fewer columns, smooth.num_components=none, or raise memory_limit",
    )


def _metapath_estimate(work: Work, config: SmoothingConfig) -> Estimate:
    facts, walked = work.metadata("graph"), work.metadata("metapaths")["metapaths"]
    num_nodes, num_entries = int(facts["num_nodes"]), sum(int(row["num_entries"]) for row in walked)
    width = config.num_components or int(facts["num_features"]) or _WIDTH_OF_COMPONENTS
    return Estimate(
        memory={"metapaths": _BYTES_AN_ENTRY * num_entries, "features": 2 * 8 * num_nodes * width},
        disk={"smoothed features": 4 * num_nodes * width * (len(walked) + 1)},
        advice="set smooth.num_components or metapaths.max_fanout lower, or raise memory_limit",
    )


def _dask(stack: ExitStack, work: Work, config: SmoothingConfig) -> tuple[MapBlocks, Path]:
    """A map over blocks on Dask workers, and a folder that they see."""
    from tasks.dask_pool import dask_map

    map_blocks = stack.enter_context(
        dask_map(
            address=config.dask_address,
            num_workers=config.num_workers,
            threads_per_worker=config.threads_per_worker,
            memory_limit=config.memory_limit,
            folder=work.scratch(),
        )
    )
    # A folder of its own: two processes at the same key must not write each other's blocks.
    folder = tempfile.TemporaryDirectory(prefix="blocks-", dir=work.scratch())
    return map_blocks, Path(stack.enter_context(folder))


SMOOTH = Stage(
    name="smooth",
    version=1,
    body=smooth,
    tables=("smoothed.features",),
    libraries=("dgl", "numpy", "pyarrow", "scikit-learn", "scipy", "torch"),
    estimate=estimate,
)
