"""The notebook's object, for every registered method: what it computes, keeps, saves and refuses."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gcl
from gcl.errors import UnsuitableSetting
from gcl.estimator import ContrastiveEmbedding
from gcl.graph import Graph, Labels
from gcl.methods import build_method, method_class
from gcl.methods.base import TrainingData
from gcl.smoothing import smooth_features
from gcl.trainer import train
from tests.tiny_estimators import (
    GRAPH,
    NUM_CLASSES,
    NUM_NODES,
    Y,
    blobs,
    by_method,
    extras,
    reads_rows,
    small,
)


@by_method
def test_fit_embed_gives_finite_rows_and_a_history(name):
    model = small(name)
    z_ND = model.fit_embed(GRAPH, **extras(name))
    assert z_ND.shape[0] == NUM_NODES
    assert z_ND.dtype == np.float32
    assert np.isfinite(z_ND).all()
    assert [row["epoch"] for row in model.history] == [1, 2]
    assert all(np.isfinite(row["loss"]) for row in model.history)
    assert all(isinstance(note, str) for note in model.notes)


@by_method
def test_same_as_the_parts_called_by_hand(name):
    model = small(name, seed=3)
    z_ND = model.fit_embed(GRAPH, **extras(name))
    x_NF = smooth_features(GRAPH, model.smoothing_config, seed=0).x_NF if reads_rows(name) else None
    graph = GRAPH if "graph" in method_class(name).inputs else None
    y_N = Y.astype(np.int32) if method_class(name).uses_labels else None
    data = TrainingData(NUM_NODES, x_NF, graph, y_N)
    num_classes = NUM_CLASSES if extras(name) else None
    method = build_method(
        model.method_config, num_features=12, num_classes=num_classes, num_nodes=NUM_NODES, seed=3
    )
    history = train(method, data, model.train_config, seed=3).history
    assert history == model.history
    assert np.array_equal(method.embed(data), z_ND)


@by_method
def test_seed_decides(name):
    first, again, other = (small(name, seed=seed).fit_embed(GRAPH, **extras(name)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@by_method
def test_saved_model_embeds_the_same_bits(name, tmp_path):
    model = (
        small(name, temperature=0.7)
        if "temperature" in method_class(name).Config.model_fields
        else small(name)
    )
    z_ND = model.fit_embed(GRAPH, **extras(name))
    loaded = ContrastiveEmbedding.load(model.save(tmp_path / "model"))
    assert np.array_equal(loaded.embed(GRAPH), z_ND)
    assert loaded.history == model.history
    assert loaded.settings == model.settings
    assert np.array_equal(loaded.uncertainty(graph=GRAPH), model.uncertainty(), equal_nan=True)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    loaded.save(tmp_path / "again")
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == before


@by_method
def test_another_graph_of_the_same_columns_is_embedded_and_one_of_others_refused(name):
    model = small(name).fit(GRAPH, **extras(name))
    other, _ = blobs(seed=1)
    assert model.embed(other).shape == model.embed().shape
    assert not np.array_equal(model.embed(other), model.embed())
    narrow = Graph(GRAPH.num_nodes, GRAPH.src_E, GRAPH.dst_E, GRAPH.x_NF[:, 1:])
    with pytest.raises(ValueError, match="fitted on 12 columns, and the graph has 11"):
        model.embed(narrow)
    larger = Graph(NUM_NODES + 1, GRAPH.src_E, GRAPH.dst_E, np.vstack([GRAPH.x_NF, GRAPH.x_NF[:1]]))
    if method_class(name).is_transductive:
        with pytest.raises(UnsuitableSetting, match=f"each of the {NUM_NODES} nodes"):
            model.embed(larger)
    else:
        assert len(model.embed(larger)) == NUM_NODES + 1


@by_method
def test_uncertainty_by_every_method(name):
    model = small(name).fit(GRAPH, **extras(name))
    for method, settings in (
        ("affinity", {}),
        ("augmentation", {"num_views": 2}),
        ("cluster_margin", {"num_clusters": 3}),
    ):
        score_N = model.uncertainty(method, **settings)
        assert score_N.shape == (NUM_NODES,)
        has_direction_N = model.embed().any(axis=1)  # a row of zeros is not scored
        assert np.isfinite(score_N[has_direction_N]).mean() > 0.9
        assert np.nanmax(score_N) > 1e-5
    with pytest.raises(ValueError, match="num_views: Input should be greater than or equal to 2"):
        model.uncertainty("augmentation", num_views=1)


@by_method
def test_labels_are_asked_for_or_refused_as_the_method_declares(name):
    given, message = (
        ({}, "needs labels") if method_class(name).uses_labels else ({"labels": Y}, "uses no labels")
    )
    with pytest.raises(ValueError, match=message):
        small(name).fit(GRAPH, **given)


def test_labels_as_an_object_or_an_array():
    y_N = np.where(np.arange(NUM_NODES) < 30, Y, -1)
    by_array = small("dmt").fit_embed(GRAPH, labels=y_N)
    names = tuple(map(str, range(NUM_CLASSES)))
    assert np.array_equal(by_array, small("dmt").fit_embed(GRAPH, labels=Labels(y_N.astype(np.int32), names)))
    assert not np.array_equal(by_array, small("dmt").fit_embed(GRAPH, labels=Y))


def test_groups_are_found():
    model = ContrastiveEmbedding("dmat_i", epochs=30, learning_rate=1e-2, embedding_size=8)
    z_ND = model.fit_embed(GRAPH)
    assert model.history[-1]["loss"] < model.history[0]["loss"]
    clusters = gcl.cluster_embeddings(z_ND, gcl.ClusterConfig(num_clusters=3), seed=0).cluster_N
    assert len({(int(c), int(y)) for c, y in zip(clusters, Y, strict=True)}) == 3


def test_graph_without_attributes_runs_on_degrees_and_says_so():
    bare = Graph(GRAPH.num_nodes, GRAPH.src_E, GRAPH.dst_E)
    with pytest.raises(UnsuitableSetting, match='smooth.features to "degree"'):
        small("dmat_i").fit(bare)
    assert small("dmat_i", smooth={"features": "degree"}).fit_embed(bare).shape == (NUM_NODES, 8)


def test_features_tied_to_a_graph_are_not_carried_to_another(tmp_path):
    model = small("dmat_i", smooth={"num_components": 4}).fit(GRAPH)
    other, _ = blobs(seed=1)
    with pytest.raises(UnsuitableSetting, match="num_components"):
        model.embed(other)
    loaded = ContrastiveEmbedding.load(model.save(tmp_path))
    copy = Graph.from_edges(GRAPH.src_E, GRAPH.dst_E, GRAPH.x_NF)
    assert np.array_equal(loaded.embed(copy), model.embed())
    with pytest.raises(UnsuitableSetting, match="num_components"):
        loaded.embed(other)


def test_smoothing_draws_by_the_pipelines_seed_whatever_the_run_seed(monkeypatch):
    from tasks.smooth import _SEED

    seen = []

    def recorded(graph, config, *, seed):
        seen.append(seed)
        return smooth_features(graph, config, seed=seed)

    monkeypatch.setattr("gcl.estimator.smooth_features", recorded)
    for seed in (0, 5):
        small("dmat_i", seed=seed).fit(GRAPH)
    assert seen == [_SEED, _SEED]


def test_progress_is_reported_and_an_interrupted_fit_goes_on(tmp_path):
    first, second = [], []

    def stop_in_the_third(report):
        first.append(report.epoch)
        if report.epoch == 3:
            raise KeyboardInterrupt

    model = small("dmat_i", epochs=4, checkpoint_every=1)
    with pytest.raises(KeyboardInterrupt):
        model.fit(GRAPH, on_epoch=stop_in_the_third, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="not fitted"):
        model.embed()
    model.fit(GRAPH, on_epoch=lambda report: second.append(report.epoch), checkpoint_dir=tmp_path)
    assert first == [1, 2, 3]
    assert second in ([3, 4], [4])
    assert np.array_equal(model.embed(), small("dmat_i", epochs=4).fit_embed(GRAPH))


def test_checkpoints_of_another_graph_are_not_taken(tmp_path):
    small("dmat_i").fit(GRAPH, checkpoint_dir=tmp_path)
    with pytest.raises(Exception, match="belongs to something else"):
        small("dmat_i").fit(blobs(seed=1)[0], checkpoint_dir=tmp_path)


def test_what_is_not_a_graph_is_pointed_to_the_conversions():
    with pytest.raises(ValueError, match=r"not csr_matrix: see Graph.from_scipy"):
        small("dmat_i").fit(GRAPH.adjacency_NN())


def test_importing_gcl_loads_nothing_and_its_names_are_there():
    code = (
        "import sys, gcl; names = [m for m in ('torch', 'numpy', 'pydantic') if m in sys.modules];"
        "assert names == [], names; assert {'Graph', 'ContrastiveEmbedding'} <= set(dir(gcl))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert gcl.ContrastiveEmbedding is ContrastiveEmbedding
    with pytest.raises(AttributeError, match="no attribute 'Embedding'"):
        gcl.Embedding  # noqa: B018


def test_stub_and_module_give_out_the_same_names():
    stub = Path(gcl.__file__).with_suffix(".pyi").read_text()
    assert {line.split(" as ")[-1] for line in stub.splitlines() if " as " in line} == set(gcl._EXPORTS)
    for name, module in gcl._EXPORTS.items():
        assert f"from {module} import {name} as {name}" in stub


def test_no_stage_reaches_the_notebooks_modules():
    from tasks.closure import import_closure

    reached = import_closure(["tasks.train", "tasks.evaluate", "tasks.ingest"])
    assert not {"gcl.estimator", "gcl.interop", "gcl.graph_arrays"} & set(reached)
