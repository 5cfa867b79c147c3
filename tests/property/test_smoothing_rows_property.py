"""Smoothed rows of some nodes are the rows of smoothing everything, on any graph, filter and row set."""

import numpy as np
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl.graph import Graph
from gcl.smoothing import SmoothingConfig, smooth_features
from gcl.smoothing_rows import smooth_rows

NUM_NODES = 24
PAIRS = st.lists(st.tuples(st.integers(0, NUM_NODES - 1), st.integers(0, NUM_NODES - 1)), max_size=60)
FILTERS = st.sampled_from(
    [
        {"filter": "ppr", "alpha": 0.15, "num_steps": 3},
        {"filter": "ppr", "alpha": 0.15, "num_steps": 3, "tail": "renormalise"},
        {"filter": "ppr", "num_steps": 0},
        {"filter": "heat", "time": 2.5, "num_steps": 4},
        {"filter": "sgc", "num_steps": 2},
        {"filter": "weights", "weights": (0.5, -0.25, 0.0, 1.5)},
        {"filter": "weights", "weights": (0.0, 1.0, 0.0, 0.0)},
        {"filter": "weights", "weights": (0.0,)},
    ]
)
OPTIONS = st.fixed_dictionaries(
    {
        "convolution": st.sampled_from([0.0, 0.3, 0.5, 1.0]),
        "self_loops": st.booleans(),
        "normalise_input": st.sampled_from(["none", "l1", "l2"]),
        "normalise_output": st.sampled_from(["none", "l2"]),
        "features": st.sampled_from(["attributes", "degree"]),
    }
)


def graph_of(pairs: list[tuple[int, int]], *, directed: bool, weighted: bool, sparse: bool) -> Graph:
    both = pairs if directed else [*pairs, *((dst, src) for src, dst in pairs)]
    src_E, dst_E = np.array(sorted(set(both)), np.int64).reshape(-1, 2).T.copy()
    low, high = np.minimum(src_E, dst_E), np.maximum(src_E, dst_E)
    weight_E = (0.2 + (low * 31 + high * 17) % 10 / 4).astype(np.float32) if weighted else None
    x_NF = np.random.default_rng(3).standard_normal((NUM_NODES, 5)).astype(np.float32)
    features = sp.csr_matrix(np.maximum(x_NF, 0)) if sparse else x_NF
    return Graph(NUM_NODES, src_E, dst_E, x_NF=features, weight_E=weight_E, is_undirected=not directed)


@settings(max_examples=150, deadline=None)
@given(
    pairs=PAIRS,
    rows=st.sets(st.integers(0, NUM_NODES - 1), max_size=6),
    filter_=FILTERS,
    options=OPTIONS,
    directed=st.booleans(),
    weighted=st.booleans(),
    sparse=st.booleans(),
    share=st.sampled_from([0.5, 1.0]),
    backend=st.sampled_from(["auto", "torch"]),
)
def test_rows_are_the_rows_of_smoothing_everything(
    pairs, rows, filter_, options, directed, weighted, sparse, share, backend
):
    graph = graph_of(pairs, directed=directed, weighted=weighted, sparse=sparse)
    config = SmoothingConfig(**filter_, **options)
    rows_R = np.array(sorted(rows), np.int64)
    found = smooth_rows(graph, config, rows_R, max_ball_share=share, propagation_backend=backend)
    whole = smooth_features(graph, config, seed=0, propagation_backend=backend)
    np.testing.assert_array_equal(found, whole.x_NF[rows_R])
