"""Divergence of Gaussian posteriors from the standard normal. Legend: N nodes, D dimensions."""

import torch
from torch import Tensor

ACTIVE_VARIANCE = 0.01
"""Variance of a dimension's mean over the nodes from which it counts as used (Burda et al. 2016)."""


def kl_per_dimension(mean_ND: Tensor, log_std_ND: Tensor) -> Tensor:
    """float32 [D]: mean over nodes of KL( N(mean, std^2) | N(0, 1) ), in nats.

    Args:
        mean_ND: float means.
        log_std_ND: float logarithms of standard deviations.
    """
    mean_ND, log_std_ND = mean_ND.float(), log_std_ND.float()
    return 0.5 * (mean_ND.square() + (2 * log_std_ND).exp() - 1 - 2 * log_std_ND).mean(dim=0)


def kl_loss(kl_D: Tensor, *, free_nats: float = 0.0) -> Tensor:
    """Sum over dimensions; one below `free_nats` counts as `free_nats`, and is not pushed further down.

    Args:
        kl_D: of `kl_per_dimension`.
        free_nats: in nats a dimension (Kingma et al. 2016).
    """
    return kl_D.clamp(min=free_nats).sum() if free_nats else kl_D.sum()


def active_units(mean_ND: Tensor, *, is_unit_length: bool = False) -> Tensor:
    """How many dimensions say something about a node: their means vary by more than `ACTIVE_VARIANCE`.

    Args:
        mean_ND: float means, N >= 2.
        is_unit_length: rows have length 1, so that a dimension's mean square is 1 / D and not about 1: its
            variance is measured in that.
    """
    least = ACTIVE_VARIANCE / (mean_ND.shape[1] if is_unit_length else 1)
    return (mean_ND.detach().float().var(dim=0) > least).sum().to(torch.float32)
