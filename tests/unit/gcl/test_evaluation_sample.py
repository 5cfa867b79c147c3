"""One sample of very many labelled nodes: seeded apart from the run, the same for all, and stated."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.evaluate import evaluate_embeddings
from gcl.evaluation.results import EvaluationInputs
from gcl.evaluation.sample import draw_sample
from gcl.evaluation.subgraph import induced_subgraph
from gcl.graph import Graph, Labels, Split
from gcl.workspace import row_slices

N, LIMIT = 1000, 300
CONFIG = EvaluateConfig(
    max_nodes=LIMIT,
    num_splits=2,
    num_clustering_seeds=2,
    num_restarts=2,
    probe_c=(1.0,),
    silhouette_sample=50,
)


def task(num_unlabelled=0, **changes):
    rng = np.random.default_rng(0)
    y_N = rng.integers(3, size=N).astype(np.int32)
    z_ND = (np.eye(3, 8)[y_N] + 0.4 * rng.normal(size=(N, 8))).astype("f")
    cluster_N = np.where(rng.random(N) < 0.9, y_N, 0).astype(np.int32)
    y_N[rng.permutation(N)[:num_unlabelled]] = -1
    src, dst = np.nonzero(rng.random((N, N)) < 0.01)
    inputs = EvaluationInputs(
        {"method": z_ND, "smoothed": z_ND.copy(), "random_init": z_ND.copy()},
        Graph(N, src, dst, is_undirected=False),
        Labels(y_N, ("a", "b", "c")),
        cluster_N=cluster_N,
        uncertainty_N=rng.random(N).astype("f"),
    )
    return replace(inputs, **changes)


def parts(split):
    return split.train, split.validation, split.test


def values(found, **where):
    rows = (row for row in found.metrics if all(getattr(row, key) == value for key, value in where.items()))
    return [(row.protocol, row.split, row.metric, row.value, row.std, row.n) for row in rows]


def test_up_to_the_limit_nothing_is_hidden():
    inputs = task()
    sample = draw_sample(inputs, EvaluateConfig(max_nodes=N), seed=0)
    assert (sample.nodes_R == np.arange(N)).all() and sample.labels is inputs.labels
    assert sample.facts is None and sample.notes == ()


def test_few_labelled_nodes_of_many_are_all_measured():
    inputs = task(num_unlabelled=N - LIMIT)
    sample = draw_sample(inputs, CONFIG, seed=0)
    assert sample.labels is inputs.labels and sample.facts is None and sample.notes == ()
    assert np.isin(np.flatnonzero(inputs.labels.y_N >= 0), sample.nodes_R).all()
    assert len(sample.nodes_R) <= LIMIT + 50, "and nodes for the silhouette; no other rows are read"


def test_without_labels_only_the_rows_of_the_silhouette_are_read():
    assert len(draw_sample(task(labels=None), CONFIG, seed=0).nodes_R) == 50
    found = evaluate_embeddings(task(labels=None), CONFIG, seed=0)
    assert {row.metric for row in found.metrics} == {"modularity", "conductance", "silhouette"}


def test_the_sample_depends_on_the_seed_of_the_splits_and_not_on_the_runs():
    drawn = [
        np.flatnonzero(draw_sample(task(100), CONFIG.model_copy(update=more), seed=seed).labels.y_N >= 0)
        for seed, more in ((0, {}), (1, {}), (0, {"split_seed": 1}))
    ]
    assert len(drawn[0]) == LIMIT and (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).any()
    assert (task(100).labels.y_N[drawn[0]] >= 0).all()


def test_notes_and_facts_state_the_sample():
    found = evaluate_embeddings(task(100), CONFIG, seed=5)
    assert "measured on 300 of 900 labelled nodes, drawn with seed 0" in found.notes
    assert found.sample == {"num_nodes": 300, "num_labelled": 900, "seed": 0}
    assert any("subgraph of the sample" in note for note in found.notes)
    assert evaluate_embeddings(task(100), CONFIG.model_copy(update={"max_nodes": N}), seed=5).sample is None


def test_method_and_controls_are_measured_on_the_same_nodes():
    """Three times the same embeddings give three times the same figures."""
    found = evaluate_embeddings(task(), CONFIG, seed=0)
    rows = [
        [row for row in values(found, embedding=name) if row[0] in ("random-10-10-80", "kmeans-final")]
        for name in ("smoothed", "random_init")
    ]
    assert rows[0] == rows[1] and len(rows[0]) > 10
    assert set(rows[0]) <= set(values(found, embedding="method"))


def test_a_sample_is_measured_as_the_data_set_it_would_be():
    """Splits, k-means and the subgraph's figures are those of the drawn nodes and their edges alone."""
    inputs = task()
    drawn = np.flatnonzero(draw_sample(inputs, CONFIG, seed=0).labels.y_N >= 0)
    alone = EvaluationInputs(
        {name: z_ND[drawn] for name, z_ND in inputs.embeddings.items()},
        induced_subgraph(inputs.graph, drawn),
        Labels(inputs.labels.y_N[drawn], inputs.labels.class_names),
    )
    found, expected = (evaluate_embeddings(one, CONFIG, seed=0) for one in (inputs, alone))
    for embedding in ("smoothed", "random_init"):
        rows = values(found, embedding=embedding)
        assert rows == values(expected, embedding=embedding) and len(rows) > 10


def test_labels_that_were_not_drawn_are_not_read():
    inputs = task()
    is_drawn_N = draw_sample(inputs, CONFIG, seed=0).labels.y_N >= 0
    other_N = np.where(is_drawn_N, inputs.labels.y_N, (inputs.labels.y_N + 1) % 3).astype(np.int32)
    other = replace(inputs, labels=Labels(other_N, inputs.labels.class_names))
    found, changed = (evaluate_embeddings(one, CONFIG, seed=0) for one in (inputs, other))
    assert found.metrics == changed.metrics
    assert found.predictions.whole().set_BK.tobytes() == changed.predictions.whole().set_BK.tobytes()


@pytest.mark.parametrize("conformal", ["lac", "aps", "daps"])
def test_every_node_is_predicted_and_test_figures_are_those_of_the_table(conformal):
    inputs = task()
    config = CONFIG.model_copy(update={"conformal": conformal, "num_splits": 1})
    found = evaluate_embeddings(inputs, config, seed=0)
    whole = found.predictions.whole()
    assert len(whole.predicted_B) == N and whole.set_BK.shape == (N, 3)
    assert (whole.predicted_B == inputs.labels.y_N).mean() > 0.7
    drawn = np.flatnonzero(draw_sample(inputs, config, seed=0).labels.y_N >= 0)
    test = {row.metric: row.value for row in found.metrics if row.over == "calibrated probes"}
    sizes = whole.set_BK[drawn].sum(1)
    assert test["mean_set_size"] == pytest.approx(sizes.mean(), abs=0.1), "80 % of the drawn are test nodes"
    everyone = whole.set_BK[np.arange(N), inputs.labels.y_N].mean()
    assert everyone == pytest.approx(0.9, abs=0.08), "the guarantee holds for nodes that were not drawn"


@pytest.mark.parametrize("conformal", ["aps", "daps"])
def test_predictions_do_not_depend_on_the_blocks_that_are_read(conformal, monkeypatch):
    """Products of few rows round otherwise, in the last bit; everything else is the same."""
    config = CONFIG.model_copy(update={"conformal": conformal, "num_splits": 1})
    expected = evaluate_embeddings(task(), config, seed=0)
    for module in ("gcl.row_blocks", "gcl.evaluation.judge", "gcl.evaluation.subgraph"):
        monkeypatch.setattr(f"{module}.row_slices", partial(row_slices, block_bytes=700))
    found = evaluate_embeddings(task(), config, seed=0)
    assert len(list(found.predictions.blocks())) > 40
    assert conformal == "daps" or found.metrics == expected.metrics
    one, other = found.predictions.whole(), expected.predictions.whole()
    np.testing.assert_array_equal(one.predicted_B, other.predicted_B)
    np.testing.assert_allclose(one.confidence_B, other.confidence_B, rtol=1e-5)
    np.testing.assert_allclose(one.entropy_B, other.entropy_B, rtol=1e-4, atol=1e-5)
    assert (one.set_BK != other.set_BK).mean() < 0.002


def test_graph_figures_of_the_clusters_are_those_of_the_whole_graph():
    inputs = task()
    sampled, whole = (
        evaluate_embeddings(inputs, CONFIG.model_copy(update={"max_nodes": limit}), seed=0)
        for limit in (LIMIT, N)
    )
    for metric in ("modularity", "conductance", "silhouette"):
        where = {"protocol": "clusters-artifact", "metric": metric}
        assert values(sampled, **where) == values(whole, **where)
    where = {"protocol": "clusters-artifact", "metric": "accuracy"}
    assert values(sampled, **where)[0][3] == pytest.approx(values(whole, **where)[0][3], abs=0.05)


def own(name, sizes, seed=0):
    order = np.random.default_rng(seed).permutation(N)
    return Split(name, *(np.sort(part) for part in np.split(order, np.cumsum(sizes))[:3]))


def test_own_splits_stay_whole_as_long_as_they_are_small_enough():
    split = own("public", (60, 100, 140))
    sample = draw_sample(task(splits=(split,)), CONFIG, seed=0)
    assert all((a == b).all() for a, b in zip(parts(sample.splits[0]), parts(split), strict=True))
    assert np.isin(np.concatenate(parts(split)), sample.nodes_R).all()
    assert sample.notes[1] == "planetoid-public: measured on all 300 labelled nodes of its splits"
    found = evaluate_embeddings(task(splits=(split,)), CONFIG, seed=0)
    whole = evaluate_embeddings(task(splits=(split,)), CONFIG.model_copy(update={"max_nodes": N}), seed=0)
    where = {"protocol": "planetoid-public", "embedding": "smoothed"}
    assert values(found, **where) == values(whole, **where)


def test_own_splits_of_more_nodes_shrink_in_proportion_and_say_so():
    splits = tuple(own(f"geom-10/{number}", (480, 320, 200), seed=number) for number in range(3))
    sample = draw_sample(task(splits=splits), CONFIG, seed=0)
    for split, whole in zip(sample.splits, splits, strict=True):
        sizes = [len(part) for part in parts(split)]
        np.testing.assert_allclose(sizes, [144, 96, 60], atol=25)
        assert sum(sizes) == LIMIT
        assert all(np.isin(a, b).all() for a, b in zip(parts(split), parts(whole), strict=True))
    assert len(sample.nodes_R) <= LIMIT + 50, "ten splits do not read ten samples"
    assert "geom-10: measured on 300 of 1,000 labelled nodes" in sample.notes[1]
    found = evaluate_embeddings(task(splits=splits), CONFIG, seed=0)
    assert values(found, protocol="geom-10", metric="accuracy", split="test")[0][5] == 3


def test_unlabelled_nodes_of_a_sampled_split_are_counted_as_ever():
    inputs = task(num_unlabelled=100, splits=(own("public", (480, 320, 200)),))
    found = evaluate_embeddings(inputs, CONFIG, seed=0)
    assert any("split public: 100 unlabelled node(s) left out" in note for note in found.notes)


@pytest.mark.parametrize("node", [-1, N])
def test_splits_that_are_none_are_refused_above_the_limit_too(node):
    split = Split("public", np.array([0, 1]), np.array([2]), np.array([3, node]))
    with pytest.raises(ValueError, match="outside"):
        evaluate_embeddings(task(splits=(split,)), CONFIG, seed=0)


def test_a_protocol_that_is_not_asked_for_reads_no_rows():
    config = CONFIG.model_copy(update={"protocols": ("kmeans-final",)})
    sample = draw_sample(task(splits=(own("public", (480, 320, 200)),)), config, seed=0)
    assert len(sample.notes) == 1 and len(sample.nodes_R) <= LIMIT + 50
