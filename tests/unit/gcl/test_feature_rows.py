"""Features in blocks of rows: the same numbers whatever the blocks are."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from gcl.feature_rows import FeatureRows, finite, standardised
from gcl.graph import Features

KINDS = pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix])


def in_blocks(x_NF: Features, height: int) -> FeatureRows:
    def blocks() -> Iterator[Features]:
        for start in range(0, x_NF.shape[0], height):
            yield x_NF[start : start + height]

    return FeatureRows(x_NF.shape, blocks)


def dense(x_NF: Features) -> np.ndarray:
    return np.asarray(x_NF.todense()) if sp.issparse(x_NF) else np.asarray(x_NF)


@KINDS
@pytest.mark.parametrize("height", [1, 7, 50])
def test_whole_is_what_went_in(make: Any, height: int) -> None:
    x_NF = sp.random(50, 6, density=0.3, dtype=np.float32, random_state=0).toarray()
    rows = in_blocks(make(x_NF), height)
    np.testing.assert_array_equal(dense(rows.whole()), x_NF)
    assert sp.issparse(rows.whole()) == (make is sp.csr_matrix)
    np.testing.assert_array_equal(dense(FeatureRows.of(make(x_NF)).whole()), x_NF)


@pytest.mark.parametrize("height", [1, 3, 100])
def test_standardised_columns_have_mean_zero_and_deviation_one(height: int) -> None:
    generator = np.random.default_rng(0)
    x_NF = (generator.standard_normal((100, 3)) * [1, 1000, 0] + [5, -20, 0.1]).astype(np.float32)
    out_NF = dense(standardised(in_blocks(x_NF, height)).whole())
    assert out_NF.dtype == np.float32
    np.testing.assert_allclose(out_NF.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(out_NF.std(0), [1, 1, 0], atol=1e-5)


@pytest.mark.parametrize("height", [1, 3, 100])
def test_standardised_sparse_columns_are_scaled_and_stay_sparse(height: int) -> None:
    x_NF = sp.random(50, 6, density=0.3, format="csr", dtype=np.float32, random_state=0)
    out_NF = standardised(in_blocks(x_NF, height)).whole()
    assert sp.issparse(out_NF) and out_NF.nnz == x_NF.nnz
    np.testing.assert_allclose(dense(out_NF).std(0), 1, atol=1e-5)


@KINDS
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(make: Any, bad: float) -> None:
    x_NF = np.ones((10, 2), np.float32)
    assert finite(in_blocks(make(x_NF), 3)).whole().shape == (10, 2)
    x_NF[8, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        finite(in_blocks(make(x_NF), 3)).whole()
