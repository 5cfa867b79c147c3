"""Exact 2-means of many rows of numbers at once, and the two Gaussians of a partition.

AUGCL parts the similarities of each anchor in two; a row's numbers are one-dimensional, so the best cut is
found by sorting, without starts or iterations. Shape legend: B rows, M numbers a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK_VALUES = 1 << 16
"""Numbers worked on at a time on the CPU: their double-precision sums stay in the cache of one core."""
LEAST_RELATIVE_VARIANCE = 1e-4
"""Least variance of a group as a share of its row's, so that a group of equal values keeps a density."""


class TwoMeans(NamedTuple):
    """Partitions of B rows.

    Attributes:
        is_upper_BM: bool, whether a value lies in the upper group; False where it is NaN. A row that cannot
            be cut is all upper.
        threshold_B: between the groups, where possible halfway, so that values computed again, with
            other round-off, fall on the same side; minus infinity in a row of a single group.
        cost_B: float64, sum of squared distances to the mean of the own group.
    """

    is_upper_BM: Tensor
    threshold_B: Tensor
    cost_B: Tensor


def two_means(value_BM: Tensor) -> TwoMeans:
    """The globally best partition of each row into two groups, by least squares.

    Sorts each row, and compares all cuts between different values through running sums in double
    precision: with centred values and l of n below the cut, the gain of a cut is S_l^2 n / (l (n - l)).
    O(M log M) a row; deterministic; memory beyond the result is O(`BLOCK_VALUES`) on the CPU.

    Args:
        value_BM: float32 or float64; NaN entries take no part. Rows with fewer than two different values
            are one group.
    """
    num_rows, width = value_BM.shape
    value_BM = value_BM.detach()
    rows_at_once = (
        max(1, BLOCK_VALUES // max(1, width)) if value_BM.device.type == "cpu" else max(1, num_rows)
    )
    threshold_B = value_BM.new_full((num_rows,), -torch.inf)
    cost_B = torch.zeros(num_rows, dtype=torch.float64, device=value_BM.device)
    if width:
        for first in range(0, num_rows, rows_at_once):
            block = slice(first, first + rows_at_once)
            threshold_B[block], cost_B[block] = _best_cuts(value_BM[block])
    return TwoMeans(value_BM > threshold_B[:, None], threshold_B, cost_B)


def positive_group(partition: TwoMeans, positive_B: Tensor) -> Tensor:
    """Which entries of each row lie in the group of its positive: bool [B, M].

    Args:
        partition: of the rows.
        positive_B: int64, column of each row's positive.
    """
    own_B1 = partition.is_upper_BM.gather(1, positive_B[:, None])
    return partition.is_upper_BM == own_B1


def _best_cuts(value_bM: Tensor) -> tuple[Tensor, Tensor]:
    """Threshold between the groups, and cost, of each row of a block."""
    sorted_bM = _sorted_rows(value_bM)
    has_holes = bool(sorted_bM[:, -1].isnan().any())
    if has_holes:
        count_b1 = (~sorted_bM.isnan()).sum(1, keepdim=True)
    else:
        count_b1 = torch.full((1, 1), sorted_bM.shape[1], device=sorted_bM.device)
    total_b1 = sorted_bM.nansum(1, keepdim=True, dtype=torch.float64)
    centred_bM = sorted_bM - total_b1 / count_b1.clamp(min=1)  # float64, whatever the values are
    if has_holes:
        centred_bM.nan_to_num_(nan=0.0)
    square_b = centred_bM.square().sum(1)
    gain_bM = _running_sums(centred_bM).square_().mul_(_gain_scale(count_b1, sorted_bM.shape[1]))
    gain_b, cut_b = gain_bM.max(1)
    # A cut between equal values would part them by their order alone. It is hardly ever the best one.
    low_b, high_b = _ends(sorted_bM, cut_b)
    if bool((high_b <= low_b).any()):
        gain_bM[:, :-1].masked_fill_(~(sorted_bM[:, 1:] > sorted_bM[:, :-1]), 0.0)
        gain_b, cut_b = gain_bM.max(1)
        low_b, high_b = _ends(sorted_bM, cut_b)
    middle_b = low_b + (high_b - low_b) / 2
    threshold_b = torch.where(middle_b < high_b, middle_b, low_b)
    threshold_b = torch.where(gain_b > 0, threshold_b, -torch.inf)
    return threshold_b, (square_b - gain_b).clamp(min=0.0)


def _ends(sorted_bM: Tensor, cut_b: Tensor) -> tuple[Tensor, Tensor]:
    """The value before each row's cut, and the one after it."""
    next_b = (cut_b + 1).clamp(max=sorted_bM.shape[1] - 1)
    return sorted_bM.gather(1, cut_b[:, None])[:, 0], sorted_bM.gather(1, next_b[:, None])[:, 0]


def _gain_scale(count_b1: Tensor, width: int) -> Tensor:
    """Factors n / (l (n - l)) for the cuts after l = 1..width of n values; 0 where nothing is left above."""
    lower_M = torch.arange(1, width + 1, device=count_b1.device, dtype=torch.float64)
    upper_bM = (count_b1 - lower_M).clamp(min=0)
    return torch.where(upper_bM > 0, count_b1 / (lower_M * upper_bM.clamp(min=1)), 0.0)


def _sorted_rows(value_bM: Tensor) -> Tensor:
    """Rows in ascending order, NaN last; numpy's vectorised sort is 30 times torch's on a CPU."""
    if value_bM.device.type != "cpu":
        return value_bM.sort(dim=1).values
    import numpy as np

    return torch.from_numpy(np.sort(value_bM.numpy(), axis=1))


def _running_sums(value_bM: Tensor) -> Tensor:
    """Prefix sums of each row; numpy's are several times as fast as torch's on a CPU."""
    if value_bM.device.type != "cpu":
        return _doubled_sums(value_bM)
    import numpy as np

    return torch.from_numpy(np.cumsum(value_bM.numpy(), axis=1))


def _doubled_sums(value_bM: Tensor) -> Tensor:
    """Prefix sums of each row in log2(M) additions of whole blocks, always in the same order.

    On CUDA torch's own either raises under deterministic algorithms, as training sets them, or compares all
    pairs of columns, in memory O(M^2) a row; which one depends on its version.
    """
    span = 1
    while span < value_bM.shape[1]:
        value_bM = torch.cat([value_bM[:, :span], value_bM[:, span:] + value_bM[:, :-span]], dim=1)
        span *= 2
    return value_bM


class _Group(NamedTuple):
    """Count, mean and variance [B, 1] of one group of each row, float64; zeros where it is empty."""

    count_B1: Tensor
    mean_B1: Tensor
    variance_B1: Tensor

    @classmethod
    def of(cls, centred_BM: Tensor, is_member_BM: Tensor) -> "_Group":
        member_BM = is_member_BM.to(centred_BM.dtype)
        count_B1 = member_BM.sum(1, keepdim=True).double()
        sum_B1 = torch.einsum("bm,bm->b", centred_BM, member_BM)[:, None]
        mean_B1 = sum_B1 / count_B1.clamp(min=1)
        distance_BM = (centred_BM - mean_B1.to(centred_BM.dtype)).mul_(member_BM)
        square_B1 = torch.einsum("bm,bm->b", distance_BM, distance_BM)[:, None]
        return cls(count_B1, mean_B1, square_B1 / count_B1.clamp(min=1))


@dataclass(frozen=True, eq=False)
class TwoGaussians:
    """Two Gaussians a row, with the shares, means and variances of its two groups.

    The log odds of the upper one at a value x are a parabola in x - lower mean, with x held between the two
    means: beyond them the wider Gaussian would win on the wrong side, so the posterior is frozen there.

    Attributes:
        low_mean_B1: mean of the lower group.
        top_mean_B1: mean of the upper group.
        coefficient_B13: log odds at the lower mean, and their linear and quadratic coefficients.
        is_parted_B1: bool, False where a row is a single group.
    """

    low_mean_B1: Tensor
    top_mean_B1: Tensor
    coefficient_B13: Tensor
    is_parted_B1: Tensor

    @classmethod
    def fit(cls, value_BM: Tensor, is_upper_BM: Tensor) -> "TwoGaussians":
        """Moments of the groups of each row.

        Variances are held above `LEAST_RELATIVE_VARIANCE` of the row's own plus 1e-12.

        Args:
            value_BM: float; NaN entries take no part.
            is_upper_BM: bool, the partition, see `two_means`.
        """
        value_BM = value_BM.detach()
        valid_BM = ~value_BM.isnan()
        count_B1 = valid_BM.sum(1, keepdim=True)
        has_holes = bool((count_B1 < value_BM.shape[1]).any())
        centre_B1 = value_BM.nansum(1, keepdim=True) / count_B1.clamp(min=1)
        centred_BM = value_BM - centre_B1
        if has_holes:
            centred_BM = centred_BM.nan_to_num_(nan=0.0)
            is_upper_BM = is_upper_BM & valid_BM
        top = _Group.of(centred_BM, is_upper_BM)
        low = _Group.of(centred_BM, valid_BM & ~is_upper_BM)
        row_variance_B1 = torch.einsum("bm,bm->b", centred_BM, centred_BM)[:, None] / count_B1.clamp(min=1)
        floor_B1 = (LEAST_RELATIVE_VARIANCE * row_variance_B1 + 1e-12).double()
        top_variance_B1, low_variance_B1 = (
            top.variance_B1.maximum(floor_B1),
            low.variance_B1.maximum(floor_B1),
        )
        gap_B1 = top.mean_B1 - low.mean_B1
        constant_B1 = (
            (top.count_B1.clamp(min=1e-300) / low.count_B1.clamp(min=1e-300)).log()
            + 0.5 * (low_variance_B1 / top_variance_B1).log()
            - 0.5 * gap_B1.square() / top_variance_B1
        )
        square_B1 = 0.5 / low_variance_B1 - 0.5 / top_variance_B1
        return cls(
            (low.mean_B1 + centre_B1).to(value_BM.dtype),
            (top.mean_B1 + centre_B1).to(value_BM.dtype),
            torch.stack([constant_B1, gap_B1 / top_variance_B1, square_B1], dim=2).to(value_BM.dtype),
            (low.count_B1 > 0) & (top.count_B1 > 0),
        )

    def log_odds(self, value_BM: Tensor) -> Tensor:
        """Log odds of the upper group at any values of each row; infinite in a row of a single group.

        Args:
            value_BM: float [B, any].
        """
        constant_B1, linear_B1, square_B1 = self.coefficient_B13.unbind(2)
        low_B1 = self.low_mean_B1.minimum(self.top_mean_B1)
        high_B1 = self.low_mean_B1.maximum(self.top_mean_B1)
        held_BM = value_BM.clamp(low_B1, high_B1) - self.low_mean_B1
        odds_BM = (held_BM * square_B1).add_(linear_B1).mul_(held_BM).add_(constant_B1)
        if not bool(self.is_parted_B1.all()):
            odds_BM = torch.where(self.is_parted_B1, odds_BM, torch.inf)
        return odds_BM

    def upper_probability(self, value_BM: Tensor) -> Tensor:
        """Posterior of the upper group, in [0, 1]; 1 in rows of a single group; NaN where the value is.

        Args:
            value_BM: float [B, any].
        """
        return torch.where(value_BM.isnan(), torch.nan, self.log_odds(value_BM).sigmoid())

    def rows(self, first: int, last: int) -> "TwoGaussians":
        """The Gaussians of rows first..last-1, as views."""
        return TwoGaussians(
            self.low_mean_B1[first:last],
            self.top_mean_B1[first:last],
            self.coefficient_B13[first:last],
            self.is_parted_B1[first:last],
        )

    @classmethod
    def joined(cls, parts: Sequence["TwoGaussians"]) -> "TwoGaussians":
        """The Gaussians of consecutive blocks of rows as one."""
        return cls(
            torch.cat([part.low_mean_B1 for part in parts]),
            torch.cat([part.top_mean_B1 for part in parts]),
            torch.cat([part.coefficient_B13 for part in parts]),
            torch.cat([part.is_parted_B1 for part in parts]),
        )
