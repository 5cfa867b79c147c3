"""Encoders have the shape their configuration says, and weights from the given generator alone."""

import pytest
import torch

from gcl.encoders import build_encoder, build_projector, linear_layer
from gcl.methods.configs.rows import RowEncoderConfig
from gcl.random import torch_generator


def encoder_of(seed=0, num_features=6, **fields):
    config = RowEncoderConfig(embedding_size=4, hidden_size=5, **fields)
    return build_encoder(config, num_features, torch_generator(seed, "init"))


def shapes(module):
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def test_linear_is_one_layer():
    assert shapes(encoder_of(use_bias=True)) == {"linear.weight": (4, 6), "linear.bias": (4,)}
    assert shapes(encoder_of(use_bias=False)) == {"linear.weight": (4, 6)}


def test_mlp_is_linear_norm_activation_linear_without_bias_before_the_norm():
    assert shapes(encoder_of(encoder="mlp", use_bias=True)) == {
        "hidden.weight": (5, 6),
        "norm.weight": (5,),
        "norm.bias": (5,),
        "activation.weight": (1,),
        "output.weight": (4, 5),
        "output.bias": (4,),
    }
    assert "activation.weight" not in shapes(encoder_of(encoder="mlp", activation="relu"))


def test_projector_keeps_the_size():
    assert build_projector(4, torch_generator(0, "init"))(torch.ones(3, 4)).shape == (3, 4)


@pytest.mark.parametrize("encoder", ["linear", "mlp"])
def test_weights_come_from_the_generator_alone(encoder):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = encoder_of(encoder=encoder).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    again, other = encoder_of(encoder=encoder).state_dict(), encoder_of(seed=1, encoder=encoder).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_weights_have_the_default_distribution_of_torch():
    layer = linear_layer(100, 200, bias=True, generator=torch_generator(0, "init"))
    assert layer.weight.abs().max().item() == pytest.approx(0.1, rel=0.01)
    assert layer.weight.mean().item() == pytest.approx(0.0, abs=0.002)


def test_mlp_drops_hidden_units_from_the_generator_alone():
    encoder = encoder_of(encoder="mlp", dropout_rate=0.5, num_features=6)
    x = torch.randn(64, 6, generator=torch_generator(0, "rows"))
    first, again, other, none = (
        encoder(x, draws)
        for draws in (torch_generator(1, "d"), torch_generator(1, "d"), torch_generator(2, "d"), None)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, none)
    encoder.eval()
    assert torch.equal(encoder(x), encoder(x))
    assert not torch.equal(encoder(x, torch_generator(1, "d")), encoder(x))
