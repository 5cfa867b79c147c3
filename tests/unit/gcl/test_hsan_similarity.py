"""HSAN's similarity: with its share of attributes held still, and of many pairs without much memory."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import gcl.methods.hsan as hsan_module
from gcl.errors import UnsuitableSetting
from gcl.graph import Graph
from gcl.methods.base import TrainingData
from gcl.methods.configs.hsan import HsanConfig
from gcl.methods.hsan import Hsan
from gcl.trainer import train
from gcl.trainer_config import TrainConfig


def make_data() -> TrainingData:
    rng = np.random.default_rng(3)
    x_NF = rng.normal(size=(30, 5)).astype(np.float32)
    src_E, dst_E = np.nonzero(rng.random((30, 30)) < 0.2)
    return TrainingData(30, x_NF, Graph(30, src_E, dst_E, x_NF, is_undirected=False))


def trained(**settings: object) -> tuple[Hsan, dict[str, torch.Tensor]]:
    """A method after three epochs, and its parameters before them."""
    data = make_data()
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


class Largest(TorchDispatchMode):
    """The size of the largest tensor that is made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


@pytest.mark.parametrize("kept_weights_bytes", [0, 1 << 30])
def test_pairs_are_weighed_a_few_anchors_at_a_time(
    monkeypatch: pytest.MonkeyPatch, kept_weights_bytes: int
) -> None:
    method, _ = trained(kept_weights_bytes=kept_weights_bytes)
    data, anchors_A = make_data(), np.arange(30)
    candidates_AM = (anchors_A[:, None] + np.arange(1, 29)) % 30
    expected = method.negative_weights(data, anchors_A, candidates_AM, seed=0)
    width = 6 + 8  # cosines of attributes in F + 1 columns, of structure in D
    monkeypatch.setattr(hsan_module, "GATHERED_NUMBERS", 3 * 28 * width)
    with Largest() as largest:
        found = method.negative_weights(data, anchors_A, candidates_AM, seed=0)
    assert largest.numel == 3 * 28 * width
    np.testing.assert_allclose(found.similarity_AM, expected.similarity_AM, atol=1e-6)
    np.testing.assert_allclose(found.weight_AM, expected.weight_AM, atol=1e-6)
    monkeypatch.setattr(hsan_module, "GATHERED_NUMBERS", 1)
    alone = method.negative_weights(data, anchors_A, candidates_AM, seed=0)
    np.testing.assert_allclose(alone.weight_AM, expected.weight_AM, atol=1e-6)


def test_more_nodes_than_the_setting_are_refused() -> None:
    config = HsanConfig(embedding_size=8, num_clusters=3, max_nodes=29)
    with pytest.raises(UnsuitableSetting, match=r"max_nodes=29 are refused, and there are 30: .*O\(N\^2\)"):
        Hsan(config, num_features=5, num_classes=None, num_nodes=30, seed=0)
    Hsan(config, num_features=5, num_classes=None, num_nodes=29, seed=0)
    with pytest.raises(UnsuitableSetting, match="max_nodes=50,000 are refused"):
        Hsan(HsanConfig(num_clusters=3), num_features=5, num_classes=None, num_nodes=50_001, seed=0)
