from itertools import permutations

import numpy as np
import pytest

from gcl.evaluation.agreement import classification_scores, cluster_scores


def pairs(num_clusters=4, num_classes=4, count=15):
    rng = np.random.default_rng(0)
    for _ in range(count):
        y_M = rng.integers(num_classes, size=60)
        noise = rng.integers(num_clusters, size=60)
        yield np.where(rng.random(60) < 0.6, rng.permutation(num_clusters)[y_M % num_clusters], noise), y_M


def test_classification_scores_equal_scikit_learn():
    from sklearn.metrics import accuracy_score, f1_score

    for predicted_M, y_M in pairs(num_clusters=5, num_classes=4):
        found = classification_scores(predicted_M, y_M)
        assert found["accuracy"] == pytest.approx(accuracy_score(y_M, predicted_M))
        assert found["macro_f1"] == pytest.approx(f1_score(y_M, predicted_M, average="macro"))
        assert found["micro_f1"] == pytest.approx(f1_score(y_M, predicted_M, average="micro"))


def test_cluster_scores_equal_scikit_learn():
    from sklearn.metrics import adjusted_rand_score, fowlkes_mallows_score, normalized_mutual_info_score

    for cluster_M, y_M in pairs(num_clusters=5, num_classes=4):
        found = cluster_scores(cluster_M, y_M)
        assert found["nmi"] == pytest.approx(normalized_mutual_info_score(y_M, cluster_M))
        assert found["ari"] == pytest.approx(adjusted_rand_score(y_M, cluster_M))
        assert found["fmi"] == pytest.approx(fowlkes_mallows_score(y_M, cluster_M))


def test_matching_is_the_best_of_all_permutations():
    from sklearn.metrics import f1_score

    for cluster_M, y_M in pairs(num_clusters=4, num_classes=4):
        mappings = [np.array(p)[cluster_M] for p in permutations(range(4))]
        best = max((mapped == y_M).mean() for mapped in mappings)
        found = cluster_scores(cluster_M, y_M)
        assert found["accuracy"] == pytest.approx(best)
        of_best = [f1_score(y_M, m, average="macro") for m in mappings if (m == y_M).mean() == best]
        assert any(found["macro_f1"] == pytest.approx(value) for value in of_best)


def test_scores_do_not_depend_on_cluster_ids():
    for cluster_M, y_M in pairs():
        renamed_M = np.array([7, 0, 9, 3])[cluster_M]
        assert cluster_scores(renamed_M, y_M) == pytest.approx(cluster_scores(cluster_M, y_M))


def test_surplus_clusters_count_as_wrong():
    found = cluster_scores(np.arange(6), np.array([0, 0, 0, 1, 1, 1]))
    assert found["accuracy"] == pytest.approx(2 / 6)
    assert found["macro_f1"] == pytest.approx(0.5)  # precision 1, recall 1/3, both classes


def test_one_cluster_is_scored_as_what_it_is():
    found = cluster_scores(np.zeros(4, int), np.array([0, 0, 1, 1]))
    assert found["accuracy"] == 0.5 and found["nmi"] == 0 and found["ari"] == 0
