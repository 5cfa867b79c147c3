"""ProGCL the method: exactly GRACE until the start, weighted after it, resumable across the fit."""

import numpy as np
import pytest
import torch

from gcl.graph import Graph
from gcl.losses.grouped import cosine_rows
from gcl.losses.progcl import progcl_loss
from gcl.methods.base import Batch, TrainingData
from gcl.methods.configs.grace import GraceConfig
from gcl.methods.configs.progcl import ProGclConfig
from gcl.methods.grace import Grace
from gcl.methods.progcl import ProGcl
from gcl.random import torch_generator
from gcl.trainer import train
from gcl.trainer_config import TrainConfig

NUM_NODES, NUM_FEATURES = 60, 8
SMALL = {"hidden_size": 8, "embedding_size": 6, "projection_size": 5}


def make_data(num_nodes=NUM_NODES):
    generator = np.random.default_rng(2)
    y_N = generator.integers(0, 3, num_nodes)
    x_NF = generator.normal(size=(3, NUM_FEATURES))[y_N] + generator.normal(size=(num_nodes, NUM_FEATURES))
    same = y_N[:, None] == y_N
    pairs = np.triu(generator.random((num_nodes, num_nodes)) < np.where(same, 0.2, 0.02), 1)
    src_E, dst_E = np.nonzero(pairs | pairs.T)
    return TrainingData(num_nodes, graph=Graph(num_nodes, src_E, dst_E, x_NF.astype(np.float32)))


def make(start_epoch=2, **options):
    config = ProGclConfig(**SMALL, start_epoch=start_epoch, num_fit_columns=20, **options)
    return ProGcl(config, num_features=NUM_FEATURES, num_classes=None, seed=0)


def run(method, epochs, folder=None):
    config = TrainConfig(epochs=epochs, learning_rate=0.01, checkpoint_every=1)
    result = train(method, make_data(), config, seed=0, checkpoint_dir=folder)
    return [row["loss"] for row in result.history]


def test_is_grace_up_to_the_start_and_not_after():
    grace = Grace(GraceConfig(**SMALL), num_features=NUM_FEATURES, num_classes=None, seed=0)
    plain, weighted = run(grace, 5), run(make(start_epoch=2), 5)
    assert weighted[:2] == plain[:2]
    assert weighted[2] != plain[2]


def test_fit_happens_once_at_the_start_and_is_kept():
    method, data = make(start_epoch=3), make_data()
    for epoch in range(6):
        before = method.mixture
        method.after_epoch(data, epoch=epoch, seed=0)
        assert (method.mixture is None) == (epoch < 2)
        assert method.mixture == before or epoch == 2


def test_loss_after_the_start_is_that_of_the_mixture():
    method, data = make(start_epoch=1), make_data()
    method.after_epoch(data, epoch=0, seed=0)
    batch = Batch(rows_B=torch.arange(NUM_NODES), graph=data.graph)
    found = method.training_loss(batch, epoch=1, step=0, seed=0)["loss"]
    views = method.projected_views(batch, epoch=1, step=0, seed=0)
    expected = progcl_loss(*views, mixture=method.mixture, temperature=0.4)
    assert found.item() == expected.item()


def test_fit_leaves_the_positives_out(monkeypatch):
    seen = []
    fitted = make(start_epoch=1)
    original = fitted.fit_mixture
    monkeypatch.setattr(fitted, "fit_mixture", lambda c: seen.append(c) or original(c))
    fitted.after_epoch(make_data(), epoch=0, seed=0)
    assert len(seen[0]) == 20 * (NUM_NODES - 1)


def test_similarities_are_scaled_by_their_extremes_or_as_cosines():
    by_extremes, as_released = make(start_epoch=1), make(start_epoch=1, similarity_scaling="cosine")
    for method in (by_extremes, as_released):
        method.after_epoch(make_data(), epoch=0, seed=0)
    assert (as_released.mixture.lowest, as_released.mixture.highest) == (-1.0, 1.0)
    assert -1.0 < by_extremes.mixture.lowest < by_extremes.mixture.highest <= 1.0


def test_resumed_after_the_fit_equals_unbroken(tmp_path):
    unbroken = make()
    losses = run(unbroken, 5)

    class Stopped(Exception):
        pass

    def stop_after_three(report):
        if report.epoch == 4:
            raise Stopped

    config = TrainConfig(epochs=5, learning_rate=0.01, checkpoint_every=1)
    with pytest.raises(Stopped):
        train(make(), make_data(), config, seed=0, checkpoint_dir=tmp_path, on_epoch=stop_after_three)
    resumed = make()
    result = train(resumed, make_data(), config, seed=0, checkpoint_dir=tmp_path)
    assert result.resumed_from == 3
    assert [row["loss"] for row in result.history] == losses
    assert resumed.mixture == unbroken.mixture
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_weights_of_pairs_are_relative_to_all_negatives():
    method, data = make(start_epoch=1), make_data()
    everything = np.array([[j for j in range(NUM_NODES) if j != i] for i in (3, 40)])
    assert method.negative_weights(data, np.array([3, 40]), everything, seed=0) is None
    method.after_epoch(data, epoch=0, seed=0)
    found = method.negative_weights(data, np.array([3, 40]), everything, seed=0)
    assert found.weight_AM.shape == found.similarity_AM.shape == everything.shape
    # Between and within views together the mean is 1; each half alone is near it.
    assert found.weight_AM.mean() == pytest.approx(1, abs=0.5)
    with torch.no_grad():
        views = [method._draw(data.graph, torch_generator(0, "negative_weights", v), v) for v in (0, 1)]
        u, v = (cosine_rows(method.projector(method.encode(data.graph, view))) for view in views)
    between = method.mixture.log_weight(u[3] @ v[everything[0]].T).exp()
    within = method.mixture.log_weight(u[3] @ u[everything[0]].T).exp()
    expected = between / (torch.cat([between, within]).mean())
    np.testing.assert_allclose(found.weight_AM[0], expected.numpy(), rtol=1e-4)
    np.testing.assert_allclose(
        found.similarity_AM[0], (u[3] @ v[everything[0]].T).numpy(), rtol=1e-4, atol=1e-6
    )


def test_sampled_nodes_are_fitted_and_contrasted():
    method, data = make(start_epoch=1, max_exact_nodes=50, num_sampled_nodes=30), make_data()
    method.after_epoch(data, epoch=0, seed=0)
    batch = Batch(rows_B=torch.arange(NUM_NODES), graph=data.graph)
    assert torch.isfinite(method.training_loss(batch, epoch=1, step=0, seed=0)["loss"])


def test_note_says_when_the_weights_never_played_a_part():
    data = make_data()
    assert "start_epoch=2" in " ".join(make(start_epoch=2).notes(data))
    said = {}
    for epochs in (1, 2, 3):
        method = make(start_epoch=2)
        run(method, epochs)
        said[epochs] = " ".join(method.notes(data))
    assert "training ended before method.start_epoch=2" in said[1]
    assert "training ended at method.start_epoch=2" in said[2]
    assert "trained nothing" in said[2]
    assert said[3] == ""
