"""Losses of reconstructed feature rows: the scaled cosine error and two cross-entropy forms of it.

Legend: B rows, F features.
"""

from typing import Literal

import torch
from torch import Tensor

from gcl.losses.grouped import cosine_rows

ReconstructionLoss = Literal["sce", "esce_reference", "esce_focal", "esce_focal_positive"]
SMALLEST = 1e-6
"""What similarities and probabilities are lifted to, so that their powers and logarithms are finite."""


def reconstruction_loss(
    guess_BF: Tensor, x_BF: Tensor, *, form: ReconstructionLoss, exponent: float
) -> Tensor:
    """How far reconstructed rows point away from the true ones; scale plays no part.

    With c_i the cosine of row i and a the exponent, means over rows::

        sce                  (1 - c_i)^a                                (GraphMAE)
        esce_focal           -(1 - p_i)^a log p_i,  p_i = (1 + c_i)/2
        esce_focal_positive  the same with p_i = c_i, for features >= 0
        esce_reference       see `esce_reference_loss`

    Args:
        guess_BF: float, reconstructed rows.
        x_BF: float, true rows.
        form: which loss.
        exponent: a > 0; larger makes rows that are nearly right count less.
    """
    if form == "esce_reference":
        return esce_reference_loss(guess_BF, x_BF, exponent=exponent)
    cosine_B = (cosine_rows(guess_BF) * cosine_rows(x_BF)).sum(dim=1)
    if form == "sce":
        return (1 - cosine_B).clamp(min=0).pow(exponent).mean()
    share_B = cosine_B if form == "esce_focal_positive" else (1 + cosine_B) / 2
    p_B = share_B.clamp(SMALLEST, 1.0)
    return -((1 - p_B).clamp(min=0).pow(exponent) * p_B.log()).mean()


def esce_reference_loss(guess_BF: Tensor, x_BF: Tensor, *, exponent: float) -> Tensor:
    """The enhanced scaled cosine error as the released code computes it, entry by entry.

    With unit rows, s_ij the product of entry j of reconstruction and target (1e-6 where it is not above 0),
    l_ij the log-softmax of s_i over j and m_j its mean over rows: -mean_ij (1 - s_ij)^a m_j. Its value lies
    within 1 % of log F whatever the reconstruction, so its gradient is small.

    Args:
        guess_BF: float, reconstructed rows.
        x_BF: float, true rows.
        exponent: a.
    """
    product_BF = cosine_rows(guess_BF) * cosine_rows(x_BF)
    s_BF = torch.where(product_BF > 0, product_BF, SMALLEST)
    mean_F = s_BF.log_softmax(dim=1).mean(dim=0)
    return -((1 - s_BF).clamp(min=0).pow(exponent) @ mean_F).mean() / s_BF.shape[1]
