"""Uncertainty: how far to trust each embedding, without labels."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from gcl.uncertainty import UncertaintyConfig, UncertaintyInputs, score_uncertainty
from tasks.convert import read_graph, read_matrix, read_node_ids, write_columns
from tasks.stage import Stage
from tasks.work import Work


def uncertainty(work: Work, config: UncertaintyConfig) -> None:
    """Score every node; the model is loaded only for methods that embed augmented views."""
    workspace = work.workspace()
    z_ND = read_matrix(work.input("embeddings") / "embeddings.parquet", "z", workspace)
    graph = (
        read_graph(work.input("graph"), with_features=False, workspace=workspace)
        if config.method == "affinity"
        else None
    )
    inputs = UncertaintyInputs(
        z_ND=z_ND,
        graph=graph,
        embed_view=_embed_view(work),
        num_clusters=work.facts.get("num_clusters"),
    )
    score_N = score_uncertainty(inputs, config, seed=work.seed, workspace=workspace)
    node_ids = read_node_ids(work.input("graph"))
    write_columns(
        work.output("uncertainty") / "uncertainty.parquet",
        "uncertainty.uncertainty",
        {
            "node": np.arange(len(z_ND)),
            "node_id": node_ids,
            "uncertainty": score_N,
            "method": np.broadcast_to(np.array(config.method, object), len(z_ND)),
        },
        node_id_type=node_ids.type,
    )
    work.describe("uncertainty", {"method": config.method, "num_scored": int(np.isfinite(score_N).sum())})
    work.expect("uncertainty.uncertainty", num_nodes=len(z_ND))


def _embed_view(work: Work) -> Callable[[int], np.ndarray]:
    """The trained model's embedding of augmented inputs, loaded at the first call."""
    loaded: list[Any] = []

    def embed(view: int) -> np.ndarray:
        if not loaded:
            loaded.extend(_load_model(work))
        method, data = loaded
        view_ND: np.ndarray = method.embed_view(data, view=view, seed=work.seed)
        return view_ND

    return embed


def _load_model(work: Work) -> tuple[Any, Any]:
    from gcl.checkpoint import load_weights
    from tasks.train import TrainStageConfig
    from tasks.training_data import build_for, open_training_data

    folder = work.input("model")
    config = TrainStageConfig.model_validate(json.loads((folder / "config.json").read_bytes()))
    data = open_training_data(work, config.method, with_labels=False)
    num_classes = work.metadata("model")["num_classes"]
    method = build_for(data, config.method, num_classes=num_classes, seed=work.seed)
    load_weights(method, folder / "checkpoint.safetensors")
    return method, data


UNCERTAINTY = Stage(
    name="uncertainty",
    version=1,
    body=uncertainty,
    tables=("uncertainty.uncertainty",),
    libraries=("numpy", "pyarrow", "scikit-learn", "scipy", "torch"),
)
