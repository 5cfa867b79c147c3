"""The layer of HSAN that has weights for every node.

Legend: N nodes, D embedding.
"""

import torch
from torch import nn


class StructureEncoder(nn.Module):
    """The weights of e_i = sum of the rows of node i's neighbours + b: a linear layer on rows of A.

    Uniform in +-1/sqrt(N), torch's default for a layer with N inputs. The weight is kept as [N, D], the
    transpose of a linear layer's, so that a sparse A is multiplied with rows that lie together.
    """

    def __init__(self, num_nodes: int, embedding_size: int, generator: torch.Generator) -> None:
        super().__init__()
        limit = num_nodes**-0.5
        draws = [
            torch.empty(size).uniform_(-limit, limit, generator=generator)
            for size in ((num_nodes, embedding_size), (embedding_size,))
        ]
        self.weight_ND, self.bias_D = nn.Parameter(draws[0]), nn.Parameter(draws[1])
