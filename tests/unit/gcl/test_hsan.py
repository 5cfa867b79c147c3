import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from gcl.clustering.geometry import squared_distance
from gcl.clustering.kmeans import fit_kmeans
from gcl.clustering.legacy_kmeans import fit_legacy_kmeans
from gcl.clustering.partition import adjusted_rand_index
from gcl.errors import TrainingInterrupted, UnsuitableSetting
from gcl.graph import Graph
from gcl.losses.hsan import VIEW_PAIRS
from gcl.losses.hsan_weights import confident_nodes
from gcl.methods.base import TrainingData
from gcl.methods.configs.hsan import HsanConfig
from gcl.methods.hsan import Hsan
from gcl.random import derive_seed
from gcl.trainer import train
from gcl.trainer_config import TrainConfig

NUM_NODES, NUM_FEATURES, NUM_CLUSTERS = 40, 6, 3
SMALL = {"embedding_size": 12, "num_clusters": NUM_CLUSTERS, "confident_rate": 0.6, "focus_power": 2.0}
SETTINGS = {
    "paper": SMALL,
    "released": {**SMALL, "semantics": "released"},
    "wide": {**SMALL, "embedding_size": 5},
    "sigmoid": {**SMALL, "activation": "sigmoid"},
    "recomputed": {**SMALL, "kept_weights_bytes": 0},
}
every_setting = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())


def make_data(num_nodes=NUM_NODES, num_features=NUM_FEATURES, seed=5):
    rng = np.random.default_rng(seed)
    y_N = rng.integers(0, NUM_CLUSTERS, num_nodes)
    centres = 2 * rng.normal(size=(NUM_CLUSTERS, num_features))
    x_NF = (centres[y_N] + rng.normal(size=(num_nodes, num_features))).astype(np.float32)
    adjacency = rng.random((num_nodes, num_nodes)) < 0.15  # directed, with self-loops
    src_E, dst_E = np.nonzero(adjacency)
    return TrainingData(num_nodes, x_NF, Graph(num_nodes, src_E, dst_E, x_NF, is_undirected=False))


def make_method(settings=SMALL, seed=0, num_nodes=NUM_NODES, **changes):
    return Hsan(
        HsanConfig(**{**settings, **changes}),
        num_features=NUM_FEATURES,
        num_classes=None,
        num_nodes=num_nodes,
        seed=seed,
    )


def loss_of(method, data, rows=None):
    rows = torch.arange(data.num_nodes) if rows is None else rows
    return method.training_loss(data.batch(rows), epoch=0, step=0, seed=0)["loss"]


def refreshed(settings=SMALL, data=None, epoch=0):
    method, data = make_method(settings), data or make_data()
    method.after_epoch(data, epoch=epoch, seed=0)
    return method, data


def dense_similarity(method, data, weights=None):
    weights = weights or dict(method.named_parameters())
    z, e = [], []
    for v in (0, 1):
        x_NF = torch.from_numpy(data.x_NF)
        z_ND = x_NF @ weights[f"attribute_encoders.{v}.weight"].T + weights[f"attribute_encoders.{v}.bias"]
        z.append(normalize(z_ND.sigmoid() if method.config.activation == "sigmoid" else z_ND))
        adjacency_NN = torch.from_numpy(data.graph.adjacency_NN().toarray())
        e_ND = adjacency_NN @ weights[f"structure_encoders.{v}.weight_ND"]
        e.append(normalize(e_ND + weights[f"structure_encoders.{v}.bias_D"]))
    z, e = torch.cat(z), torch.cat(e)
    return weights["alpha"] * z @ z.T + (1 - weights["alpha"]) * e @ e.T


def dense_weights(method, data):
    state = method.training_state
    similarity = dense_similarity(method, data, state.frozen_parameters())
    scaled = (similarity - similarity.min()) / (similarity.max() - similarity.min())
    cluster, confident = state.cluster_N.repeat(2), state.is_confident_N.repeat(2)
    weight = ((cluster[:, None] == cluster).float() - scaled).abs() ** method.config.focus_power
    return torch.where(confident[:, None] & confident, weight, torch.ones_like(weight))


def dense_loss(similarity, weight):
    logit = weight * similarity
    num_nodes = len(logit) // 2
    outside = logit.masked_fill(torch.eye(len(logit), dtype=torch.bool), -torch.inf)
    positive = torch.cat([logit.diagonal(num_nodes), logit.diagonal(-num_nodes)])
    return (outside.logsumexp(1) - positive).mean()


def states(method):
    return {name: value.clone() for name, value in method.state_dict().items()}


@every_setting
def test_loss_before_the_first_refresh_is_unweighted(settings):
    method, data = make_method(settings), make_data()
    similarity = dense_similarity(method, data)
    expected = dense_loss(similarity, torch.ones_like(similarity))
    assert loss_of(method, data).item() == pytest.approx(expected.item(), abs=2e-6)


@every_setting
def test_loss_after_a_refresh_is_weighted_by_what_the_refresh_froze(settings):
    method, data = refreshed(settings)
    weight = dense_weights(method, data)
    with torch.no_grad():  # the weights of pairs must not follow
        for parameter in method.parameters():
            parameter.mul_(1.1).add_(0.01)
    expected = dense_loss(dense_similarity(method, data), weight)
    loss = loss_of(method, data)
    assert loss.item() == pytest.approx(expected.item(), abs=2e-6)
    found, wanted = (torch.autograd.grad(value, list(method.parameters())) for value in (loss, expected))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@every_setting
def test_gradient_reaches_every_parameter(settings):
    method, data = refreshed(settings)
    loss_of(method, data).backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_refresh_comes_every_ten_epochs_starting_with_the_first():
    method, data = make_method(), make_data()
    happened = []
    for epoch in range(22):
        method.training_state.is_pending.fill_(False)
        method.after_epoch(data, epoch=epoch, seed=0)
        if method.training_state.is_pending:
            happened.append(epoch)
    assert happened == [0, 10, 20]


@pytest.mark.parametrize("semantics", ["paper", "released"])
def test_refresh_clusters_the_fused_embedding_with_the_weights_of_the_moment(semantics):
    method, data = make_method(semantics=semantics), make_data()
    train(method, data, TrainConfig(epochs=11, learning_rate=1e-2), seed=0)
    state, z_ND, seed = method.training_state, method.embed(data), derive_seed(0, "refresh", 10)
    if semantics == "paper":
        fit = fit_kmeans(z_ND, NUM_CLUSTERS, seeds=[seed], num_restarts=10)[0]
    else:
        fit = fit_legacy_kmeans(z_ND, NUM_CLUSTERS, seed=seed)
    np.testing.assert_array_equal(state.cluster_N.numpy(), fit.cluster_N)
    expected_N = confident_nodes(squared_distance(z_ND, fit.centroid_KD), kept_rate=0.6)
    np.testing.assert_array_equal(state.is_confident_N.numpy(), expected_N)
    for name, parameter in method.named_parameters():
        assert torch.equal(state.frozen_parameters()[name], parameter)


def test_embedding_is_the_mean_of_both_views_and_not_normalised():
    method, data = make_method(), make_data()
    x_NF = torch.from_numpy(data.x_NF)
    with torch.no_grad():
        z = [normalize(encoder(x_NF)) for encoder in method.attribute_encoders]
    z_ND = method.embed(data)
    np.testing.assert_allclose(z_ND, ((z[0] + z[1]) / 2).numpy(), atol=1e-6)
    assert z_ND.dtype == np.float32
    assert np.linalg.norm(z_ND, axis=1).max() < 0.999
    np.testing.assert_allclose(method.embed(data, batch_size=7), z_ND, atol=1e-6)


def test_views_differ_by_number_and_repeat_by_seed():
    method, data = make_method(), make_data()
    first = method.embed_view(data, view=0, seed=0)
    assert np.array_equal(first, method.embed_view(data, view=0, seed=0))
    for other in (method.embed_view(data, view=2, seed=0), method.embed_view(data, view=0, seed=1)):
        assert not np.array_equal(first, other)
    assert not np.array_equal(first, method.embed(data))
    still = make_method(view_dropout_rate=0.0)
    assert np.array_equal(still.embed_view(data, view=0, seed=0), still.embed(data))


@pytest.mark.parametrize("accumulate_grad", ["never", "forever"])
def test_gradients_are_reset_or_summed_over_all_steps(accumulate_grad):
    method, data = make_method(accumulate_grad=accumulate_grad), make_data()
    total = {name: torch.zeros_like(parameter) for name, parameter in method.named_parameters()}
    for epoch in range(3):
        method.zero_grad()
        loss_of(method, data).backward()
        plain = {name: parameter.grad.clone() for name, parameter in method.named_parameters()}
        method.after_backward(epoch=epoch, step=0)
        for name, parameter in method.named_parameters():
            total[name] += plain[name]
            torch.testing.assert_close(
                parameter.grad, total[name] if accumulate_grad == "forever" else plain[name]
            )


@pytest.mark.parametrize("stale_weights", [False, True])
def test_pairs_outside_the_trusted_nodes_are_reset_or_keep_their_weight(stale_weights):
    method, data = refreshed({**SMALL, "stale_weights": stale_weights})
    loss_of(method, data)
    before = {pair: method._weights.weight[pair].clone() for pair in VIEW_PAIRS}
    method.training_state.refresh(
        method.named_parameters(), np.zeros(NUM_NODES, np.int64), np.arange(NUM_NODES) < 5
    )
    method._weights = None
    loss_of(method, data)
    for pair, weight_NN in method._weights.weight.items():
        outside = weight_NN[5:, 5:]
        assert torch.equal(outside, before[pair][5:, 5:] if stale_weights else torch.ones_like(outside))
        assert not torch.equal(weight_NN[:5, :5], before[pair][:5, :5])


def test_semantics_name_three_habits_and_each_can_be_set_apart():
    paper, released = HsanConfig(), HsanConfig(semantics="released")
    for config, expected in ((paper, False), (released, True)):
        habits = (config.keeps_stale_weights, config.sums_gradients, config.uses_legacy_kmeans)
        assert habits == (expected,) * 3
    apart = HsanConfig(
        semantics="released", stale_weights=False, accumulate_grad="never", refresh_clustering="kmeans"
    )
    assert not (apart.keeps_stale_weights or apart.sums_gradients or apart.uses_legacy_kmeans)
    assert "gradients are summed" in make_method(semantics="released").notes(make_data())[0]
    assert make_method().notes(make_data()) == []


@every_setting
def test_resumed_run_equals_the_unbroken_one(settings, tmp_path):
    config, data = TrainConfig(epochs=14, learning_rate=1e-2, checkpoint_every=1), make_data()
    unbroken = make_method(settings)
    expected = train(unbroken, data, config, seed=0)

    for stop_after in (1, 11, 12):  # right after a refresh, and in between
        steps, folder = iter(range(99)), tmp_path / str(stop_after)

        def stop(steps=steps, stop_after=stop_after):
            return "enough" if next(steps) == stop_after else None

        with pytest.raises(TrainingInterrupted):
            train(make_method(settings), data, config, seed=0, checkpoint_dir=folder, should_stop=stop)
        resumed = make_method(settings)
        result = train(resumed, data, config, seed=0, checkpoint_dir=folder)
        assert result.resumed_from == stop_after
        assert result.history == expected.history
        before, after = states(unbroken), states(resumed)
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_kept_and_recomputed_weights_train_alike():
    data, config = make_data(), TrainConfig(epochs=12, learning_rate=1e-2)
    histories = [
        train(make_method(SETTINGS[name]), data, config, seed=0).history for name in ("paper", "recomputed")
    ]
    for kept, recomputed in zip(*histories, strict=True):
        assert recomputed["loss"] == pytest.approx(kept["loss"], abs=1e-4)


def test_half_precision_trains_close_to_float32():
    data = make_data()
    losses = [
        train(make_method(), data, TrainConfig(epochs=12, precision=precision), seed=0).history[-1]["loss"]
        for precision in ("float32", "bfloat16")
    ]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def test_same_seed_same_bits_and_no_global_generator():
    data, results = make_data(), []
    for seed in (0, 0, 1):
        torch.manual_seed(len(results))
        before = torch.get_rng_state()
        method = make_method(seed=seed)
        train(method, data, TrainConfig(epochs=3), seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        results.append(method.embed(data))
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_order_of_the_rows_in_a_batch_plays_no_part():
    method, data = refreshed()
    order = torch.randperm(NUM_NODES, generator=torch.Generator().manual_seed(0))
    assert loss_of(method, data, rows=order).item() == loss_of(method, data).item()


def test_planted_clusters_are_found():
    data = make_data(num_nodes=60)
    method = make_method(num_nodes=60)
    result = train(method, data, TrainConfig(epochs=30, learning_rate=1e-2), seed=0)
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    y_N = np.random.default_rng(5).integers(0, NUM_CLUSTERS, 60)
    fit = fit_kmeans(method.embed(data), NUM_CLUSTERS, seeds=[0])[0]
    assert adjusted_rand_index(fit.cluster_N, y_N) > 0.5


@every_setting
def test_negative_weights_are_those_of_the_loss(settings):
    method, data = refreshed(settings)
    anchors_A, candidates_AM = np.array([0, 7]), np.array([[1, 2, 3], [39, 0, 8]])
    found = method.negative_weights(data, anchors_A, candidates_AM, seed=0)
    for table, values in (
        (dense_weights(method, data), found.weight_AM),
        (dense_similarity(method, data).detach(), found.similarity_AM),
    ):
        four = table.reshape(2, NUM_NODES, 2, NUM_NODES).mean(dim=(0, 2)).numpy()
        np.testing.assert_allclose(values, four[anchors_A[:, None], candidates_AM], atol=2e-6)
        assert values.dtype == np.float32


@pytest.mark.parametrize("alpha", [0.5, 1.3, -0.4])
def test_similarities_of_a_share_beyond_one_stay_within_their_bound(alpha):
    """The share of the attributes is learned freely; on real graphs it leaves [0, 1]."""
    method, data = make_method(), make_data()
    with torch.no_grad():
        method.alpha.fill_(alpha)
    method.after_epoch(data, epoch=0, seed=0)
    anchors_A = np.arange(NUM_NODES)
    candidates_AM = np.tile(anchors_A, (NUM_NODES, 1))
    found = method.negative_weights(data, anchors_A, candidates_AM, seed=0)
    assert found.bound == pytest.approx(abs(alpha) + abs(1 - alpha))
    assert np.abs(found.similarity_AM).max() <= found.bound * (1 + 1e-6)


def test_negative_weights_are_none_before_the_first_refresh():
    found = make_method().negative_weights(make_data(), np.array([0]), np.array([[1]]), seed=0)
    assert found is None


def test_another_number_of_nodes_is_refused():
    method, more = make_method(), make_data(num_nodes=41)
    for attempt in (
        lambda: train(method, more, TrainConfig(epochs=1), seed=0),
        lambda: method.embed(more),
        lambda: method.embed_view(more, view=0, seed=0),
        lambda: loss_of(method, more),
    ):
        with pytest.raises(ValueError, match=r"built for 40 nodes, not 41: .*transductive"):
            attempt()


def test_what_does_not_fit_is_refused():
    data = make_data()
    with pytest.raises(ValueError, match="built for 6 columns, not 5"):
        make_method().check(make_data(num_features=5))
    with pytest.raises(ValueError, match="reads the graph"):
        make_method().check(TrainingData(NUM_NODES, data.x_NF))
    with pytest.raises(ValueError, match="reads smoothed rows"):
        make_method().check(TrainingData(NUM_NODES, None, data.graph))
    with pytest.raises(ValueError, match="num_nodes must be given"):
        make_method(num_nodes=None)
    with pytest.raises(UnsuitableSetting, match="more than the 40 nodes"):
        make_method(num_clusters=41).check(data)
    with pytest.raises(UnsuitableSetting, match=r"set method\.num_clusters to a count"):
        make_method(num_clusters="classes")
    with pytest.raises(UnsuitableSetting, match=r"need 19,200 bytes.*stale_weights to false"):
        make_method(semantics="released", kept_weights_bytes=19_199)


def test_classes_are_counted_where_asked():
    method = Hsan(HsanConfig(), num_features=2, num_classes=5, num_nodes=9, seed=0)
    assert method.num_clusters == 5


def test_model_file_of_another_number_of_nodes_does_not_load():
    with pytest.raises(RuntimeError, match="size mismatch"):
        make_method().load_state_dict(make_method(num_nodes=41).state_dict())


def test_loaded_state_replaces_the_weights_in_memory():
    data = make_data()
    method, _ = refreshed(data=data)
    other, _ = refreshed(data=data, epoch=10)
    other.training_state.is_confident_N.fill_(True)
    loss_of(method, data), loss_of(other, data)
    method.load_state_dict(other.state_dict())
    assert loss_of(method, data).item() == loss_of(other, data).item()
