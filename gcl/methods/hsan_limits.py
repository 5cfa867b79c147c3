"""What HSAN takes of memory, and the sizes it refuses."""

from gcl.errors import UnsuitableSetting
from gcl.losses.hsan_weights import kept_weights_bytes
from gcl.methods.base import TrainingSize
from gcl.methods.configs.hsan import HsanConfig

KEPT_TILES_BYTES = 1 << 26
"""Similarities of a pair of views kept from forward to backward up to this memory: products are dear here."""


def memory_estimate(config: HsanConfig, size: TrainingSize) -> dict[str, int]:
    """About how many bytes of memory training takes, by what takes them.

    Args:
        config: of the method.
        size: of the data.
    """
    kept = kept_weights_bytes(size.num_nodes)
    is_kept = config.keeps_stale_weights or kept <= config.kept_weights_bytes
    return {
        "structure encoders": 4 * 2 * 5 * size.num_nodes * config.embedding_size,
        "embeddings": 4 * 2 * 3 * size.num_nodes * (config.embedding_size + size.num_features),
        "weights of pairs": kept * is_kept,
        "blocks of pairs": KEPT_TILES_BYTES,
    }


def check_size(config: HsanConfig, num_nodes: int) -> None:
    """Refuse more nodes than are allowed (UnsuitableSetting)."""
    if num_nodes > config.max_nodes:
        raise UnsuitableSetting(
            f"more nodes than method.max_nodes={config.max_nodes:,} are refused, and there are "
            f"{num_nodes:,}: hsan samples no pairs, so a step takes a time of O(N^2), and its structure "
            "encoders have N x D weights each. Take another method, or raise it"
        )


def check_memory(config: HsanConfig, num_nodes: int) -> None:
    """Refuse stale weights that take more than they may (UnsuitableSetting)."""
    needed = kept_weights_bytes(num_nodes)
    if config.keeps_stale_weights and needed > config.kept_weights_bytes:
        raise UnsuitableSetting(
            f"stale weights of {num_nodes:,} nodes need {needed:,} bytes, more than "
            f"method.kept_weights_bytes={config.kept_weights_bytes:,}: raise it, or set "
            "method.stale_weights to false"
        )
