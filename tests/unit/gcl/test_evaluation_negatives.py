"""Figures of learned weights: they say whether false negatives are spared, and nothing without labels."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from gcl.evaluation.negatives import WeighedPairs, negative_weight_rows
from gcl.graph import Labels

LABELS = Labels(np.array([0, 0, 1, 1, -1], np.int32), ("a", "b"))


def make_pairs(weights):
    """Pairs (0,1) and (2,3) of one class, (0,2) and (1,3) of two, (0,4) of an unknown one."""
    first, second = np.array([0, 2, 0, 1, 0]), np.array([1, 3, 2, 3, 4])
    return WeighedPairs(first, second, np.array([0.9, 0.2, 0.4, -0.5, 0.1], "f"), np.array(weights, "f"))


def figures(pairs, labels):
    return {row.metric: row.value for row in negative_weight_rows(pairs, labels, seed=0)}


def test_figures_of_weights_that_spare_false_negatives():
    found = figures(make_pairs([0.2, 0.6, 1.0, 1.4, 9.0]), LABELS)
    assert found["weight_same_class"] == pytest.approx(0.4)
    assert found["weight_other_class"] == pytest.approx(1.2)
    assert found["false_negative_share"] == 0.5
    assert found["false_negative_auc"] == 1.0
    assert found["similarity_auc"] == 0.75
    assert found["weight_similarity_correlation"] < 0


def test_uniform_weights_find_nothing_and_correlate_with_nothing():
    found = figures(make_pairs([1.0] * 5), LABELS)
    assert found["false_negative_auc"] == 0.5
    assert found["weight_similarity_correlation"] == 0.0


def test_the_area_is_that_of_scikit_learn_ties_included():
    generator = np.random.default_rng(0)
    labels = Labels(generator.integers(0, 3, 40).astype(np.int32), ("a", "b", "c"))
    first, second = generator.integers(0, 40, (2, 300))
    weights = generator.integers(0, 6, 300).astype("f")
    pairs = WeighedPairs(first, second, generator.uniform(-1, 1, 300).astype("f"), weights)
    same = labels.y_N[first] == labels.y_N[second]
    assert figures(pairs, labels)["false_negative_auc"] == pytest.approx(roc_auc_score(same, -weights))


@pytest.mark.parametrize("labels", [None, Labels(np.zeros(5, np.int32), ("a",))], ids=["none", "one class"])
def test_without_two_kinds_of_pairs_only_the_correlation_is_defined(labels):
    assert set(figures(make_pairs([0.2, 0.6, 1.0, 1.4, 9.0]), labels)) == {"weight_similarity_correlation"}
