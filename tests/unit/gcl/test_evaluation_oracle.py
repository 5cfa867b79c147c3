from dataclasses import replace

import numpy as np
import pytest

from gcl.clustering.legacy_kmeans import fit_legacy_kmeans
from gcl.errors import NotDefined
from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.evaluate import evaluate_embeddings
from gcl.evaluation.oracle import label_oracle
from gcl.evaluation.results import EvaluationInputs
from gcl.graph import Graph, Labels

N = 120
CONFIG = EvaluateConfig(num_restarts=3, num_clustering_seeds=1, num_splits=1, probe_c=(1.0,))
Y_N = (np.arange(N) % 3).astype(np.int32)
LABELS = Labels(Y_N, ("a", "b", "c"))


def check(noise):
    draws = np.random.default_rng(int(noise * 100)).normal(size=(N, 6))
    return (np.eye(3, 6)[Y_N] + noise * draws).astype(np.float32)


CHECKS = [(10, check(0.8)), (20, check(0.1)), (30, check(1.5))]


def inputs(**changes):
    src, dst = np.nonzero((Y_N[:, None] == Y_N) & ~np.eye(N, dtype=bool))
    start = EvaluationInputs({"method": check(1.5)}, Graph(N, src, dst), LABELS, checks=CHECKS)
    return replace(start, **changes)


def test_the_check_that_labels_like_best_is_named_and_marked():
    found = label_oracle(CHECKS, LABELS, CONFIG, seed=0)
    assert (found.epochs, found.num_checks) == ({"kmeans-oracle": 20}, 3)
    assert {row.metric for row in found.rows} == {"accuracy", "macro_f1", "nmi", "ari", "fmi"}
    for row in found.rows:
        assert (row.protocol, row.split, row.embedding) == ("kmeans-oracle", "oracle", "method")
        assert (row.n, row.std, row.over) == (3, 0.0, "checks, best by labels")
        assert row.value > 0.9


def test_of_equal_checks_the_earliest_is_named():
    assert label_oracle([(5, check(0.1)), (7, check(0.1))], LABELS, CONFIG, seed=0).epochs == {
        "kmeans-oracle": 5
    }


def test_single_starts_on_rows_as_they_are_have_a_protocol_of_their_own():
    far = check(0.1) * np.where(np.arange(N) % 2, 1.0, 40.0)[:, None].astype(np.float32)
    config = CONFIG.model_copy(update={"oracle_starts": ("kmeans", "legacy_kmeans")})
    found = label_oracle([*CHECKS, (40, far)], LABELS, config, seed=0)
    assert set(found.epochs) == {"kmeans-oracle", "legacy_kmeans-oracle"}
    assert (found.num_checks, {row.n for row in found.rows}) == (4, {4})
    value = {(row.protocol, row.metric): row.value for row in found.rows}
    assert value["legacy_kmeans-oracle", "accuracy"] > 0.9
    (kmeans, legacy) = (
        label_oracle([(40, far)], LABELS, CONFIG.model_copy(update={"oracle_starts": (name,)}), seed=0)
        for name in config.oracle_starts
    )
    assert kmeans.rows[0].value > 0.95 > 0.8 > legacy.rows[0].value, "lengths count for the one alone"


def test_each_check_has_a_single_start_of_its_own(monkeypatch):
    seeds = []

    def spy(z_MK, num_clusters, *, seed):
        seeds.append(seed)
        return fit_legacy_kmeans(z_MK, num_clusters, seed=seed)

    monkeypatch.setattr("gcl.evaluation.oracle.fit_legacy_kmeans", spy)
    label_oracle(CHECKS, LABELS, CONFIG.model_copy(update={"oracle_starts": ("legacy_kmeans",)}), seed=0)
    assert len(set(seeds)) == len(CHECKS)


@pytest.mark.parametrize("starts", [(), ("kmeans", "kmeans"), ("spectral",)])
def test_ways_of_clustering_are_known_and_distinct(starts):
    with pytest.raises(ValueError, match="oracle_starts"):
        EvaluateConfig(oracle_starts=starts)


def test_unlabelled_nodes_are_left_out():
    y_N, z_ND = Y_N.copy(), check(0.1)
    y_N[:30] = -1
    z_ND[:30] = 7.0
    found = label_oracle([(1, z_ND)], Labels(y_N, LABELS.class_names), CONFIG, seed=0)
    assert found.rows[0].value == 1.0


def test_without_checks_or_classes_there_is_none():
    with pytest.raises(NotDefined, match="no checks"):
        label_oracle([], LABELS, CONFIG, seed=0)
    with pytest.raises(NotDefined, match="two classes"):
        label_oracle(CHECKS, Labels(np.zeros(N, np.int32), ("a",)), CONFIG, seed=0)
    with pytest.raises(ValueError, match="119 nodes"):
        label_oracle([(1, check(0.1)[1:])], LABELS, CONFIG, seed=0)


def test_no_result_holds_a_row_of_the_oracle():
    found = evaluate_embeddings(inputs(), CONFIG, seed=0)
    assert found.oracle is not None and found.oracle.epochs == {"kmeans-oracle": 20}
    assert all(row.split != "oracle" and "oracle" not in row.protocol for row in found.metrics)
    assert found.metrics == evaluate_embeddings(inputs(checks=None), CONFIG, seed=0).metrics


@pytest.mark.parametrize("labels", [None, Labels(np.zeros(N, np.int32), ("only",))])
def test_labels_that_can_choose_nothing_give_no_oracle(labels):
    assert evaluate_embeddings(inputs(labels=labels), CONFIG, seed=0).oracle is None


def test_a_run_without_checks_has_no_oracle():
    assert evaluate_embeddings(inputs(checks=None), CONFIG, seed=0).oracle is None


@pytest.mark.parametrize("protocol", ["clusters-artifact", "consensus-final"])
def test_the_clusters_of_a_consensus_have_a_protocol_of_their_own(protocol):
    found = evaluate_embeddings(inputs(cluster_N=Y_N, cluster_protocol=protocol), CONFIG, seed=0)
    rows = [row for row in found.metrics if row.over == "clusterings"]
    assert rows and {row.protocol for row in rows} == {protocol}
