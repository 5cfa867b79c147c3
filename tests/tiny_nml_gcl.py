"""NML-GCL on a planted graph of 48 nodes: data, a method, the loss of a step."""

import numpy as np
from torch import Tensor

from gcl.graph import Graph
from gcl.methods.base import TrainingData
from gcl.methods.configs.nml_gcl import NmlGclConfig
from gcl.methods.nml_gcl import NmlGcl

SMALL = {"hidden_size": 9, "embedding_size": 8, "metric_hidden_size": 7, "metric_size": 6}
NUM_NODES = 48


def make_data(num_nodes: int = NUM_NODES) -> TrainingData:
    """Three kinds of nodes; those of one kind have like features and more edges."""
    generator = np.random.default_rng(3)
    kind_N = np.arange(num_nodes) % 3
    x_NF = (
        2 * np.eye(3)[kind_N] @ generator.normal(size=(3, 10)) + generator.normal(size=(num_nodes, 10))
    ).astype(np.float32)
    pairs = generator.random((num_nodes, num_nodes)) < np.where(kind_N[:, None] == kind_N, 0.2, 0.03)
    src_E, dst_E = np.nonzero(np.triu(pairs, 1) | np.triu(pairs, 1).T)
    return TrainingData(num_nodes, graph=Graph(num_nodes, src_E, dst_E, x_NF))


def make_method(seed: int = 0, **settings: object) -> NmlGcl:
    """The method, small."""
    return NmlGcl(NmlGclConfig.model_validate(SMALL | settings), num_features=10, num_classes=None, seed=seed)


def step_loss(
    method: NmlGcl, *, epoch: int = 0, step: int = 0, data: TrainingData | None = None
) -> dict[str, Tensor]:
    """The terms of a step."""
    data = data or make_data()
    batches = list(method.epoch_batches(data, epoch=epoch, seed=0, batch_size=1))
    return method.training_loss(data.batch(batches[step]), epoch=epoch, step=step, seed=0)
