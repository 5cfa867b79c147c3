"""Preparing node features for smoothing: row norms, principal components, features for graphs without any.

Shape legend: N nodes, E directed edges, F features.
"""

from typing import Literal

import numpy as np
import scipy.sparse as sp

from gcl.errors import UnsuitableSetting
from gcl.graph import Features, Graph
from gcl.random import numpy_generator

NUM_POWER_ITERATIONS = 4
NUM_OVERSAMPLES = 16
_ROWS_AT_A_TIME = 65_536


def normalise_rows(x_NF: Features, norm: Literal["none", "l1", "l2"]) -> Features:
    """Each row divided by its L1 or L2 norm; rows of zeros stay zero.

    Args:
        x_NF: float32, dense or CSR; never modified.
        norm: ``none`` returns `x_NF` itself.

    Returns:
        float32, sparse if the input is.
    """
    if norm == "none":
        return x_NF
    norm_N = _row_norms(x_NF, norm)
    scale_N = _inverse(norm_N)
    if sp.issparse(x_NF):
        num_entries_N = np.diff(x_NF.indptr)
        data = (x_NF.data * np.repeat(scale_N, num_entries_N)).astype(np.float32)
        return sp.csr_matrix((data, x_NF.indices, x_NF.indptr), shape=x_NF.shape)
    out_NF = np.empty(x_NF.shape, np.float32)
    for start in range(0, len(x_NF), _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        np.multiply(x_NF[rows], scale_N[rows, None], out=out_NF[rows], casting="same_kind")
    return out_NF


def _inverse(value: np.ndarray) -> np.ndarray:
    """1 / value, and 0 where value is 0."""
    return np.asarray(np.divide(1.0, value, out=np.zeros_like(value), where=value > 0))


def _row_norms(x_NF: Features, norm: Literal["none", "l1", "l2"]) -> np.ndarray:
    """float64 norms: a float32 sum of squares would overflow from 2e19 on."""
    power = 1 if norm == "l1" else 2
    if sp.issparse(x_NF):
        row_of_entry = np.repeat(np.arange(x_NF.shape[0]), np.diff(x_NF.indptr))
        entry_powers = np.abs(x_NF.data.astype(np.float64)) ** power
        return np.bincount(row_of_entry, weights=entry_powers, minlength=x_NF.shape[0]) ** (1 / power)
    norm_N = np.empty(len(x_NF))
    for start in range(0, len(x_NF), _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        norm_N[rows] = np.linalg.norm(x_NF[rows].astype(np.float64), ord=power, axis=1)
    return norm_N


def principal_components(x_NF: Features, *, num_components: int, seed: int) -> np.ndarray:
    """Scores on the leading principal components, by a seeded randomised SVD.

    The centred matrix is never formed, so sparse features stay sparse. Four power iterations with
    re-orthogonalisation (Halko, Martinsson & Tropp 2011, algorithm 4.4) on 16 columns more than asked for. A
    component's sign is fixed by making its loading of largest magnitude positive.

    Args:
        x_NF: float32, dense or CSR.
        num_components: D, at most min(N, F).
        seed: the run's seed.

    Returns:
        float32 N x D, columns by decreasing variance.

    Raises:
        ValueError: more components asked for than there are.
    """
    num_nodes, num_features = x_NF.shape
    if num_components > min(num_nodes, num_features):
        raise UnsuitableSetting(
            f"num_components={num_components} exceeds min(nodes, features)={min(num_nodes, num_features)}"
        )
    matrix = x_NF.astype(np.float64)
    mean_F = np.asarray(matrix.mean(axis=0)).ravel()
    size = min(num_components + NUM_OVERSAMPLES, num_nodes, num_features)
    basis_Fs = numpy_generator(seed, "principal_components").standard_normal((num_features, size))
    for _ in range(NUM_POWER_ITERATIONS + 1):
        range_Ns, _ = np.linalg.qr(_centred_product(matrix, mean_F, basis_Fs))
        projected_Fs = _centred_transposed_product(matrix, mean_F, range_Ns)
        basis_Fs, _ = np.linalg.qr(projected_Fs)
    loadings_Fs, singular_values, rotation_ss = np.linalg.svd(projected_Fs, full_matrices=False)
    strongest = np.abs(loadings_Fs).argmax(axis=0)
    sign_s = np.sign(loadings_Fs[strongest, np.arange(len(strongest))])
    scores_Ns = range_Ns @ (rotation_ss.T * (singular_values * sign_s))
    return np.ascontiguousarray(scores_Ns[:, :num_components], np.float32)


def _centred_product(matrix: Features, mean_F: np.ndarray, right_Fs: np.ndarray) -> np.ndarray:
    return np.asarray(matrix @ right_Fs - mean_F @ right_Fs)


def _centred_transposed_product(matrix: Features, mean_F: np.ndarray, left_Ns: np.ndarray) -> np.ndarray:
    return np.asarray(matrix.T @ left_Ns - np.outer(mean_F, left_Ns.sum(axis=0)))


def degree_features(graph: Graph, *, max_degree: int) -> sp.csr_matrix:
    """One-hot out-degrees, float32 CSR N x (max_degree + 1); the last column is `max_degree` or more."""
    column_N = np.minimum(graph.out_degree_N, max_degree)
    ones_N = np.ones(graph.num_nodes, np.float32)
    indptr = np.arange(graph.num_nodes + 1)
    return sp.csr_matrix((ones_N, column_N, indptr), shape=(graph.num_nodes, max_degree + 1))


def spectral_features(graph: Graph, *, num_components: int, seed: int) -> np.ndarray:
    """Leading eigenvectors of D^-1/2 (A + A^T) D^-1/2, scaled by sqrt(N): a position for every node.

    Args:
        graph: a directed graph is symmetrised for this purpose; edge weights count.
        num_components: F, less than N.
        seed: start vector of the Lanczos iteration.

    Returns:
        float32 N x F by decreasing eigenvalue; entry of largest magnitude positive.

    Raises:
        ValueError: as many components as nodes, or more.
    """
    from scipy.sparse.linalg import eigsh

    if num_components >= graph.num_nodes:
        raise UnsuitableSetting(
            f"spectral features: num_components={num_components} must be below N={graph.num_nodes}"
        )
    adjacency_NN = graph.adjacency_NN().astype(np.float64)
    adjacency_NN = adjacency_NN + adjacency_NN.T
    degree_N = np.asarray(adjacency_NN.sum(axis=1)).ravel()
    scaling_N = np.divide(1.0, np.sqrt(degree_N), out=np.zeros_like(degree_N), where=degree_N > 0)
    walk_NN = sp.diags_array(scaling_N) @ adjacency_NN @ sp.diags_array(scaling_N)
    start_N = numpy_generator(seed, "spectral_features").standard_normal(graph.num_nodes)
    eigenvalues, vectors_NF = eigsh(walk_NN, k=num_components, which="LA", v0=start_N)
    vectors_NF = vectors_NF[:, np.argsort(-eigenvalues, kind="stable")]
    strongest = np.abs(vectors_NF).argmax(axis=0)
    sign_F = np.sign(vectors_NF[strongest, np.arange(num_components)])
    return np.ascontiguousarray(vectors_NF * (sign_F * np.sqrt(graph.num_nodes)), np.float32)
