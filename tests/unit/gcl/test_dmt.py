"""DMT itself: what it draws, which labels move it, and how it treats rows without a label."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import gcl
from gcl.errors import NotDefined
from gcl.losses.grouped import grouped_tuplet_loss, views_tuplet_loss
from gcl.methods import build_method
from gcl.methods.base import TrainingData
from gcl.methods.configs import DmtConfig
from gcl.trainer import train
from gcl.trainer_config import TrainConfig

SMALL = {"embedding_size": 6}


def labelled_data(num_nodes=200, num_labelled=40, num_classes=4, seed=0):
    generator = np.random.default_rng(seed)
    y_N = generator.integers(0, num_classes, num_nodes).astype(np.int32)
    y_N[:num_classes] = np.arange(num_classes)
    x_NF = generator.normal(size=(num_classes, 10))[y_N] + generator.normal(size=(num_nodes, 10))
    known_N = y_N.copy()
    known_N[num_labelled:] = -1
    return TrainingData(num_nodes, x_NF.astype(np.float32), y_N=known_N), y_N


def make(num_classes=4, **fields):
    return build_method(DmtConfig(**SMALL, **fields), num_features=10, num_classes=num_classes, seed=0)


@pytest.mark.parametrize("unlabelled", ["ignore", "negatives", "instance"])
def test_every_batch_has_two_nodes_of_two_classes_and_no_node_twice(unlabelled):
    data, _ = labelled_data()
    method = make(unlabelled=unlabelled, num_views=2, num_labelled=16)
    for epoch in range(5):
        for rows_B in method.epoch_batches(data, epoch=epoch, seed=0, batch_size=48):
            assert len(rows_B.unique()) == len(rows_B)
            y_B = data.y_N[rows_B.numpy()]
            counts = np.bincount(y_B[y_B >= 0])
            assert (counts >= 2).sum() >= 2
            assert counts.max() - counts[counts > 0].min() <= 1, "balanced over the classes"


def test_ignoring_leaves_unlabelled_nodes_out_of_the_batches():
    data, _ = labelled_data()
    for rows_B in make().epoch_batches(data, epoch=0, seed=0, batch_size=48):
        assert (data.y_N[rows_B.numpy()] >= 0).all()


@pytest.mark.parametrize("unlabelled", ["negatives", "instance"])
def test_an_epoch_passes_the_unlabelled_nodes_once(unlabelled):
    data, _ = labelled_data(num_nodes=40 + 32 * 5)
    method = make(unlabelled=unlabelled, num_views=2, num_labelled=16)
    seen = np.concatenate(
        [rows_B.numpy() for rows_B in method.epoch_batches(data, epoch=0, seed=0, batch_size=48)]
    )
    others = seen[data.y_N[seen] < 0]
    assert sorted(others) == list(range(40, 200))


def test_draws_differ_by_step_and_epoch():
    data, _ = labelled_data(num_labelled=120)
    method = make(num_labelled=16)
    batches = [
        tuple(rows_B.tolist())
        for epoch in (0, 1)
        for rows_B in method.epoch_batches(data, epoch=epoch, seed=0, batch_size=48)
    ]
    assert len(set(batches)) == len(batches) == 2 * (120 // 16)


def test_class_with_few_labels_is_drawn_whole_and_never_repeated():
    data, _ = labelled_data()
    y_N = np.full(200, -1, np.int32)
    y_N[:30], y_N[30:32] = 0, 1
    rare = TrainingData(200, data.x_NF, y_N=y_N)
    (rows_B,) = make(num_labelled=20).epoch_batches(rare, epoch=0, seed=0, batch_size=48)
    assert np.bincount(y_N[rows_B.numpy()]).tolist() == [10, 2]


def test_all_nodes_labelled_still_gives_a_batch():
    data, y_N = labelled_data()
    full = TrainingData(200, data.x_NF, y_N=y_N)
    batches = list(make(unlabelled="negatives").epoch_batches(full, epoch=0, seed=0, batch_size=48))
    assert len(batches) == 1


def test_positives_are_the_labelled_nodes_of_the_class():
    data, _ = labelled_data()
    method = make(temperature=0.5, form="C")
    rows_B = torch.arange(60)  # some of them without a label
    loss = method.training_loss(data.batch(rows_B), epoch=0, step=0, seed=0)["loss"]
    z = method.project_views(torch.from_numpy(data.x_NF[:60]), epoch=0, step=0, seed=0)[0]
    y = torch.from_numpy(data.y_N[:40].astype(np.int64))
    expected = grouped_tuplet_loss(z[:40], y, temperature=0.5, form="C").loss
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_instance_loss_is_added_with_its_weight():
    data, _ = labelled_data()
    method = make(unlabelled="instance", num_views=2, instance_weight=0.25)
    terms = method.training_loss(data.batch(torch.arange(60)), epoch=0, step=0, seed=0)
    z = method.project_views(torch.from_numpy(data.x_NF[:60]), epoch=0, step=0, seed=0)
    instance = views_tuplet_loss(z, temperature=method.config.temperature).loss
    assert terms["instance_loss"].item() == pytest.approx(instance.item(), rel=1e-5)
    assert terms["loss"].item() == pytest.approx((terms["class_loss"] + 0.25 * instance).item(), rel=1e-5)


def test_mass_of_other_classes_lowers_the_loss():
    data, _ = labelled_data()
    batch = data.batch(torch.arange(40))
    losses = [
        make(negative_mass=mass).training_loss(batch, epoch=0, step=0, seed=0)["loss"].item()
        for mass in ("num_negatives", "num_classes")
    ]
    assert losses[1] < losses[0]


def test_training_labels_move_the_embedding_and_withheld_ones_cannot():
    data, y_N = labelled_data()

    def embedding(known_N):
        method = make()
        source = TrainingData(200, data.x_NF, y_N=known_N)
        train(method, source, TrainConfig(epochs=3, batch_size=48), seed=0)
        return method.embed(source)

    swapped = data.y_N.copy()
    swapped[:40] = np.roll(swapped[:40], 1)
    first = embedding(data.y_N)
    assert np.array_equal(first, embedding(np.where(np.arange(200) < 40, y_N, -1).astype(np.int32)))
    assert not np.array_equal(first, embedding(swapped))


@pytest.mark.parametrize("known", [[0] * 40, [0, 1], []], ids=["one class", "no pair", "no labels"])
def test_too_few_labels_are_not_defined(known):
    data, _ = labelled_data()
    y_N = np.full(200, -1, np.int32)
    y_N[: len(known)] = known
    with pytest.raises(NotDefined):
        train(make(), TrainingData(200, data.x_NF, y_N=y_N), TrainConfig(epochs=1), seed=0)


@pytest.mark.parametrize("num_classes", [None, 1])
def test_fewer_than_two_classes_are_not_defined(num_classes):
    with pytest.raises(NotDefined, match="at least two"):
        make(num_classes=num_classes)


def test_label_beyond_the_number_of_classes_is_refused():
    data, _ = labelled_data()
    with pytest.raises(ValueError, match="labels reach class 3 of 2 classes"):
        train(make(num_classes=2), data, TrainConfig(epochs=1), seed=0)


def test_instance_loss_needs_views():
    with pytest.raises(ValidationError, match="num_views"):
        DmtConfig(unlabelled="instance", num_views=1)


def test_one_view_is_the_rows_as_they_are_and_more_are_augmented():
    data, _ = labelled_data()
    x_BF = torch.from_numpy(data.x_NF[:60])
    plain = make(entry_dropout_rate=0.9)
    assert torch.equal(plain.project_views(x_BF, epoch=0, step=0, seed=0)[0], plain.encoder(x_BF))
    z_VBD = make(entry_dropout_rate=0.9, num_views=2).project_views(x_BF, epoch=0, step=0, seed=0)
    assert not torch.equal(z_VBD[0], z_VBD[1])
    drawn = [plain.embed_view(data, view=view, seed=0) for view in (0, 1)]
    assert not np.array_equal(*drawn), "how sure a node is can still be asked of augmented rows"


def test_defaults_train_with_a_handful_of_labels():
    """20 labels a class are one step an epoch: the epochs of dmat_i would leave the encoder as it was."""
    dataset = gcl.read_dataset("synthetic", nodes=1000, features=64, classes=5, seed=1)
    known = np.concatenate([np.flatnonzero(dataset.labels.y_N == label)[:20] for label in range(5)])
    y_N = np.full(1000, -1, np.int32)
    y_N[known] = dataset.labels.y_N[known]
    model = gcl.ContrastiveEmbedding("dmt", seed=0).fit(dataset.graph, labels=y_N, num_classes=5)
    losses = [row["loss"] for row in model.history]
    assert losses[-1] < 0.85 * losses[0] < losses[19], (losses[0], losses[19], losses[-1])
