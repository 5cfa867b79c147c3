"""Numbers between two runs: blind to what a seed changes freely, sensitive to everything else."""

import tracemalloc

import numpy as np
import pytest

from gcl.errors import NotDefined
from gcl.evaluation import drift
from gcl.evaluation.drift import SharedNodes, cluster_agreement, embedding_drift, neighbour_overlap

N, D = 300, 12


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def z_ND() -> np.ndarray:
    """Three groups with a spread of their own: neither isotropic nor centred."""
    centre_KD = rng(1).normal(size=(3, D)) * 3 + 1
    return (centre_KD[np.arange(N) % 3] + rng(2).normal(size=(N, D))).astype(np.float32)


def everything(count: int = N) -> SharedNodes:
    return SharedNodes(np.arange(count), np.arange(count))


def rotation() -> np.ndarray:
    return np.linalg.qr(rng(3).normal(size=(D, D)))[0]


def dense_cka(x_ND: np.ndarray, y_NE: np.ndarray) -> float:
    """The definition with N x N kernels: HSIC of the centred Gram matrices."""
    centring = np.eye(len(x_ND)) - 1 / len(x_ND)
    k_NN, l_NN = (centring @ (z @ z.T) @ centring for z in (x_ND.astype(float), y_NE.astype(float)))
    return float((k_NN * l_NN).sum() / np.sqrt((k_NN**2).sum() * (l_NN**2).sum()))


def test_equal_runs_have_not_drifted(z_ND: np.ndarray) -> None:
    assert embedding_drift(z_ND, z_ND, everything()) == pytest.approx(0, abs=1e-12)
    assert neighbour_overlap(z_ND, z_ND, everything(), seed=0) == 1
    assert cluster_agreement(np.arange(N) % 3, np.arange(N) % 3, everything()) == 1


def test_rotation_shift_and_scale_are_no_drift(z_ND: np.ndarray) -> None:
    moved_ND = (z_ND @ rotation() * 7).astype(np.float32)
    assert embedding_drift(z_ND, moved_ND + 5, everything()) == pytest.approx(0, abs=1e-6)
    assert neighbour_overlap(z_ND, moved_ND, everything(), seed=0) == pytest.approx(1, abs=1e-3)


def test_names_of_clusters_do_not_count() -> None:
    cluster_N = np.arange(N) % 3
    assert cluster_agreement(cluster_N, 2 - cluster_N, everything()) == 1
    assert abs(cluster_agreement(cluster_N, rng().integers(0, 3, N), everything())) < 0.05


def test_rows_are_matched_and_strangers_left_out(z_ND: np.ndarray) -> None:
    order = rng(4).permutation(N)  # the second run holds the first run's node order[i] at row i + 5
    after = np.concatenate([rng(5).normal(size=(5, D)) * 100, z_ND[order]]).astype(np.float32)
    shared = SharedNodes(order[:200], np.arange(200) + 5)
    cluster_N = np.arange(N) % 3
    assert embedding_drift(z_ND, after, shared) == pytest.approx(0, abs=1e-12)
    assert neighbour_overlap(z_ND, after, shared, seed=0) == 1
    assert cluster_agreement(cluster_N, np.concatenate([np.full(5, -1), cluster_N[order]]), shared) == 1
    unmatched = SharedNodes(np.arange(200), np.arange(200) + 5)
    assert embedding_drift(z_ND, after, unmatched) > 0.9
    assert neighbour_overlap(z_ND, after, unmatched, seed=0) < 0.2


def test_noise_is_drift_and_more_of_it_more(z_ND: np.ndarray) -> None:
    noise_ND = rng(6).normal(size=(N, D)).astype(np.float32)
    drifts = [embedding_drift(z_ND, z_ND + s * noise_ND, everything()) for s in (0.1, 1, 10, 1000)]
    overlaps = [
        neighbour_overlap(z_ND, z_ND + s * noise_ND, everything(), seed=0) for s in (0.01, 0.3, 3, 1000)
    ]
    assert drifts == sorted(drifts)
    assert overlaps == sorted(overlaps, reverse=True)
    assert drifts[0] < 0.01
    assert drifts[-1] > 0.8
    assert overlaps[0] > 0.9
    assert overlaps[-1] < 0.15


@pytest.mark.parametrize("width", [3, D, 40])
def test_drift_is_one_minus_the_alignment_of_kernels(z_ND: np.ndarray, width: int) -> None:
    other_NE = (z_ND @ rng(7).normal(size=(D, width)) + rng(8).normal(size=(N, width))).astype(np.float32)
    found = embedding_drift(z_ND, other_NE, everything())
    assert found == pytest.approx(1 - dense_cka(z_ND, other_NE), abs=1e-9)


def test_overlap_is_what_a_plain_search_finds(z_ND: np.ndarray) -> None:
    other_ND = z_ND + rng(9).normal(size=(N, D)).astype(np.float32)

    def plain(x_ND: np.ndarray) -> list[set[int]]:
        unit_ND = x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)
        similarity_NN = unit_ND @ unit_ND.T - 9 * np.eye(N)
        return [set(np.argsort(-row)[:10].tolist()) for row in similarity_NN]

    expected = np.mean([len(a & b) / 10 for a, b in zip(plain(z_ND), plain(other_ND), strict=True)])
    assert neighbour_overlap(z_ND, other_ND, everything(), seed=0) == pytest.approx(expected, abs=1e-3)


def test_blocks_do_not_change_the_numbers(z_ND: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    other_ND = z_ND + rng(10).normal(size=(N, D)).astype(np.float32)
    whole = (
        embedding_drift(z_ND, other_ND, everything()),
        neighbour_overlap(z_ND, other_ND, everything(), seed=3, num_sampled=50),
    )
    monkeypatch.setattr(drift, "_BLOCK_BYTES", 20_000)
    assert embedding_drift(z_ND, other_ND, everything()) == pytest.approx(whole[0], abs=1e-12)
    assert neighbour_overlap(z_ND, other_ND, everything(), seed=3, num_sampled=50) == whole[1]


def test_the_sample_is_that_of_the_seed(z_ND: np.ndarray) -> None:
    other_ND = z_ND + rng(11).normal(size=(N, D)).astype(np.float32)
    values = [neighbour_overlap(z_ND, other_ND, everything(), seed=s, num_sampled=20) for s in (0, 0, 1, 2)]
    assert values[0] == values[1]
    assert len(set(values)) > 1


def test_few_nodes_are_compared_and_a_single_one_refused(z_ND: np.ndarray) -> None:
    assert neighbour_overlap(z_ND, z_ND, everything(3), seed=0) == 1
    assert embedding_drift(z_ND, z_ND, everything(2)) == pytest.approx(0, abs=1e-12)
    with pytest.raises(NotDefined, match="1 node"):
        everything(1)
    with pytest.raises(ValueError, match="paired"):
        SharedNodes(np.arange(3), np.arange(4))


@pytest.mark.parametrize("value", [0.0, 0.1, -3.3e5])
def test_collapsed_embeddings_align_with_nothing_but_each_other(z_ND: np.ndarray, value: float) -> None:
    point_ND = np.full_like(z_ND, value)
    assert embedding_drift(point_ND, point_ND, everything()) == 0
    assert embedding_drift(z_ND, point_ND, everything()) == 1
    assert 0 <= neighbour_overlap(z_ND, point_ND, everything(), seed=0) <= 1


def test_memory_stays_bounded() -> None:
    num_nodes = 60_000  # N x N would be 29 GB, S x N 480 MB
    z_ND = rng(12).normal(size=(num_nodes, 8)).astype(np.float32)
    tracemalloc.start()
    embedding_drift(z_ND, z_ND, everything(num_nodes))
    neighbour_overlap(z_ND, z_ND, everything(num_nodes), seed=0, num_sampled=200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 250 << 20
