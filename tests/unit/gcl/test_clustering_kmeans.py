import numpy as np
import pytest
import threadpoolctl

from gcl.clustering.geometry import squared_distance
from gcl.clustering.kmeans import assign_nearest, fit_kmeans, fit_minibatch_kmeans, sampled_rows
from gcl.clustering.partition import adjusted_rand_index
from gcl.workspace import Workspace


def blobs(num_nodes=300, num_clusters=5, width=16, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    y_N = rng.integers(num_clusters, size=num_nodes)
    centre_KD = rng.normal(size=(num_clusters, width))
    return (centre_KD[y_N] + noise * rng.normal(size=(num_nodes, width))).astype(np.float32), y_N


def test_inertia_is_no_worse_than_scikit_learn():
    from sklearn.cluster import KMeans

    z_ND, _ = blobs(noise=1.5)
    ours = fit_kmeans(z_ND, 5, seeds=[0, 1, 2])
    theirs = [KMeans(5, n_init=10, random_state=seed).fit(z_ND).inertia_ for seed in range(3)]
    assert np.mean([fit.inertia for fit in ours]) <= 1.005 * np.mean(theirs)


def test_fit_is_a_fixed_point():
    z_ND, _ = blobs(noise=1.0)
    (fit,) = fit_kmeans(z_ND, 5, seeds=[0])
    np.testing.assert_array_equal(squared_distance(z_ND, fit.centroid_KD).argmin(1), fit.cluster_N)
    for k in range(5):
        np.testing.assert_allclose(fit.centroid_KD[k], z_ND[fit.cluster_N == k].mean(0), atol=1e-5)
    own_ND = z_ND - fit.centroid_KD[fit.cluster_N]
    assert fit.inertia == pytest.approx(float((own_ND**2).sum()), rel=1e-5)


def test_planted_clusters_are_found_for_every_seed():
    z_ND, y_N = blobs()
    for fit in fit_kmeans(z_ND, 5, seeds=range(5), num_restarts=5):
        assert adjusted_rand_index(fit.cluster_N, y_N) == 1.0


def test_same_bytes_whatever_the_threads_and_the_company_of_other_seeds():
    z_ND, _ = blobs(num_nodes=3000, noise=2.0, width=64)
    with threadpoolctl.threadpool_limits(1):
        one = fit_kmeans(z_ND, 7, seeds=[3], num_restarts=4)[0]
    with threadpoolctl.threadpool_limits(2):
        two = fit_kmeans(z_ND, 7, seeds=[3], num_restarts=4)[0]
    assert one.centroid_KD.tobytes() == two.centroid_KD.tobytes()
    among = fit_kmeans(z_ND, 7, seeds=[9, 3], num_restarts=4)[1]
    np.testing.assert_array_equal(among.cluster_N, one.cluster_N)


def test_small_batches_of_runs_change_nothing(monkeypatch):
    z_ND, _ = blobs(noise=1.5)
    whole = fit_kmeans(z_ND, 5, seeds=[0, 1], num_restarts=3)
    monkeypatch.setattr("gcl.clustering.kmeans._RUN_ELEMENTS", 700)
    monkeypatch.setattr("gcl.clustering.kmeans._BLOCK_ELEMENTS", 1)
    for a, b in zip(whole, fit_kmeans(z_ND, 5, seeds=[0, 1], num_restarts=3), strict=True):
        np.testing.assert_array_equal(a.cluster_N, b.cluster_N)


def test_no_cluster_is_empty_while_points_are_distinct():
    z_ND = np.concatenate([np.zeros((50, 2)), [[100, 0], [0, 100], [100, 100]]]).astype(np.float32)
    (fit,) = fit_kmeans(z_ND, 4, seeds=[0], num_restarts=1)
    assert sorted(np.bincount(fit.cluster_N, minlength=4)) == [1, 1, 1, 50]


def test_a_cluster_that_loses_its_nodes_moves_to_the_worst_fitting_one():
    from gcl.clustering.kmeans import _lloyd

    z_ND = np.array([[0, 0], [0, 1], [9, 0], [9, 1], [30, 0]], np.float32)
    start_RKD = np.array([[[0, 0.5], [9, 0.5], [1000, 1000]]], np.float32)
    for mean_D in (None, np.array([100, 1], np.float32)):
        centred = 0 if mean_D is None else mean_D
        label_NR, _, inertia_R = _lloyd(z_ND, start_RKD - centred, 50, mean_D)
        assert len(set(label_NR[:, 0].tolist())) == 3
        assert inertia_R[0] == pytest.approx(1.0)


def test_as_many_clusters_as_nodes():
    z_ND, _ = blobs(num_nodes=6)
    (fit,) = fit_kmeans(z_ND, 6, seeds=[0])
    assert sorted(fit.cluster_N) == list(range(6))
    assert fit.inertia == pytest.approx(0, abs=1e-3)


def test_a_workspace_changes_nothing(tmp_path):
    z_ND, _ = blobs(noise=1.5)
    (whole,) = fit_kmeans(z_ND, 5, seeds=[0])
    (mapped,) = fit_kmeans(z_ND, 5, seeds=[0], workspace=Workspace(tmp_path, in_memory_bytes=0))
    assert whole.centroid_KD.tobytes() == mapped.centroid_KD.tobytes()
    assert whole.cluster_N.tobytes() == mapped.cluster_N.tobytes()


MINIBATCH = {"seed": 1, "num_restarts": 5, "batch_size": 256, "max_iterations": 100}


def test_minibatch_finds_planted_clusters_and_repeats_itself():
    z_ND, y_N = blobs(num_nodes=2000)
    fits = [fit_minibatch_kmeans(z_ND, 5, **MINIBATCH) for _ in range(2)]
    assert adjusted_rand_index(fits[0].cluster_N, y_N) > 0.99
    assert fits[0].centroid_KD.tobytes() == fits[1].centroid_KD.tobytes()


@pytest.fixture
def small_sample(monkeypatch):
    monkeypatch.setattr("gcl.clustering.kmeans._START_POINTS", 1000)
    monkeypatch.setattr("gcl.clustering.kmeans._BATCHES", 20)


@pytest.mark.usefixtures("small_sample")
def test_minibatch_is_nearly_as_good_as_full_kmeans():
    z_ND, _ = blobs(num_nodes=20_000, num_clusters=12, noise=1.0)
    (full,) = fit_kmeans(z_ND, 12, seeds=[0], num_restarts=3)
    found = fit_minibatch_kmeans(z_ND, 12, **MINIBATCH)
    assert found.inertia < 1.01 * full.inertia
    np.testing.assert_array_equal(squared_distance(z_ND, found.centroid_KD).argmin(1), found.cluster_N)
    assert found.inertia == pytest.approx(((z_ND - found.centroid_KD[found.cluster_N]) ** 2).sum(), rel=1e-4)


@pytest.mark.usefixtures("small_sample")
def test_last_steps_over_all_points_lower_what_the_batches_leave(monkeypatch):
    z_ND, _ = blobs(num_nodes=20_000, num_clusters=12, noise=2.0)
    found = fit_minibatch_kmeans(z_ND, 12, **MINIBATCH)
    monkeypatch.setattr("gcl.clustering.kmeans._LAST_STEPS", 0)
    assert found.inertia < 0.999 * fit_minibatch_kmeans(z_ND, 12, **MINIBATCH).inertia


@pytest.mark.usefixtures("small_sample")
def test_minibatch_is_the_same_for_mapped_points_and_any_threads(tmp_path):
    z_ND, _ = blobs(num_nodes=20_000, num_clusters=12, noise=1.0, width=64)
    mapped_ND = Workspace(tmp_path, in_memory_bytes=0).empty(z_ND.shape)
    mapped_ND[:] = z_ND
    found = []
    for points_ND, threads in ((z_ND, 1), (mapped_ND, 2)):
        with threadpoolctl.threadpool_limits(threads):
            found.append(fit_minibatch_kmeans(points_ND, 12, **MINIBATCH))
    assert found[0].centroid_KD.tobytes() == found[1].centroid_KD.tobytes()
    assert found[0].cluster_N.tobytes() == found[1].cluster_N.tobytes()
    assert found[0].inertia == found[1].inertia


@pytest.mark.usefixtures("small_sample")
def test_minibatch_tells_clusters_apart_far_from_the_origin():
    """Squares of points that are not centred would lose all the digits that matter."""
    z_ND, y_N = blobs(num_nodes=5000, noise=0.05)
    found = fit_minibatch_kmeans(z_ND + np.float32(5000), 5, **MINIBATCH)
    assert adjusted_rand_index(found.cluster_N, y_N) > 0.99
    assert adjusted_rand_index(assign_nearest(z_ND + 5000, found.centroid_KD).cluster_N, y_N) > 0.99


def test_sampled_rows_are_different_sorted_and_seeded():
    rows = sampled_rows(1000, 100, seed=0, purpose="a")
    assert len(set(rows.tolist())) == 100 and (np.diff(rows) > 0).all() and rows.max() < 1000
    assert (rows != sampled_rows(1000, 100, seed=1, purpose="a")).any()
    assert sampled_rows(5, 9, seed=0, purpose="a").tolist() == [0, 1, 2, 3, 4]
