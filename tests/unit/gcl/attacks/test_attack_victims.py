import copy
import dataclasses
import math

import pytest
import torch
from torch.nn import functional

from gcl.attacks import victim as module
from gcl.attacks.components import ComponentsConfig, generate
from gcl.attacks.padded import PaddedGraphs
from gcl.attacks.structure2vec import GraphClassifier, Structure2Vec, pooled
from gcl.attacks.victim import build_victim, kept_nodes, logits_of, train_victim
from gcl.attacks.victim_config import VictimConfig
from gcl.errors import NonFiniteLoss, UnsuitableSetting
from gcl.gambler import FittingPass, GamblerHead
from tasks.robustness_victim import _notes

TINY = ComponentsConfig(graphs_per_class=60)
TRIANGLE_AND_PAIR = (5, [(0, 1), (1, 2), (0, 2), (3, 4)])
PATH = (3, [(0, 1), (1, 2)])


@pytest.fixture(scope="module")
def graphs():
    return generate(TINY)


def settings(**changed):
    plain = {"epochs": 6, "contrastive_share": 0.4, "num_rounds": 2, "fit_passes": 2}
    return VictimConfig(**{"graphs": TINY, **plain, **changed})


def classifier(num_rounds=3):
    draws = torch.Generator().manual_seed(0)
    return GraphClassifier(
        embedding_size=8, num_rounds=num_rounds, hidden_size=5, num_classes=3, generator=draws
    ).double()


def test_padded_graphs_are_the_graphs(padded):
    graphs = padded(TRIANGLE_AND_PAIR, PATH)
    assert graphs.size_G.tolist() == [5, 3]
    assert graphs.adjacency_GNN[0].nonzero().tolist() == [
        [0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1], [3, 4], [4, 3]
    ]  # fmt: skip
    assert graphs.adjacency_GNN[1].nonzero().tolist() == [[0, 1], [1, 0], [1, 2], [2, 1]]
    assert graphs.component_GN[0].diff().ne(0).tolist() == [False, False, True, False]
    assert graphs.component_GN[1].tolist()[3:] == [-1, -1]
    assert graphs.x_GN1()[..., 0].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]


def test_directed_graphs_are_refused(padded):
    from tests.unit.gcl.attacks.conftest import collection_of

    directed = collection_of(PATH)
    union = dataclasses.replace(directed.union, is_undirected=False)
    with pytest.raises(ValueError, match="make the graphs undirected first"):
        PaddedGraphs.of(dataclasses.replace(directed, union=union))


def test_embedding_equals_the_recursion_node_by_node(padded):
    graphs = padded(TRIANGLE_AND_PAIR)
    encoder = classifier().encoder
    own = encoder.own_FD[0]
    neighbours = [[1, 2], [0, 2], [0, 1], [4], [3]]
    h = [own.relu()] * 5
    for _ in range(3):
        h = [(sum(h[v] for v in near) @ encoder.message_DD + own).relu() for near in neighbours]
    found = encoder(graphs.adjacency_GNN.double(), graphs.x_GN1(torch.float64))
    assert torch.allclose(found[0], sum(h).relu(), rtol=1e-12)


def test_padding_and_order_of_nodes_change_nothing(padded):
    model = classifier()
    alone, beside = padded(PATH), padded(TRIANGLE_AND_PAIR, (3, [(0, 2), (0, 1)]))
    one = model(alone.adjacency_GNN.double(), alone.x_GN1(torch.float64))
    two = model(beside.adjacency_GNN.double(), beside.x_GN1(torch.float64))
    assert torch.allclose(one[0], two[1], rtol=1e-12)


def test_rounds_share_their_weight():
    assert [p.shape for p in classifier(4).encoder.parameters()] == [(1, 8), (8, 8)]
    draws = torch.Generator().manual_seed(0)
    encoder = Structure2Vec(2, embedding_size=4, num_rounds=1, generator=draws)
    assert pooled(encoder.nodes(torch.zeros(1, 3, 3), torch.ones(1, 3, 2))).shape == (1, 4)


def test_views_lack_a_fifth_of_the_nodes_rounded_down_uniformly(padded):
    graphs = padded(*[(11, [(0, 1)]), (4, [(0, 1)])] * 2000)
    kept_GN = kept_nodes(graphs, 0.2, torch.Generator().manual_seed(0))
    assert kept_GN.sum(1).tolist() == [9, 4] * 2000
    assert not (kept_GN & ~graphs.is_node_GN).any()
    lost_N = (~kept_GN[::2]).sum(0)
    assert (lost_N - 2000 * 2 / 11).abs().max() < 5 * (2000 * 2 / 11) ** 0.5


@pytest.mark.parametrize("training", ["scratch", "graphcl", "augcl"])
def test_training_is_a_function_of_settings_and_seed(graphs, training):
    one, same, other = (train_victim(settings(training=training), graphs, seed=s) for s in (0, 0, 1))
    assert one.history == same.history
    assert one.history != other.history
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, same.model.state_dict()[name])


def test_global_generator_and_number_of_threads_play_no_part(graphs):
    before, threads, seen = torch.get_rng_state(), torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        train_victim(settings(), graphs, seed=0, on_epoch=lambda *_: seen.append(torch.get_num_threads()))
    finally:
        torch.set_num_threads(threads)
    assert set(seen) == {1}
    assert torch.equal(torch.get_rng_state(), before)


def test_epochs_are_equally_many_and_the_phases_follow_each_other(graphs):
    plain = {"epochs": 8, "contrastive_share": 0.5}
    found = {
        name: train_victim(settings(training=name, **plain), graphs, seed=0).history
        for name in ("scratch", "graphcl", "augcl")
    }
    assert [len(history) for history in found.values()] == [8, 8, 8]
    losses = {name: [row["loss"] for row in history] for name, history in found.items()}
    assert losses["graphcl"][:2] == losses["augcl"][:2], "the first half is GraphCL"
    assert losses["graphcl"][2] != losses["augcl"][2], "the second is weighted"
    assert losses["scratch"][0] != losses["graphcl"][0]
    assert [settings(training=name, **plain).contrastive_epochs for name in found] == [0, 4, 4]


def test_weights_of_the_weighted_half_average_one_and_differ(graphs):
    training = module._Training(settings(training="augcl"), graphs, 0)
    training.estimator = training._fitted_estimator()
    views = training._views(torch.arange(40), torch.Generator().manual_seed(0))
    weight = training._log_weights(*views).log_weight_AM.exp()
    assert torch.allclose(weight.mean(1), torch.ones(40), atol=1e-5)
    assert weight.std() > 0.01
    assert not weight.requires_grad


def test_contrastive_loss_is_that_of_graphcl(graphs, monkeypatch):
    """One direction, cosine over temperature, the positive not in its own denominator."""
    training = module._Training(settings(training="graphcl", batch_size=162), graphs, 0)
    losses = []
    monkeypatch.setattr(training, "_step", lambda loss, epoch: losses.append(loss.item()) or 0.0)
    training._contrastive_epoch(0)
    (batch,) = training._batches(module.torch_generator(0, "order", 0))
    own, other = training._views(batch, module.torch_generator(0, "views", 0))
    score = functional.normalize(own) @ functional.normalize(other).T / 0.5
    negatives = score.masked_fill(torch.eye(162, dtype=torch.bool), -torch.inf)
    assert losses[0] == pytest.approx((negatives.logsumexp(1) - score.diagonal()).mean().item(), rel=1e-5)


@pytest.mark.parametrize("selection", ["validation", "test"])
def test_the_epoch_with_the_lowest_selection_loss_is_kept(graphs, selection):
    config = settings(selection=selection, learning_rate=0.03, epochs=12, training="graphcl")
    found = train_victim(config, graphs, seed=0)
    losses = [row[f"{selection}_loss"] for row in found.history[config.contrastive_epochs :]]
    assert found.epoch == config.contrastive_epochs + 1 + losses.index(min(losses))
    part = getattr(graphs, selection)
    logit_GC = logits_of(found.model, PaddedGraphs.of(part.graphs))
    kept = functional.cross_entropy(logit_GC, torch.from_numpy(part.y_G))
    assert kept.item() == pytest.approx(min(losses), rel=1e-5)


def test_contrastive_epochs_are_not_kept_however_low_their_loss(graphs, monkeypatch):
    losses = iter(range(10))
    monkeypatch.setattr(module._Training, "_judged", lambda self: {"validation_loss": float(next(losses))})
    config = settings(training="graphcl", contrastive_share=0.5)
    assert train_victim(config, graphs, seed=0).epoch == config.contrastive_epochs + 1 == 4


def test_test_graphs_are_not_looked_at_unless_asked_for(graphs):
    blind = dataclasses.replace(graphs, test=None)
    found = train_victim(settings(), blind, seed=0)
    assert set(found.history[0]) == {"loss", "validation_loss", "validation_accuracy"}


def test_a_victim_learns(graphs):
    found = train_victim(settings(epochs=25), graphs, seed=0)
    assert found.history[-1]["loss"] < 0.7 * math.log(3)  # of equal scores


def test_progress_is_told_epoch_by_epoch(graphs):
    told = []
    found = train_victim(
        settings(), graphs, seed=0, on_epoch=lambda epoch, terms: told.append((epoch, terms))
    )
    assert told == list(enumerate(found.history, 1))


def test_a_batch_that_cannot_be_filled_is_refused(graphs):
    with pytest.raises(
        ValueError, match="162 training graphs do not fill a batch of 163: set batch_size lower"
    ):
        settings(batch_size=163)
    assert settings(batch_size=162).graphs.num_train == len(graphs.train.y_G) == 162
    with pytest.raises(UnsuitableSetting, match="162 training graphs do not fill a batch of 163"):
        train_victim(settings(batch_size=163, graphs=ComponentsConfig()), graphs, seed=0)


@pytest.mark.parametrize(
    ("training", "epochs", "share", "fits"),
    [
        ("scratch", 1, 0.1, True),
        ("graphcl", 1, 0.1, False),
        ("graphcl", 2, 0.1, True),
        ("augcl", 2, 0.9, False),
        ("augcl", 10, 0.1, False),
        ("augcl", 20, 0.1, True),
        ("augcl", 3, 0.9, True),
    ],
)
def test_epochs_must_do_for_every_phase(training, epochs, share, fits):
    given = {"training": training, "epochs": epochs, "contrastive_share": share}
    if fits:
        config = settings(**given)
        assert config.contrastive_epochs < epochs
        assert training != "augcl" or 1 <= config.plain_epochs < config.contrastive_epochs
        return
    with pytest.raises(
        ValueError, match=f"training={training} needs . contrastive epochs .* epochs={epochs} "
    ):
        settings(**given)


def test_the_share_that_the_estimator_answers_is_told(graphs, monkeypatch, caplog):
    assert train_victim(settings(training="graphcl"), graphs, seed=0).answered_share is None
    assert 0 <= train_victim(settings(training="augcl"), graphs, seed=0).answered_share <= 1
    monkeypatch.setattr(GamblerHead, "fit", lambda *_, **__: FittingPass(1.0, 0.2, 0.2))
    config = settings(training="augcl")
    found = train_victim(config, graphs, seed=0)
    assert "answers 0.2000 of the pairs" in caplog.text
    assert _notes(config, found) == [
        "K=2 augcl: the estimator answered 20 % of the pairs that it was last fitted to: the others weigh "
        "about the same"
    ]


def test_no_graphs_have_no_logits(padded):
    none = padded(PATH).take(torch.arange(0))
    assert logits_of(classifier().float(), none).shape == (0, 3)


def test_divergence_ends_the_training(graphs, monkeypatch):
    built = copy.deepcopy(build_victim(settings(), seed=0))
    with torch.no_grad():
        built.encoder.own_FD.fill_(float("nan"))
    monkeypatch.setattr(module, "build_victim", lambda config, *, seed: built)
    with pytest.raises(NonFiniteLoss, match="loss is not finite in epoch 1"):
        train_victim(settings(), graphs, seed=0)
