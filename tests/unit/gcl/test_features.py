"""Feature preparation: norms, principal components, features from structure."""

import numpy as np
import pytest
import scipy.sparse as sp

from gcl.features import (
    degree_features,
    normalise_rows,
    principal_components,
    spectral_features,
)
from gcl.graph import Graph


def two_cliques(size: int = 6) -> Graph:
    """Two cliques joined by one edge, and one isolated node."""
    block = np.kron(np.eye(2), np.ones((size, size))) - np.eye(2 * size)
    block[size - 1, size] = block[size, size - 1] = 1
    src, dst = np.nonzero(block)
    return Graph(2 * size + 1, src, dst)


def low_rank(num_nodes: int = 400, num_features: int = 50) -> np.ndarray:
    generator = np.random.default_rng(3)
    scale = 10.0 * 0.7 ** np.arange(num_features)
    mixing = np.linalg.qr(generator.standard_normal((num_features, num_features)))[0]
    return (generator.standard_normal((num_nodes, num_features)) * scale @ mixing + 2).astype(np.float32)


@pytest.mark.parametrize(("norm", "order"), [("l1", 1), ("l2", 2)])
@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix])
def test_rows_get_norm_one_and_zero_rows_stay_zero(norm, order, make):
    dense = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
    dense[4] = 0
    result = normalise_rows(make(dense), norm)
    assert result.dtype == np.float32
    assert sp.issparse(result) == (make is sp.csr_matrix)
    values = result.toarray() if sp.issparse(result) else result
    expected = np.ones(20)
    expected[4] = 0
    np.testing.assert_allclose(np.linalg.norm(values, ord=order, axis=1), expected, rtol=1e-6)
    np.testing.assert_array_equal(np.sign(values), np.sign(dense))


def test_norm_of_huge_values_does_not_overflow():
    x_NF = np.full((1, 4), 1e30, np.float32)
    np.testing.assert_allclose(normalise_rows(x_NF, "l2"), 0.5)
    np.testing.assert_allclose(normalise_rows(sp.csr_matrix(x_NF), "l2").toarray(), 0.5)


def test_none_returns_the_same_object():
    x_NF = np.ones((2, 2), np.float32)
    assert normalise_rows(x_NF, "none") is x_NF


@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix])
def test_components_equal_the_exact_decomposition(make):
    x_NF = low_rank()
    scores = principal_components(make(x_NF), num_components=8, seed=0)
    centred = x_NF.astype(np.float64) - x_NF.mean(0, dtype=np.float64)
    left, singular_values, right = np.linalg.svd(centred, full_matrices=False)
    sign = np.sign(right[np.arange(8), np.abs(right[:8]).argmax(1)])
    np.testing.assert_allclose(scores, left[:, :8] * singular_values[:8] * sign, atol=2e-3)
    assert scores.dtype == np.float32
    assert scores.flags.c_contiguous


def test_components_repeat_with_the_seed_and_keep_their_sign_with_another():
    x_NF = low_rank()
    first = principal_components(x_NF, num_components=5, seed=1)
    np.testing.assert_array_equal(first, principal_components(x_NF, num_components=5, seed=1))
    np.testing.assert_allclose(first, principal_components(x_NF, num_components=5, seed=2), atol=2e-3)


def test_as_many_components_as_features_keep_all_distances():
    x_NF = low_rank(40, 6)
    scores = principal_components(x_NF, num_components=6, seed=0)
    centred = x_NF - x_NF.mean(0)
    np.testing.assert_allclose(scores @ scores.T, centred @ centred.T, atol=1e-2)


def test_more_components_than_features_are_refused():
    with pytest.raises(ValueError, match="num_components=7"):
        principal_components(np.ones((20, 6), np.float32), num_components=7, seed=0)


def test_degrees_are_one_hot_with_an_open_last_column():
    features_NF = degree_features(two_cliques(), max_degree=6)
    assert features_NF.shape == (13, 7)
    assert features_NF.toarray().argmax(1).tolist() == [5] * 5 + [6] * 2 + [5] * 5 + [0]
    assert degree_features(two_cliques(), max_degree=3).toarray().argmax(1).max() == 3


def test_spectral_features_separate_two_cliques():
    x_NF = spectral_features(two_cliques(), num_components=2, seed=0)
    assert np.isfinite(x_NF).all()
    assert len(set(np.sign(x_NF[:6, 1]))) == 1
    assert (np.sign(x_NF[:6, 1]) == -np.sign(x_NF[6:12, 1])).all()
    np.testing.assert_array_equal(x_NF, spectral_features(two_cliques(), num_components=2, seed=0))


def test_spectral_features_need_more_nodes_than_components():
    with pytest.raises(ValueError, match="below N=13"):
        spectral_features(two_cliques(), num_components=13, seed=0)
