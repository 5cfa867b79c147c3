"""Finding a model by series, run and digest, and what is said where there is none."""

import shutil
from pathlib import Path

import pytest

from flows.config import PipelineConfig
from flows.exit_codes import USAGE, describe, exit_code
from gcl.errors import UnsuitableSetting
from tasks.errors import UnknownArtifact
from tasks.runs import RunEntry, Runs
from tasks.store import Store
from tasks.trained_model import find_model
from tests.tiny_runs import DirectRun, run_direct, tiny

SETTINGS = tiny("dataset.edge_holdout=0.1", "smooth.alpha=0.3", "train.epochs=1", "cluster.normalise=false")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> DirectRun:
    return run_direct(SETTINGS, tmp_path_factory.mktemp("models") / "store", until="cluster")


@pytest.fixture
def store(made: DirectRun, tmp_path: Path) -> Store:
    """A copy of the store in which the run is the last good one of a series."""
    root = shutil.copytree(made.state.store.root, tmp_path / "store", symlinks=True)
    record(Store(root), made, SETTINGS)
    return Store(root)


def record(store: Store, made: DirectRun, settings: PipelineConfig, **changes: object) -> RunEntry:
    entry = RunEntry(
        series="nightly", config=settings.model_dump(mode="json"), preset=None, seed=0, keys=made.keys,
        artifacts=made.state.artifacts, metrics=[], good=True, reason=None,
    )  # fmt: skip
    entry = Runs(store).record(entry.model_copy(update=changes))
    Runs(store).advance(entry)
    return entry


def refused(store: Store, name: str, match: str, path: Path | None = None) -> None:
    with pytest.raises((UnknownArtifact, UnsuitableSetting), match=match) as caught:
        find_model(store, name, path=path)
    assert exit_code(caught.value) == USAGE
    assert "\n" not in describe(caught.value)


def test_series_run_and_digest_name_the_same_model(store: Store, made: DirectRun) -> None:
    (entry,) = Runs(store).entries()
    digest = made.digests["model"]
    by_series, by_run = find_model(store, "nightly"), find_model(store, entry.run[:20])
    by_digest = find_model(store, digest[:16])
    assert by_series.run == by_run.run == entry.run
    assert by_digest.run is None
    for found in (by_series, by_run, by_digest):
        assert found.artifacts.items() <= made.state.artifacts.items()
        assert set(found.artifacts) == {"model", "embeddings", "clusters"}
        assert found.settings.smooth.alpha == 0.3
        assert found.settings.method == SETTINGS.method
        assert found.settings.train == SETTINGS.train
        assert found.settings.cluster.normalise is False
        assert found.settings.dataset.edge_holdout == 0, "nothing is held out of what is scored"


def test_a_name_of_nothing_is_refused(store: Store) -> None:
    refused(store, "weekly", "there is no model 'weekly'")
    refused(store, "", "there is no model ''")
    refused(store, "0" * 64, "there is no model")


def test_a_run_that_ended_before_its_report_is_named_by_digest_alone(made: DirectRun) -> None:
    refused(made.state.store, "nightly", "with --series that went through to the report; .* by its digest$")
    assert find_model(made.state.store, made.digests["model"][:16]).run is None


def test_an_artifact_that_is_no_model_is_refused(store: Store, made: DirectRun) -> None:
    refused(store, made.digests["graph"], "is no model: it is graph, made by stage ingest")


def test_a_series_without_a_good_run_is_refused(store: Store, made: DirectRun) -> None:
    entry = Runs(store).entries()[0]
    changed = entry.model_copy(update={"series": "other", "good": False, "reason": "regressed"})
    Runs(store).record(changed)
    refused(store, "other", "series other has no good run yet")


def test_a_model_that_is_gone_is_refused(store: Store, made: DirectRun) -> None:
    shutil.rmtree(store.root / "train")
    refused(store, "nightly", "the model of 'nightly' cannot be used: .*is not in the store; run it again")


def test_a_model_whose_graph_nothing_knows_is_refused_by_digest(store: Store, made: DirectRun) -> None:
    shutil.rmtree(store.root / "smooth")
    assert find_model(store, "nightly").run
    refused(store, made.digests["model"], "no longer in the store: name a run instead")


def test_settings_of_another_version_are_refused(store: Store, made: DirectRun) -> None:
    config = SETTINGS.model_dump(mode="json")
    config["smooth"]["sharpness"] = 3
    record(store, made, SETTINGS, config=config, run="20991231T000000000Z-abcdef")
    refused(store, "nightly", r"settings of model 'nightly' are from another version.*smooth\.sharpness")


def test_a_generated_data_set_has_no_path(store: Store, tmp_path: Path) -> None:
    refused(store, "nightly", r"generated \(dataset.format=synthetic\): it has no --path", tmp_path)


def test_a_digest_of_a_model_of_files_needs_a_path(tmp_path: Path) -> None:
    from tests.growing import growing, write_source

    old = write_source(tmp_path / "old")
    run = run_direct(growing(old, "train.epochs=1"), tmp_path / "store", until="train")
    refused(Store(tmp_path / "store"), run.digests["model"], "does not know its source: give --path")
    found = find_model(Store(tmp_path / "store"), run.digests["model"], path=tmp_path / "new")
    assert getattr(found.settings.dataset, "path", None) == tmp_path / "new"
    assert "clusters" not in found.artifacts
