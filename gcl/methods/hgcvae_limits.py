"""How much memory HGCVAE takes, before it takes it."""

from gcl.han_attention import CPU_BLOCK_PAIRS, DENSE_DENSITY, MAX_DENSE_NODES
from gcl.methods.base import TrainingSize
from gcl.methods.configs.hgcvae import HgcvaeConfig

_METAPATHS = 3  # taken to be there: the count is not known so early
_KEPT = 4  # of a layer's outputs, a metapath: values, sums, activations, one gradient on the way
_EDGE_BYTES = 60  # rows, columns and orders of both kinds, and weights on the way


def memory_estimate(config: HgcvaeConfig, size: TrainingSize) -> dict[str, int]:
    """About how many bytes training takes at its peak, by what takes them.

    Args:
        config: layers and widths.
        size: of the data; E is that of the union of the metapaths.
    """
    num_nodes, width = size.num_nodes, config.embedding_size
    num_features = size.num_features or num_nodes
    inner = config.num_layers - 1 + 2 * config.has_posterior
    weights = _METAPATHS * width * (2 * num_features + inner * width)
    passes = config.num_layers * (1 + config.has_two_passes) + 2 * config.has_posterior
    is_dense = num_nodes <= MAX_DENSE_NODES and size.num_edges >= DENSE_DENSITY * num_nodes**2
    pairs = num_nodes**2 + 16 * CPU_BLOCK_PAIRS if is_dense else _EDGE_BYTES * size.num_edges
    return {
        "weights and their moments": 16 * weights,
        "features, whole, masked and dropped": 4 * 4 * num_nodes * num_features,
        "what layers keep of every node": 4 * num_nodes * width * _METAPATHS * _KEPT * passes,
        "neighbours": _METAPATHS * pairs,
        "negatives": 4 * 6 * num_nodes * width,
    }
