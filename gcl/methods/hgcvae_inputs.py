"""What HGCVAE reads, made ready for the encoder, and masked.

Legend: N nodes, F features.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from gcl.errors import NotDefined
from gcl.feature_rows import FeatureRows, standardised
from gcl.features import normalise_rows
from gcl.graph import Graph
from gcl.han_attention import Neighbours, prepare_neighbours
from gcl.hetero_graph import Metapath
from gcl.methods.base import TrainingData
from gcl.methods.configs.hgcvae import HgcvaeConfig


@dataclass(frozen=True, eq=False)
class Prepared:
    """A graph and its metapaths on a device; kept, because every epoch needs them.

    Attributes:
        data: where they come from.
        device: where they are.
        x_NF: float32 features, or the identity.
        neighbours: by each metapath.
    """

    data: TrainingData
    device: torch.device
    x_NF: Tensor
    neighbours: list[Neighbours]

    def serves(self, data: TrainingData, device: torch.device) -> bool:
        """Whether these are those data on that device."""
        is_same = self.data.graph is data.graph and self.data.metapaths is data.metapaths
        return is_same and self.device == device


def prepare(data: TrainingData, config: HgcvaeConfig, device: torch.device) -> Prepared:
    """Take the data to a device.

    Args:
        data: graph and metapaths.
        config: how features are normalised.
        device: where the method computes.
    """
    ways = [prepare_neighbours(metapath.adjacency_NN, device=str(device)) for metapath in metapaths_of(data)]
    return Prepared(data, device, _dense_features(graph_of(data), config).to(device), ways)


def _dense_features(graph: Graph, config: HgcvaeConfig) -> Tensor:
    if graph.x_NF is None:
        return torch.eye(graph.num_nodes)
    norm = config.normalise_input
    x_NF = graph.x_NF if norm == "columns" else normalise_rows(graph.x_NF, norm)
    x_NF = x_NF.toarray() if isinstance(x_NF, sp.csr_matrix) else x_NF
    x_NF = standardised(FeatureRows.of(x_NF)).whole() if norm == "columns" else x_NF
    return torch.from_numpy(np.ascontiguousarray(x_NF, np.float32))


@dataclass(frozen=True, eq=False)
class Masked:
    """Features with some rows masked.

    Attributes:
        x_NF: float32 as the encoder sees them.
        nodes: int64 which rows are masked, those that kept their features among them.
    """

    x_NF: Tensor
    nodes: Tensor


def mask_rows(
    x_NF: Tensor, token_F: Tensor, rate: float, config: HgcvaeConfig, generator: torch.Generator
) -> Masked:
    """Mask int(rate N) nodes, one at least: some keep their rows, some get another's, the others the token.

    Args:
        x_NF: float32 features.
        token_F: float32 what stands for a masked row; it may be learned.
        rate: share of the nodes.
        config: shares of the masked nodes that keep their features or get others'.
        generator: source of the draws, on the CPU.
    """
    num_nodes = len(x_NF)
    nodes = torch.randperm(num_nodes, generator=generator)[: max(1, int(rate * num_nodes))]
    num_unchanged = int(config.unchanged_rate * len(nodes))
    num_replaced = int(config.replaced_rate * len(nodes))
    replaced = nodes[num_unchanged : num_unchanged + num_replaced].to(x_NF.device)
    tokens = nodes[num_unchanged + num_replaced :].to(x_NF.device)
    others = torch.randint(num_nodes, (num_replaced,), generator=generator).to(x_NF.device)
    masked_NF = x_NF.index_copy(0, replaced, x_NF[others]) if num_replaced else x_NF
    masked_NF = masked_NF.index_copy(0, tokens, token_F.expand(len(tokens), -1))
    return Masked(masked_NF, nodes.to(x_NF.device))


def graph_of(data: TrainingData) -> Graph:
    """The graph of the target nodes; ValueError where there is none."""
    if data.graph is None:
        raise ValueError("hgcvae reads the graph, and none was given")
    return data.graph


def metapaths_of(data: TrainingData) -> tuple[Metapath, ...]:
    """The metapaths; NotDefined where there are none."""
    if not data.metapaths:
        raise NotDefined("hgcvae reads metapaths; this graph has nodes of one type and none of them")
    return data.metapaths
