"""Snapshots: which epochs, what compression keeps, and files that are whole or not there."""

import numpy as np
import pytest
import scipy.linalg

from gcl.checks import CheckFolder, check_epochs, compress
from gcl.trainer_config import TrainConfig


@pytest.mark.parametrize(
    ("epochs", "num_checks", "expected"),
    [
        (400, 4, (100, 200, 300, 400)),
        (10, 3, (3, 6, 10)),
        (7, 1, (7,)),
        (3, 9, (1, 2, 3)),
        (5, 0, ()),
    ],
)
def test_epochs_are_evenly_spaced_and_end_with_the_last(epochs, num_checks, expected):
    assert check_epochs(TrainConfig(epochs=epochs, num_checks=num_checks)) == expected


def test_forty_checks_of_four_hundred_epochs_are_every_tenth():
    assert check_epochs(TrainConfig(epochs=400, num_checks=40)) == tuple(range(10, 401, 10))


def test_narrow_embeddings_are_kept_as_they_are():
    z_ND = np.random.default_rng(0).normal(size=(9, 64)).astype(np.float32)
    z_NK, kept_share = compress(z_ND)
    assert z_NK.tobytes() == z_ND.tobytes() and kept_share == 1.0


@pytest.mark.parametrize("num_nodes", [5000, 30])
def test_wide_embeddings_keep_the_best_approximation(num_nodes):
    """Against numpy's singular values; 5,000 rows are more than one block, 30 fewer than the rank asked."""
    rng = np.random.default_rng(0)
    z_ND = (rng.normal(size=(num_nodes, 80)) * np.geomspace(1, 1e-2, 80) + 0.3).astype(np.float32)
    z_NK, kept_share = compress(z_ND, num_components=8)
    singular = np.linalg.svd(z_ND.astype(np.float64), compute_uv=False)
    assert z_NK.shape == (num_nodes, 8) and z_NK.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(z_NK, axis=0), singular[:8], rtol=1e-4)
    assert kept_share == pytest.approx((singular[:8] ** 2).sum() / (singular**2).sum(), rel=1e-6)


def test_geometry_of_low_rank_embeddings_survives():
    rng = np.random.default_rng(1)
    z_ND = (rng.normal(size=(50, 5)) @ rng.normal(size=(5, 90))).astype(np.float32)
    z_NK, kept_share = compress(z_ND)
    assert kept_share == pytest.approx(1)
    np.testing.assert_allclose(z_NK @ z_NK.T, z_ND @ z_ND.T, atol=1e-3)


def test_zero_embeddings_lose_nothing():
    assert compress(np.zeros((4, 70), np.float32))[1] == 1.0


def test_signs_do_not_depend_on_the_decomposition(monkeypatch):
    z_ND = np.random.default_rng(2).normal(size=(40, 70)).astype(np.float32)
    expected_NK, _ = compress(z_ND, num_components=3)
    original = scipy.linalg.eigh

    def other_signs(*arguments, **options):
        values, vectors = original(*arguments, **options)
        return values, vectors * [-1, 1, -1]

    monkeypatch.setattr(scipy.linalg, "eigh", other_signs)
    np.testing.assert_array_equal(compress(z_ND, num_components=3)[0], expected_NK)


def test_checks_come_back_in_the_order_of_their_epochs(tmp_path):
    folder = CheckFolder(tmp_path / "checks", (2, 4))
    arrays = {epoch: np.full((3, 2), epoch, np.float32) for epoch in (4, 2)}
    for epoch, z_ND in arrays.items():
        folder.keep(epoch, z_ND)
    found = list(folder)
    assert [check.epoch for check in found] == [2, 4]
    assert all(np.array_equal(check.z_NK, arrays[check.epoch]) for check in found)
    assert [check.kept_share for check in found] == [1.0, 1.0]


def test_missing_and_damaged_checks_are_named(tmp_path, caplog):
    folder = CheckFolder(tmp_path, (2, 4))
    assert folder.first_missing() == 2
    folder.keep(2, np.ones((3, 2), np.float32))
    assert folder.first_missing() == 4
    folder.keep(4, np.ones((3, 2), np.float32))
    assert folder.first_missing() is None
    (path,) = tmp_path.glob("*2.safetensors")
    for content in (b"", path.read_bytes()[:-1], path.read_bytes()[:-1] + b"\0", b"\0" * 100):
        path.write_bytes(content)
        assert folder.first_missing() == 2
        assert "epoch 2 is damaged" in caplog.text


def test_equal_embeddings_give_equal_bytes(tmp_path):
    z_ND = np.random.default_rng(0).normal(size=(30, 70)).astype(np.float32)
    for name in ("one", "two"):
        CheckFolder(tmp_path / name, (1,)).keep(1, z_ND)
    (one,), (two,) = ((tmp_path / name).iterdir() for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
