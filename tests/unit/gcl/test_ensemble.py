"""An ensemble is its members: trained together or one by one, they come out alike."""

import weakref

import numpy as np
import pytest
import torch

from gcl.errors import NonFiniteLoss
from gcl.graph import Graph
from gcl.methods import build_method, method_class
from gcl.methods.base import PairWeights, TrainingData, TrainingSize
from gcl.methods.configs import DmatIConfig, GraceConfig, HsanConfig, NmlGclConfig, ProGclConfig
from gcl.methods.ensemble import ensemble_class, member_seed
from gcl.trainer import train
from gcl.trainer_config import TrainConfig

GCN = {"hidden_size": 7, "embedding_size": 6}
SETTINGS = {
    "dmat_i": DmatIConfig(embedding_size=6),
    "nml_gcl": NmlGclConfig(**GCN, metric_hidden_size=5, metric_size=4),
    "progcl": ProGclConfig(**GCN, projection_size=5, start_epoch=1),
}
TRAIN = TrainConfig(epochs=3, batch_size=80, learning_rate=1e-2, weight_decay=1e-2)


def make_data(config):
    generator = np.random.default_rng(0)
    x_NF = generator.normal(size=(80, 9)).astype(np.float32)
    upper = np.triu(generator.random((80, 80)) < 0.06, 1)
    graph = Graph(80, *np.nonzero(upper | upper.T), x_NF)
    return TrainingData(80, x_NF if config.inputs == "smoothed" else None, graph)


def trained(config, seed):
    method, data = build_method(config, num_features=9, seed=seed), make_data(config)
    train(method, data, TRAIN, seed=seed)
    return method, method.embed(data)


@pytest.mark.parametrize("name", ["nml_gcl", "progcl"])
def test_members_come_out_as_if_trained_alone(name):
    """Of methods without shuffled batches, which members share."""
    config = SETTINGS[name]
    ensemble, z_ND = trained(config.model_copy(update={"num_encoders": 3}), seed=4)
    for number in range(3):
        alone, own_ND = trained(config, member_seed(4, number))
        assert np.array_equal(z_ND[:, 6 * number : 6 * (number + 1)], own_ND)
        for key, value in alone.state_dict().items():
            assert torch.equal(ensemble.state_dict()[f"members.{number}.{key}"], value), key


def test_first_member_is_the_method_itself_to_the_bit():
    config = SETTINGS["dmat_i"]
    _, z_ND = trained(config.model_copy(update={"num_encoders": 2}), seed=1)
    _, own_ND = trained(config, seed=1)
    assert np.array_equal(z_ND[:, :6], own_ND)
    assert not np.array_equal(z_ND[:, 6:], own_ND)


def test_weights_of_pairs_are_means_over_members_and_notes_say_how_many():
    config = SETTINGS["progcl"].model_copy(update={"num_encoders": 2})
    method, _ = trained(config, seed=0)
    data, anchors, candidates = make_data(config), np.arange(5), np.arange(5)[:, None] + 1
    found = method.negative_weights(data, anchors, candidates, seed=0)
    parts = [
        member.negative_weights(data, anchors, candidates, seed=member_seed(0, number)).weight_AM
        for number, member in enumerate(method.members)
    ]
    np.testing.assert_allclose(found.weight_AM, np.mean(parts, axis=0), rtol=1e-6)
    assert method.notes(data)[0] == "2 encoders side by side"


def test_mean_similarities_may_reach_as_far_as_the_freest_members(monkeypatch):
    config = SETTINGS["progcl"].model_copy(update={"num_encoders": 3})
    method = build_method(config, num_features=9, seed=0)
    for member, bound in zip(method.members, (1.0, 2.0, 1.5), strict=True):
        pairs = PairWeights(np.full((1, 1), bound), np.ones((1, 1)), bound)
        monkeypatch.setattr(member, "negative_weights", lambda *_, pairs=pairs, **__: pairs)
    found = method.negative_weights(make_data(config), np.arange(1), np.ones((1, 1), int), seed=0)
    assert (found.similarity_AM.item(), found.bound) == (1.5, 2.0)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("hsan", {"structure encoders", "weights of pairs"}),
        ("grace", {"the graph and its views"}),
        ("dmat_i", {"weights"}),
    ],
)
def test_memory_of_members_counts_what_each_keeps(name, kept):
    """Measured: three more of HSAN's take 1.0 GB on 3,000 nodes, three more of GRACE's 0.15 GB."""
    config = SETTINGS.get(name) or {"hsan": HsanConfig(), "grace": GraceConfig()}[name]
    size = TrainingSize(num_nodes=3000, num_edges=60_000, num_features=64, batch_size=512)
    member = method_class(name)
    one = member.memory_estimate(config, size)
    four = ensemble_class(member).memory_estimate(config.model_copy(update={"num_encoders": 4}), size)
    assert {what: four[what] / one[what] for what in one} == {what: 4 if what in kept else 1 for what in one}


def test_loss_is_the_members_sum_and_the_rest_their_mean():
    config = SETTINGS["progcl"].model_copy(update={"num_encoders": 2})
    ensemble = build_method(config, num_features=9, seed=4)
    history = train(ensemble, make_data(config), TRAIN, seed=4).history
    alone = []
    for number in range(2):
        own = member_seed(4, number)
        method = build_method(SETTINGS["progcl"], num_features=9, seed=own)
        alone.append(train(method, make_data(config), TRAIN, seed=own).history)
    for epoch, terms in enumerate(history):
        losses, cosines = ([own[epoch][name] for own in alone] for name in ("loss", "positive_similarity"))
        assert terms["loss"] == pytest.approx(sum(losses), rel=1e-6)
        assert terms["positive_similarity"] == pytest.approx(sum(cosines) / 2, rel=1e-6)


def watched_losses(ensemble, monkeypatch, change=lambda number, terms: terms):
    """How many terms of earlier members lived, and with them their graphs, when each member began."""
    made, alive = [], []
    for number, member in enumerate(ensemble.members):

        def training_loss(batch, *, number=number, own=member.training_loss, **counters):
            alive.append(sum(term() is not None for term in made))
            terms = change(number, own(batch, **counters))
            made.extend(map(weakref.ref, terms.values()))
            return terms

        monkeypatch.setattr(member, "training_loss", training_loss)
    return alive


def test_graph_of_a_member_is_gone_before_the_next_is_made(monkeypatch):
    config = SETTINGS["nml_gcl"].model_copy(update={"num_encoders": 3})
    ensemble = build_method(config, num_features=9, seed=0)
    alive = watched_losses(ensemble, monkeypatch)
    train(ensemble, make_data(config), TRAIN, seed=0)
    assert len(alive) == 3 * TRAIN.epochs * (config.metric_steps + 1)
    assert set(alive) == {0}


def test_no_member_moves_when_the_loss_of_one_is_not_finite(monkeypatch):
    config = SETTINGS["progcl"].model_copy(update={"num_encoders": 3})
    ensemble = build_method(config, num_features=9, seed=0)
    before = {name: value.clone() for name, value in ensemble.state_dict().items()}

    def spoiled(number, terms):
        return {**terms, "loss": terms["loss"] * torch.nan} if number == 1 else terms

    watched_losses(ensemble, monkeypatch, spoiled)
    with pytest.raises(NonFiniteLoss):
        train(ensemble, make_data(config), TRAIN, seed=0)
    for name, value in ensemble.state_dict().items():
        assert torch.equal(value, before[name]), name
