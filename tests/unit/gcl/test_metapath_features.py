"""Smoothing along metapaths against dense products; components of nodes without features."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from gcl.errors import UnsuitableSetting
from gcl.feature_rows import FeatureRows
from gcl.graph import Graph
from gcl.hetero_graph import Metapath
from gcl.metapath_features import leading_components, metapath_features, row_normalised
from gcl.smoothing import SmoothingConfig

N, F = 40, 6


def metapaths(seed: int = 0) -> list[Metapath]:
    draws = np.random.default_rng(seed)
    halves = [sp.csr_matrix((draws.random((N, 9)) < 0.25).astype(np.float32)) for _ in range(2)]
    return [
        Metapath(name, sp.csr_matrix(half @ half.T)) for name, half in zip(("A", "B"), halves, strict=True)
    ]


METAPATHS = metapaths()


def everybody() -> list[Metapath]:
    """Metapaths that leave nobody out."""
    return [Metapath(m.name, sp.csr_matrix(m.adjacency_NN + sp.eye(N))) for m in metapaths()]


def smoothed(x_NF: Any, metapaths: list[Metapath] | None = None, **options: Any) -> tuple[np.ndarray, Any]:
    nobody = np.empty(0, np.int64)
    graph = Graph(num_nodes=N, src_E=nobody, dst_E=nobody)
    rows = None if x_NF is None else FeatureRows.of(x_NF)
    walked = metapaths or METAPATHS
    found = metapath_features(graph, walked, SmoothingConfig(**options), seed=0, attributes=rows)
    return np.concatenate(list(found.blocks)), found


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("norm", ["none", "l1", "l2"])
def test_features_are_those_before_and_after_one_step_along_each(is_sparse: bool, norm: Any) -> None:
    x_NF = np.random.default_rng(1).random((N, F)).astype(np.float32) * (np.arange(F) % 2)
    order = {"none": None, "l1": 1, "l2": 2}[norm]
    scale = 1 if order is None else np.linalg.norm(x_NF, ord=order, axis=1, keepdims=True)
    found, result = smoothed(sp.csr_matrix(x_NF) if is_sparse else x_NF, normalise_input=norm)
    expected = [x_NF / scale]
    for metapath in metapaths():
        dense = metapath.adjacency_NN.toarray()
        expected.append(dense / dense.sum(1, keepdims=True).clip(1e-9) @ (x_NF / scale))
    np.testing.assert_allclose(found, np.hstack(expected), rtol=1e-5, atol=1e-7)
    assert found.dtype == np.float32
    assert result.parts == (("x", F), ("A", F), ("B", F))
    assert np.abs(found).max() <= result.bound


def test_rows_may_be_brought_to_one_length() -> None:
    x_NF = np.random.default_rng(1).random((N, F)).astype(np.float32) / 100
    found, result = smoothed(x_NF, normalise_output="l2", metapaths=everybody())
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    for part in np.split(found, 3, axis=1):
        np.testing.assert_allclose(np.linalg.norm(part, axis=1), 3**-0.5, rtol=1e-5)
    assert np.abs(found).max() <= result.bound


def test_result_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x_NF = np.random.default_rng(1).random((N, F)).astype(np.float32)
    whole, _ = smoothed(x_NF)
    import gcl.metapath_features

    monkeypatch.setattr(
        gcl.metapath_features,
        "row_slices",
        lambda n, _bytes: (slice(i, min(i + 7, n)) for i in range(0, n, 7)),
    )
    blocks, _ = smoothed(x_NF)
    np.testing.assert_array_equal(whole, blocks)


def test_nodes_without_features_have_components_of_each_metapath() -> None:
    found, result = smoothed(None, num_components=5)
    assert result.parts == (("A", 5), ("B", 5))
    assert np.abs(found).max() <= result.bound
    for part, metapath in zip((found[:, :5], found[:, 5:]), metapaths(), strict=True):
        walk = row_normalised(metapath.adjacency_NN).toarray()
        left, singular, _ = np.linalg.svd(walk)
        np.testing.assert_allclose(np.linalg.norm(part, axis=0), singular[:5], rtol=1e-3)
        alignment = np.abs((left[:, :5] * part).sum(0)) / singular[:5]
        np.testing.assert_allclose(alignment, 1, atol=0.02)


def test_components_are_the_same_at_every_run_and_their_signs_fixed() -> None:
    walk = row_normalised(metapaths()[0].adjacency_NN)
    first = leading_components(walk, num_components=4, seed=0)
    np.testing.assert_array_equal(first, leading_components(walk, num_components=4, seed=0))
    other = leading_components(walk, num_components=4, seed=1)
    np.testing.assert_allclose(
        first, other, atol=1e-3, err_msg="another start, the same components and signs"
    )


def test_spectral_features_leave_attributes_aside() -> None:
    x_NF = np.ones((N, F), np.float32)
    np.testing.assert_array_equal(
        smoothed(x_NF, features="spectral", num_components=5)[0], smoothed(None, num_components=5)[0]
    )


def test_unsuitable_settings_are_refused() -> None:
    with pytest.raises(UnsuitableSetting, match="no degrees of their own"):
        smoothed(None, features="degree")
    with pytest.raises(UnsuitableSetting, match="num_components=41 exceeds the number of nodes, 40"):
        smoothed(None, num_components=41)


def test_a_node_without_neighbours_keeps_zeros() -> None:
    empty = sp.csr_matrix(np.array([[0, 1], [0, 0]], np.float32))
    np.testing.assert_array_equal(row_normalised(empty).toarray(), [[0, 1], [0, 0]])
