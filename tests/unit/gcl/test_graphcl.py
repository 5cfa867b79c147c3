"""GraphCL and the weights on its base: the losses by hand, schedules, what is written of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gcl.errors import InvalidGraph, NotDefined
from gcl.gambler import GamblerHead
from gcl.graph_collection import GraphCollection
from gcl.losses.contrastive import info_nce_loss
from gcl.losses.progcl import BetaMixture
from gcl.methods import build_method
from gcl.methods.base import TrainingData
from gcl.methods.configs import AugclGraphConfig, GraphClConfig, ProGclGraphConfig
from gcl.trainer import train
from gcl.trainer_config import TrainConfig
from tests.method_data import NUM_FEATURES, NUM_NODES, make_data, without_edges

GIN = {"hidden_size": 16, "num_layers": 2, "temperature": 0.4}
MIXTURE = BetaMixture(1.0, 3.0, 3.0, 1.0, 0.3, -1.0, 1.0)
BATCH = torch.arange(40)


def make_method(config, seed=0):
    return build_method(config, num_features=NUM_FEATURES, seed=seed)


def make_augcl(*, seed=0, **settings):
    return make_method(AugclGraphConfig(**{**GIN, "warmup_epochs": 1, "fit_passes": 2, **settings}), seed)


def projections(method, *, epoch=0):
    data = make_data("graphcl")
    with torch.no_grad():
        return method.projected_views(data.batch(BATCH), epoch=epoch, step=0, seed=0)


def loss_of(method, *, epoch=0):
    return method.training_loss(make_data("graphcl").batch(BATCH), epoch=epoch, step=0, seed=0)["loss"]


def by_hand(u_BD, v_BD, *, weight_BB=None, with_positive=False, temperature=0.4):
    """The mean over the anchors of -log(e^s_ii / sum), entry by entry."""
    u_BD, v_BD = (z / z.norm(dim=1, keepdim=True) for z in (u_BD.double(), v_BD.double()))
    exp_BB = (u_BD @ v_BD.T / temperature).exp()
    weight_BB = torch.ones_like(exp_BB) if weight_BB is None else weight_BB.double()
    off_BB = exp_BB * weight_BB * (1 - torch.eye(len(exp_BB)))
    below_B = off_BB.sum(1) + exp_BB.diagonal() * with_positive
    return -(exp_BB.diagonal() / below_B).log().mean()


@pytest.mark.parametrize("both_directions", [False, True])
@pytest.mark.parametrize("with_positive", [False, True])
def test_loss_is_that_of_one_direction_or_the_mean_of_both(with_positive, both_directions):
    config = GraphClConfig(
        **GIN, denominator_includes_positive=with_positive, both_directions=both_directions
    )
    method = make_method(config)
    views = projections(method)
    roles = [views, views[::-1]] if both_directions else [views]
    expected = sum(by_hand(*role, with_positive=with_positive) for role in roles) / len(roles)
    assert loss_of(method).item() == pytest.approx(expected.item(), rel=1e-5)


def test_weights_of_one_with_the_positive_are_infonce():
    method = make_method(GraphClConfig(**GIN, denominator_includes_positive=True))
    expected = info_nce_loss(*projections(method), temperature=0.4, both_directions=False)
    assert loss_of(method).item() == pytest.approx(expected.item(), rel=1e-6)
    warm = make_method(AugclGraphConfig(**GIN))
    warm.load_state_dict(method.state_dict(), strict=False)
    assert loss_of(warm).item() == loss_of(method).item(), "the warm-up of AUGCL"


def test_hard_negatives_weigh_by_their_score():
    method = make_method(GraphClConfig(**GIN, hardness=1.5))
    u_BD, v_BD = projections(method)
    cosine_BB = torch.nn.functional.cosine_similarity(u_BD[:, None], v_BD[None], dim=2)
    weight_BB = (1.5 * cosine_BB / 0.4).exp()
    off_BB = 1 - torch.eye(len(weight_BB))
    weight_BB /= (weight_BB * off_BB).sum(1, keepdim=True) / (len(weight_BB) - 1)
    expected = by_hand(u_BD, v_BD, weight_BB=weight_BB)
    assert loss_of(method).item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss_of(method) > loss_of(make_method(GraphClConfig(**GIN)))


def test_progcl_weighs_by_the_mixture_relative_to_the_other_graphs():
    method = make_method(ProGclGraphConfig(**GIN, start_epoch=3))
    assert loss_of(method, epoch=2) == loss_of(method, epoch=2)
    plain = by_hand(*projections(method, epoch=3), with_positive=True)
    assert loss_of(method, epoch=3).item() == pytest.approx(plain.item(), rel=1e-5), "before the fit"
    values = [getattr(MIXTURE, name) for name in BetaMixture.__dataclass_fields__]
    method.training_state.mixture.copy_(torch.tensor(values, dtype=torch.float64))
    u_BD, v_BD = projections(method, epoch=3)
    cosine_BB = torch.nn.functional.cosine_similarity(u_BD[:, None], v_BD[None], dim=2)
    weight_BB = MIXTURE.log_weight(cosine_BB.double()).exp()
    off_BB = 1 - torch.eye(len(weight_BB))
    weight_BB /= (weight_BB * off_BB).sum(1, keepdim=True) / (len(weight_BB) - 1)
    expected = by_hand(u_BD, v_BD, weight_BB=weight_BB, with_positive=True)
    assert loss_of(method, epoch=3).item() == pytest.approx(expected.item(), rel=1e-5)
    assert expected != pytest.approx(plain.item(), rel=1e-3)


@pytest.mark.parametrize("with_diagonal", [False, True])
def test_augcl_weighs_by_abstention(with_diagonal):
    method = make_augcl(mu_includes_diagonal=with_diagonal, alpha_scale=0.5)
    u_BD, v_BD = projections(method, epoch=1)
    unit = [z / z.norm(dim=1, keepdim=True) for z in (u_BD, v_BD)]
    u_BB = method.estimator.abstention(*unit)
    off_BB = 1 - torch.eye(len(u_BB))
    mu_B1 = u_BB.mean(1, keepdim=True) if with_diagonal else (u_BB * off_BB).sum(1, keepdim=True) / 39
    expected = by_hand(u_BD, v_BD, weight_BB=0.5 * u_BB / mu_B1, with_positive=True)
    assert loss_of(method, epoch=1).item() == pytest.approx(expected.item(), rel=1e-5)
    loss_of(method, epoch=1).backward()
    assert all(parameter.grad is None for parameter in method.estimator.parameters())


@pytest.mark.parametrize(("refresh_every", "expected"), [(0, [(1, 2)]), (2, [(1, 2), (3, 1), (5, 1)])])
def test_the_estimator_is_fitted_when_the_warm_up_ends_and_refreshed(refresh_every, expected, monkeypatch):
    method = make_augcl(warmup_epochs=2, refresh_every=refresh_every, refresh_passes=1)
    fits: list[tuple[int, int]] = []
    whole = type(method)._fit

    def counted(self, data, num_passes, *, epoch, seed):
        fits.append((epoch, num_passes))
        before = [p.clone() for p in self.encoder.parameters()], [b.clone() for b in self.encoder.buffers()]
        whole(self, data, num_passes, epoch=epoch, seed=seed)
        after = list(self.encoder.parameters()), list(self.encoder.buffers())
        assert all(
            torch.equal(a, b)
            for one, two in zip(before, after, strict=True)
            for a, b in zip(one, two, strict=True)
        )

    monkeypatch.setattr(type(method), "_fit", counted)
    train(method, make_data("graphcl"), TrainConfig(epochs=6, batch_size=64), seed=0)
    assert fits == expected


@pytest.mark.parametrize("statistics", ["batch", "running"])
@pytest.mark.parametrize(
    "config",
    [AugclGraphConfig(**GIN, warmup_epochs=2, fit_passes=1), ProGclGraphConfig(**GIN, start_epoch=2)],
    ids=lambda config: config.name,
)
def test_what_is_fitted_to_is_what_a_step_of_training_projects(config, statistics, monkeypatch):
    method, data = make_method(config.model_copy(update={"fit_statistics": statistics})), make_data("graphcl")
    train(method, data, TrainConfig(epochs=1, batch_size=64, learning_rate=0.05), seed=0)
    seen, whole = [], method.projected

    def projected(graphs):
        seen.append((graphs, whole(graphs)))
        return seen[-1][1]

    monkeypatch.setattr(method, "projected", projected)
    buffers = [buffer.clone() for buffer in method.encoder.buffers()]
    method.eval()
    method.after_epoch(data, epoch=1, seed=0)
    method.negative_weights(data, np.arange(2), np.array([[3], [4]]), seed=0)
    assert not method.training
    assert all(torch.equal(a, b) for a, b in zip(buffers, method.encoder.buffers(), strict=True))
    method.train()
    with torch.no_grad():
        same = [torch.equal(whole(graphs), found) for graphs, found in seen]
    assert len(same) == 3
    assert set(same) == {statistics == "batch"}


def test_a_pass_of_the_estimator_sees_all_pairs_of_each_batch(monkeypatch):
    seen = []

    def fit(self, anchor_AD, candidate_MD, label_AM, **settings):
        seen.append((label_AM.shape, bool(label_AM.diagonal().all()), settings["reward"]))
        return whole(self, anchor_AD, candidate_MD, label_AM, **settings)

    whole = GamblerHead.fit
    monkeypatch.setattr(GamblerHead, "fit", fit)
    monkeypatch.setattr("gcl.methods.graphcl_augcl.FIT_BATCH", 50)
    method = make_augcl(pretrain_passes=1)
    method.after_epoch(make_data("graphcl"), epoch=0, seed=0)
    assert [shape for shape, _, _ in seen] == [(50, 50), (40, 40)] * 3
    assert all(positive for _, positive, _ in seen), "a graph is of its own kind"
    assert [reward for _, _, reward in seen] == [None, None, 1.9, 1.9, 1.9, 1.9]


def test_closed_forms_have_no_network_and_need_no_fit():
    method = make_augcl(estimator="analytic")
    assert method.estimator is None
    train(method, make_data("graphcl"), TrainConfig(epochs=2, batch_size=64), seed=0)
    assert torch.isfinite(loss_of(method, epoch=1))


@pytest.mark.parametrize("both_sides", [False, True])
def test_the_first_view_is_the_graph_unless_both_are_fresh(both_sides):
    method = make_method(GraphClConfig(**GIN, fresh_view_both_sides=both_sides))
    data = make_data("graphcl")
    first, _ = projections(method)
    with torch.no_grad():
        whole = method.projected(data.collection.take(BATCH.numpy()))
    assert torch.equal(first, whole) != both_sides


def test_views_differ_by_epoch_step_and_seed():
    method, data = make_method(GraphClConfig(**GIN)), make_data("graphcl")
    losses = {
        method.training_loss(data.batch(BATCH), epoch=epoch, step=step, seed=seed)["loss"].item()
        for epoch, step, seed in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    }
    assert len(losses) == 4


@pytest.mark.parametrize("same_batches", [False, True])
def test_graphs_are_shuffled_anew_or_once(same_batches):
    method, data = make_method(GraphClConfig(**GIN, same_batches=same_batches)), make_data("graphcl")
    first, second = (
        [rows.tolist() for rows in method.epoch_batches(data, epoch=epoch, seed=0, batch_size=50)]
        for epoch in (0, 1)
    )
    assert (first == second) == same_batches
    assert sorted(sum(first, [])) == list(range(NUM_NODES))


@pytest.mark.parametrize(("same_batches", "sizes"), [(False, [44, 44]), (True, [44, 44, 2])])
def test_a_short_last_batch_is_kept_where_it_would_be_the_same_one_again(same_batches, sizes):
    method, data = make_method(GraphClConfig(**GIN, same_batches=same_batches)), make_data("graphcl")
    batches = method.epoch_batches(data, epoch=3, seed=0, batch_size=44)
    assert [len(rows) for rows in batches] == sizes
    alone = method.epoch_batches(data, epoch=3, seed=0, batch_size=NUM_NODES - 1)
    assert [len(rows) for rows in alone] == [NUM_NODES - 1], "one graph has no negatives"


@pytest.mark.parametrize(
    "config",
    [
        GraphClConfig(**GIN, same_batches=True, hardness=1.0),
        AugclGraphConfig(**GIN, same_batches=True, warmup_epochs=1, fit_passes=1),
        ProGclGraphConfig(**GIN, same_batches=True, start_epoch=1),
    ],
)
def test_a_last_batch_of_two_graphs_is_trained_on(config):
    method = make_method(config)
    result = train(
        method, make_data("graphcl"), TrainConfig(epochs=3, batch_size=44, learning_rate=0.01), seed=0
    )
    assert np.isfinite(method.embed(make_data("graphcl"))).all()
    assert np.isfinite([epoch["loss"] for epoch in result.history]).all()


@pytest.mark.parametrize(
    ("field", "error", "match"),
    [
        ("weight_E", NotDefined, "edge weights"),
        ("is_undirected", NotDefined, "directed graphs"),
        ("x_NF", InvalidGraph, "features_finite .* node 0 of graph 0"),
    ],
)
def test_weights_directions_and_features_that_are_not_finite_are_refused(field, error, match):
    collection = make_data("graphcl").collection
    spoilt = {
        "weight_E": np.full(collection.union.num_edges, 2, np.float32),
        "x_NF": np.full(collection.union.x_NF.shape, np.nan, np.float32),
        "is_undirected": False,
    }
    union = replace(collection.union, **{field: spoilt[field]})
    data = TrainingData(NUM_NODES, collection=GraphCollection(NUM_NODES, union, collection.graph_N))
    method = make_method(GraphClConfig(**GIN))
    with pytest.raises(error, match=match):
        method.check(data)
    with pytest.raises(error, match=match):
        train(method, data, TrainConfig(epochs=1), seed=0)


@pytest.mark.parametrize(
    "config",
    [
        AugclGraphConfig(**GIN, warmup_epochs=1, fit_passes=1),
        AugclGraphConfig(**GIN, warmup_epochs=1, estimator="analytic"),
        AugclGraphConfig(**GIN, warmup_epochs=1, estimator="distance"),
        ProGclGraphConfig(**GIN, start_epoch=1),
        GraphClConfig(**GIN, hardness=1.0),
    ],
    ids=lambda config: f"{config.name}-{getattr(config, 'estimator', '')}",
)
def test_pair_weights_average_one_over_all_graphs(config):
    method, data = make_method(config), make_data("graphcl")
    anchors_A = np.arange(5)
    others_AM = np.stack([np.delete(np.arange(NUM_NODES), anchor) for anchor in anchors_A])
    if config.name != "graphcl":
        assert method.negative_weights(data, anchors_A, others_AM, seed=0) is None
    train(method, data, TrainConfig(epochs=2, batch_size=64), seed=0)
    pairs = method.negative_weights(data, anchors_A, others_AM, seed=0)
    assert pairs.weight_AM.mean(1) == pytest.approx(np.ones(5), rel=0.06)  # mu counts the positive, too
    h_GD = method.projections_of_all(data, getattr(config, "fit_statistics", "running"))
    assert pairs.similarity_AM[1, 0] == pytest.approx((h_GD[1] @ h_GD[0]).item(), abs=1e-5)


def test_uniform_weights_are_not_written():
    method = make_method(GraphClConfig(**GIN))
    assert method.negative_weights(make_data("graphcl"), np.arange(2), np.array([[3], [4]]), seed=0) is None


@pytest.mark.parametrize(("epochs", "when"), [(1, "before"), (2, "at"), (3, None)])
@pytest.mark.parametrize("name", ["augcl_graph", "progcl_graph"])
def test_notes_say_that_nothing_was_weighted(name, epochs, when, caplog):
    config = {
        "augcl_graph": AugclGraphConfig(**GIN, warmup_epochs=2, fit_passes=1),
        "progcl_graph": ProGclGraphConfig(**GIN, start_epoch=2),
    }[name]
    method = make_method(config)
    caplog.set_level("INFO")
    told = []

    def on_epoch(report):
        told.append(caplog.text)

    train(method, make_data("graphcl"), TrainConfig(epochs=epochs, batch_size=64), seed=0, on_epoch=on_epoch)
    assert "negatives are weighted from epoch 3 on" in told[0]
    assert "with train.epochs=2 or less they never are" in told[0]
    found = [note for note in method.notes(make_data("graphcl")) if "not weighted" in note]
    assert len(found) == (when is not None)
    assert when is None or f"training ended {when}" in found[0]


def test_embeddings_are_sums_over_nodes_without_the_projector():
    method, data = make_method(GraphClConfig(**GIN)), make_data("graphcl")
    z_GD = method.embed(data)
    assert z_GD.shape == (NUM_NODES, 32)
    with torch.no_grad():
        for parameter in method.projector.parameters():
            parameter.zero_()
    assert np.array_equal(method.embed(data), z_GD)
    unit = make_method(GraphClConfig(**GIN, output="l2")).embed(data)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-5)


def test_released_self_loops_count_in_embeddings_too():
    data = make_data("graphcl")
    plain, released = (make_method(GraphClConfig(**GIN, bug_compat=flag)).embed(data) for flag in (0, 1))
    assert not np.allclose(plain, released)
    bare = without_edges(data)
    plain, released = (make_method(GraphClConfig(**GIN, bug_compat=flag)).embed(bare) for flag in (0, 1))
    assert np.array_equal(plain, released), "loops go to nodes with an edge"


def test_one_graph_and_no_features_are_not_defined():
    one = make_data("graphcl").collection.take(np.array([0]))
    with pytest.raises(NotDefined, match="graphcl needs at least 2 graphs, not 1"):
        train(
            make_method(GraphClConfig(**GIN)), TrainingData(1, collection=one), TrainConfig(epochs=1), seed=0
        )
    with pytest.raises(NotDefined, match="reads a collection of graphs, and these data are one graph"):
        train(make_method(GraphClConfig(**GIN)), TrainingData(9), TrainConfig(epochs=1), seed=0)
    with pytest.raises(NotDefined, match=r"node features: set dataset\.node_features"):
        build_method(GraphClConfig(**GIN), num_features=0, seed=0)


def test_input_readout_puts_the_sums_of_features_before_the_layers():
    data = make_data("graphcl")
    plain, with_input = (make_method(GraphClConfig(**GIN, input_readout=wanted)) for wanted in (False, True))
    z_GD, both_GD = plain.embed(data), with_input.embed(data)
    x_NF, graph_N = data.collection.union.x_NF, data.collection.graph_N
    sums_GF = np.zeros((data.collection.num_graphs, NUM_FEATURES))
    np.add.at(sums_GF, graph_N, x_NF)
    np.testing.assert_allclose(both_GD[:, :NUM_FEATURES], sums_GF, rtol=1e-5, atol=1e-5)
    assert np.array_equal(both_GD[:, NUM_FEATURES:], z_GD)
    assert with_input.embed_view(data, view=0, seed=0).shape == both_GD.shape
    assert loss_of(plain) == loss_of(with_input)  # the contrast sees the layers alone
    assert any(f"the {NUM_FEATURES} node features and 2 layers" in note for note in with_input.notes(data))
