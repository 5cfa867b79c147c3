import time
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pytest

from gcl.edge_holdout import HeldOutPairs
from gcl.errors import UnsuitableSetting
from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.evaluate import evaluate_embeddings
from gcl.evaluation.links import LeakedEdges, LinkPairs
from gcl.evaluation.results import EvaluationInputs
from gcl.graph import Graph, Labels, Split
from gcl.row_blocks import ArrayBlocks
from gcl.workspace import Workspace, row_slices

FAST = EvaluateConfig(num_splits=3, num_clustering_seeds=2, num_restarts=2)
N = 300


def ring_graph(num_nodes=N):
    src = np.repeat(np.arange(num_nodes), 2)
    dst = np.stack([(np.arange(num_nodes) - 1) % num_nodes, (np.arange(num_nodes) + 1) % num_nodes], 1)
    return Graph(num_nodes, src, np.sort(dst, axis=1).ravel())


def task(noise=0.7, **changes):
    rng = np.random.default_rng(0)
    y_N = rng.integers(3, size=N).astype(np.int32)
    z_ND = (np.eye(3, 8)[y_N] + noise * rng.normal(size=(N, 8))).astype("f")
    embeddings = {
        "method": z_ND,
        "smoothed": z_ND + rng.normal(size=(N, 8)),
        "random_init": rng.normal(size=(N, 4)),
    }
    inputs = EvaluationInputs(embeddings, ring_graph(), Labels(y_N, ("a", "b", "c")))
    return replace(inputs, **changes)


def own_split(name="public"):
    return Split(name, np.arange(60), np.arange(60, 120), np.arange(120, N))


def rows_of(found, **where):
    return [row for row in found.metrics if all(getattr(row, key) == value for key, value in where.items())]


def bytes_of(found):
    """Everything an evaluation gives, for comparison to the last bit."""
    whole = found.predictions.whole()
    return (
        found.metrics,
        [getattr(whole, part.name).tobytes() for part in fields(whole)],
        {name: (x.tobytes(), y.tobytes()) for name, (x, y) in found.curves.items()},
        found.predictions.threshold,
    )


def test_clusters_of_rows_as_they_are_have_controls_in_their_own_geometry():
    own = {"cluster_N": np.arange(N) % 3, "cluster_protocol": "consensus-final"}
    found = evaluate_embeddings(task(is_cluster_normalised=False, **own), FAST, seed=0)
    unit = evaluate_embeddings(task(**own), FAST, seed=0)
    names = {row.embedding for row in rows_of(found, protocol="kmeans-raw", metric="accuracy")}
    assert names == {"method", "smoothed", "random_init"}
    assert not rows_of(unit, protocol="kmeans-raw")
    assert rows_of(found, protocol="kmeans-final") == rows_of(unit, protocol="kmeans-final")
    where = {"protocol": "consensus-final", "metric": "silhouette"}
    assert rows_of(found, **where)[0].value != rows_of(unit, **where)[0].value


def test_method_and_controls_get_the_same_rows():
    found = evaluate_embeddings(task(), FAST, seed=0)
    keys = [
        {
            (r.protocol, r.split, r.metric, r.n, r.over)
            for r in rows_of(found, embedding=e)
            if r.over != "calibrated probes"
        }
        for e in ("method", "smoothed", "random_init")
    ]
    assert keys[0] == keys[1] == keys[2]
    assert {key[0] for key in keys[0]} == {"random-10-10-80", "kmeans-final"}
    accuracy = {
        r.embedding: r.value
        for r in rows_of(found, metric="accuracy", protocol="random-10-10-80", split="test")
    }
    assert accuracy["method"] > accuracy["smoothed"] > accuracy["random_init"]


def test_repeats_are_named_for_what_varied():
    random = evaluate_embeddings(task(), FAST, seed=0)
    row = rows_of(random, metric="accuracy", protocol="random-10-10-80", split="test")[0]
    assert (row.n, row.over) == (3, "splits") and row.std > 0
    own = evaluate_embeddings(task(splits=(own_split(),)), FAST, seed=0)
    row = rows_of(own, metric="accuracy", protocol="planetoid-public", split="test")[0]
    assert (row.n, row.std, row.over) == (1, 0.0, "probe seeds")
    config = FAST.model_copy(update={"probe": "linear", "num_probe_seeds": 4, "probe_epochs": 20})
    linear = evaluate_embeddings(task(splits=(own_split(),)), config, seed=0)
    row = rows_of(linear, metric="accuracy", protocol="planetoid-public", split="test")[0]
    assert (row.n, row.over) == (4, "probe seeds")


def test_same_seed_same_result():
    first, second = (evaluate_embeddings(task(), FAST, seed=7) for _ in range(2))
    assert first.metrics == second.metrics
    assert bytes_of(first) == bytes_of(second)


@pytest.mark.parametrize("settings", [{"conformal": "daps"}, {"probe": "linear", "probe_epochs": 5}, {}])
def test_blocks_and_files_change_nothing(settings, tmp_path, monkeypatch):
    """All that is read in blocks, in blocks of a few rows, and all arrays in files: the same bytes."""
    graph = ring_graph()
    weight_E = np.random.default_rng(3).random(graph.num_edges).astype("f")
    y_N = task().labels.y_N.copy()
    y_N[::7] = -1
    inputs = task(
        graph=replace(graph, weight_E=weight_E),
        labels=Labels(y_N, ("a", "b", "c")),
        held_out=LinkPairs(test=pairs(), validation=pairs()),
        cluster_N=(np.arange(N) % 5).astype(np.int32),
        uncertainty_N=np.random.default_rng(4).random(N).astype("f"),
    )
    float32 = {name: z_ND.astype("f") for name, z_ND in inputs.embeddings.items()}
    config = FAST.model_copy(update=settings)
    expected = evaluate_embeddings(replace(inputs, embeddings=float32), config, seed=0)
    for module in ("gcl.row_blocks", "gcl.evaluation.judge", "gcl.evaluation.subgraph"):
        monkeypatch.setattr(f"{module}.row_slices", partial(row_slices, block_bytes=500))
    monkeypatch.setattr("gcl.evaluation.conformal._EDGES_AT_ONCE", 3)
    blocks = {name: ArrayBlocks(z_ND) for name, z_ND in float32.items()}
    workspace = Workspace(tmp_path, in_memory_bytes=0)
    found = evaluate_embeddings(replace(inputs, embeddings=blocks), config, seed=0, workspace=workspace)
    assert bytes_of(found) == bytes_of(expected)
    assert len(list(found.predictions.blocks())) > 100


def test_random_labels_score_at_chance():
    inputs = task()
    y_N = np.random.default_rng(5).permutation(inputs.labels.y_N)
    found = evaluate_embeddings(replace(inputs, labels=Labels(y_N, ("a", "b", "c"))), FAST, seed=0)
    for row in rows_of(found, metric="accuracy", split="test"):
        assert row.value == pytest.approx(1 / 3, abs=0.1)
    assert rows_of(found, metric="nmi", embedding="method")[0].value < 0.05


def test_a_single_class_gives_no_row_and_a_note():
    found = evaluate_embeddings(task(labels=Labels(np.zeros(N, np.int32), ("only",))), FAST, seed=0)
    assert found.metrics == [] and found.predictions is None
    assert len(found.notes) == 2 and all("not defined" in note for note in found.notes)


def test_no_labels_leave_the_label_free_figures_and_a_note():
    cluster_N = (np.arange(N) // 100).astype(np.int32)
    found = evaluate_embeddings(task(labels=None, cluster_N=cluster_N), FAST, seed=0)
    assert {row.metric for row in found.metrics} == {"modularity", "conductance", "silhouette"}
    assert found.predictions is None and "no labels" in found.notes[0]


def test_a_class_missing_in_training_costs_its_test_nodes_and_is_noted():
    inputs = task(noise=0.01)
    y_N = inputs.labels.y_N
    split = Split(
        "public",
        *(np.flatnonzero((np.arange(N) % 3 == part) & ((y_N != 2) | (part == 2))) for part in range(3)),
    )
    found = evaluate_embeddings(replace(inputs, splits=(split,)), FAST, seed=0)
    row = rows_of(found, metric="accuracy", split="test", embedding="method")[0]
    assert row.value == pytest.approx((y_N[split.test] != 2).mean())
    assert any("no training node of class c" in note for note in found.notes)


def test_unlabelled_nodes_of_a_split_are_left_out_and_noted():
    inputs = task(noise=0.01)
    y_N = inputs.labels.y_N.copy()
    y_N[[5, 70, 200, 201]] = -1
    inputs = replace(inputs, labels=Labels(y_N, ("a", "b", "c")), splits=(own_split(),))
    found = evaluate_embeddings(inputs, FAST, seed=0)
    assert (
        rows_of(found, metric="accuracy", split="test", embedding="method", protocol="planetoid-public")[
            0
        ].value
        == 1
    )
    assert any("4 unlabelled" in note for note in found.notes)


def test_split_without_validation_is_scored_without_choice_and_noted():
    split = Split("public", np.arange(60), np.zeros(0, np.int64), np.arange(120, N))
    found = evaluate_embeddings(task(splits=(split,)), FAST, seed=0)
    assert rows_of(found, protocol="planetoid-public", split="test", metric="accuracy")
    assert not rows_of(found, protocol="planetoid-public", split="validation")
    assert any("nothing is chosen" in note for note in found.notes)
    assert any("validation nodes to calibrate" in note for note in found.notes)


def test_overlapping_parts_of_a_split_are_refused():
    split = Split("public", np.arange(60), np.arange(59, 120), np.arange(120, N))
    with pytest.raises(ValueError, match="share nodes"):
        evaluate_embeddings(task(splits=(split,)), FAST, seed=0)


def pairs(is_edge=(True, True, False, False)):
    return HeldOutPairs(np.array([0, 2, 4, 6]), np.array([5, 9, 20, 30]), np.array(is_edge))


def test_held_out_edges_are_scored_and_leaks_refused():
    held_out = LinkPairs(test=pairs(), validation=pairs())
    found = evaluate_embeddings(task(held_out=held_out), FAST, seed=0)
    assert len(rows_of(found, task="link_prediction", metric="auc")) == 6
    leaked = HeldOutPairs(np.array([0, 2, 4, 6]), np.array([1, 9, 20, 30]), pairs().is_edge)
    with pytest.raises(LeakedEdges):
        evaluate_embeddings(task(held_out=LinkPairs(test=leaked, validation=pairs())), FAST, seed=0)


def test_inputs_that_do_not_fit_are_refused():
    for changes in (
        {"embeddings": {"smoothed": np.eye(N)}},
        {"embeddings": {"method": np.eye(N), "best_epoch": np.eye(N)}},
        {"embeddings": {"method": np.eye(N - 1)}},
        {"embeddings": {"method": np.full((N, 2), np.nan)}},
        {"cluster_N": np.zeros(3, np.int32)},
    ):
        with pytest.raises(ValueError):
            evaluate_embeddings(task(**changes), FAST, seed=0)


@pytest.mark.slow
@pytest.mark.real_data
def test_cora_sized_evaluation_takes_seconds(real_data):
    with np.load(real_data / "canonical" / "cora.npz") as data:
        graph = Graph(
            int(data["num_nodes"]), data["edge_src"].astype(np.int64), data["edge_dst"].astype(np.int64)
        )
        labels = Labels(data["y"].astype(np.int32), tuple("abcdefg"))
        parts = [data[f"{part}_idx"].astype(np.int64) for part in ("train", "val", "test")]
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(graph.num_nodes, 1024)).astype("f")
    adjacency = graph.adjacency_NN()
    z_ND = adjacency @ (adjacency @ basis)
    embeddings = {"method": np.tanh(z_ND), "smoothed": z_ND, "random_init": basis}
    start = time.process_time()
    found = evaluate_embeddings(
        EvaluationInputs(embeddings, graph, labels, (Split("planetoid-public", *parts),)),
        EvaluateConfig(),
        seed=0,
    )
    assert time.process_time() - start < 20  # about 8 s on one core
    method, chance = (
        rows_of(found, metric="accuracy", split="test", embedding=name)[0].value
        for name in ("method", "random_init")
    )
    assert method > 0.5 > 0.3 > chance  # structure alone carries the classes, noise does not


def test_a_protocol_asked_for_by_name_that_is_not_defined_is_refused():
    with pytest.raises(UnsuitableSetting, match="link-10-5"):
        evaluate_embeddings(task(), EvaluateConfig(protocols=("link-10-5",)), seed=0)
