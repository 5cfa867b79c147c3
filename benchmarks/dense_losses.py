"""The losses written out over dense N x N matrices: what the streamed ones are measured beside.

Plain torch straight from the formulas, with autograd's own memory. They stay as they are: a faster
reference would make old figures incomparable.
"""

import torch
from torch import Tensor
from torch.nn import functional


def dense_grace_loss(u_ND: Tensor, v_ND: Tensor, *, temperature: float) -> Tensor:
    """GRACE (arXiv 2006.04131, eqs 1 and 2): each view in turn is the anchor; four N x N similarities."""
    losses = []
    for anchor_ND, other_ND in ((u_ND, v_ND), (v_ND, u_ND)):
        anchor_ND, other_ND = functional.normalize(anchor_ND), functional.normalize(other_ND)
        between_NN = torch.exp(anchor_ND @ other_ND.T / temperature)
        within_NN = torch.exp(anchor_ND @ anchor_ND.T / temperature)
        denominator_N = between_NN.sum(1) + within_NN.sum(1) - within_NN.diagonal()
        losses.append(-torch.log(between_NN.diagonal() / denominator_N))
    return torch.stack(losses).mean()


def dense_info_nce_loss(u_ND: Tensor, v_ND: Tensor, *, temperature: float) -> Tensor:
    """InfoNCE between two views, both directions from one N x N matrix."""
    score_NN = functional.normalize(u_ND) @ functional.normalize(v_ND).T / temperature
    target_N = torch.arange(len(u_ND), device=u_ND.device)
    return (functional.cross_entropy(score_NN, target_N) + functional.cross_entropy(score_NN.T, target_N)) / 2


def dense_nml_loss(
    u_ND: Tensor,
    v_ND: Tensor,
    metric_u_NM: Tensor,
    metric_v_NM: Tensor,
    *,
    temperature: float,
    kl_weight: float,
) -> Tensor:
    """NML-GCL as released: weights by softmax over all candidates, the positive too, both directions."""
    num_nodes, losses = len(u_ND), []
    sides = ((u_ND, v_ND, metric_u_NM, metric_v_NM), (v_ND, u_ND, metric_v_NM, metric_u_NM))
    for anchor_ND, other_ND, metric_anchor_NM, metric_other_NM in sides:
        score_NN = functional.normalize(anchor_ND) @ functional.normalize(other_ND).T / temperature
        metric_NN = functional.normalize(metric_anchor_NM) @ functional.normalize(metric_other_NM).T
        weight_NN = torch.softmax(metric_NN, dim=1)
        exp_NN = torch.exp(score_NN)
        positive_N = exp_NN.diagonal()
        weighted_N = (num_nodes - 1) * (weight_NN * exp_NN).sum(1)
        contrast = -torch.log(positive_N / (positive_N + weighted_N)).mean()
        divergence = -torch.log(weight_NN * num_nodes).mean()
        losses.append(contrast + kl_weight * divergence)
    return torch.stack(losses).mean()
