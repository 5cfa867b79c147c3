from dataclasses import replace

import numpy as np
import pytest
import threadpoolctl
from pydantic import ValidationError

from gcl.errors import NotDefined, UnsuitableSetting
from gcl.graph import Graph
from gcl.uncertainty import METHODS, UncertaintyConfig, UncertaintyInputs, score_uncertainty
from gcl.workspace import Workspace


def planted(num_clusters=4, per_cluster=60, num_ambiguous=20, width=16, noise=0.08):
    """Clusters round orthogonal centres; the first nodes lie midway between two of them."""
    rng = np.random.default_rng(0)
    centre_KD = np.eye(num_clusters, width)
    y_N = np.repeat(np.arange(num_clusters), per_cluster)
    z_ND = centre_KD[y_N]
    other_N = (y_N + 1) % num_clusters
    ambiguous = rng.choice(len(y_N), num_ambiguous, replace=False)
    z_ND[ambiguous] = (centre_KD[y_N[ambiguous]] + centre_KD[other_N[ambiguous]]) / 2
    z_ND = (z_ND + noise * rng.normal(size=z_ND.shape)).astype(np.float32)
    is_ambiguous_N = np.zeros(len(y_N), bool)
    is_ambiguous_N[ambiguous] = True

    def embed_view(view):
        return z_ND + 0.1 * np.random.default_rng(view).normal(size=z_ND.shape)

    return UncertaintyInputs(z_ND, embed_view=embed_view, num_clusters=num_clusters), is_ambiguous_N


CONFIGS = [
    UncertaintyConfig(method="affinity", estimator="softmax"),
    UncertaintyConfig(method="affinity", estimator="entropy"),
    UncertaintyConfig(method="affinity", estimator="gambler"),
    UncertaintyConfig(method="augmentation"),
    UncertaintyConfig(method="augmentation", disagreement="membership"),
    UncertaintyConfig(method="cluster_margin"),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.method}-{c.estimator}-{c.disagreement}")
def test_planted_ambiguous_nodes_score_higher(config):
    from sklearn.metrics import roc_auc_score

    inputs, is_ambiguous_N = planted()
    score_N = score_uncertainty(inputs, config, seed=0)
    assert score_N.dtype == np.float32 and np.isfinite(score_N).all() and score_N.min() >= 0
    assert roc_auc_score(is_ambiguous_N, score_N) > 0.85


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.method}-{c.estimator}-{c.disagreement}")
def test_same_seed_same_bytes(config):
    inputs, _ = planted()
    first, second = (score_uncertainty(inputs, config, seed=5) for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.method}-{c.estimator}-{c.disagreement}")
def test_a_workspace_small_blocks_and_threads_change_no_byte(config, monkeypatch, tmp_path):
    inputs, _ = planted()
    src, dst = np.nonzero(np.random.default_rng(0).random((240, 240)) < 0.05)
    graph = Graph(240, src, dst)
    with threadpoolctl.threadpool_limits(1):
        whole = score_uncertainty(replace(inputs, graph=graph), config, seed=0)
    workspace = Workspace(tmp_path, in_memory_bytes=0)
    mapped_ND = workspace.empty(inputs.z_ND.shape)
    mapped_ND[:] = inputs.z_ND
    monkeypatch.setattr("gcl.clustering.geometry._ROWS_AT_ONCE", 16)
    monkeypatch.setattr("gcl.clustering.geometry._BLOCK_BYTES", 1)
    monkeypatch.setattr("gcl.uncertainty.score._ROWS_AT_ONCE", 16)
    with threadpoolctl.threadpool_limits(2):
        mapped = score_uncertainty(
            replace(inputs, graph=graph, z_ND=mapped_ND), config, seed=0, workspace=workspace
        )
    assert whole.tobytes() == mapped.tobytes()


@pytest.mark.parametrize(
    "config",
    [
        UncertaintyConfig(method="cluster_margin", minibatch_threshold=239),
        UncertaintyConfig(method="augmentation", disagreement="membership", minibatch_threshold=239),
    ],
    ids=lambda c: c.method,
)
def test_clusters_of_many_nodes_are_found_by_minibatches(config, monkeypatch):
    from sklearn.metrics import roc_auc_score

    monkeypatch.setattr("gcl.uncertainty.score.fit_kmeans", None)
    inputs, is_ambiguous_N = planted()
    assert roc_auc_score(is_ambiguous_N, score_uncertainty(inputs, config, seed=0)) > 0.85


def test_every_registered_method_is_a_choice_of_the_config():
    for method in METHODS:
        assert UncertaintyConfig(method=method).method == method
    with pytest.raises(ValidationError):
        UncertaintyConfig(method="oracle")


@pytest.mark.parametrize("method", ["affinity", "augmentation"])
def test_nodes_without_direction_are_not_scored(method):
    z_ND = np.random.default_rng(0).normal(size=(30, 4))
    z_ND[3] = 0
    inputs = UncertaintyInputs(z_ND, embed_view=lambda view: z_ND * (1 + view))
    score_N = score_uncertainty(inputs, UncertaintyConfig(method=method), seed=0)
    assert np.flatnonzero(np.isnan(score_N)).tolist() == [3]


def test_views_that_agree_leave_no_uncertainty():
    inputs, _ = planted()
    still = UncertaintyInputs(inputs.z_ND, embed_view=lambda view: inputs.z_ND, num_clusters=4)
    for disagreement in ("cosine", "membership"):
        config = UncertaintyConfig(method="augmentation", disagreement=disagreement)
        np.testing.assert_allclose(score_uncertainty(still, config, seed=0), 0, atol=1e-6)


def test_opposite_views_leave_no_certainty():
    z_ND = np.random.default_rng(0).normal(size=(5, 4))
    inputs = UncertaintyInputs(z_ND, embed_view=lambda view: z_ND * (-1) ** view)
    score_N = score_uncertainty(inputs, UncertaintyConfig(method="augmentation", num_views=2), seed=0)
    np.testing.assert_allclose(score_N, 1, atol=1e-6)


def test_missing_inputs_are_named():
    z_ND = np.eye(4)
    with pytest.raises(ValueError, match="augmented graphs"):
        score_uncertainty(UncertaintyInputs(z_ND), UncertaintyConfig(method="augmentation"), seed=0)
    with pytest.raises(ValueError, match="num_clusters"):
        score_uncertainty(UncertaintyInputs(z_ND), UncertaintyConfig(method="cluster_margin"), seed=0)
    with pytest.raises(ValueError, match="graph of 2"):
        graph = Graph(2, np.array([0, 1]), np.array([1, 0]))
        score_uncertainty(UncertaintyInputs(z_ND, graph=graph), UncertaintyConfig(), seed=0)


def test_impossible_requests_are_not_defined():
    with pytest.raises(NotDefined, match="single node"):
        score_uncertainty(UncertaintyInputs(np.ones((1, 3))), UncertaintyConfig(), seed=0)
    config = UncertaintyConfig(method="cluster_margin", num_clusters=5)
    with pytest.raises(UnsuitableSetting, match="5 clusters of 4"):
        score_uncertainty(UncertaintyInputs(np.eye(4)), config, seed=0)


def test_margins_of_sure_nodes_are_not_all_tied():
    inputs, _ = planted(noise=0.15)
    score_N = score_uncertainty(inputs, UncertaintyConfig(method="cluster_margin"), seed=0)
    assert len(np.unique(score_N)) > 0.9 * len(score_N)
