"""The loop: what it records, how it stops and resumes, and what it refuses to step on."""

import logging
import time

import numpy as np
import pytest
import torch

from gcl.errors import CheckpointMismatch, NonFiniteLoss, TrainingInterrupted
from gcl.graph import Graph
from gcl.methods import build_method
from gcl.methods.base import TrainingData
from gcl.methods.configs import DmatIConfig, ProGclConfig
from gcl.trainer import learning_rate_at, train
from gcl.trainer_config import TrainConfig

CONFIG = DmatIConfig(encoder="mlp", hidden_size=7, embedding_size=5, dropout_rate=0.2, entry_dropout_rate=0.3)
SETTINGS = TrainConfig(epochs=6, batch_size=32, schedule="cosine", weight_decay=1e-3, checkpoint_every=2)
STEPS = 3  # of an epoch: 96 nodes in batches of 32


def make_data(num_nodes=96, num_features=11):
    x_NF = np.random.default_rng(0).normal(size=(num_nodes, num_features)).astype(np.float32)
    return TrainingData(num_nodes, x_NF)


def make_method(config=CONFIG, num_features=11, seed=0):
    return build_method(config, num_features=num_features, seed=seed)


def run(method, settings=SETTINGS, data=None, **rest):
    return train(method, data or make_data(), settings, seed=rest.pop("seed", 0), **rest)


def equal(first, second):
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stop_at(call):
    """A should_stop that gives a reason from its `call`-th question on, counted from 0."""
    asked = iter(range(10**9))
    return lambda: "asked to stop" if next(asked) >= call else None


@pytest.fixture(scope="module")
def unbroken():
    method = make_method()
    return method, run(method).history


def test_history_holds_every_epoch_and_the_mean_of_every_term():
    seen = []
    method = make_method()
    original = method.training_loss

    def record(batch, **counters):
        terms = original(batch, **counters)
        seen.append((counters["epoch"], counters["step"], terms["loss"].item()))
        return terms

    method.training_loss = record
    result = run(method)
    assert [terms["epoch"] for terms in result.history] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert [(e, s) for e, s, _ in seen] == [(e, s) for e in range(6) for s in range(STEPS)]
    for epoch, terms in enumerate(result.history):
        losses = [loss for e, _, loss in seen if e == epoch]
        assert terms["loss"] == pytest.approx(sum(losses) / STEPS, rel=1e-12)
        assert set(terms) == {"epoch", "loss", "positive_similarity", "hard_negative_similarity"}
    assert len(result.epoch_seconds) == 6
    assert result.resumed_from == 0


def test_reports_come_after_each_epoch():
    reports = []
    run(make_method(), on_epoch=reports.append)
    assert [report.epoch for report in reports] == [1, 2, 3, 4, 5, 6]
    assert {report.num_epochs for report in reports} == {6}
    assert reports[0].learning_rate == SETTINGS.learning_rate > reports[5].learning_rate
    assert all(report.seconds >= 0 for report in reports)


def test_an_epoch_is_reported_before_its_checkpoint(tmp_path):
    """So that what the caller keeps of an epoch is there when a resumed run skips it."""
    seen = {}

    def note(report):
        seen[report.epoch] = sorted(int(path.stem[-8:]) for path in tmp_path.glob("epoch-*.json"))

    run(make_method(), checkpoint_dir=tmp_path, on_epoch=note)
    assert all(epoch not in found for epoch, found in seen.items())
    assert seen[5] == [2, 4] and list(tmp_path.glob("epoch-00000006.json"))


def test_schedule_is_constant_or_half_a_cosine():
    constant = TrainConfig(epochs=10, learning_rate=0.1)
    cosine = TrainConfig(epochs=10, learning_rate=0.1, schedule="cosine")
    assert {learning_rate_at(epoch, constant) for epoch in range(10)} == {0.1}
    assert learning_rate_at(0, cosine) == 0.1
    assert learning_rate_at(5, cosine) == pytest.approx(0.05)
    assert learning_rate_at(10, cosine) == pytest.approx(0.0)


def test_neither_checkpoints_nor_their_number_change_the_result(unbroken, tmp_path):
    for every in (1, 4):
        method = make_method()
        settings = SETTINGS.model_copy(update={"checkpoint_every": every})
        result = run(method, settings, checkpoint_dir=tmp_path / str(every), should_stop=lambda: None)
        assert result.history == unbroken[1]
        assert equal(method, unbroken[0])


@pytest.mark.parametrize("call", range(STEPS, 5 * STEPS, 2))
def test_stopped_run_resumes_from_the_last_finished_epoch_bit_for_bit(unbroken, tmp_path, call):
    with pytest.raises(TrainingInterrupted, match=f"asked to stop; {call // STEPS} of 6 epochs"):
        run(make_method(), checkpoint_dir=tmp_path, should_stop=stop_at(call))
    method = make_method()
    result = run(method, checkpoint_dir=tmp_path)
    assert result.resumed_from == call // STEPS
    assert result.history == unbroken[1]
    assert equal(method, unbroken[0])


def test_stop_takes_effect_within_a_step():
    method = make_method()
    steps = []
    original = method.training_loss
    method.training_loss = lambda batch, **counters: steps.append(counters) or original(batch, **counters)
    with pytest.raises(TrainingInterrupted):
        run(method, should_stop=stop_at(2))
    assert len(steps) == 2


def test_stop_in_the_first_epoch_leaves_no_checkpoint(unbroken, tmp_path):
    with pytest.raises(TrainingInterrupted, match="0 of 6"):
        run(make_method(), checkpoint_dir=tmp_path, should_stop=stop_at(1))
    assert not list(tmp_path.glob("*"))
    assert run(make_method(), checkpoint_dir=tmp_path).history == unbroken[1]


def test_deadline_stops_and_the_run_can_be_resumed(unbroken, tmp_path):
    slow = SETTINGS.model_copy(update={"deadline_seconds": 0.2})
    with pytest.raises(TrainingInterrupted, match=r"deadline of 0\.2 s"):
        run(make_method(), slow, checkpoint_dir=tmp_path, on_epoch=lambda _: time.sleep(0.15))
    result = run(make_method(), checkpoint_dir=tmp_path)
    assert 0 < result.resumed_from < 6
    assert result.history == unbroken[1]


def test_finished_run_is_not_trained_again(unbroken, tmp_path):
    run(make_method(), checkpoint_dir=tmp_path)
    method = make_method()
    result = run(method, checkpoint_dir=tmp_path)
    assert (result.resumed_from, result.epoch_seconds) == (6, [])
    assert result.history == unbroken[1]
    assert equal(method, unbroken[0])


@pytest.mark.parametrize("term", ["loss", "positive_similarity"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_term_that_is_not_finite_stops_before_the_step(tmp_path, term, value):
    method = make_method()
    original, states = method.training_loss, []

    def spoil(batch, *, epoch, step, seed):
        terms = original(batch, epoch=epoch, step=step, seed=seed)
        if (epoch, step) == (3, 1):
            terms[term] = terms[term] * value
        states.append({name: tensor.clone() for name, tensor in method.named_parameters()})
        return terms

    method.training_loss = spoil
    with pytest.raises(NonFiniteLoss, match=f"{term} is not finite in epoch 4") as caught:
        run(method, checkpoint_dir=tmp_path)
    assert (caught.value.epoch, caught.value.term) == (4, term)
    assert all(torch.equal(states[-1][name], tensor) for name, tensor in method.named_parameters())
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["epoch-00000002.json"]


def test_gradient_that_is_not_finite_stops_before_the_step():
    method = make_method()
    before = {name: tensor.clone() for name, tensor in method.named_parameters()}
    method.encoder.output.weight.register_hook(lambda grad: grad * float("nan"))
    with pytest.raises(NonFiniteLoss, match=r"gradient of encoder\.output\.weight is not finite in epoch 1"):
        run(method)
    assert all(torch.equal(before[name], tensor) for name, tensor in method.named_parameters())


CHANGES = {
    "seed": {"seed": 1},
    "num_nodes": {"data": make_data(97)},
    "method.temperature": {"config": CONFIG.model_copy(update={"temperature": 0.9})},
    "method.entry_dropout_rate": {"config": CONFIG.model_copy(update={"entry_dropout_rate": 0.31})},
    "shape.encoder.output.weight": {"config": CONFIG.model_copy(update={"embedding_size": 6})},
    "shape.encoder.hidden.weight": {"data": make_data(num_features=12)},
    "train.learning_rate": {"settings": SETTINGS.model_copy(update={"learning_rate": 0.5})},
    "train.epochs": {"settings": SETTINGS.model_copy(update={"epochs": 7})},
    "train.schedule": {"settings": SETTINGS.model_copy(update={"schedule": "constant"})},
    "smoothed": {"identity": {"smoothed": "sha256:bb"}},
}


@pytest.mark.parametrize("field", CHANGES)
def test_checkpoint_of_another_run_is_refused_with_the_field(tmp_path, field):
    given = {"config": CONFIG, "settings": SETTINGS, "data": make_data(), "seed": 0} | CHANGES[field]
    identity = given.get("identity", {"smoothed": "sha256:aa"})
    run(make_method(), checkpoint_dir=tmp_path, identity={"smoothed": "sha256:aa"})
    method = make_method(given["config"], given["data"].x_NF.shape[1])
    with pytest.raises(CheckpointMismatch, match=rf"{field}: checkpoint .+, this run .+"):
        run(
            method,
            given["settings"],
            given["data"],
            seed=given["seed"],
            checkpoint_dir=tmp_path,
            identity=identity,
        )


def test_operational_settings_may_change_between_runs(unbroken, tmp_path):
    with pytest.raises(TrainingInterrupted):
        run(make_method(), checkpoint_dir=tmp_path, should_stop=stop_at(4 * STEPS))
    other = SETTINGS.model_copy(update={"checkpoint_every": 5, "deadline_seconds": 1000.0})
    result = run(make_method(), other, checkpoint_dir=tmp_path)
    assert result.resumed_from == 4
    assert result.history == unbroken[1]


def test_damaged_checkpoint_costs_epochs_and_not_the_result(unbroken, tmp_path, caplog):
    run(make_method(), checkpoint_dir=tmp_path)
    (tmp_path / "epoch-00000006.safetensors").write_bytes(b"torn")
    with caplog.at_level(logging.WARNING):
        method = make_method()
        result = run(method, checkpoint_dir=tmp_path)
    assert "epoch-00000006.json is damaged" in caplog.text
    assert result.resumed_from == 4
    assert result.history == unbroken[1]
    assert equal(method, unbroken[0])


def test_learning_rate_of_the_schedule_is_the_one_used(unbroken):
    constant = SETTINGS.model_copy(update={"schedule": "constant"})
    history = run(make_method(), constant).history
    assert history[0] == unbroken[1][0], "both start at the full rate"
    assert history[-1] != unbroken[1][-1]


def test_method_left_in_evaluation_mode_is_trained_all_the_same(unbroken):
    method = make_method()
    method.eval()
    assert run(method).history == unbroken[1]


def test_weight_decay_pulls_the_weights_in():
    norms = []
    for decay in (0.0, 1.0):
        method = make_method()
        run(method, TrainConfig(epochs=5, batch_size=32, weight_decay=decay, learning_rate=1e-2))
        norms.append(method.encoder.hidden.weight.norm().item())
    assert norms[1] < norms[0]


@pytest.mark.slow
def test_epoch_time_is_linear_in_the_number_of_nodes():
    """Processor time a node, which other processes disturb less than wall time."""
    config = DmatIConfig(embedding_size=8)
    seconds = []
    for num_nodes in (10_000, 100_000):
        data = make_data(num_nodes, 16)
        method = make_method(config, 16)
        run(method, TrainConfig(epochs=1, batch_size=128), make_data(1000, 16))
        started = time.process_time()
        run(method, TrainConfig(epochs=1, batch_size=128), data)
        seconds.append((time.process_time() - started) / num_nodes)
    assert seconds[1] < 1.5 * seconds[0]


def test_a_training_that_ends_before_its_weights_warns_at_its_beginning(caplog):
    config = ProGclConfig(start_epoch=2, hidden_size=4, embedding_size=4, projection_size=4)
    node = np.arange(20)
    data = TrainingData(20, graph=Graph.from_edges(node, (node + 1) % 20, np.eye(20)))
    for epochs, is_told in ((2, True), (3, False)):
        caplog.clear()
        run(make_method(config, num_features=20), TrainConfig(epochs=epochs), data)
        assert ("negatives will never be weighted: method.start_epoch=2" in caplog.text) is is_told
