"""Views of smoothed rows: random changes that need no graph, O(B F) each.

Masking a smoothed row is not the same as smoothing a masked row; the latter would cost a propagation a
view. The paper's own augmentation is not known (its summary contradicts itself), so the list is open:
one function and one line in `AUGMENTATIONS` add another.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Augmentation = Callable[[Tensor, float, torch.Generator], Tensor]


def feature_mask(x_BF: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Zero whole columns, the same for every row of the batch (GRACE style, no rescaling).

    Args:
        x_BF: float, rows.
        rate: probability in [0, 1) that a column is masked.
        generator: source of the draws, on the device of `x_BF`.
    """
    return x_BF * (_uniform(x_BF[:1], generator) >= rate)


def entry_dropout(x_BF: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Zero single entries and scale the rest by 1 / (1 - rate), which keeps the expectation.

    Args:
        x_BF: float, rows.
        rate: probability in [0, 1) that an entry is dropped.
        generator: source of the draws, on the device of `x_BF`.
    """
    return x_BF * (_uniform(x_BF, generator) >= rate) / (1.0 - rate)


def gaussian_jitter(x_BF: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Add normal noise in proportion to each column's spread in the batch.

    Args:
        x_BF: float, rows.
        scale: noise in standard deviations of the column, >= 0.
        generator: source of the draws, on the device of `x_BF`.
    """
    std_F = x_BF.std(dim=0, correction=0)
    noise_BF = torch.empty_like(x_BF).normal_(generator=generator)
    return x_BF + scale * std_F * noise_BF


def encoder_dropout(x_BF: Tensor, _rate: float, _generator: torch.Generator) -> Tensor:
    """Leave the rows alone: the views differ by the encoder's own dropout (SimCSE style)."""
    return x_BF


AUGMENTATIONS: dict[str, Augmentation] = {
    "feature_mask": feature_mask,
    "entry_dropout": entry_dropout,
    "gaussian_jitter": gaussian_jitter,
    "encoder_dropout": encoder_dropout,
}


def augment_rows(x_BF: Tensor, strengths: Mapping[str, float], generator: torch.Generator) -> Tensor:
    """One view of a batch: the named augmentations one after the other.

    Args:
        x_BF: float, rows of the smoothed features.
        strengths: augmentation name -> its rate or scale, applied in the mapping's order.
        generator: source of the draws of this (epoch, step, view).

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    for name, strength in strengths.items():
        if name not in AUGMENTATIONS:
            raise ValueError(f"unknown augmentation {name!r}; known: {', '.join(sorted(AUGMENTATIONS))}")
        x_BF = AUGMENTATIONS[name](x_BF, strength, generator)
    return x_BF


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform draws in [0, 1) of the shape of `like`, float32 so that precision never changes a draw."""
    return torch.rand(like.shape, generator=generator, device=like.device)
