"""A notebook and a run of the pipeline give the same embedding and checks, to the bit."""

from pathlib import Path

import numpy as np
import pytest

import gcl
from gcl.methods import method_class
from tasks.convert import read_checks, read_matrix
from tests.methods import ON_ONE_GRAPH
from tests.tiny_runs import run_direct, tiny

UNSUPERVISED = [name for name in ON_ONE_GRAPH if not method_class(name).uses_labels]
SMALL = ("hidden_size", "projection_size")


@pytest.mark.parametrize("name", UNSUPERVISED)
def test_estimator_gives_the_embedding_of_the_train_stage(name: str, tmp_path: Path) -> None:
    sizes = [f"method.{field}=8" for field in SMALL if field in method_class(name).Config.model_fields]
    config = tiny(f"method.name={name}", "train.num_checks=2", *sizes)
    run = run_direct(config, tmp_path / "store", until="train")
    embeddings = run.state.store.open(run.state.artifacts["embeddings"])
    settings = config.model_dump(mode="json")
    dataset = gcl.read_dataset(**config.dataset.model_dump())
    model = gcl.ContrastiveEmbedding.from_settings(settings, seed=config.seed)
    asks = getattr(config.method, "num_clusters", None) == "classes"
    z_ND = model.fit_embed(dataset.graph, num_classes=dataset.labels.num_classes if asks else None)
    assert np.array_equal(z_ND, read_matrix(embeddings / "embeddings.parquet", "z"))
    checks = run.state.store.open(run.state.artifacts["checks"]) / "checks.parquet"
    for (_, of_run_NK), of_notebook_NK in zip(
        read_checks(checks, num_nodes=len(z_ND)), model.checks, strict=True
    ):
        assert np.array_equal(of_run_NK, of_notebook_NK)
