"""What every registered method must keep: one row of settings here, a dozen promises checked."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from gcl.errors import NotDefined
from gcl.methods import METHODS, method_class
from gcl.methods.base import TrainingData
from gcl.trainer import train
from gcl.trainer_config import TrainConfig
from tests.method_data import (
    NUM_FEATURES,
    SETTINGS,
    make_data,
    make_method,
    renumbered,
    without_edges,
)

battery = pytest.mark.parametrize("config", SETTINGS.values(), ids=SETTINGS.keys())
by_method = pytest.mark.parametrize("name", sorted(METHODS))


def first_loss(config, *, seed=0, data=None, rows=None, epoch=0, step=0):
    method = make_method(config, seed)
    data = data or make_data(config.name)
    if rows is None:
        rows = next(method.epoch_batches(data, epoch=epoch, seed=seed, batch_size=64))
    return method, method.training_loss(data.batch(rows), epoch=epoch, step=step, seed=seed)


def weights(method):
    return {name: value.clone() for name, value in method.state_dict().items()}


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_every_registered_method_is_in_the_battery():
    assert {config.name for config in SETTINGS.values()} == set(METHODS)


@by_method
def test_class_agrees_with_the_table(name):
    found = method_class(name)
    assert found.name == name
    assert found.Config.model_fields["name"].default == name
    assert found.inputs in ("smoothed", "graph", "smoothed_and_graph", "graph_and_metapaths", "collection")
    assert found.inputs == found.Config.inputs
    assert found.uses_labels == found.Config.uses_labels


@by_method
def test_docstring_has_the_fixed_sections(name):
    sections = (
        "Idea",
        "Objective",
        "Inputs",
        "Defaults and their source",
        "Deviations from paper",
        "Reference",
    )
    places = [(method_class(name).__doc__ or "").find(f"    {section}:\n") for section in sections]
    assert -1 not in places
    assert places == sorted(places)


def test_unknown_method_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown method 'dgi'; known: .*dmat_i, dmt"):
        method_class("dgi")


def test_reading_configurations_needs_no_torch():
    code = "import sys, gcl.methods.configs, gcl.trainer_config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@battery
def test_loss_terms_are_finite_scalars(config):
    _, terms = first_loss(config)
    assert "loss" in terms
    for term in terms.values():
        assert term.shape == ()
        assert torch.isfinite(term)


@battery
def test_gradient_reaches_every_parameter_of_its_groups(config):
    """Over the steps of two epochs: methods may take turns, or begin with something else."""
    method, data = make_method(config), make_data(config.name)
    reached = set()
    for epoch in (0, 1):
        for step, rows in enumerate(method.epoch_batches(data, epoch=epoch, seed=0, batch_size=64)):
            method.zero_grad(set_to_none=True)
            method.training_loss(data.batch(rows), epoch=epoch, step=step, seed=0)["loss"].backward()
            moved = [(name, p.grad) for name, p in method.named_parameters() if p.grad is not None]
            reached |= {name for name, gradient in moved if gradient.abs().sum() > 0}
        method.after_epoch(data, epoch=epoch, seed=0)
    grouped = {id(p) for group in method.parameter_groups() for p in group.parameters}
    assert {name for name, p in method.named_parameters() if id(p) in grouped} <= reached


@battery
def test_same_seed_same_bits_and_another_seed_another(config):
    losses, states = [], []
    for seed in (0, 0, 1):
        method = make_method(config, seed)
        result = train(method, make_data(config.name), TrainConfig(epochs=2, batch_size=32), seed=seed)
        losses.append([terms["loss"].hex() for terms in result.history])
        states.append(weights(method))
    assert losses[0] == losses[1] != losses[2]
    assert equal(states[0], states[1])
    assert not equal(states[0], states[2])


@battery
def test_global_generators_are_neither_read_nor_advanced(config):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    _, terms = first_loss(config)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert first_loss(config)[1]["loss"].item() == terms["loss"].item()


@battery
def test_loss_does_not_depend_on_node_order_given_the_draws(config):
    """Of a method on the graph the draws go with the edges, so only one that draws none can be compared."""
    if method_class(config.name).is_transductive:
        pytest.skip("weights go with the nodes' numbers")
    data = make_data(config.name)
    exact = {}
    if "graph" in config.inputs and hasattr(config, "edge_drop_rates"):
        if config.activation == "rrelu":
            pytest.skip("slopes are drawn by node")
        exact = {"edge_drop_rates": (0.0, 0.0), "max_exact_nodes": data.num_nodes}
    if "collection" in config.inputs:
        exact = {"augmentation": "attribute_mask", "attribute_mask_rate": 0.0}
    config = config.model_copy(update=exact)
    method, terms = first_loss(config, data=data)
    rows = next(method.epoch_batches(data, epoch=0, seed=0, batch_size=64))
    order = np.random.default_rng(1).permutation(data.num_nodes)
    moved = torch.from_numpy(np.argsort(order))[rows]
    _, again = first_loss(config, data=renumbered(data, order), rows=moved)
    assert again["loss"].item() == pytest.approx(terms["loss"].item(), rel=1e-6 if exact else 0)


@battery
def test_loss_falls_on_separable_data(config):
    method = make_method(config)
    result = train(
        method, make_data(config.name), TrainConfig(epochs=30, batch_size=64, learning_rate=1e-2), seed=0
    )
    assert result.history[-1]["loss"] < result.history[0]["loss"]


@battery
def test_resumed_run_equals_the_unbroken_one(config, tmp_path):
    settings = TrainConfig(epochs=5, batch_size=32, checkpoint_every=1, schedule="cosine", weight_decay=1e-3)
    unbroken = make_method(config)
    expected = train(unbroken, make_data(config.name), settings, seed=0)

    class Stopped(Exception):
        pass

    def stop_after_two(report):
        if report.epoch == 2:
            raise Stopped

    with pytest.raises(Stopped):
        train(
            make_method(config),
            make_data(config.name),
            settings,
            seed=0,
            checkpoint_dir=tmp_path,
            on_epoch=stop_after_two,
        )
    resumed = make_method(config)
    result = train(resumed, make_data(config.name), settings, seed=0, checkpoint_dir=tmp_path)
    assert result.resumed_from == 1  # an epoch is reported before it is kept
    assert result.history == expected.history
    assert equal(weights(resumed), weights(unbroken))


@battery
def test_half_precision_trains_close_to_float32_and_repeats_bit_for_bit(config):
    histories = []
    for precision in ("float32", "bfloat16", "bfloat16"):
        method = make_method(config)
        settings = TrainConfig(epochs=2, batch_size=64, precision=precision)
        histories.append(train(method, make_data(config.name), settings, seed=0).history)
        assert all(parameter.dtype == torch.float32 for parameter in method.parameters())
    assert histories[1] == histories[2] != histories[0]
    for half, full in zip(histories[1], histories[0], strict=True):
        assert half["loss"] == pytest.approx(full["loss"], rel=0.05)


@battery
def test_labels_are_refused_unless_declared(config):
    data = make_data(config.name)
    if method_class(config.name).uses_labels:
        bare = replace(data, y_N=None)
        with pytest.raises(ValueError, match="needs training labels"):
            train(make_method(config), bare, TrainConfig(epochs=1), seed=0)
    else:
        labelled = replace(data, y_N=np.zeros(data.num_nodes, np.int32))
        with pytest.raises(ValueError, match="must not see labels"):
            train(make_method(config), labelled, TrainConfig(epochs=1), seed=0)


@battery
def test_missing_inputs_are_refused(config):
    data = make_data(config.name)
    with pytest.raises(ValueError, match="reads"):
        train(make_method(config), TrainingData(data.num_nodes, y_N=data.y_N), TrainConfig(epochs=1), seed=0)


@battery
def test_rows_of_another_width_are_refused(config):
    narrow = make_data(config.name, num_features=NUM_FEATURES - 1)
    with pytest.raises(ValueError, match="built for 12 columns, not 11"):
        train(make_method(config), narrow, TrainConfig(epochs=1), seed=0)


@battery
def test_single_node_is_not_defined(config):
    with pytest.raises(NotDefined):
        data = make_data(config.name, num_nodes=1)
        train(make_method(config, num_nodes=1), data, TrainConfig(epochs=1), seed=0)


@battery
def test_graph_without_edges_runs_where_edges_are_not_needed(config):
    data = make_data(config.name)
    edgeless = without_edges(data)
    assert not method_class(config.name).needs_edges
    result = train(make_method(config), edgeless, TrainConfig(epochs=1, batch_size=64), seed=0)
    assert np.isfinite(result.history[0]["loss"])


@battery
def test_embedding_is_deterministic_and_leaves_the_method_alone(config):
    method, data = make_method(config), make_data(config.name)
    train(method, data, TrainConfig(epochs=1, batch_size=64), seed=0)
    before, was_training = weights(method), method.training
    z_ND = method.embed(data)
    assert z_ND.shape == (data.num_nodes, getattr(config, "num_encoders", 1) * config.embedding_size)
    assert z_ND.dtype == np.float32
    assert np.isfinite(z_ND).all()
    assert np.array_equal(z_ND, method.embed(data))
    np.testing.assert_allclose(method.embed(data, batch_size=17), z_ND, rtol=1e-4, atol=1e-6)
    assert equal(weights(method), before)
    assert method.training == was_training


@battery
def test_embedding_reads_no_labels(config):
    method, data = make_method(config), make_data(config.name)
    assert np.array_equal(method.embed(data), method.embed(replace(data, y_N=None)))


@battery
def test_views_of_the_embedding_differ_by_number_and_repeat_by_seed(config):
    method, data = make_method(config), make_data(config.name)
    first = method.embed_view(data, view=0, seed=0)
    assert not np.array_equal(first, method.embed(data))
    assert np.array_equal(first, method.embed_view(data, view=0, seed=0))
    assert not np.array_equal(first, method.embed_view(data, view=1, seed=0))
    assert not np.array_equal(first, method.embed_view(data, view=0, seed=1))
    assert first.shape == (data.num_nodes, getattr(config, "num_encoders", 1) * config.embedding_size)
