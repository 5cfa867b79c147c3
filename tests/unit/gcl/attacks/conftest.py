"""Small victims, trained once."""

import numpy as np
import pytest
import torch

from gcl.attacks.attack_config import AttackConfig
from gcl.attacks.base import Target
from gcl.attacks.components import ComponentGraphs, ComponentsConfig, generate
from gcl.attacks.padded import PaddedGraphs
from gcl.attacks.run import target_of
from gcl.attacks.victim import train_victim
from gcl.attacks.victim_config import VictimConfig
from gcl.graph import Graph
from gcl.graph_collection import GraphCollection

SMALL = ComponentsConfig(graphs_per_class=200)


@pytest.fixture(scope="session")
def small_graphs() -> ComponentGraphs:
    return generate(SMALL)


@pytest.fixture(scope="session", params=[(2, True), (3, True), (3, False)], ids=["K2", "K3", "K3-existing"])
def target(request: pytest.FixtureRequest, small_graphs: ComponentGraphs) -> Target:
    """A victim and its test graphs; the last with existing edges among the choices, as in the original."""
    num_rounds, exclude_existing = request.param
    config = VictimConfig(graphs=SMALL, num_rounds=num_rounds, epochs=20)
    model = train_victim(config, small_graphs, seed=0).model
    return target_of(model, small_graphs.test, AttackConfig(exclude_existing=exclude_existing))


def collection_of(*graphs: tuple[int, list[tuple[int, int]]]) -> GraphCollection:
    """Graphs by number of nodes and edges."""
    graph_N = np.repeat(np.arange(len(graphs)), [size for size, _ in graphs])
    first = np.cumsum([0, *(size for size, _ in graphs)])
    pairs = [(first[g] + u, first[g] + v) for g, (_, edges) in enumerate(graphs) for u, v in edges]
    both = np.array(sorted({*pairs, *((v, u) for u, v in pairs)}), np.int64).reshape(-1, 2)
    union = Graph(len(graph_N), both[:, 0], both[:, 1], np.ones((len(graph_N), 1), np.float32))
    return GraphCollection(len(graphs), union, graph_N)


@pytest.fixture
def padded():
    """Padded graphs from numbers of nodes and edges."""
    return lambda *graphs: PaddedGraphs.of(collection_of(*graphs))


class CountsEdges(torch.nn.Module):
    """A victim whose logit of class 1 grows by `step` an edge, from -`bias`."""

    def __init__(self, step: float, bias: float) -> None:
        super().__init__()
        self.step, self.bias = step, bias

    def forward(self, adjacency_BNN: torch.Tensor, x_BN1: torch.Tensor) -> torch.Tensor:
        score_B = self.step * adjacency_BNN.sum((1, 2)) / 2 - self.bias
        return torch.stack([torch.zeros_like(score_B), score_B], 1)


@pytest.fixture
def counts_edges():
    return CountsEdges
