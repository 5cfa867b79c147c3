"""NML-GCL under the weights that minimise its loss: when they begin, what they remember, what is reported."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from gcl.errors import TrainingInterrupted
from gcl.losses.nml_free_form import nml_free_form_loss
from gcl.methods.configs.nml_gcl import NmlGclConfig
from gcl.trainer import train
from gcl.trainer_config import TrainConfig
from tests.tiny_nml_gcl import NUM_NODES, make_data, make_method, step_loss

FREE = {"metric": "free_form", "alpha": 1.2, "alpha_scale": "none", "include_self": False, "temperature": 0.2}


def test_has_no_network_and_takes_one_step_an_epoch():
    method = make_method(**FREE)
    assert len(method.metric_heads) == 0
    assert [group.name for group in method.parameter_groups()] == ["encoder"]
    assert method.moving_group(epoch=0, step=0) is None
    assert len(list(method.epoch_batches(make_data(), epoch=0, seed=0, batch_size=1))) == 1
    terms = step_loss(method)
    assert terms.keys() == step_loss(make_method(), step=2).keys()
    assert terms["weight_similarity_correlation"] < -0.5
    assert terms["weight_05_percent"] < 0.5 < 1 < terms["weight_95_percent"]
    assert terms["kl_divergence"] > 0.05
    assert (
        terms["loss"]
        == terms["contrastive_loss"]
        < step_loss(make_method(**FREE | {"metric": "uniform"}))["loss"]
    )


@pytest.mark.parametrize("include_self", [True, False])
def test_settles_from_epoch_to_epoch(include_self):
    """One sweep an epoch: with an encoder that hardly moves it becomes the fixed point."""
    method, data = make_method(**FREE | {"include_self": include_self}), make_data()
    for epoch in range(30):
        loss = step_loss(method, data=data)["loss"]  # epoch 0's views throughout
        method.after_epoch(data, epoch=epoch, seed=0)
    u, v = method.encode_views(data.graph, epoch=0, seed=0)
    given = {"temperature": 0.2, "alpha": 1.2, "include_self": include_self}
    found = nml_free_form_loss(u, v, num_sweeps=31, **given)
    assert loss.item() == pytest.approx(found.loss.item(), rel=1e-5)
    torch.testing.assert_close(
        method.training_state.get_buffer("log_mass_VN"), found.log_mass_VN, rtol=0, atol=1e-4
    )


def test_loss_has_no_memory_before_an_epoch_ends():
    method, data = make_method(**FREE), make_data()
    first = step_loss(method, data=data)["loss"]
    assert step_loss(method, data=data)["loss"] == first
    method.after_epoch(data, epoch=0, seed=0)
    assert step_loss(method, data=data)["loss"] != first
    other = make_data(30)  # of another size, what is known serves no more
    assert step_loss(method, data=other)["loss"] == step_loss(make_method(**FREE), data=other)["loss"]


def test_watches_the_weights_of_its_loss():
    method, data = make_method(**FREE), make_data()
    step_loss(method, data=data)
    method.after_epoch(data, epoch=0, seed=0)
    known_VN = method.training_state.get_buffer("log_mass_VN")
    u, v = method.encode_views(data.graph, epoch=1, seed=0)
    s = functional.normalize(u) @ functional.normalize(v).T / 0.2
    mass, positive = known_VN[0].exp(), s.diagonal().exp()
    p = (NUM_NODES - 1) * mass / (positive + (NUM_NODES - 1) * mass)
    w = 1 / ((1.2 - p)[:, None] + (p / mass)[:, None] * s.exp())
    off = ~torch.eye(NUM_NODES, dtype=torch.bool)
    w = w[off].view(NUM_NODES, -1)
    w = w / w.mean(dim=1, keepdim=True)
    terms = step_loss(method, epoch=1, data=data)
    assert terms["weight_05_percent"].item() == pytest.approx(w.quantile(0.05).item(), rel=1e-4)
    assert terms["kl_divergence"].item() == pytest.approx(-w.log().mean().item(), rel=1e-4)


def test_waits_for_its_start_and_then_ramps_its_alpha():
    data = make_data()
    method = make_method(**FREE, metric_start_epoch=2, metric_ramp_epochs=3)
    uniform = step_loss(make_method(**FREE | {"metric": "uniform"}), epoch=1, data=data)["loss"]
    terms = step_loss(method, epoch=1, data=data)
    assert terms["loss"] == uniform
    assert terms["weight_95_percent"] == 1
    for epoch, strength in ((2, 0.25), (4, 0.75), (9, 1.0)):
        plain = make_method(**FREE | {"alpha": 1.2 / strength})
        one, other = (step_loss(made, epoch=epoch, data=data)["loss"].item() for made in (method, plain))
        assert one == pytest.approx(other, rel=1e-6)


@pytest.mark.parametrize("include_self", [True, False])
def test_negative_weights_satisfy_their_equation(include_self):
    method, data = make_method(**FREE | {"include_self": include_self}), make_data()
    anchors_A = np.array([7, 0, 31])
    others_AM = np.array([[node for node in range(NUM_NODES) if node != anchor] for anchor in anchors_A])
    found = method.negative_weights(data, anchors_A, others_AM, seed=4)
    again = method.negative_weights(data, anchors_A, others_AM, seed=4)
    assert np.array_equal(found.weight_AM, again.weight_AM)
    order = found.similarity_AM.argsort(axis=1)
    assert (np.diff(np.take_along_axis(found.weight_AM, order, axis=1), axis=1) <= 1e-6).all()
    # 1/w = (alpha - p)/alpha + p/(alpha Z) e: a line in e, for every pair of an anchor
    for w, s in zip(found.weight_AM, found.similarity_AM / 0.2, strict=True):
        e = np.exp(s.astype(np.float64))
        slope, intercept = np.polyfit(e, 1 / w, 1)
        np.testing.assert_allclose(intercept + slope * e, 1 / w, rtol=1e-3)
        if not include_self:
            assert w.sum() == pytest.approx(NUM_NODES - 1, rel=1e-5)
            p = 1.2 * (1 - intercept)
            assert 0 < p < 1
            assert slope == pytest.approx(p / 1.2 / (w * e).mean(), rel=1e-2)


def test_negative_weights_follow_the_start_of_the_training():
    data, pairs = make_data(), (np.arange(30), np.arange(30)[:, None] + np.arange(1, 9))
    spread = []
    for num_epochs in (1, 2, 4):
        method = make_method(**FREE, metric_start_epoch=1, metric_ramp_epochs=2)
        train(method, data, TrainConfig(epochs=num_epochs, learning_rate=1e-6), seed=0)
        found = method.negative_weights(data, *pairs, seed=0)
        spread.append(0.0 if found is None else np.log(found.weight_AM).std())
    assert spread[0] == 0
    assert 0.2 * spread[2] < spread[1] < 0.7 * spread[2]


def test_of_sampled_nodes_starts_anew_each_step():
    sampled = {"max_exact_nodes": 20, "num_sampled_nodes": 16}
    method, data = make_method(**FREE, **sampled), make_data()
    before = step_loss(method, data=data)
    method.after_epoch(data, epoch=0, seed=0)
    assert step_loss(method, data=data)["loss"] == before["loss"]
    assert method.training_state.get_buffer("log_mass_VN").shape == (2, 0)
    scaled = make_method(**FREE | sampled | {"alpha_scale": "n_minus_1", "alpha": 1.2 / 15})
    assert step_loss(scaled, data=data)["loss"].item() == pytest.approx(before["loss"].item(), rel=1e-6)
    pairs = (np.arange(30), np.arange(30)[:, None] + np.arange(1, 9))
    one, other = (made.negative_weights(data, *pairs, seed=0).weight_AM for made in (method, scaled))
    np.testing.assert_allclose(one, other, rtol=1e-4)


def test_resumes_in_the_middle_of_a_late_start(tmp_path):
    data, settings = make_data(), TrainConfig(epochs=6, checkpoint_every=1, learning_rate=1e-2)
    late = {**FREE, "metric_start_epoch": 2}
    expected = train(make_method(**late), data, settings, seed=0)
    for last in (1, 3):  # a stop before the start, one after it; then to the end
        steps = iter(range(100))

        def stop_after(steps=steps, last=last):
            return "enough" if next(steps) == last else None

        with pytest.raises(TrainingInterrupted):
            train(
                make_method(**late), data, settings, seed=0, checkpoint_dir=tmp_path, should_stop=stop_after
            )
    resumed = make_method(**late)
    result = train(resumed, data, settings, seed=0, checkpoint_dir=tmp_path)
    assert result.resumed_from == 4
    assert result.history == expected.history


def test_refuses_settings_that_have_no_meaning_for_it():
    for nothing in ({"use_kl": False}, {"alpha": 0.0}):
        with pytest.raises(ValueError, match="metric=free_form needs use_kl=true and alpha above 0"):
            NmlGclConfig(**FREE | nothing)


def test_settings_of_a_network_play_no_part():
    others = {"metric_sign": -1, "metric_heads": "two", "metric_temperature": 0.5, "joint": True}
    settings, data = TrainConfig(epochs=2), make_data()
    plain = train(make_method(**FREE), data, settings, seed=0).history
    assert train(make_method(**FREE, **others), data, settings, seed=0).history == plain
