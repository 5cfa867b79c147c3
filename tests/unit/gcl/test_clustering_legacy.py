import numpy as np
import pytest
import threadpoolctl

from gcl.clustering.geometry import squared_distance
from gcl.clustering.legacy_kmeans import fit_legacy_kmeans
from gcl.clustering.partition import adjusted_rand_index
from gcl.random import numpy_generator


def blobs(num_nodes=200, num_clusters=4, width=8, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    y_N = rng.integers(num_clusters, size=num_nodes)
    centre_KD = rng.normal(size=(num_clusters, width))
    return (centre_KD[y_N] + noise * rng.normal(size=(num_nodes, width))).astype(np.float32), y_N


def drawn_sets(z_ND, num_clusters, seed, num_draws=20):
    for draw in range(num_draws):
        generator = numpy_generator(seed, "legacy_kmeans", draw)
        yield z_ND[generator.choice(len(z_ND), num_clusters, replace=False)]


def test_start_is_the_drawn_set_nearest_to_all_points():
    z_ND, _ = blobs(noise=1.0)
    totals = [squared_distance(z_ND, drawn).sum() for drawn in drawn_sets(z_ND, 4, seed=3)]
    start_KD = list(drawn_sets(z_ND, 4, seed=3))[int(np.argmin(totals))]
    cluster_N = squared_distance(z_ND, start_KD).argmin(1)
    fit = fit_legacy_kmeans(z_ND, 4, seed=3, max_iterations=1)
    np.testing.assert_array_equal(fit.cluster_N, cluster_N)
    for k in range(4):
        np.testing.assert_allclose(fit.centroid_KD[k], z_ND[cluster_N == k].mean(0), atol=1e-5)


def test_lloyd_runs_until_centroids_stand_almost_still():
    z_ND, _ = blobs(noise=1.0)
    fit = fit_legacy_kmeans(z_ND, 4, seed=0, tolerance=0.0, max_iterations=2000)
    np.testing.assert_array_equal(squared_distance(z_ND, fit.centroid_KD).argmin(1), fit.cluster_N)
    own_ND = z_ND - fit.centroid_KD[fit.cluster_N]
    assert fit.inertia == pytest.approx(float((own_ND**2).sum()), rel=1e-5)
    early = fit_legacy_kmeans(z_ND, 4, seed=0, tolerance=1e6)
    assert early.inertia > fit.inertia


def test_planted_clusters_are_found_by_some_seed():
    z_ND, y_N = blobs()
    fits = [fit_legacy_kmeans(z_ND, 4, seed=seed) for seed in range(10)]
    assert max(adjusted_rand_index(fit.cluster_N, y_N) for fit in fits) == 1.0


def test_empty_clusters_are_filled():
    # Two centroids in the middle have the least total distance, and neither ever moves.
    z_ND = np.concatenate([np.zeros(20), np.full(3, -1), np.full(3, 1)]).astype(np.float32)[:, None]
    for seed in range(5):
        fit = fit_legacy_kmeans(z_ND, 2, seed=seed)
        assert np.isfinite(fit.centroid_KD).all()
        assert set(fit.cluster_N) == {0, 1}
        assert fit.inertia < 6


def test_fewer_distinct_points_than_clusters_leave_clusters_empty_not_nan():
    z_ND = np.repeat(np.eye(2, dtype=np.float32), 5, axis=0)
    fit = fit_legacy_kmeans(z_ND, 4, seed=0)
    assert np.isfinite(fit.centroid_KD).all()
    assert np.isfinite(fit.inertia)
    assert fit.inertia == 0


def test_same_bytes_for_a_seed_whatever_the_threads():
    z_ND, _ = blobs(num_nodes=2000, width=64, noise=2.0)
    with threadpoolctl.threadpool_limits(1):
        one = fit_legacy_kmeans(z_ND, 5, seed=1)
    with threadpoolctl.threadpool_limits(2):
        two = fit_legacy_kmeans(z_ND, 5, seed=1)
    assert one.centroid_KD.tobytes() == two.centroid_KD.tobytes()
    other = fit_legacy_kmeans(z_ND, 5, seed=2)
    assert not np.array_equal(other.cluster_N, one.cluster_N)


def test_input_is_not_changed():
    z_ND, _ = blobs()
    before = z_ND.copy()
    fit_legacy_kmeans(z_ND, 4, seed=0)
    np.testing.assert_array_equal(z_ND, before)


@pytest.mark.parametrize("num_clusters", [0, 201])
def test_number_of_clusters_out_of_range_is_refused(num_clusters):
    with pytest.raises(ValueError, match=r"num_clusters must lie in 1\.\.200"):
        fit_legacy_kmeans(blobs()[0], num_clusters, seed=0)


def test_points_that_are_not_finite_are_refused():
    z_ND, _ = blobs()
    z_ND[3, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        fit_legacy_kmeans(z_ND, 4, seed=0)
