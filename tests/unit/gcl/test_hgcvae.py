import math
import re
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from pydantic import ValidationError

import gcl.methods.hgcvae as hgcvae
from gcl.errors import NotDefined, UnsuitableSetting
from gcl.graph import Graph
from gcl.hetero_graph import Metapath
from gcl.losses.grouped import cosine_rows
from gcl.methods import build_method
from gcl.methods.base import TrainingData, TrainingSize
from gcl.methods.configs import HgcvaeConfig
from gcl.methods.hgcvae_negatives import Bank
from gcl.methods.hgcvae_schedules import copies_at, free_nats, kl_weight_at, mask_rate_at
from gcl.trainer import train
from gcl.trainer_config import TrainConfig

NUM_NODES, NUM_FEATURES = 80, 50
SMALL = {"embedding_size": 32, "num_heads": 2, "num_layers": 2}


def config_of(**settings):
    return HgcvaeConfig(**(SMALL | settings))


def data_of(*, num_nodes=NUM_NODES, has_features=True):
    generator = np.random.default_rng(0)
    x_NF = (generator.random((num_nodes, NUM_FEATURES)) < 0.2).astype(np.float32) if has_features else None
    paths = []
    for name, density in (("few", 0.02), ("many", 0.3)):
        mask = generator.random((num_nodes, num_nodes)) < density
        paths.append(
            Metapath(name, sp.csr_matrix((mask | mask.T | np.eye(num_nodes, dtype=bool)).astype("f")))
        )
    none = np.zeros(0, np.int64)
    return TrainingData(num_nodes, graph=Graph(num_nodes, none, none, x_NF), metapaths=tuple(paths))


def method_of(seed=0, *, data=None, **settings):
    data = data or data_of()
    return build_method(
        config_of(**settings),
        num_features=data.graph.num_features,
        num_nodes=data.num_nodes,
        num_metapaths=len(data.metapaths),
        seed=seed,
    )


def terms_of(*, epoch=0, seed=0, data=None, **settings):
    data = data or data_of()
    method = method_of(seed, data=data, **settings)
    rows = next(method.epoch_batches(data, epoch=epoch, seed=seed, batch_size=2))
    return method.training_loss(data.batch(rows), epoch=epoch, step=0, seed=seed)


def test_masking_grows_as_in_the_released_code():
    config = config_of()
    rates = [mask_rate_at(epoch, config) for epoch in range(40)]
    assert rates[:3] == pytest.approx([0.3, 0.3075, 0.315])
    assert rates[39] == pytest.approx(0.5925)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"mask_schedule": "constant"}, [0.3, 0.3, 0.3]),
        ({"mask_schedule": "exponential"}, [0.3, 0.3 * 2**0.5, 0.6]),
        ({"mask_schedule": "step", "mask_step": 0.01}, [0.3, 0.5, 0.6]),
        ({"mask_schedule": "linear", "mask_rate_end": 0.5}, [0.3, 0.4, 0.5]),
        ({"mask_rate": 0.7}, [0.7, 0.8, 0.8]),  # never above max_mask_rate
    ],
)
def test_other_schedules_of_masking(settings, expected):
    config = config_of(**settings)
    assert [mask_rate_at(epoch, config) for epoch in (0, 20, 40)] == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["linear", "exponential", "step"])
def test_masking_stops_at_the_end_that_is_given(schedule):
    """Of more epochs than the schedule is laid out for."""
    config = config_of(mask_schedule=schedule, mask_rate_end=0.5)
    rates = [mask_rate_at(epoch, config) for epoch in range(80)]
    assert max(rates) == rates[-1] == 0.5


def test_vi_copies_grow_as_in_the_released_code_and_are_clamped():
    config = config_of()
    assert [copies_at(epoch, config)[1] for epoch in (0, 1, 2, 12, 25, 39)] == [0, 0, 1, 9, 20, 20]
    assert all(sum(copies_at(epoch, config)) == 20 for epoch in range(40))
    assert copies_at(39, config_of(clamp_negatives=False)) == (0, 31)
    strict = config_of(mode="strict", schedule_epochs=100)
    assert [copies_at(epoch, strict)[1] for epoch in (0, 30, 60, 99)] == [0, 10, 20, 20]
    assert copies_at(30, config_of(negatives="dropout")) == (20, 0)
    assert copies_at(0, config_of(negatives="vi")) == (0, 20)


def test_divergence_warms_up_in_strict_mode_alone():
    strict = config_of(mode="strict", kl_weight=0.5)
    assert [kl_weight_at(epoch, strict) for epoch in (0, 6, 12, 30)] == pytest.approx([0, 0.25, 0.5, 0.5])
    assert kl_weight_at(0, config_of(kl_weight=0.5)) == 0.5
    assert (free_nats(strict), free_nats(config_of())) == (0.02, 0)


@pytest.mark.parametrize("seed", range(3))
def test_reference_divergence_and_reconstruction_are_the_constants_they_are_said_to_be(seed):
    terms = terms_of(seed=seed, embedding_size=256)
    assert 1.45 <= terms["kl"] <= 1.65
    assert 0.99 * math.log(NUM_FEATURES) <= terms["reconstruction"] <= math.log(NUM_FEATURES)


def test_posteriors_have_length_one_in_reference_mode_and_are_clipped_in_strict_mode():
    data = data_of()
    for mode in ("reference", "strict"):
        method = method_of(mode=mode, data=data)
        with torch.no_grad():
            for parameter in method.posterior.parameters():
                parameter.mul_(30)
        h_ND = torch.randn(NUM_NODES, 32, generator=torch.Generator().manual_seed(0))
        mean_ND, log_std_ND = method._posterior_of(h_ND, method._ready(data))
        if mode == "reference":
            torch.testing.assert_close(mean_ND.norm(dim=1), torch.ones(NUM_NODES))
            torch.testing.assert_close(log_std_ND.norm(dim=1), torch.ones(NUM_NODES))
        else:
            assert mean_ND.norm(dim=1).min() > 2
            assert (log_std_ND.min(), log_std_ND.max()) == (-5, 2)


def sources_of(num_nodes=400, size=64):
    generator = torch.Generator().manual_seed(0)
    anchor, mean = (cosine_rows(torch.randn(num_nodes, size, generator=generator)) for _ in range(2))
    return [anchor, mean, torch.zeros(num_nodes, size)]


def bank_of(epoch=0, **settings):
    return Bank(config_of(**settings), 400, torch.device("cpu"), 0, epoch, 0)


@pytest.mark.parametrize("mode", ["reference", "strict"])
def test_bank_has_all_copies_or_as_many_negatives_as_asked_for(mode):
    sources = sources_of()
    whole = bank_of(10, mode=mode, num_negatives="all").blocks()
    assert len(whole) == 20
    assert all(block.draw(sources).shape == (400, 64) for block in whole)
    some = bank_of(10, mode=mode, num_negatives=1000).blocks()
    sizes = [len(block.draw(sources)) for block in some]
    share = copies_at(10, config_of(mode=mode))[1] / 20
    assert sizes == [round(1000 * (1 - share)), round(1000 * share)]
    for block in (whole[0], whole[-1], *some):  # drawn again in the backward pass
        assert torch.equal(block.draw(sources), block.draw(sources))
    assert not torch.equal(whole[0].draw(sources), whole[1].draw(sources))
    assert all((block.source_Q is not None) == (mode == "strict") for block in (*whole, *some))


def test_vi_negatives_are_easy_in_reference_mode_and_as_near_as_the_noise_says_in_strict_mode():
    sources = sources_of()
    for mode, expected in (("reference", 3 / (9 + 64) ** 0.5), ("strict", 1 / 1.25**0.5)):
        block = bank_of(negatives="vi", num_negatives="all", mode=mode).blocks()[0]
        cosine = (cosine_rows(block.draw(sources)) * sources[1]).sum(1)
        assert cosine.mean().item() == pytest.approx(expected, rel=0.05)
    dropped = bank_of(negatives="dropout", num_negatives="all").blocks()[0].draw(sources)
    cosine = (cosine_rows(dropped) * sources[0]).sum(1)
    assert cosine.mean().item() == pytest.approx(0.9**0.5, rel=0.01)


def test_watched_terms_are_there_in_every_epoch_so_that_they_make_columns():
    names = {frozenset(terms_of(epoch=epoch)) for epoch in (0, 20, 39)}
    assert len(names) == 1
    assert {"vi_negative_similarity_95", "dropout_negative_similarity", "active_units", "largest_kl"} <= set(
        *names
    )


@pytest.mark.parametrize(
    ("settings", "absent"),
    [
        ({"contrast_weight": 0}, "contrast"),
        ({"kl_weight": 0}, "kl"),
        ({"reconstruction_weight": 0}, "reconstruction"),
        ({"negatives": "dropout"}, "vi_negative_similarity"),
        ({"negatives": "vi"}, "dropout_negative_similarity"),
    ],
)
@pytest.mark.parametrize("mode", ["reference", "strict"])
def test_what_is_switched_off_is_not_there(settings, absent, mode):
    terms = terms_of(mode=mode, **settings)
    assert absent not in terms
    assert torch.isfinite(terms["loss"])


def test_loss_is_the_weighted_sum_of_its_parts():
    for mode, warm in (("reference", 1.0), ("strict", 6 / 12)):
        terms = terms_of(mode=mode, epoch=6)
        parts = 0.8 * terms["contrast"] + 0.7 * warm * terms["kl"] + 0.2 * terms["reconstruction"]
        torch.testing.assert_close(terms["loss"].detach(), parts)


@pytest.mark.parametrize("mode", ["reference", "strict"])
def test_decoder_is_not_told_masked_rows_in_strict_mode_alone(mode):
    data = data_of()
    method = method_of(mode=mode, data=data, contrast_weight=0)
    given = []
    method.decoder.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].detach()))
    method.training_loss(
        data.batch(next(method.epoch_batches(data, epoch=0, seed=0, batch_size=2))), epoch=0, step=0, seed=0
    )
    num_zero = int((given[0] == 0).all(dim=1).sum())
    assert num_zero == (int(0.3 * NUM_NODES) if mode == "strict" else 0)


def test_layers_that_nothing_reads_are_not_built():
    assert method_of(kl_weight=0, negatives="dropout").posterior is None
    assert method_of(kl_weight=0, negatives="dropout", mode="strict").posterior is not None  # z is decoded
    assert method_of(reconstruction_weight=0).decoder is None


def test_embedding_is_not_touched_by_masking_or_dropout():
    data = data_of()
    first = method_of(data=data).embed(data)
    others = {"mask_rate": 0.6, "feature_dropout_rate": 0.5, "attention_dropout_rate": 0.6}
    assert np.array_equal(first, method_of(data=data, **others).embed(data))


def test_embedding_is_the_encoders_output_or_the_mean():
    data = data_of()
    for mode, other in (("reference", "mu"), ("strict", "h")):
        method, another = method_of(mode=mode, data=data), method_of(mode=mode, embed=other, data=data)
        assert not np.allclose(method.embed(data), another.embed(data))
    assert np.allclose(np.linalg.norm(method_of(embed="mu", data=data).embed(data), axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("mode", ["reference", "strict"])
def test_gradient_of_the_whole_loss_is_that_of_differences(mode):
    data = data_of(num_nodes=30)
    method = method_of(mode=mode, data=data, num_negatives=40, negatives="vi")
    # A token of zeros makes logits of exactly 0, where the leaky ReLU has a kink: no slope to compare with.
    torch.nn.init.normal_(method.mask_token, generator=torch.Generator().manual_seed(5))
    rows = next(method.epoch_batches(data, epoch=30, seed=0, batch_size=2))

    def loss():
        return method.training_loss(data.batch(rows), epoch=30, step=0, seed=0)["loss"]

    loss().backward()
    parameters = [p for p in method.parameters() if p.grad is not None]
    directions = [p.grad / p.grad.norm() for p in parameters]
    slope = sum((p.grad * d).sum() for p, d in zip(parameters, directions, strict=True)).item()
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(sign * 2e-4 * direction)
        values.append(loss().item())
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.sub_(sign * 2e-4 * direction)
    assert (values[0] - values[1]) / 4e-4 == pytest.approx(slope, rel=0.02)


def test_metapaths_must_be_there_and_as_many_as_before():
    data = data_of()
    with pytest.raises(NotDefined, match="reads metapaths"):
        build_method(config_of(), num_features=NUM_FEATURES, num_nodes=NUM_NODES, num_metapaths=None, seed=0)
    method = method_of(data=data)
    with pytest.raises(NotDefined, match="reads metapaths"):
        method.check(replace(data, metapaths=None))
    with pytest.raises(ValueError, match="built for 2 metapaths, not 1"):
        method.check(replace(data, metapaths=data.metapaths[:1]))
    wrong = Metapath("wrong", sp.eye(NUM_NODES + 1, format="csr", dtype=np.float32))
    with pytest.raises(ValueError, match="metapath wrong does not join"):
        method.check(replace(data, metapaths=(data.metapaths[0], wrong)))
    with pytest.raises(UnsuitableSetting, match="max_nodes=50"):
        method_of(data=data, max_nodes=50).check(data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embedding_size": 33}, "no multiple of num_heads"),
        ({"unchanged_rate": 0.6, "replaced_rate": 0.6}, "at most 1 together"),
        ({"contrast_weight": 0, "reconstruction_weight": 0}, "nothing to learn from"),
        ({"contrast_on": "z"}, "needs mode=strict"),
        ({"mask_rate_end": 0.2}, "masking grows"),
        ({"mask_rate_end": 0.9}, "mask_rate_end=0.9 is above max_mask_rate=0.8"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        config_of(**settings)


def test_notes_say_which_mode_and_what_became_of_the_posterior():
    data = data_of()
    said = " ".join(method_of(data=data).notes(data))
    assert "reference mode: the divergence (1.5)" in said
    said = " ".join(method_of(data=data, mode="strict").notes(data))
    assert "strict mode, reconstruction by esce_focal" in said
    assert re.search(r"posterior: \d+ of 32 dimensions active", said)


def test_active_dimensions_are_counted_by_what_a_mean_of_length_one_can_vary():
    """A dimension of 256 then varies by 1/256 at most, which is below what counts as active otherwise."""
    data = data_of()
    method = method_of(data=data, embedding_size=256)

    def num_active():
        found = re.search(r"posterior: (\d+) of 256 dimensions active", " ".join(method.notes(data)))
        return int(found[1])

    assert num_active() > 100
    with torch.no_grad():  # every node the same mean
        for weight, bias in zip(method.posterior[0].weights, method.posterior[0].biases, strict=True):
            weight.zero_()
            bias.fill_(1)
    assert num_active() == 0


def test_notes_say_what_each_metapath_weighs():
    data = data_of()
    method = method_of(data=data, num_layers=2)
    (note,) = (note for note in method.notes(data) if note.startswith("weights of the metapaths"))
    layers = [
        dict(pair.rsplit(" ", 1) for pair in layer.split(", "))
        for layer in note.split(": ", 1)[1].split("; ")
    ]
    assert len(layers) == 2
    for layer in layers:
        assert list(layer) == [metapath.name for metapath in data.metapaths]
        assert sum(map(float, layer.values())) == pytest.approx(1, abs=0.02)
    with torch.no_grad():
        method.encoder.layers[1].semantic.query.mul_(0)  # all alike
    (note,) = (note for note in method.notes(data) if note.startswith("weights of the metapaths"))
    assert {pair.rsplit(" ", 1)[1] for pair in note.split("; ")[1].split(", ")} == {
        f"{1 / len(data.metapaths):.2f}"
    }


@pytest.mark.parametrize(("epochs", "is_said"), [(1, True), (2, False), (3, True)])
def test_notes_say_when_schedules_are_laid_out_for_other_epochs(epochs, is_said, tmp_path):
    data, config = data_of(num_nodes=30), TrainConfig(epochs=epochs)
    for _ in range(2):  # the second time from a checkpoint of the last epoch
        method = method_of(data=data, schedule_epochs=2)
        train(method, data, config, seed=0, checkpoint_dir=tmp_path)
        said = " ".join(method.notes(data))
        assert (f"for method.schedule_epochs=2, and training took {epochs}" in said) == is_said


def test_memory_grows_with_width_and_with_dense_neighbours():
    def total(config, *metapath_entries):
        size = TrainingSize(4057, 10**4, 334, 512, metapath_entries or (10**4,) * 3)
        return sum(hgcvae.Hgcvae.memory_estimate(config, size).values())

    assert total(HgcvaeConfig()) > 3 * total(HgcvaeConfig(embedding_size=256))
    assert 1 << 30 < total(HgcvaeConfig(), 10**4, 5 * 10**6, 7 * 10**6) < 4 << 30


def test_memory_is_that_of_the_metapaths_there_are():
    def parts(*metapath_entries):
        size = TrainingSize(50_000, 10**9, 10, 512, metapath_entries)
        return hgcvae.Hgcvae.memory_estimate(config_of(), size)

    one, five = parts(10**6), parts(*[10**6] * 5)
    assert {name for name in one if five[name] == 5 * one[name]} >= {
        "weights and their moments",
        "what layers keep of every node",
        "neighbours",
    }
    assert parts(10**6, 4 * 10**6)["neighbours"] == five["neighbours"]
