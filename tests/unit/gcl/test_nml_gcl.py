"""NML-GCL: who moves when, where gradients go, what is watched; a naive epoch agrees with the method's."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from gcl.errors import TrainingInterrupted
from gcl.losses.contrastive import info_nce_loss
from gcl.methods.configs.nml_gcl import NmlGclConfig
from gcl.methods.nml_gcl import NmlGcl
from gcl.trainer import train
from gcl.trainer_config import TrainConfig
from tests.tiny_nml_gcl import NUM_NODES, SMALL, make_data, make_method, step_loss

WATCHED = {"weight_similarity_correlation", "weight_05_percent", "weight_50_percent", "weight_95_percent"}


def gradients(method, loss):
    found = torch.autograd.grad(loss, list(method.parameters()), allow_unused=True)
    names = [name for name, _ in method.named_parameters()]
    return {name for name, value in zip(names, found, strict=True) if value is not None and value.any()}


def weights_of(method):
    return {name: value.detach().clone() for name, value in method.named_parameters()}


def changed(method, before):
    return {
        name.partition(".")[0] for name, value in weights_of(method).items() if not value.equal(before[name])
    }


def test_defaults_are_the_released_settings_for_cora():
    config = NmlGclConfig()
    assert (config.num_layers, config.hidden_size, config.embedding_size) == (2, 512, 512)
    assert (config.activation, config.activate_last, config.normalise_input) == ("rrelu", False, "none")
    assert (config.edge_drop_rates, config.feature_mask_rates) == ((0.4, 0.4), (0.1, 0.1))
    assert (config.temperature, config.metric_temperature, config.metric_sign) == (0.8, 1.0, 1)
    assert (config.alpha, config.alpha_scale, config.metric_steps) == (0.1, "n_minus_1", 2)
    assert (config.include_self, config.detach_metric, config.joint) == (True, False, False)
    assert make_method().kl_weight(2708) == pytest.approx(270.7)
    assert make_method(alpha_scale="none", alpha=1.5).kl_weight(2708) == 1.5
    assert make_method(use_kl=False).kl_weight(2708) == 0


@pytest.mark.parametrize("heads", ["one", "two"])
def test_steps_of_an_epoch_move_the_metric_then_the_encoder(heads):
    method = make_method(metric_steps=3, metric_heads=heads)
    data = make_data()
    assert len(list(method.epoch_batches(data, epoch=0, seed=0, batch_size=1))) == 4
    groups = [method.moving_group(epoch=0, step=step) for step in range(4)]
    assert groups == ["metric", "metric", "metric", "encoder"]
    names = {name for name, _ in method.named_parameters()}
    metric = {name for name in names if name.startswith("metric_heads")}
    assert gradients(method, step_loss(method, step=0)["loss"]) == metric
    assert gradients(method, step_loss(method, step=3)["loss"]) >= names - metric


def test_no_step_of_the_metric_moves_the_encoder_not_even_by_weight_decay():
    moved = []

    class Spied(NmlGcl):
        def after_backward(self, *, epoch, step):
            if step:
                moved.append(changed(self, self.before))
            self.before = weights_of(self)

    method = Spied(NmlGclConfig(**SMALL), num_features=10, num_classes=None, seed=0)
    train(method, make_data(), TrainConfig(epochs=1, weight_decay=0.1), seed=0)
    assert moved == [{"metric_heads"}, {"metric_heads"}]
    assert changed(method, method.before) == {"encoder"}


def test_joint_steps_move_both_at_once():
    method = make_method(joint=True)
    assert len(list(method.epoch_batches(make_data(), epoch=0, seed=0, batch_size=1))) == 1
    assert method.moving_group(epoch=0, step=0) is None
    assert gradients(method, step_loss(method)["loss"]) == {name for name, _ in method.named_parameters()}


def test_detached_metric_gives_the_encoder_the_gradient_of_constant_weights():
    """The encoder's gradient is that of the loss with the weights written down as numbers."""
    method = make_method(detach_metric=True, metric_sign=-1, activation="relu", metric_activation="relu")
    data = make_data()
    found = torch.autograd.grad(
        step_loss(method, step=2, data=data)["loss"], list(method.encoder.parameters())
    )
    u, v = method.encode_views(data.graph, epoch=0, seed=0)
    expected = 0
    for one, other in ((u, v), (v, u)):
        first, second = (functional.normalize(method.metric_heads[0](z.detach())) for z in (one, other))
        m = (-first @ second.T).softmax(dim=1).detach()
        s = functional.normalize(one) @ functional.normalize(other).T / 0.8
        positive = s.diagonal().exp()
        expected -= (positive / (positive + (NUM_NODES - 1) * (m * s.exp()).sum(dim=1))).log().mean() / 2
    true = torch.autograd.grad(expected, list(method.encoder.parameters()))
    for ours, reference in zip(found, true, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-7)


def test_gradient_through_the_metric_is_what_detaching_removes():
    settings = {"activation": "relu", "metric_activation": "relu", "alpha_scale": "none"}
    through, without = (make_method(detach_metric=flag, **settings) for flag in (False, True))
    losses = [step_loss(method, step=2)["loss"] for method in (through, without)]
    assert losses[0].item() == losses[1].item()
    one, other = (torch.autograd.grad(loss, method.encoder.weights[1])[0]
                  for loss, method in zip(losses, (through, without), strict=True))  # fmt: skip
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("include_self", [True, False])
def test_uniform_metric_is_info_nce_and_has_no_network(include_self):
    method = make_method(metric="uniform", include_self=include_self)
    data = make_data()
    terms = step_loss(method, data=data)
    u, v = method.encode_views(data.graph, epoch=0, seed=0)
    expected = info_nce_loss(u, v, temperature=0.8, negatives_include_self=include_self)
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert len(method.metric_heads) == 0
    assert [group.name for group in method.parameter_groups()] == ["encoder"]
    assert method.moving_group(epoch=0, step=0) is None
    assert method.negative_weights(data, np.arange(2), np.array([[1], [0]]), seed=0) is None
    assert not WATCHED & set(terms)


def test_metric_waits_for_its_start_and_then_ramps():
    method = make_method(metric_start_epoch=2, metric_ramp_epochs=3, joint=True)
    uniform = make_method(metric="uniform")
    assert step_loss(method, epoch=1)["loss"].item() == step_loss(uniform, epoch=1)["loss"].item()
    assert gradients(method, step_loss(method, epoch=1)["loss"]).isdisjoint(
        name for name, _ in method.named_parameters() if name.startswith("metric")
    )
    assert method.moving_group(epoch=1, step=0) == "encoder"
    spread = []
    for epoch in range(2, 7):
        terms = step_loss(method, epoch=epoch)
        spread.append((terms["weight_95_percent"] - terms["weight_05_percent"]).item())
    assert spread[0] < 0.4 * spread[3]
    assert spread[3] == pytest.approx(spread[4], rel=0.5)


def test_ramp_scales_the_logits_of_the_encoders_steps_alone():
    data = make_data()
    for settings, step in (({"joint": True}, 0), ({}, 2), ({}, 0)):
        ramped = make_method(metric_ramp_epochs=3, **settings)
        factor = 1.0 if step == 0 and not settings else 0.5  # of epoch 1
        cooler = make_method(metric_temperature=1.0 / factor, **settings)
        one, other = (step_loss(method, epoch=1, step=step, data=data) for method in (ramped, cooler))
        assert one["loss"].item() == pytest.approx(other["loss"].item(), rel=1e-6)
    assert step_loss(make_method(metric_start_epoch=5), data=data)["kl_divergence"] == 0


def test_slopes_of_the_metric_are_drawn_anew_each_step():
    drawn, fixed = make_method(), make_method(metric_activation="relu")
    losses = [[step_loss(method, step=step)["loss"].item() for step in (0, 1)] for method in (drawn, fixed)]
    assert losses[0][0] != losses[0][1]
    assert losses[1][0] == losses[1][1]


def test_late_start_takes_one_step_an_epoch_until_then():
    method = make_method(metric_start_epoch=1)
    numbers = [len(list(method.epoch_batches(make_data(), epoch=e, seed=0, batch_size=1))) for e in (0, 1)]
    assert numbers == [1, 3]
    result = train(method, make_data(), TrainConfig(epochs=2), seed=0)
    assert result.history[0].keys() == result.history[1].keys() >= WATCHED
    assert result.history[0]["weight_05_percent"] == 1
    assert result.history[0]["weight_similarity_correlation"] == 0


def test_views_of_an_epoch_are_encoded_once_for_all_steps_of_the_metric(monkeypatch):
    calls = []
    encode = NmlGcl.encode_views

    def counting(self, graph, *, epoch, seed):
        calls.append((epoch, torch.is_grad_enabled()))
        return encode(self, graph, epoch=epoch, seed=seed)

    monkeypatch.setattr(NmlGcl, "encode_views", counting)
    train(make_method(metric_steps=4), make_data(), TrainConfig(epochs=2), seed=0)
    assert calls == [(0, False), (0, True), (1, False), (1, True)]


def test_kept_embeddings_are_those_of_encoding_anew(monkeypatch):
    settings, data = TrainConfig(epochs=2, learning_rate=1e-2), make_data()
    kept = train(make_method(metric_steps=3), data, settings, seed=0).history

    def forgetful(self, graph, *, epoch, seed):
        with torch.no_grad():
            return self.encode_views(graph, epoch=epoch, seed=seed)

    monkeypatch.setattr(NmlGcl, "_constant_views", forgetful)
    assert train(make_method(metric_steps=3), data, settings, seed=0).history == kept


def test_embeddings_of_another_encoder_are_never_taken():
    method, data = make_method(), make_data()
    first = step_loss(method, step=0, data=data)["loss"].item()
    with torch.no_grad():
        method.encoder.weights[0].mul_(-1)
    second = step_loss(method, step=0, data=data)["loss"].item()
    fresh = make_method()
    with torch.no_grad():
        fresh.encoder.weights[0].mul_(-1)
    assert second == step_loss(fresh, step=0, data=data)["loss"].item() != first


def test_exchanging_sign_turns_weights_against_similarity():
    data, settings = make_data(), TrainConfig(epochs=15, learning_rate=1e-2)
    found = {}
    for sign in (1, -1):
        method = make_method(metric_sign=sign, alpha_scale="none", alpha=1.0, detach_metric=True)
        found[sign] = train(method, data, settings, seed=0).history[-1]["weight_similarity_correlation"]
    assert found[-1] < -0.5 < found[1]


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("heads", ["one", "two"])
def test_negative_weights_are_shares_of_all_nodes(include_self, heads):
    data = make_data()
    method = make_method(include_self=include_self, metric_heads=heads, metric_temperature=0.2)
    anchors_A = np.array([7, 0, 31])
    others_AM = np.array([[node for node in range(NUM_NODES) if node != anchor] for anchor in anchors_A])
    found = method.negative_weights(data, anchors_A, others_AM, seed=4)
    again = method.negative_weights(data, anchors_A, others_AM, seed=4)
    assert np.array_equal(found.weight_AM, again.weight_AM)
    assert found.weight_AM.dtype == found.similarity_AM.dtype == np.float32
    assert np.abs(found.similarity_AM).max() <= 1 + 1e-5
    assert found.weight_AM.max() / found.weight_AM.min() <= np.exp(2 / 0.2)
    total_A = found.weight_AM.sum(axis=1)
    if include_self:
        assert (total_A < NUM_NODES).all()
    else:
        np.testing.assert_allclose(total_A, NUM_NODES - 1, rtol=1e-5)
    assert not np.array_equal(
        found.weight_AM, method.negative_weights(data, anchors_A, others_AM, seed=5).weight_AM
    )


def test_negative_weights_follow_start_and_ramp_of_the_training():
    data, pairs = make_data(), (np.arange(30), np.arange(30)[:, None] + np.arange(1, 9))
    spread = []
    for num_epochs in (1, 2, 4):  # before the start, at half strength, at full
        method = make_method(metric_start_epoch=1, metric_ramp_epochs=1, metric_temperature=0.1)
        train(method, data, TrainConfig(epochs=num_epochs, learning_rate=1e-6), seed=0)
        found = method.negative_weights(data, *pairs, seed=0)
        spread.append(0.0 if found is None else np.log(found.weight_AM).std())
    assert spread[0] == 0
    assert spread[1] == pytest.approx(spread[2] / 2, rel=0.2)


def test_note_says_when_the_metric_never_played_a_part():
    data, train_two = make_data(), TrainConfig(epochs=2)
    for settings, is_noted in (
        ({"metric_start_epoch": 2}, True),
        ({"metric_start_epoch": 2, "metric": "free_form"}, True),
        ({"metric_start_epoch": 1}, False),
        ({"metric_start_epoch": 2, "metric": "uniform"}, False),
    ):
        method = make_method(metric_steps=1, **settings)
        train(method, data, train_two, seed=0)
        said = " ".join(method.notes(data))
        assert ("not weighted: training ended before method.metric_start_epoch=2" in said) == is_noted


def test_cosine_metric_weighs_by_the_embeddings_themselves():
    method, data = make_method(metric="cosine", metric_temperature=0.5), make_data()
    anchors_A, others_AM = np.arange(20), np.arange(20)[:, None] + np.arange(1, 9)
    found = method.negative_weights(data, anchors_A, others_AM, seed=0)
    ratio_AM = found.weight_AM / np.exp(found.similarity_AM / 0.5)
    np.testing.assert_allclose(ratio_AM, np.broadcast_to(ratio_AM[:, :1], ratio_AM.shape), rtol=1e-4)
    assert method.moving_group(epoch=0, step=0) is None
    assert step_loss(method)["weight_similarity_correlation"] > 0.5
    assert step_loss(make_method(metric="cosine", metric_sign=-1))["weight_similarity_correlation"] < -0.5


def test_a_node_is_not_watched_as_its_own_negative():
    terms = step_loss(make_method(joint=True, include_self=False), data=make_data(2))
    assert {terms[name].item() for name in WATCHED if name.startswith("weight_0")} == {1.0}
    assert terms["weight_similarity_correlation"] == 0


def test_sampled_nodes_set_the_size_of_the_divergence():
    method = make_method(max_exact_nodes=20, num_sampled_nodes=16)
    terms = step_loss(method, step=2)
    assert terms["loss"].item() == pytest.approx(
        (terms["contrastive_loss"] + 0.1 * 15 * terms["kl_divergence"]).item(), rel=1e-6
    )
    assert "16 of 48 nodes" in method.notes(make_data())[0]


def test_metric_has_a_learning_rate_and_decay_of_its_own():
    group = make_method(metric_learning_rate=0.3, metric_weight_decay=0.0).parameter_groups()[1]
    assert (group.name, group.learning_rate, group.weight_decay) == ("metric", 0.3, 0.0)
    group = make_method().parameter_groups()[1]
    assert (group.learning_rate, group.weight_decay) == (None, None)


def test_embedding_repeats_bit_for_bit_after_training():
    method, data = make_method(), make_data()
    train(method, data, TrainConfig(epochs=2), seed=0)
    assert np.array_equal(method.embed(data), method.embed(data))


def test_resumed_run_equals_the_unbroken_one(tmp_path):
    data = make_data()
    settings = TrainConfig(epochs=4, checkpoint_every=1, learning_rate=1e-2, weight_decay=1e-3)
    expected = train(make_method(metric_start_epoch=1), data, settings, seed=0)
    steps = iter(range(100))

    def stop_in_the_middle():
        return "enough" if next(steps) == 5 else None

    with pytest.raises(TrainingInterrupted):
        train(make_method(metric_start_epoch=1), data, settings, seed=0, checkpoint_dir=tmp_path,
              should_stop=stop_in_the_middle)  # fmt: skip
    resumed = train(make_method(metric_start_epoch=1), data, settings, seed=0, checkpoint_dir=tmp_path)
    assert resumed.resumed_from == 2
    assert resumed.history == expected.history
