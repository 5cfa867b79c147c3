"""HGCVAE through the pipeline, in both of its modes, and which stages its choice runs again."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import tasks.stage
from flows.config import load_config
from flows.study_config import read_study
from gcl.methods import METHODS
from tasks.closure import import_closure
from tasks.limits import Estimate
from tasks.train import TrainStageConfig, code_of
from tests.hetero_sources import write_large_shop
from tests.tiny_runs import TINY, DirectRun, run_direct

pytestmark = pytest.mark.slow
BEFORE = ["ingest", "metapaths", "smooth"]
AFTER = ["train", "uncertainty", "cluster", "evaluate"]
SMALL = (
    "method.name=hgcvae", "method.embedding_size=8", "method.num_heads=2", "method.num_layers=1",
    "method.num_negative_pairs=2", "method.schedule_epochs=2", "train.num_checks=0",
)  # fmt: skip


def run_shop(folder: Path, store: Path, *overrides: str, until: str = "evaluate") -> DirectRun:
    plain = [item for item in TINY if not item.startswith(("dataset.", "method."))]
    chosen = ["dataset.format=gconstruct", "dataset.name=shop", f"dataset.path={folder}"]
    config = load_config(preset="none", overrides=[*plain, *chosen, *overrides])[0]
    return run_direct(config, store, until=until)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, DirectRun]:
    """A source, a store, and a run of another method up to its embeddings."""
    folder, store = tmp_path_factory.mktemp("shop"), tmp_path_factory.mktemp("store")
    write_large_shop(folder)
    other = run_shop(folder, store, "method.name=dmat_i", "method.embedding_size=8", until="train")
    assert other.ran == [*BEFORE, "train"]
    return folder, store, other


@pytest.mark.parametrize("mode", ["reference", "strict"])
def test_a_run_goes_through_to_evaluate_and_leaves_the_stages_before_it(
    mode: str, shop: tuple[Path, Path, DirectRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store, other = shop
    estimates: dict[str, Estimate] = {}
    monkeypatch.setattr(
        tasks.stage, "require_fit", lambda name, estimate, **_: estimates.update({name: estimate})
    )
    run = run_shop(folder, store, *SMALL, f"method.mode={mode}")
    assert run.ran == AFTER
    assert {name: run.keys[name] for name in BEFORE} == {name: other.keys[name] for name in BEFORE}
    assert run.keys["train"] != other.keys["train"]
    assert run_shop(folder, store, *SMALL, f"method.mode={mode}").ran == []

    opened = {kind: run.state.store.open(artifact) for kind, artifact in run.state.artifacts.items()}
    z_ND = np.array(pq.read_table(opened["embeddings"] / "embeddings.parquet")["z"].to_pylist())
    assert z_ND.shape == (120, 8)
    assert np.isfinite(z_ND).all()
    assert z_ND.std(axis=0).max() > 0
    metrics = pq.read_table(opened["metrics"] / "metrics.parquet").to_pandas()
    assert set(metrics.embedding) == {"method", "smoothed", "random_init"}
    assert metrics.value.notna().all()
    entries = pq.read_metadata(opened["metapaths"] / "edges.parquet").num_rows
    assert estimates["train"].memory["neighbours"] >= min(60 * entries, 120**2)


def test_figures_of_the_study_are_terms_of_its_training(shop: tuple[Path, Path, DirectRun]) -> None:
    folder, store, _ = shop
    figures = read_study("hgcvae-ablation").figures
    terms = {figure.partition("/")[2] for figure in figures if figure.startswith("history/")}
    assert terms == {"kl", "largest_kl", "active_units"}, "whether the posterior collapsed"
    run = run_shop(folder, store, *SMALL, until="train")
    history = pq.read_schema(run.state.store.open(run.state.artifacts["model"]) / "history.parquet")
    assert terms <= set(history.names)


def test_its_code_is_no_part_of_the_keys_of_other_stages_and_methods() -> None:
    own = {"gcl.methods.hgcvae", "gcl.han", "gcl.methods.hgcvae_schedules"}

    def train_config(name: str) -> TrainStageConfig:
        return TrainStageConfig.model_validate({"method": {"name": name}, "train": {}})

    assert own <= import_closure(code_of(train_config("hgcvae"))).keys()
    others = [["tasks.ingest"], ["tasks.metapaths"], ["tasks.smooth"], ["tasks.cluster"], ["tasks.evaluate"]]
    others += [list(code_of(train_config(name))) for name in METHODS if name in ("dmat_i", "grace")]
    for modules in others:
        assert not own & import_closure(modules).keys(), modules
