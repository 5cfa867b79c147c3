"""How much memory HGCVAE takes, before it takes it."""

from gcl.han_attention import CPU_BLOCK_PAIRS, DENSE_DENSITY, MAX_DENSE_NODES
from gcl.methods.base import TrainingSize
from gcl.methods.configs.hgcvae import HgcvaeConfig

_KEPT = 4  # of a layer's outputs, a metapath: values, sums, activations, one gradient on the way
_EDGE_BYTES = 60  # rows, columns and orders of both kinds, and weights on the way


def memory_estimate(config: HgcvaeConfig, size: TrainingSize) -> dict[str, int]:
    """About how many bytes training takes at its peak, by what takes them.

    Args:
        config: layers and widths.
        size: of the data, entries of each metapath among it.
    """
    num_nodes, width, num_metapaths = size.num_nodes, config.embedding_size, len(size.metapath_entries)
    num_features = size.num_features or num_nodes
    inner = config.num_layers - 1 + 2 * config.has_posterior
    weights = num_metapaths * width * (2 * num_features + inner * width)
    passes = config.num_layers * (1 + config.has_two_passes) + 2 * config.has_posterior
    return {
        "weights and their moments": 16 * weights,
        "features, whole, masked and dropped": 4 * 4 * num_nodes * num_features,
        "what layers keep of every node": 4 * num_nodes * width * num_metapaths * _KEPT * passes,
        "neighbours": sum(_neighbour_bytes(num_nodes, entries) for entries in size.metapath_entries),
        "negatives": 4 * 6 * num_nodes * width,
    }


def _neighbour_bytes(num_nodes: int, num_entries: int) -> int:
    """Of one metapath, in the way that `prepare_neighbours` takes."""
    is_dense = num_nodes <= MAX_DENSE_NODES and num_entries >= DENSE_DENSITY * num_nodes**2
    return num_nodes**2 + 16 * CPU_BLOCK_PAIRS if is_dense else _EDGE_BYTES * num_entries
