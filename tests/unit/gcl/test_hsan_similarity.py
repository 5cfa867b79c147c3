"""HSAN's similarity with its share of attributes held still: attributes alone, structure alone."""

import numpy as np
import pytest
import torch

from gcl.graph import Graph
from gcl.methods.base import TrainingData
from gcl.methods.configs.hsan import HsanConfig
from gcl.methods.hsan import Hsan
from gcl.trainer import train
from gcl.trainer_config import TrainConfig


def trained(**settings: object) -> tuple[Hsan, dict[str, torch.Tensor]]:
    """A method after three epochs, and its parameters before them."""
    rng = np.random.default_rng(3)
    x_NF = rng.normal(size=(30, 5)).astype(np.float32)
    src_E, dst_E = np.nonzero(rng.random((30, 30)) < 0.2)
    data = TrainingData(30, x_NF, Graph(30, src_E, dst_E, x_NF, is_undirected=False))
    config = HsanConfig.model_validate(
        {"embedding_size": 8, "num_clusters": 3, "refresh_every": 2} | settings
    )
    method = Hsan(config, num_features=5, num_classes=None, num_nodes=30, seed=0)
    before = {name: value.detach().clone() for name, value in method.named_parameters()}
    train(method, data, TrainConfig(epochs=3, learning_rate=1e-2), seed=0)
    return method, before


@pytest.mark.parametrize("semantics", ["paper", "released"])
@pytest.mark.parametrize(("alpha", "still"), [(1.0, "structure"), (0.0, "attribute")])
def test_a_share_that_is_not_learned_stays_and_the_other_branch_has_no_say(
    alpha: float, still: str, semantics: str
) -> None:
    method, before = trained(initial_alpha=alpha, learn_alpha=False, semantics=semantics)
    for name, value in method.named_parameters():
        held = name == "alpha" or name.startswith(f"{still}_encoders")
        assert torch.equal(value, before[name]) == held, name


def test_by_default_the_share_is_learned() -> None:
    method, before = trained()
    assert not torch.equal(method.alpha, before["alpha"])
