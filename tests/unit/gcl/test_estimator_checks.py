"""Checks of a fit: those of the pipeline's epochs, kept over an interruption, and good for a consensus."""

import numpy as np
import pytest

import gcl
from gcl.checks import compress
from gcl.errors import CheckpointMismatch, SourceUnreadable
from gcl.estimator import ContrastiveEmbedding
from tests.tiny_estimators import GRAPH, NUM_NODES, Y, blobs, by_method, extras, small


@by_method
def test_checks_are_the_embeddings_of_their_epochs_and_change_nothing(name):
    model = small(name, epochs=3, num_checks=2)
    z_ND = model.fit_embed(GRAPH, **extras(name))
    assert len(model.checks) == 2
    assert np.array_equal(model.checks[-1], compress(z_ND)[0])
    assert not np.array_equal(model.checks[0], model.checks[1])
    assert np.array_equal(z_ND, small(name, epochs=3).fit_embed(GRAPH, **extras(name)))


def test_a_check_is_what_a_training_that_ends_there_embeds():
    first, last = small("dmat_i", epochs=4, num_checks=2).fit(GRAPH).checks
    assert np.array_equal(first, small("dmat_i", epochs=2).fit_embed(GRAPH))
    assert np.array_equal(last, small("dmat_i", epochs=4).fit_embed(GRAPH))


def test_wide_embeddings_are_compressed():
    (check_NK,) = small("dmat_i", embedding_size=80, num_checks=1).fit(GRAPH).checks
    assert check_NK.shape == (NUM_NODES, 64)
    assert check_NK.dtype == np.float32


def test_checks_make_a_consensus():
    model = ContrastiveEmbedding("dmat_i", epochs=20, learning_rate=1e-2, embedding_size=8, num_checks=5)
    z_ND = model.fit_embed(GRAPH)
    config = gcl.ClusterConfig(algorithm="consensus", num_clusters=3, num_restarts=3)
    for _ in range(2):  # they can be read again
        found = gcl.cluster_embeddings(z_ND, config, seed=0, checks=model.checks)
        assert len({(int(c), int(y)) for c, y in zip(found.cluster_N, Y, strict=True)}) == 3
        assert "mean_check_ari" in found.stability


def test_without_num_checks_and_after_load_there_are_none(tmp_path):
    assert small("dmat_i").fit(GRAPH).checks == []
    model = small("dmat_i", num_checks=2).fit(GRAPH)
    assert model.notes == []
    assert ContrastiveEmbedding.load(model.save(tmp_path)).checks == []
    with pytest.raises(ValueError, match="not fitted"):
        _ = small("dmat_i", num_checks=2).checks


@pytest.mark.parametrize("stopped_in", [2, 3, 4])
def test_an_interrupted_fit_keeps_the_checks_it_had_taken(stopped_in, tmp_path):
    def stop(report):
        if report.epoch == stopped_in:
            raise KeyboardInterrupt

    settings = {"epochs": 5, "num_checks": 5, "checkpoint_every": 1}
    with pytest.raises(KeyboardInterrupt):
        small("dmat_i", **settings).fit(GRAPH, on_epoch=stop, checkpoint_dir=tmp_path)
    trained = []
    model = small("dmat_i", **settings).fit(
        GRAPH, on_epoch=lambda report: trained.append(report.epoch), checkpoint_dir=tmp_path
    )
    assert trained[0] in (stopped_in, stopped_in + 1)
    expected = small("dmat_i", **settings).fit(GRAPH).checks
    assert all(np.array_equal(*pair) for pair in zip(model.checks, expected, strict=True))


def test_files_of_another_run_are_not_taken(tmp_path):
    """The other stopped before its first checkpoint, so nothing but its checks is left."""

    def stop(report):
        if report.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small("dmat_i", epochs=4, num_checks=4).fit(blobs(1)[0], on_epoch=stop, checkpoint_dir=tmp_path)
    assert len(list((tmp_path / "checks").iterdir())) == 3
    model = small("dmat_i", epochs=4, num_checks=4).fit(GRAPH, checkpoint_dir=tmp_path)
    expected = small("dmat_i", epochs=4, num_checks=4).fit(GRAPH).checks
    assert all(np.array_equal(*pair) for pair in zip(model.checks, expected, strict=True))
    before = {path.name: path.read_bytes() for path in (tmp_path / "checks").iterdir()}
    with pytest.raises(CheckpointMismatch):
        small("dmat_i", epochs=4, num_checks=4).fit(blobs(1)[0], checkpoint_dir=tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "checks").iterdir()} == before


def test_a_check_that_was_lost_is_missed(tmp_path):
    model = small("dmat_i", num_checks=2).fit(GRAPH, checkpoint_dir=tmp_path)
    next((tmp_path / "checks").glob("*1.safetensors")).unlink()
    with pytest.raises(SourceUnreadable, match="check of epoch 1 .* delete the checkpoints"):
        model.fit(GRAPH, checkpoint_dir=tmp_path)
