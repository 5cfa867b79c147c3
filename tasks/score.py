"""Score: nodes that came after training are embedded by the trained model, which is judged on them."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from gcl.config import Config, operational
from gcl.errors import UnsuitableSetting
from gcl.evaluation.embedding_shift import ShiftConfig, measure_shift, nearest, training_region
from gcl.methods import method_class
from gcl.methods.configs import MethodConfig
from gcl.random import numpy_generator
from gcl.smoothing import NUM_BUFFERS, SmoothingConfig
from gcl.smoothing_rows import STEP_EDGE_BYTES, require_row_wise, smooth_rows
from gcl.workspace import IN_MEMORY_BYTES
from tasks.convert import (
    read_feature_rows,
    read_graph,
    read_matrix,
    read_node_ids,
    write_columns,
    write_matrix,
)
from tasks.limits import LIBRARY_BYTES, Estimate, total_memory
from tasks.memory import anonymous_bytes
from tasks.scored_nodes import WantedNodes, training_rows, wanted_nodes
from tasks.stage import Stage
from tasks.train import TrainStageConfig
from tasks.work import Work

_BYTES_A_NODE = 200  # degrees, places in balls, ids


class ScoreStageConfig(Config):
    """What the stage is configured by: the filter of the model's run, which nodes, and what is allowed."""

    smooth: SmoothingConfig = Field(description="the graph filter of the model's run")
    normalise: bool = Field(description="whether the run's clustering compared directions")
    nodes: WantedNodes = Field(
        "new", description="nodes the training graph did not have, all, or those of nodes_file"
    )
    nodes_file: Path | None = operational(
        None, description="file of the source's ids, one a line; its content counts, not its place"
    )
    shift: ShiftConfig = Field(ShiftConfig(), description="what the model may have drifted")


def score(work: Work, config: ScoreStageConfig) -> None:
    """Embed the wanted nodes, place them among the training's clusters, and measure the shift.

    Raises:
        UnsuitableSetting: ids that are not in the new graph, or of another type than the training's;
            features of another number.
    """
    node_ids, row_N = read_node_ids(work.input("graph")), training_rows(work)
    wanted_W = wanted_nodes(config.nodes, config.nodes_file, node_ids, row_N)
    known = np.flatnonzero(row_N >= 0)
    chosen = numpy_generator(work.seed, "known_nodes").permutation(len(known))[: config.shift.num_known]
    sample_S = known[np.sort(chosen)]
    nodes_R = np.union1d(wanted_W, sample_S)
    z_TD = read_matrix(work.input("embeddings") / "embeddings.parquet", "z", work.workspace())
    z_RD = _embed(work, config, nodes_R, width=z_TD.shape[1])
    z_WD = z_RD[np.searchsorted(nodes_R, wanted_W)]
    region = training_region(z_TD, normalise=config.normalise, seed=work.seed)
    shift = measure_shift(
        z_TD,
        before_SD=z_TD[row_N[sample_S]],
        now_SD=z_RD[np.searchsorted(nodes_R, sample_S)],
        new_RD=z_WD[row_N[wanted_W] < 0],
        region=region,
        seed=work.seed,
    )
    is_outlier_W = region.outside(z_WD)
    _write_nodes(work, config, wanted_W, node_ids.take(pa.array(wanted_W)), z_WD, is_outlier_W)
    _write_shift(work, shift.values, config.shift)
    work.describe(
        "scores",
        {
            "num_nodes": len(row_N),
            "num_known": len(known),
            "num_new": len(row_N) - len(known),
            "num_missing": len(z_TD) - len(known),
            "num_scored": len(wanted_W),
            "num_outliers": int(is_outlier_W.sum()),
            "num_known_judged": len(sample_S),
            "model": work.inputs["model"].digest,
            "notes": [*_notes(config, len(wanted_W)), *shift.notes],
        },
    )


def require_inductive(method: MethodConfig, smooth: SmoothingConfig) -> None:
    """Refuse a model that has nothing to say of nodes it was not trained on.

    Args:
        method: its method.
        smooth: the filter of its run.

    Raises:
        UnsuitableSetting: weights of single nodes, or rows that depend on the whole training matrix.
    """
    declared = method_class(method.name)
    if declared.is_transductive:
        raise UnsuitableSetting(
            f"method {method.name} has weights for each node it was trained on and embeds no others: score "
            "with a model of another, such as dmat_i or grace"
        )
    if "collection" in declared.inputs:
        raise UnsuitableSetting(
            f"method {method.name} embeds whole graphs, and scoring embeds the nodes of one: run "
            "the pipeline on a collection that has the new graphs too"
        )
    if getattr(method, "normalise_input", None) == "columns":
        raise UnsuitableSetting(
            "method.normalise_input=columns depends on all nodes of training, and new nodes would get other "
            "columns: bring the columns to one scale in the source"
        )
    if "smoothed" in declared.inputs:
        require_row_wise(smooth)


def export_scores(folder: Path, path: Path) -> None:
    """Write one table of node_id, z and cluster (null where the run has none) from a scores artifact.

    Args:
        folder: the artifact.
        path: the file; it appears whole or not at all.
    """
    table = pq.read_table(folder / "embeddings.parquet", columns=["node_id", "z"])
    clusters = folder / "clusters.parquet"
    cluster = (
        pq.read_table(clusters, columns=["cluster"]).column(0)
        if clusters.exists()
        else pa.nulls(table.num_rows, pa.int32())
    )
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            pq.write_table(table.append_column("cluster", cluster).replace_schema_metadata(), file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _embed(work: Work, config: ScoreStageConfig, nodes_R: np.ndarray, *, width: int) -> np.ndarray:
    """float32 [R, D] embeddings of some nodes by the trained model, in the new graph."""
    from gcl.checkpoint import load_weights
    from gcl.errors import CheckpointMismatch
    from gcl.methods.base import TrainingData
    from tasks.training_data import build_for

    workspace, folder = work.workspace(), work.input("model")
    if not len(nodes_R):
        return np.empty((0, width), np.float32)
    trained = _trained(work)
    inputs = method_class(trained.method.name).inputs
    rows_R = np.arange(work.metadata("graph")["num_nodes"]) if "graph" in inputs else nodes_R
    graph = read_graph(work.input("graph"), with_features="graph" in inputs, workspace=workspace)
    x_NF = None
    if "smoothed" in inputs:
        x_NF = smooth_rows(
            graph,
            config.smooth,
            rows_R,
            attributes=read_feature_rows(work.input("graph")),
            workspace=workspace,
            memory_limit=work.memory_limit,
            machine_memory=total_memory(),
            held_bytes=anonymous_bytes() + LIBRARY_BYTES + _BYTES_A_NODE * graph.num_nodes,
        )
    data = TrainingData(
        num_nodes=len(rows_R), x_NF=x_NF, graph=graph if "graph" in inputs else None, workspace=workspace
    )
    num_classes = work.metadata("model")["num_classes"]
    try:
        method = build_for(data, trained.method, num_classes=num_classes, seed=work.seed)
        load_weights(method, folder / "checkpoint.safetensors")
    except CheckpointMismatch:
        columns = graph.num_features if x_NF is None else x_NF.shape[1]
        raise UnsuitableSetting(
            f"the new data have {columns} feature columns, and the model was trained on another number: "
            "give them the columns of the training graph, in its order"
        ) from None
    z_ND = method.embed(data)
    return z_ND[nodes_R] if "graph" in inputs else z_ND


def _trained(work: Work) -> TrainStageConfig:
    """How the model was trained."""
    return TrainStageConfig.model_validate(json.loads((work.input("model") / "config.json").read_bytes()))


def _write_nodes(
    work: Work,
    config: ScoreStageConfig,
    nodes_W: np.ndarray,
    node_ids: pa.Array,
    z_WD: np.ndarray,
    is_outlier_W: np.ndarray,
) -> None:
    """Write embeddings, and clusters where the run has them."""
    folder, facts = work.output("scores"), {"num_nodes": work.metadata("graph")["num_nodes"]}
    facts["num_scored"] = len(nodes_W)
    write_matrix(
        folder / "embeddings.parquet",
        "scores.embeddings",
        z_WD,
        column="z",
        others={"node": nodes_W, "node_id": node_ids},
        node_id_type=node_ids.type,
    )
    work.expect("scores.embeddings", embedding_size=z_WD.shape[1], **facts)
    if "clusters" not in work.inputs:
        return
    centroid_KD = read_matrix(work.input("clusters") / "centroids.parquet", "z")
    cluster_W, distance_W = nearest(z_WD, centroid_KD, normalise=config.normalise)
    write_columns(
        folder / "clusters.parquet",
        "scores.clusters",
        {
            "node": nodes_W,
            "node_id": node_ids,
            "cluster": cluster_W,
            "distance": distance_W,
            "is_outlier": is_outlier_W,
        },
        node_id_type=node_ids.type,
    )
    work.expect("scores.clusters", num_clusters=len(centroid_KD), **facts)


def _write_shift(work: Work, values: Mapping[str, float | None], bounds: ShiftConfig) -> None:
    write_columns(
        work.output("scores") / "shift.parquet",
        "scores.shift",
        {
            "measure": list(values),
            "value": pa.array(list(values.values()), pa.float64()),
            "bound": pa.array([getattr(bounds, f"max_{name}") for name in values], pa.float64()),
        },
    )


def _notes(config: ScoreStageConfig, num_scored: int) -> list[str]:
    if num_scored:
        return []
    return [
        "there are no new nodes: the training graph had all of them"
        if config.nodes == "new"
        else "no nodes were asked for"
    ]


def estimate(work: Work, config: ScoreStageConfig) -> Estimate:
    """The graph, a step of the filter on it, blocks of one column if need be; large arrays lie in files."""
    facts, trained = work.metadata("graph"), work.metadata("embeddings")
    num_nodes, num_edges = int(facts["num_nodes"]), int(facts["num_edges"]) + int(facts["num_nodes"])
    width = int(facts["num_features"]) or config.smooth.max_degree + 1
    features, embeddings, trained_embeddings = (
        4 * rows * columns
        for rows, columns in (
            (num_nodes, width),
            (num_nodes, int(trained["embedding_size"])),
            (int(trained["num_nodes"]), int(trained["embedding_size"])),
        )
    )
    held = sum(min(size, IN_MEMORY_BYTES) for size in (embeddings, trained_embeddings))
    memory = {
        "the graph": _BYTES_A_NODE * num_nodes + 8 * num_edges,
        "embeddings that are not in files": held,
    }
    inputs = method_class(_trained(work).method.name).inputs
    if "smoothed" in inputs:
        memory |= {
            "a step of the filter": STEP_EDGE_BYTES * num_edges,
            "a block of columns": NUM_BUFFERS * 4 * num_nodes * (config.smooth.block_columns or 1),
            # of the ball, and of the rows that are asked for
            "features that are not in files": 2 * min(features, IN_MEMORY_BYTES),
        }
    if "graph" in inputs:  # rows as they come in, between two layers, and as they go out
        memory["encodings"] = features + 2 * embeddings
    return Estimate(
        memory=memory,
        disk={
            "edges": 28 * num_edges,
            "features": 2 * features,
            "embeddings": 2 * embeddings + trained_embeddings,
        },
        advice="score with a model whose run had a higher memory_limit, or on a larger machine",
    )


SCORE = Stage(
    name="score",
    version=1,
    body=score,
    tables=("scores.embeddings", "scores.shift"),
    libraries=("dgl", "numpy", "pyarrow", "safetensors", "scikit-learn", "scipy", "torch"),
    estimate=estimate,
)
