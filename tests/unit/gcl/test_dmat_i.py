"""DMAT-i itself: its configuration, its batches, its loss against an independent one, and what it learns."""

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch.nn import functional

from gcl.augment import entry_dropout
from gcl.methods import build_method
from gcl.methods.base import TrainingData
from gcl.methods.configs import DmatIConfig, MethodConfig
from gcl.random import torch_generator
from gcl.trainer import train
from gcl.trainer_config import TrainConfig


def blocks(num_nodes=120, num_features=30, num_classes=3, noise=1.0, seed=0):
    generator = np.random.default_rng(seed)
    y_N = np.arange(num_nodes) % num_classes
    x_NF = generator.normal(size=(num_classes, num_features))[y_N]
    x_NF = x_NF + noise * generator.normal(size=x_NF.shape)
    return TrainingData(num_nodes, x_NF.astype(np.float32)), y_N


def test_config_is_chosen_by_name():
    config = TypeAdapter(MethodConfig).validate_python({"name": "dmat_i", "temperature": 0.1})
    assert config == DmatIConfig(temperature=0.1)
    with pytest.raises(ValidationError, match="dmt"):
        TypeAdapter(MethodConfig).validate_python({"name": "gcn"})


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.0},
        {"num_views": 1},
        {"entry_dropout_rate": 1.0},
        {"debias_prior": 1.0},
        {"form": "D"},
        {"augmentations": ("blur",)},
        {"augmentations": ("feature_mask", "feature_mask")},
        {"unknown": 1},
    ],
)
def test_config_out_of_range_is_refused(fields):
    with pytest.raises(ValidationError):
        DmatIConfig(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"augmentations": ()},
        {"augmentations": ("encoder_dropout",)},
        {"augmentations": ("encoder_dropout",), "dropout_rate": 0.5},
        {"entry_dropout_rate": 0.0},
    ],
)
def test_config_with_identical_views_is_refused(fields):
    with pytest.raises(ValidationError, match="views of a node would be identical"):
        DmatIConfig(**fields)


def test_dropout_of_the_encoder_is_a_view_of_its_own():
    DmatIConfig(augmentations=("encoder_dropout",), encoder="mlp", dropout_rate=0.5)


@pytest.mark.parametrize(
    ("num_nodes", "sizes"),
    [(100, [32, 32, 32]), (128, [32] * 4), (20, [20]), (2, [2])],
)
def test_batches_cover_the_nodes_and_drop_a_short_rest(num_nodes, sizes):
    method = build_method(DmatIConfig(embedding_size=4), num_features=30, seed=0)
    data = TrainingData(num_nodes, np.zeros((num_nodes, 30), np.float32))
    batches = list(method.epoch_batches(data, epoch=0, seed=0, batch_size=32))
    assert [len(rows) for rows in batches] == sizes
    seen = torch.cat(batches)
    assert len(seen.unique()) == len(seen)
    other = torch.cat(list(method.epoch_batches(data, epoch=1, seed=0, batch_size=32)))
    assert num_nodes == 2 or not torch.equal(seen, other)


def test_last_batch_of_32_rows_is_kept():
    method = build_method(DmatIConfig(embedding_size=4), num_features=30, seed=0)
    data = TrainingData(96, np.zeros((96, 30), np.float32))
    sizes = [len(rows) for rows in method.epoch_batches(data, epoch=0, seed=0, batch_size=64)]
    assert sizes == [64, 32]


def test_loss_is_nt_xent_of_the_two_dropped_views():
    data, _ = blocks(40)
    config = DmatIConfig(embedding_size=8, entry_dropout_rate=0.4, temperature=0.25)
    method = build_method(config, num_features=30, seed=0)
    rows = torch.arange(40)
    loss = method.training_loss(data.batch(rows), epoch=3, step=2, seed=7)["loss"]
    linear = method.encoder.linear
    views = [
        linear(entry_dropout(torch.from_numpy(data.x_NF), 0.4, torch_generator(7, "augment", 3, 2, view)))
        for view in (0, 1)
    ]
    unit = functional.normalize(torch.cat(views), dim=1)
    logits = (unit @ unit.T / 0.25).fill_diagonal_(-torch.inf)
    expected = functional.cross_entropy(logits, torch.arange(80).roll(40))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_draws_differ_by_epoch_step_and_seed():
    data, _ = blocks(40)
    method = build_method(DmatIConfig(embedding_size=8), num_features=30, seed=0)
    batch = data.batch(torch.arange(40))
    counters = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    losses = {method.training_loss(batch, epoch=e, step=s, seed=k)["loss"].item() for e, s, k in counters}
    assert len(losses) == len(counters)


def test_training_pulls_classes_apart_more_than_the_untrained_encoder():
    data, y_N = blocks(noise=1.5)
    config = DmatIConfig(embedding_size=16, entry_dropout_rate=0.5)

    def class_gap(method):
        z = method.embed(data)
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        cosine, same = z @ z.T, y_N[:, None] == y_N[None]
        return cosine[same].mean() - cosine[~same].mean()

    method = build_method(config, num_features=30, seed=0)
    before = class_gap(method)
    train(method, data, TrainConfig(epochs=40, batch_size=60, learning_rate=1e-2), seed=0)
    assert class_gap(method) > before + 0.1


def test_unit_output_is_part_of_the_embedding_trained_or_not():
    data, _ = blocks(40)
    method = build_method(DmatIConfig(embedding_size=8, output="l2"), num_features=30, seed=0)
    np.testing.assert_allclose(np.linalg.norm(method.embed(data), axis=1), 1.0, rtol=1e-5)
    train(method, data, TrainConfig(epochs=1), seed=0)
    np.testing.assert_allclose(np.linalg.norm(method.embed(data), axis=1), 1.0, rtol=1e-5)


def test_projector_is_used_in_the_loss_alone():
    data, _ = blocks(40)
    plain = build_method(DmatIConfig(embedding_size=8), num_features=30, seed=0)
    projected = build_method(DmatIConfig(embedding_size=8, projector="mlp"), num_features=30, seed=0)
    assert np.array_equal(plain.embed(data), projected.embed(data))
    batch = data.batch(torch.arange(40))
    losses = [m.training_loss(batch, epoch=0, step=0, seed=0)["loss"].item() for m in (plain, projected)]
    assert losses[0] != losses[1]


def test_memory_mapped_rows_train_like_rows_in_memory(tmp_path):
    data, _ = blocks(100)
    np.save(tmp_path / "x.npy", data.x_NF)
    mapped = TrainingData(100, np.load(tmp_path / "x.npy", mmap_mode="r"))
    histories = [
        train(
            build_method(DmatIConfig(embedding_size=8), num_features=30, seed=0),
            source,
            TrainConfig(epochs=2, batch_size=50),
            seed=0,
        ).history
        for source in (data, mapped)
    ]
    assert histories[0] == histories[1]


def test_hardness_of_negatives_is_watched_and_rises_with_smoothing():
    """Rows drawn towards each other, as smoothing does, make harder negatives."""
    data, _ = blocks(100)
    smooth = TrainingData(100, 0.3 * data.x_NF + 0.7 * data.x_NF.mean(axis=0))
    method = build_method(DmatIConfig(embedding_size=8), num_features=30, seed=0)
    rows = torch.arange(100)
    hardness = [
        method.training_loss(source.batch(rows), epoch=0, step=0, seed=0)["hard_negative_similarity"].item()
        for source in (data, smooth)
    ]
    assert hardness[0] < hardness[1]
