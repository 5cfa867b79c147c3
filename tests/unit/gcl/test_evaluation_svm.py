"""The support vector machine of graph collections: scikit-learn's grid search, with kernels shared."""

import warnings

import numpy as np
import pytest

from gcl.errors import NotDefined
from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.evaluate import evaluate_embeddings
from gcl.evaluation.results import EvaluationInputs
from gcl.evaluation.svm import MAX_ROWS, NUM_FOLDS, PENALTIES, svm_rows
from gcl.graph import Graph, Labels


def make_rows(num_rows=90, num_classes=2, *, width=6, seed=0, scale=20.0):
    """Overlapping classes, not centred, of a scale that makes C matter."""
    generator = np.random.default_rng(seed)
    y_N = np.arange(num_rows) % num_classes
    centres = generator.normal(size=(num_classes, width))
    z_ND = scale * (centres[y_N] + 1.2 * generator.normal(size=(num_rows, width))) + 500
    return z_ND.astype(np.float32), Labels(y_N.astype(np.int32), tuple(map(str, range(num_classes))))


def rows_of(z_ND, labels, **settings):
    found = svm_rows(
        z_ND, labels, EvaluateConfig(**settings), protocol="svm-10fold", embedding="method", seed=3
    )
    return {(row.split, row.metric): row for row in found}


@pytest.mark.parametrize("num_classes", [2, 3])
def test_it_is_the_grid_search_of_scikit_learn(num_classes):
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.svm import SVC

    z_ND, labels = make_rows(num_classes=num_classes)
    z, y = z_ND.astype(np.float64), labels.y_N
    scores, validated = [], []
    for train, test in StratifiedKFold(10, shuffle=True, random_state=5).split(z, y):
        search = GridSearchCV(SVC(), {"C": list(PENALTIES)}, cv=5, scoring="accuracy").fit(z[train], y[train])
        scores.append(search.score(z[test], y[test]))
        validated.append(search.best_score_)
    found = rows_of(z_ND, labels, split_seed=5)
    assert found["test", "accuracy"].value == pytest.approx(np.mean(scores))
    assert found["test", "accuracy"].std == pytest.approx(np.std(scores, ddof=1))
    assert found["validation", "accuracy"].value == pytest.approx(np.mean(validated))
    assert (found["test", "accuracy"].n, found["test", "accuracy"].over) == (10, "folds")
    assert len(set(scores)) > 2


def test_folds_are_shared_by_runs_and_drawn_with_the_split_seed():
    z_ND, labels = make_rows()
    assert rows_of(z_ND, labels) == rows_of(z_ND, labels)
    assert rows_of(z_ND, labels) != rows_of(z_ND, labels, split_seed=1)
    assert rows_of(z_ND, labels, normalise=True) == rows_of(z_ND, labels, normalise=False)


def test_rows_without_a_label_are_left_out():
    z_ND, labels = make_rows()
    wider = np.concatenate([z_ND, np.full((5, 6), 1e6, np.float32)])
    longer = Labels(np.concatenate([labels.y_N, np.full(5, -1, np.int32)]), labels.class_names)
    assert rows_of(wider, longer) == rows_of(z_ND, labels)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_threads_change_nothing(num_threads, monkeypatch):
    z_ND, labels = make_rows()
    expected = rows_of(z_ND, labels)
    monkeypatch.setattr("gcl.evaluation.svm._num_threads", lambda num_rows: num_threads)
    assert rows_of(z_ND, labels) == expected


def test_constant_embeddings_are_judged_by_the_larger_class():
    y_N = np.repeat([0, 1], [60, 30]).astype(np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = rows_of(np.ones((90, 2), np.float32), Labels(y_N, ("a", "b")))
    assert found["test", "accuracy"].value == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("y_N", "match"),
    [
        (np.zeros(40), "needs two classes, and there are 1"),
        (np.repeat([0, 1], [40, NUM_FOLDS - 1]), "class b has 9 rows, fewer than the 10 folds"),
        (np.arange(MAX_ROWS + 1) % 2, r"6,001 labelled rows are more than 6,000.*evaluate\.protocols"),
    ],
)
def test_what_it_is_not_defined_for_is_refused(y_N, match):
    with pytest.raises(NotDefined, match=match):
        rows_of(np.zeros((len(y_N), 2), np.float32), Labels(y_N.astype(np.int32), ("a", "b")))


def evaluation_of(*, rows_are_graphs, num_rows=120, **settings):
    z_ND, labels = make_rows(num_rows)
    none = np.empty(0, np.int64)
    inputs = EvaluationInputs(
        embeddings={"method": z_ND, "smoothed": z_ND[:, :2], "random_init": z_ND[:, 2:]},
        graph=Graph(num_rows, none, none),
        labels=labels,
        rows_are_graphs=rows_are_graphs,
    )
    config = EvaluateConfig(
        num_splits=2, num_clustering_seeds=1, num_restarts=1, probe_c=(0.5, 1.0), **settings
    )
    return evaluate_embeddings(inputs, config, seed=0)


def test_collections_are_judged_in_folds_and_predicted_from_most_of_their_graphs():
    found = evaluation_of(rows_are_graphs=True)
    judged = {(row.task, row.protocol, row.embedding) for row in found.metrics}
    for embedding in ("method", "smoothed", "random_init"):
        for protocol in ("svm-10fold", "random-80-10-10"):
            assert ("graph_classification", protocol, embedding) in judged
        assert ("clustering", "kmeans-final", embedding) in judged
    assert not any(task == "node_classification" for task, _, _ in judged)
    assert found.predictions.protocol == "random-80-10-10"
    assert len(found.predictions.whole().predicted_B) == 120
    assert "risk_coverage_confidence" in found.curves


def test_nodes_are_judged_as_before_and_in_folds_if_asked():
    plain = {row.protocol for row in evaluation_of(rows_are_graphs=False).metrics}
    assert plain == {"random-10-10-80", "kmeans-final"}
    asked = evaluation_of(rows_are_graphs=False, protocols=("svm-10fold",))
    assert {(row.task, row.protocol) for row in asked.metrics} == {("node_classification", "svm-10fold")}
    assert asked.predictions is None


def test_collections_too_large_for_kernels_are_judged_by_the_probe(monkeypatch):
    monkeypatch.setattr("gcl.evaluation.protocols.MAX_ROWS", 100)
    protocols = {row.protocol for row in evaluation_of(rows_are_graphs=True).metrics}
    assert protocols == {"random-80-10-10", "kmeans-final"}
