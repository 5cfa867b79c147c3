import re

import numpy as np
import pytest
import torch
from torch.nn import functional

from gcl.gambler import FittingPass, GamblerHead
from gcl.graph import Graph
from gcl.losses.affinity import affinity_loss
from gcl.losses.affinity_weights import KeptLogWeights, row_log_weights
from gcl.methods.augcl import Augcl
from gcl.methods.base import TrainingData
from gcl.methods.configs.augcl import AugclConfig
from gcl.methods.configs.grace import GraceConfig
from gcl.methods.grace import Grace
from gcl.trainer import train
from gcl.trainer_config import TrainConfig
from gcl.two_means import positive_group, two_means

NUM_NODES, NUM_FEATURES = 60, 10
GCN = {"hidden_size": 7, "embedding_size": 6, "projection_size": 5}
SMALL = {
    **GCN,
    "warmup_epochs": 2,
    "num_anchors": 11,
    "num_candidates": 40,
    "estimator_hidden_size": 8,
    "fit_passes": 2,
    "num_fit_anchors": 9,
    "fit_batch_size": 64,
    "refresh_every": 1,
}
ESTIMATORS = ("gambler", "softmax", "entropy", "distance", "analytic")
NETWORKS = ESTIMATORS[:3]
one_of_each_kind = pytest.mark.parametrize("estimator", ["gambler", "analytic"])
each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)


def make_data(num_nodes=NUM_NODES):
    rng = np.random.default_rng(0)
    label_N = np.arange(num_nodes) % 3
    x_NF = (rng.normal(size=(3, NUM_FEATURES))[label_N] + rng.normal(size=(num_nodes, NUM_FEATURES))).astype(
        "f"
    )
    upper = np.triu(rng.random((num_nodes, num_nodes)) < np.where(label_N[:, None] == label_N, 0.2, 0.02), 1)
    return TrainingData(num_nodes, graph=Graph(num_nodes, *np.nonzero(upper | upper.T), x_NF))


def make_method(seed=0, **settings):
    return Augcl(AugclConfig(**(SMALL | settings)), num_features=NUM_FEATURES, num_classes=None, seed=seed)


def run(method, epochs=4, seed=0, **options):
    settings = TrainConfig(epochs=epochs, learning_rate=5e-3, checkpoint_every=1)
    return train(method, make_data(), settings, seed=seed, **options)


def weights(method):
    return {name: value.clone() for name, value in method.state_dict().items()}


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def weighted_loss(method, data):
    rows = next(method.epoch_batches(data, epoch=5, seed=0, batch_size=8))
    return method.training_loss(data.batch(rows), epoch=5, step=0, seed=0)


@each_estimator
def test_the_warm_up_is_grace_bit_for_bit(estimator):
    grace = Grace(GraceConfig(**GCN), num_features=NUM_FEATURES, num_classes=None, seed=0)
    method = make_method(estimator=estimator)
    expected = run(grace, epochs=2).history
    for row, other in zip(run(method, epochs=2).history, expected, strict=True):
        assert row == other | {"weighted_share": 1.0}
    assert np.array_equal(method.embed(make_data()), grace.embed(make_data()))


@each_estimator
def test_negatives_are_weighted_after_the_warm_up(estimator):
    history = run(make_method(estimator=estimator)).history
    shares = [row["weighted_share"] for row in history]
    assert shares[:2] == [1.0, 1.0]
    assert all(0 < share < 1 - 1e-6 for share in shares[2:])
    assert all(np.isfinite(value) for row in history for value in row.values())


@pytest.mark.parametrize("intra", ["shared", "uniform"])
def test_loss_is_that_of_both_directions(intra):
    method, data = make_method(intra=intra, denominator_includes_positive=False, alpha_scale=0.5), make_data()
    u_ND, v_ND = method.projected_views(data.batch(torch.arange(NUM_NODES)), epoch=5, step=0, seed=0)
    expected = 0.0
    for own_ND, other_ND in ((u_ND, v_ND), (v_ND, u_ND)):
        expected += 0.5 * affinity_loss(
            own_ND,
            other_ND,
            temperature=method.config.temperature,
            log_weights=row_log_weights(own_ND, other_ND, estimator="analytic", alpha_scale=0.5),
            intra=intra,
            positive_in_denominator=False,
        )
    torch.testing.assert_close(weighted_loss(method, data)["loss"], expected)


def test_trained_estimator_weighs_anchors_against_candidates_by_abstention():
    method, data = make_method(estimator="gambler"), make_data()
    run(method, epochs=2)
    u_MD, v_MD = method.projected_views(data.batch(torch.arange(NUM_NODES)), epoch=5, step=0, seed=0)
    assert len(u_MD) == 40
    expected = 0.0
    for own_MD, other_MD in ((u_MD, v_MD), (v_MD, u_MD)):
        rows = [functional.normalize(x.detach()) for x in (own_MD[:11], other_MD)]
        log_weights = KeptLogWeights.of(method.estimator.abstention(*rows))
        expected += 0.5 * affinity_loss(
            own_MD,
            other_MD,
            temperature=method.config.temperature,
            log_weights=log_weights,
            num_anchors=11,
        )
    torch.testing.assert_close(weighted_loss(method, data)["loss"], expected)


@pytest.mark.parametrize("estimator", NETWORKS)
def test_no_gradient_reaches_the_estimator(estimator):
    method, data = make_method(estimator=estimator), make_data()
    weighted_loss(method, data)["loss"].backward()
    assert all(parameter.grad is None for parameter in method.estimator.parameters())
    for name, parameter in [*method.encoder.named_parameters(), *method.projector.named_parameters()]:
        assert parameter.grad is not None, name


@pytest.mark.parametrize("estimator", NETWORKS)
def test_the_trainer_never_moves_the_estimator(estimator):
    method = make_method(estimator=estimator)
    moved = {id(parameter) for group in method.parameter_groups() for parameter in group.parameters}
    inner = {id(parameter) for parameter in method.estimator.parameters()}
    assert moved.isdisjoint(inner)
    assert moved | inner == {id(parameter) for parameter in method.parameters()}
    before = weights(method.estimator)
    run(method, epochs=1)
    assert equal(weights(method.estimator), before)
    run(method, epochs=2)
    assert not equal(weights(method.estimator), before)


@pytest.mark.parametrize(
    ("refresh_every", "expected"), [(0, [(2, 2)]), (2, [(2, 2), (4, 3), (6, 3)]), (5, [(2, 2), (7, 3)])]
)
def test_the_estimator_is_fitted_when_the_warm_up_ends_and_refreshed(refresh_every, expected, monkeypatch):
    calls = []
    monkeypatch.setattr(
        Augcl, "_fit", lambda self, graph, num_passes, *, epoch, seed: calls.append((epoch + 1, num_passes))
    )
    run(make_method(estimator="gambler", refresh_every=refresh_every, refresh_passes=3), epochs=7)
    assert calls == expected


@pytest.mark.parametrize(
    ("estimator", "stop_after"),
    [("gambler", 1), ("gambler", 2), ("gambler", 3), ("softmax", 2), ("distance", 2), ("analytic", 2)],
)
def test_resumed_run_equals_the_unbroken_one(estimator, stop_after, tmp_path):
    unbroken = make_method(estimator=estimator)
    expected = run(unbroken, epochs=5)

    class Stopped(Exception):
        pass

    def stop(report):
        if report.epoch == stop_after + 1:
            raise Stopped

    with pytest.raises(Stopped):
        run(make_method(estimator=estimator), epochs=5, checkpoint_dir=tmp_path, on_epoch=stop)
    resumed = make_method(estimator=estimator)
    result = run(resumed, epochs=5, checkpoint_dir=tmp_path)
    assert result.resumed_from == stop_after
    assert result.history == expected.history
    assert equal(weights(resumed), weights(unbroken))
    found, same = (method.negative_weights(make_data(), *pairs(), seed=0) for method in (resumed, unbroken))
    assert np.array_equal(found.weight_AM, same.weight_AM)


@one_of_each_kind
def test_global_generators_are_neither_read_nor_advanced(estimator):
    histories = []
    for state in (3, 4):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        histories.append(run(make_method(estimator=estimator)).history)
        assert torch.equal(torch.get_rng_state(), before)
    assert histories[0] == histories[1]


@one_of_each_kind
def test_half_precision_stays_close(estimator):
    losses = []
    for precision in ("float32", "bfloat16"):
        settings = TrainConfig(epochs=4, precision=precision)
        losses.append(
            train(make_method(estimator=estimator), make_data(), settings, seed=0).history[-1]["loss"]
        )
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@one_of_each_kind
def test_above_the_exact_size_nodes_are_sampled(estimator):
    method = make_method(estimator=estimator, max_exact_nodes=50, num_sampled_nodes=30)
    assert np.isfinite(run(method).history[-1]["loss"])
    expected = 40 if estimator in NETWORKS else 30
    batch = make_data().batch(torch.arange(NUM_NODES))
    assert [len(h) for h in method.projected_views(batch, epoch=5, step=0, seed=0)] == [expected] * 2
    anchors_A = np.arange(4)
    assert method.negative_weights(make_data(), anchors_A, anchors_A[:, None] + 9, seed=0) is not None


@each_estimator
@pytest.mark.parametrize(("epochs", "when"), [(1, "before"), (2, "at")])
def test_notes_say_that_nothing_was_weighted(estimator, epochs, when):
    method = make_method(estimator=estimator)
    run(method, epochs=epochs)
    (note,) = method.notes(make_data())
    assert f"not weighted: training ended {when} method.warmup_epochs=2" in note


def test_notes_say_what_is_sampled():
    methods = {estimator: make_method(estimator=estimator) for estimator in ("analytic", "gambler")}
    for method in methods.values():
        run(method)
    assert methods["analytic"].notes(make_data()) == []
    answered, note = methods["gambler"].notes(make_data())
    assert re.match(r"the estimator answered \d+ % of the pairs", answered)
    assert "11 anchors against 40 of 60 nodes" in note
    assert "after 2 epochs" in note


def pairs(num_candidates=20):
    rng = np.random.default_rng(0)
    anchors_A = rng.permutation(NUM_NODES)[:15]
    return anchors_A, np.stack(
        [rng.permutation(np.delete(np.arange(NUM_NODES), i))[:num_candidates] for i in anchors_A]
    )


@each_estimator
def test_no_pair_weights_before_the_warm_up_ends(estimator):
    method = make_method(estimator=estimator)
    run(method, epochs=1)
    assert method.negative_weights(make_data(), *pairs(), seed=0) is None


@each_estimator
def test_pair_weights_are_those_of_the_rows(estimator):
    """All other nodes as candidates, in any order: the weights average alpha, and follow their nodes."""
    method = make_method(estimator=estimator, mu_includes_diagonal=False, alpha_scale=2.0, num_candidates=60)
    run(method)
    found = method.negative_weights(make_data(), *pairs(NUM_NODES - 1), seed=0)
    assert found.similarity_AM.shape == found.weight_AM.shape == (15, NUM_NODES - 1)
    np.testing.assert_allclose(found.weight_AM.mean(1), 2.0, rtol=1e-4)
    anchors_A, candidates_AM = pairs(NUM_NODES - 1)
    again = method.negative_weights(make_data(), anchors_A, candidates_AM[:, ::-1].copy(), seed=0)
    np.testing.assert_allclose(again.weight_AM[:, ::-1], found.weight_AM, rtol=1e-4)
    assert np.abs(found.similarity_AM).max() <= 1 + 1e-6


def planted():
    """Four classes, boundary candidates halfway to the next one; two views, and who is what to whom."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(400) % 4
    centre = torch.eye(4, 16)
    centre_ND = centre[label].clone()
    is_boundary = torch.arange(400) % 40 < 4
    centre_ND[is_boundary] = (centre[label] + centre[(label + 1) % 4])[is_boundary] / 2
    u_ND, v_ND = (
        functional.normalize(centre_ND + 0.08 * torch.randn(400, 16, generator=generator)) for _ in range(2)
    )
    same = (label[:, None] == label) & ~is_boundary
    half = ((label[:, None] == label) | (label[:, None] == (label + 1) % 4)) & is_boundary
    return u_ND, v_ND, same & ~is_boundary[:, None], half & ~is_boundary[:, None]


def test_trained_head_weighs_false_negatives_less_than_boundary_negatives():
    u_ND, v_ND, false_negative, boundary = planted()
    label_AM = positive_group(two_means(u_ND @ v_ND.T), torch.arange(400))
    head = GamblerHead(16, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for number in range(3):
        head.fit(
            u_ND[:100],
            v_ND,
            label_AM[:100],
            optimizer=optimizer,
            reward=1.9,
            batch_size=2048,
            generator=torch.Generator().manual_seed(number),
        )
    weight_AM = KeptLogWeights.of(head.abstention(u_ND, v_ND)).log_weight_AM.exp()
    assert weight_AM[false_negative].mean() < 0.3 * weight_AM[boundary].mean()


@pytest.mark.parametrize(
    "settings", [{"reward": 1.0}, {"reward": 2.5}, {"warmup_epochs": 0}, {"alpha_scale": 0}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        AugclConfig(**settings)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [("gambler", [None] * 3 + [1.9] * 4 + [1.9] * 2), ("softmax", [None] * 9)],
)
def test_cross_entropy_comes_before_the_first_fit_alone(estimator, expected, monkeypatch):
    rewards = []
    fit = GamblerHead.fit

    def remember(self, *tensors, reward, **options):
        rewards.append(reward)
        return fit(self, *tensors, reward=reward, **options)

    monkeypatch.setattr(GamblerHead, "fit", remember)
    run(make_method(estimator=estimator, pretrain_passes=3, fit_passes=4, refresh_passes=2), epochs=3)
    assert rewards == expected


def test_an_estimator_that_abstains_on_everything_is_reported(caplog):
    method = make_method(
        estimator="gambler", reward=1.0001, pretrain_passes=0, fit_passes=30, fit_learning_rate=0.1
    )
    run(method, epochs=3)
    assert "abstains on the others" in caplog.text
    assert "answered 0 % of the pairs that it was last fitted to: the others" in method.notes(make_data())[0]


@pytest.mark.parametrize(("share", "is_warned"), [(0.2, True), (0.49, True), (0.5, False), (0.9, False)])
def test_a_fit_that_answers_less_than_half_is_warned_of_and_noted(share, is_warned, caplog, monkeypatch):
    monkeypatch.setattr(GamblerHead, "fit", lambda *_, **__: FittingPass(1.0, share, share))
    method = make_method(estimator="gambler")
    run(method, epochs=3)
    assert (f"answers {share:.4f} of the pairs" in caplog.text) == is_warned
    note = f"the estimator answered {100 * share:.0f} % of the pairs that it was last fitted to"
    assert method.notes(make_data())[0].startswith(note)
    assert ("the others weigh about the same" in method.notes(make_data())[0]) == is_warned


def test_what_was_answered_outlives_a_stop(tmp_path):
    run(make_method(estimator="gambler"), epochs=3, checkpoint_dir=tmp_path)
    resumed = make_method(estimator="gambler")
    assert run(resumed, epochs=3, checkpoint_dir=tmp_path).resumed_from == 3
    whole = make_method(estimator="gambler")
    run(whole, epochs=3)
    assert resumed.notes(make_data()) == whole.notes(make_data())
