"""Scoring without Prefect: embeddings are those of the whole graph, the model is judged, the rest refused."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest

import tasks.score
from data_contracts.errors import ContractViolation
from flows.score import request_ingest, request_score
from gcl.checkpoint import load_weights
from gcl.errors import UnsuitableSetting
from gcl.evaluation.embedding_shift import ShiftConfig
from gcl.methods.base import TrainingData
from gcl.methods.configs import DmatIConfig, GraceConfig, GraphClConfig, HsanConfig
from gcl.smoothing import SmoothingConfig, smooth_features
from gcl.smoothing_rows import STEP_EDGE_BYTES, smooth_rows
from gcl.workspace import IN_MEMORY_BYTES
from tasks.convert import read_graph
from tasks.ingest import INGEST
from tasks.limits import total_memory
from tasks.score import SCORE, ScoreStageConfig, estimate, export_scores, require_inductive
from tasks.store import Store
from tasks.trained_model import TrainedModel, find_model
from tasks.training_data import build_for
from tasks.work import Work, read_metadata
from tests.growing import NUM_NEW, NUM_OLD, growing, write_source
from tests.tiny_runs import run_direct

ANY = ShiftConfig(max_known_shift=None, max_outlier_share=None, max_shift=None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store with a model, its clusters, and the model's digest."""
    folder = tmp_path_factory.mktemp("trained")
    run = run_direct(growing(write_source(folder / "old")), folder / "store", until="cluster")
    return folder / "store", run.digests["model"]


def scored(
    store: Path, digest: str, source: Path, *, nodes: str = "new", bounds: ShiftConfig | None = None
) -> tuple[TrainedModel, Path, dict[str, Any]]:
    """The model, the scores artifact, and what is known of it."""
    opened = Store(store)
    model = find_model(opened, digest, path=source)
    graph = INGEST.execute(request_ingest(opened, model), opened).artifacts["graph"]
    request = request_score(opened, model, graph, nodes, bounds or ShiftConfig(), refresh=False)
    folder = opened.open(SCORE.execute(request, opened).artifacts["scores"])
    return model, folder, read_metadata(folder)


def embedded_whole(store: Path, model: TrainedModel, source: Path) -> np.ndarray:
    """What embedding all of the new graph with the model gives."""
    opened = Store(store)
    graph = read_graph(opened.open(INGEST.execute(request_ingest(opened, model), opened).artifacts["graph"]))
    settings = model.settings
    if settings.method.inputs == "smoothed":
        x_NF = smooth_features(graph, settings.smooth, seed=0).x_NF
        data = TrainingData(num_nodes=graph.num_nodes, x_NF=x_NF)
    else:
        data = TrainingData(num_nodes=graph.num_nodes, graph=graph)
    method = build_for(data, settings.method, num_classes=None, seed=0)
    load_weights(method, opened.open(model.artifacts["model"]) / "checkpoint.safetensors")
    return np.asarray(method.embed(data))


def vectors(folder: Path) -> np.ndarray:
    column = pq.read_table(folder / "embeddings.parquet").column("z").combine_chunks()
    return np.asarray(column.flatten().to_numpy()).reshape(len(column), -1)


def test_new_nodes_get_the_embeddings_of_the_whole_graph(trained: tuple[Path, str], tmp_path: Path) -> None:
    source = write_source(tmp_path / "new", num_new=NUM_NEW)
    model, folder, facts = scored(*trained, source)
    expected_ND = embedded_whole(trained[0], model, source)
    table = pq.read_table(folder / "embeddings.parquet")
    nodes = table.column("node").to_numpy()
    np.testing.assert_allclose(vectors(folder), expected_ND[nodes], atol=1e-5)
    assert set(table.column("node_id").to_pylist()) == {f"n{NUM_OLD + i}" for i in range(NUM_NEW)}
    assert (facts["num_new"], facts["num_known"], facts["num_missing"]) == (NUM_NEW, NUM_OLD, 0)
    clusters = pq.read_table(folder / "clusters.parquet")
    opened = Store(trained[0])
    centroids = pq.read_table(opened.open(model.artifacts["clusters"]) / "centroids.parquet")
    centroid_KD = np.array(centroids.column("z").to_pylist())
    unit_ND = expected_ND[nodes] / np.linalg.norm(expected_ND[nodes], axis=1, keepdims=True)
    distance_NK = np.linalg.norm(unit_ND[:, None] - centroid_KD, axis=2)
    assert clusters.column("cluster").to_pylist() == distance_NK.argmin(1).tolist()
    np.testing.assert_allclose(clusters.column("distance").to_numpy(), distance_NK.min(1), atol=1e-5)


def test_a_method_on_the_graph_embeds_all_of_it(tmp_path: Path) -> None:
    old, store = write_source(tmp_path / "old"), tmp_path / "store"
    settings = growing(old, "method.name=grace", "method.hidden_size=8", "train.epochs=2")
    digest = run_direct(settings, store, until="train").digests["model"]
    source = write_source(tmp_path / "new", num_new=5)
    model, folder, facts = scored(store, digest, source, nodes="all", bounds=ANY)
    np.testing.assert_allclose(vectors(folder), embedded_whole(store, model, source), atol=1e-5)
    assert facts["num_scored"] == NUM_OLD + 5
    assert not (folder / "clusters.parquet").exists(), "the run was not clustered"
    export_scores(folder, tmp_path / "scores.parquet")
    assert pq.read_table(tmp_path / "scores.parquet").column("cluster").null_count == NUM_OLD + 5


def test_new_nodes_of_the_same_kind_pass_and_of_another_do_not(
    trained: tuple[Path, str], tmp_path: Path
) -> None:
    store = Path(shutil.copytree(trained[0], tmp_path / "store", symlinks=True))
    _, folder, _ = scored(store, trained[1], write_source(tmp_path / "new", num_new=NUM_NEW))
    shift = {row["measure"]: row["value"] for row in pq.read_table(folder / "shift.parquet").to_pylist()}
    assert shift["known_shift"] < 0.01
    assert shift["outlier_share"] <= 0.1
    assert abs(shift["shift"]) < 0.05
    elsewhere = write_source(tmp_path / "elsewhere", num_new=NUM_NEW, moved=8.0)
    with pytest.raises(ContractViolation) as caught:
        scored(store, trained[1], elsewhere)
    (failure,) = caught.value.failures
    assert (caught.value.table, failure.rule) == ("scores.shift", "shift_within_bounds")
    assert {"outlier_share", "shift"} <= {row["measure"] for row in failure.sample}
    assert list((store / ".quarantine").glob("*score*")), "what was computed lies in the quarantine"
    _, folder, facts = scored(store, trained[1], elsewhere, bounds=ANY)
    assert facts["num_outliers"] > NUM_NEW / 2
    assert pq.read_table(folder / "shift.parquet").column("bound").null_count == 3


def test_an_unchanged_graph_has_no_new_nodes(trained: tuple[Path, str], tmp_path: Path) -> None:
    _, folder, facts = scored(*trained, write_source(tmp_path / "same"))
    assert pq.read_table(folder / "embeddings.parquet").num_rows == 0
    export_scores(folder, tmp_path / "scores.parquet")
    assert pq.read_table(tmp_path / "scores.parquet").column_names == ["node_id", "z", "cluster"]
    assert facts["notes"] == ["there are no new nodes: the training graph had all of them"]
    values = pq.read_table(folder / "shift.parquet").column("value").to_pylist()
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert values[1:] == [None, None]


def test_few_new_nodes_are_scored_and_not_judged(trained: tuple[Path, str], tmp_path: Path) -> None:
    source = write_source(tmp_path / "few", num_new=3, num_missing=7)
    _, _, facts = scored(*trained, source)
    assert (facts["num_scored"], facts["num_known"], facts["num_missing"]) == (3, NUM_OLD - 7, 7)
    assert facts["notes"] == ["3 new nodes are too few to judge by, 20 are needed"]


def test_listed_nodes_may_be_known_and_new_ones(trained: tuple[Path, str], tmp_path: Path) -> None:
    source = write_source(tmp_path / "new", num_new=NUM_NEW)
    ids = tmp_path / "ids.txt"
    ids.write_text("n3\r\n\nn199\r\nn3\n")
    _, folder, _ = scored(*trained, source, nodes=str(ids))
    assert set(pq.read_table(folder / "embeddings.parquet").column("node_id").to_pylist()) == {"n3", "n199"}
    ids.write_text("\n".join(f"x{i}" for i in range(12)) + "\nn3\n")
    with pytest.raises(UnsuitableSetting, match="12 ids of .*are not in the new data; first: x0, .*x9$"):
        scored(*trained, source, nodes=str(ids))


def test_the_same_list_elsewhere_is_the_same_key(trained: tuple[Path, str], tmp_path: Path) -> None:
    opened = Store(trained[0])
    model = find_model(opened, trained[1], path=write_source(tmp_path / "old"))
    graph = model.artifacts["embeddings"].model_copy(update={"kind": "graph"})
    keys = []
    for name, content in (("a", "n1\n"), ("b", "n1\n"), ("c", "n2\n")):
        (tmp_path / name).write_text(content)
        nodes = str(tmp_path / name)
        request = request_score(opened, model, graph, nodes, ANY, refresh=False)
        keys.append(request.key)
    assert keys[0] == keys[1] != keys[2]


def test_other_columns_or_ids_are_refused(trained: tuple[Path, str], tmp_path: Path) -> None:
    with pytest.raises(UnsuitableSetting, match="5 feature columns, and the model was trained on another"):
        scored(*trained, write_source(tmp_path / "narrow", num_new=2, num_features=5))
    numbered = write_source(tmp_path / "numbered", num_new=2)
    for name in ("nodes.csv", "edges.csv"):
        text = (numbered / name).read_text()
        (numbered / name).write_text(text.replace("\nn", "\n").replace(",n", ","))
    manifest = (numbered / "graph.toml").read_text()
    (numbered / "graph.toml").write_text(manifest.replace('id = "id"', 'id = "id"\nid_type = "int64"'))
    with pytest.raises(UnsuitableSetting, match="ids of the new data are int64, .* graph string"):
        scored(*trained, numbered)


def estimated(folder: Path, method: str) -> Mapping[str, int]:
    """What scoring a graph of 10^6 nodes with a model of this method is said to hold in memory."""
    (folder / "config.json").write_text(json.dumps({"method": {"name": method}, "train": {}}))
    facts = {
        "graph": {"num_nodes": 10**6, "num_edges": 10**7, "num_features": 128},
        "embeddings": {"num_nodes": 10**6, "embedding_size": 64},
    }
    work = SimpleNamespace(metadata=lambda kind: facts[kind], input=lambda kind: folder)
    return estimate(cast(Work, work), ScoreStageConfig(smooth=SmoothingConfig(), normalise=True)).memory


def test_what_scoring_holds_at_once_is_estimated(tmp_path: Path) -> None:
    filtered = estimated(tmp_path, "dmat_i")
    assert filtered["a step of the filter"] == STEP_EDGE_BYTES * 11 * 10**6, "a self-loop for each node"
    assert filtered["a block of columns"] >= 3 * 4 * 10**6
    assert filtered["features that are not in files"] == 2 * IN_MEMORY_BYTES
    on_graph = estimated(tmp_path, "grace")
    assert "a step of the filter" not in on_graph
    assert on_graph["encodings"] >= 4 * 10**6 * (128 + 64)


def test_the_limit_of_the_models_run_narrows_what_is_smoothed(
    trained: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []

    def watched(*positional: Any, **options: Any) -> np.ndarray:
        given.append(options)
        return smooth_rows(*positional, **options)

    monkeypatch.setattr(tasks.score, "smooth_rows", watched)
    store = Path(shutil.copytree(trained[0], tmp_path / "store", symlinks=True))
    opened = Store(store)
    model = find_model(opened, trained[1], path=write_source(tmp_path / "new", num_new=3))
    graph = INGEST.execute(request_ingest(opened, model), opened).artifacts["graph"]
    limited = replace(model, memory_limit=6 * 10**9)
    SCORE.execute(request_score(opened, limited, graph, "new", ANY, refresh=False), opened)
    (options,) = given
    assert options["memory_limit"] == 6 * 10**9
    assert options["machine_memory"] == total_memory()
    assert options["held_bytes"] > 256 << 20, "what runs already, and libraries"


def test_transductive_methods_and_tied_preparations_are_refused() -> None:
    with pytest.raises(UnsuitableSetting, match="method hsan has weights for each node") as caught:
        require_inductive(HsanConfig(), SmoothingConfig())
    with pytest.raises(UnsuitableSetting, match="graphcl embeds whole graphs"):
        require_inductive(GraphClConfig(), SmoothingConfig())
    assert "\n" not in str(caught.value)
    tied = SmoothingConfig(standardise=True)
    with pytest.raises(UnsuitableSetting, match=r"smooth\.standardise"):
        require_inductive(DmatIConfig(), tied)
    require_inductive(GraceConfig(), tied)  # which never reads the smoothed rows
    with pytest.raises(UnsuitableSetting, match=r"method\.normalise_input=columns"):
        require_inductive(GraceConfig(normalise_input="columns"), SmoothingConfig())


def test_bounds_and_filter_are_part_of_the_key_and_folders_are_not(
    trained: tuple[Path, str], tmp_path: Path
) -> None:
    opened = Store(trained[0])
    model = find_model(opened, trained[1], path=write_source(tmp_path / "old"))
    graph = model.artifacts["embeddings"].model_copy(update={"kind": "graph"})

    def key(changed: TrainedModel, bounds: ShiftConfig) -> str:
        return request_score(opened, changed, graph, "new", bounds, refresh=False).key

    plain = key(model, ANY)
    moved = find_model(opened, trained[1], path=write_source(tmp_path / "elsewhere"))
    assert key(moved, ANY) == plain
    assert key(model, ShiftConfig()) != plain
    smooth = model.settings.smooth.model_copy(update={"alpha": 0.5})
    filtered = replace(model, settings=model.settings.model_copy(update={"smooth": smooth}))
    assert key(filtered, ANY) != plain
