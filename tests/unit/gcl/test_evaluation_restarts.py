"""Restarts that train side by side are what a plain loop over restarts, steps and metrics gives."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

from gcl.errors import NotDefined
from gcl.evaluation.classification import classification_rows
from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.restarts import auc_scores, macro_f1_scores, restart_scores
from gcl.graph import Labels, Split
from gcl.random import numpy_generator

CONFIG = EvaluateConfig(probe="linear", num_probe_seeds=4, probe_epochs=60, normalise=False)


def task(num_nodes=300, width=8, seed=0):
    generator = np.random.default_rng(seed)
    y_N = generator.choice(3, size=num_nodes, p=[0.6, 0.3, 0.1])
    z_ND = (1.2 * np.eye(3, width)[y_N] + generator.normal(size=(num_nodes, width))).astype("f")
    parts = np.split(generator.permutation(num_nodes), [40, 150])
    return z_ND, y_N, Split("s", *map(np.sort, parts))


def loop(z_ND, y_N, split, config, restart):
    """HeCo's probe as one writes it down: after each step both metrics, on validation and on test."""
    width = z_ND.shape[1]
    limit = np.sqrt(6 / (width + 3))
    start = numpy_generator(0, "restarts", restart).uniform(-limit, limit, (width, 3))
    layer = torch.nn.Linear(width, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(start.T))
        layer.bias.zero_()
    adam = torch.optim.Adam(layer.parameters(), lr=config.probe_learning_rate)
    z, y = torch.from_numpy(z_ND), torch.from_numpy(y_N)
    validation, test = [], []
    for _ in range(config.probe_epochs):
        adam.zero_grad()
        torch.nn.functional.cross_entropy(layer(z[split.train]), y[split.train]).backward()
        adam.step()
        with torch.no_grad():
            for part, into in ((split.validation, validation), (split.test, test)):
                logit = layer(z[part])
                given = logit.argmax(1).numpy()
                into.append(
                    (
                        f1_score(y_N[part], given, average="macro"),
                        f1_score(y_N[part], given, average="micro"),
                        roc_auc_score(np.eye(3)[y_N[part]], logit.softmax(1).numpy(), average="macro"),
                    )
                )
    by_macro, by_micro = (np.argmax([scores[i] for scores in validation]) for i in (0, 1))
    return {"macro_f1": test[by_macro][0], "micro_f1": test[by_micro][1], "auc": test[by_micro][2]}


def test_every_restart_equals_the_plain_loop():
    z_ND, y_N, split = task()
    found = restart_scores(z_ND, y_N, split, CONFIG, num_classes=3, seed=0)["test"]
    assert len(found) == CONFIG.num_probe_seeds
    for restart, scores in enumerate(found):
        expected = loop(z_ND, y_N, split, CONFIG, restart)
        assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-5)
        assert scores["accuracy"] == scores["micro_f1"]


def test_test_labels_choose_nothing():
    z_ND, y_N, split = task()
    other_N = y_N.copy()
    other_N[split.test] = (other_N[split.test] + 1) % 3
    first, second = (
        restart_scores(z_ND, y, split, CONFIG, num_classes=3, seed=0)["validation"] for y in (y_N, other_N)
    )
    assert first == second


def test_without_validation_nodes_the_last_step_counts():
    z_ND, y_N, split = task()
    split = Split("s", split.train, split.validation[:0], split.test)
    found = restart_scores(z_ND, y_N, split, CONFIG, num_classes=3, seed=0)
    assert found["validation"] == []
    longer = CONFIG.model_copy(update={"probe_epochs": 90})
    assert found["test"] != restart_scores(z_ND, y_N, split, longer, num_classes=3, seed=0)["test"]


def test_a_class_without_training_nodes_costs_its_f1():
    z_ND, y_N, split = task()
    train = split.train[y_N[split.train] != 2]
    split = Split("s", train, split.validation, split.test)
    scores = restart_scores(z_ND, y_N, split, CONFIG, num_classes=3, seed=0)["test"]
    assert all(score["macro_f1"] < 2 / 3 for score in scores)
    only = Split("s", np.flatnonzero(y_N == 1)[:5], split.validation, split.test)
    with pytest.raises(NotDefined, match="two classes"):
        restart_scores(z_ND, y_N, only, CONFIG, num_classes=3, seed=0)


def test_scores_equal_those_of_scikit_learn():
    generator = np.random.default_rng(1)
    y_M, given_MS = generator.integers(4, size=200), generator.integers(4, size=(200, 3))
    p_MSC = np.round(generator.dirichlet(np.ones(4), (200, 3)), 2)  # with ties
    for s in range(3):
        assert macro_f1_scores(given_MS, y_M, 5)[s] == pytest.approx(
            f1_score(y_M, given_MS[:, s], average="macro")
        )
        expected = roc_auc_score(np.eye(4)[y_M], p_MSC[:, s], average="macro")
        assert auc_scores(p_MSC, y_M, np.arange(4))[s] == pytest.approx(expected)
    assert np.isnan(auc_scores(p_MSC, np.zeros(200, int), np.arange(4))).all()


@pytest.mark.parametrize(("protocol", "has_auc"), [("heco-20", True), ("given", False)])
@pytest.mark.parametrize("probe", ["linear", "logistic"])
def test_heco_protocols_report_auc_with_both_probes_and_others_none(protocol, has_auc, probe):
    z_ND, y_N, split = task()
    config = CONFIG.model_copy(update={"probe": probe, "probe_epochs": 5})
    labels = Labels(y_N.astype(np.int32), ("a", "b", "c"))
    rows = classification_rows(z_ND, labels, (split,), config, protocol=protocol, embedding="method", seed=0)
    assert {row.metric for row in rows} == {"accuracy", "macro_f1", "micro_f1"} | (
        {"auc"} if has_auc else set()
    )
    test = [row for row in rows if row.split == "test"]
    assert {(row.n, row.over) for row in test} == {(4 if probe == "linear" else 1, "probe seeds")}
    assert all((row.std > 0) == (probe == "linear") for row in test if row.metric == "auc")
