"""What HGCVAE reads: features by their norm, the identity in place of none, and rows that are masked."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from pydantic import ValidationError

import gcl.methods.hgcvae as hgcvae
from gcl.errors import UnsuitableSetting
from gcl.methods import build_method
from gcl.methods.hgcvae_inputs import mask_rows
from gcl.random import torch_generator
from gcl.trainer import train
from gcl.trainer_config import TrainConfig
from tests.unit.gcl.test_hgcvae import NUM_NODES, config_of, data_of, method_of


def test_masked_rows_are_kept_replaced_or_the_token_in_the_shares_asked_for():
    x_NF, token_F = torch.arange(200.0).view(100, 2) + 1, torch.tensor([-1.0, -2.0])
    config = config_of(unchanged_rate=0.25, replaced_rate=0.5)
    masked = mask_rows(x_NF, token_F, 0.4, config, torch_generator(0, "test"))
    assert len(masked.nodes) == len(set(masked.nodes.tolist())) == 40
    is_token = (masked.x_NF == token_F).all(1)
    is_same = (masked.x_NF == x_NF).all(1)
    assert is_token.sum() == 10
    assert is_same[masked.nodes].sum() in range(10, 13)  # a row may be replaced by itself
    others = np.setdiff1d(np.arange(100), masked.nodes.numpy())
    assert is_same[others].all()
    assert len(mask_rows(x_NF[:2], token_F, 0.3, config, torch_generator(0, "test")).nodes) == 1


def test_nodes_without_features_get_the_identity():
    data = data_of(has_features=False)
    method = method_of(data=data)
    assert torch.equal(method._ready(data).x_NF, torch.eye(NUM_NODES))
    train(method, data, TrainConfig(epochs=1), seed=0)
    with pytest.raises(ValueError, match="built for 80 nodes, not 70"):
        method.check(data_of(num_nodes=70, has_features=False))
    with pytest.raises(UnsuitableSetting, match="give the target nodes features"):
        build_method(config_of(), num_features=0, num_nodes=20_001, num_metapaths=1, seed=0)
    assert hgcvae.MAX_IDENTITY_NODES == 20_000


def test_rows_of_features_sum_to_one_unless_told_otherwise():
    data = data_of()
    assert torch.allclose(method_of(data=data)._ready(data).x_NF.sum(1), torch.ones(NUM_NODES), atol=1e-6)
    raw = method_of(data=data, normalise_input="none")._ready(data).x_NF
    assert np.array_equal(raw.numpy(), data.graph.x_NF)


@pytest.mark.parametrize("is_sparse", [False, True])
def test_columns_of_unlike_units_come_to_one_scale(is_sparse):
    data, draws = data_of(), np.random.default_rng(1)
    x_NF = np.array([1e-3, 1e6, 0.1], "f") * draws.normal(size=(NUM_NODES, 3)).astype("f") + 5
    x_NF[:, 2] = 0.1
    graph = replace(data.graph, x_NF=sp.csr_matrix(x_NF) if is_sparse else x_NF)
    data = replace(data, graph=graph)
    found = method_of(data=data, normalise_input="columns")._ready(data).x_NF
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.mean(0), [0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found.std(0, correction=0), [1, 1, 0], rtol=1e-5)
    assert (found[:, 2] == 0).all()
    with pytest.raises(ValidationError, match="take esce_focal"):
        config_of(normalise_input="columns", reconstruction_loss="esce_focal_positive")
