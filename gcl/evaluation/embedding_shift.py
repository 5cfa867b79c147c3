"""Whether a trained model still fits nodes that came after training, told without labels.

Three measures: how far known nodes move in the new graph, how many new nodes lie where no training node lay,
and how far the distribution of the new embeddings is from that of the training's.

Legend: N training nodes, R new nodes, S sampled nodes, D embedding, K centroids or anchors, B rows.
"""

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from gcl.clustering.geometry import squared_distance, unit_rows
from gcl.config import Config
from gcl.random import numpy_generator
from gcl.workspace import row_slices

MIN_NEW_NODES = 20
"""Fewer say nothing of a share or a distribution."""
REGION_QUANTILE = 0.99
_NUM_ANCHORS, _NUM_JUDGED = 1_000, 2_000
_NUM_COMPARED = 1_000


# Bounds: nodes of the `digits` preset's graph were held out of training (a tenth, three tenths, half). As
# they are: known nodes moved by 0.0004, 0.001, 0.003; of new ones 0.01 to 0.02 were outliers, 0.15 at most
# in 400 draws of 20 of them; the shift was within 0.002 of 0, 0.05 at most in those draws. With shuffled
# pixels: 0.006 to 0.17, 0.65 to 1, 0.04 to 0.38. With random edges: known nodes by 0.12 to 0.23. New nodes
# of one class: a shift of 0.22 to 0.27.
class ShiftConfig(Config):
    """What scoring allows before it calls the model outdated; `none` allows anything."""

    max_known_shift: float | None = Field(
        0.05, ge=0, le=2, description="mean cosine distance of known nodes to where training put them"
    )
    max_outlier_share: float | None = Field(
        0.2, ge=0, le=1, description="share of new nodes farther out than 99 % of the training nodes"
    )
    max_shift: float | None = Field(
        0.1, ge=0, le=2, description="squared maximum mean discrepancy of new and training embeddings"
    )
    num_known: int = Field(
        2_000, ge=1, le=1_000_000, description="known nodes embedded again to see whether they move; count"
    )


@dataclass(frozen=True, eq=False)
class TrainingRegion:
    """Where training nodes lie: no farther from a sample of them than the others of them.

    Attributes:
        anchor_KD: float32 sample of up to 1,000 training embeddings, of length 1 if asked.
        max_distance: 99 % of up to 2,000 other training nodes are as near to one of them, or nearer.
        is_unit: whether distances are taken between rows of length 1.
    """

    anchor_KD: np.ndarray
    max_distance: float
    is_unit: bool

    def outside(self, z_RD: np.ndarray) -> np.ndarray:
        """Whether each of these embeddings, float32 [R, D], lies farther out; bool [R]."""
        _, distance_R = nearest(z_RD, self.anchor_KD, normalise=self.is_unit)
        return np.asarray(distance_R > self.max_distance)


def training_region(z_ND: np.ndarray, *, normalise: bool, seed: int) -> TrainingRegion:
    """The region of the training embeddings, by two samples of them without a node in common.

    Centroids will not do in their place: on the `digits` graph nodes of shuffled pixels lie as near to one
    as others do, and far from every training node.

    Args:
        z_ND: float32 training embeddings, N >= 2; may be mapped.
        normalise: scale embeddings to length 1, as clustering did.
        seed: of the samples.
    """
    order_N = numpy_generator(seed, "training_region").permutation(len(z_ND))
    num_anchors = max(1, min(_NUM_ANCHORS, len(z_ND) // 2))
    anchors, judged = order_N[:num_anchors], order_N[num_anchors:][:_NUM_JUDGED]
    anchor_KD = _points(z_ND[np.sort(anchors)], is_unit=normalise)
    _, distance_S = nearest(z_ND[np.sort(judged)], anchor_KD, normalise=normalise)
    return TrainingRegion(anchor_KD, float(np.quantile(distance_S, REGION_QUANTILE)), normalise)


@dataclass(frozen=True, eq=False)
class Shift:
    """What was measured.

    Attributes:
        values: ``known_shift``, ``outlier_share`` and ``shift``; None where there was too little to judge by.
        notes: why, for those.
    """

    values: dict[str, float | None]
    notes: tuple[str, ...]


def measure_shift(
    z_ND: np.ndarray,
    *,
    before_SD: np.ndarray,
    now_SD: np.ndarray,
    new_RD: np.ndarray,
    region: TrainingRegion,
    seed: int,
) -> Shift:
    """All three measures, as far as there are nodes to judge by.

    Args:
        z_ND: float32 training embeddings; may be mapped.
        before_SD: those of a sample of known nodes.
        now_SD: float32 of the same nodes, in the new graph.
        new_RD: float32 of the new nodes.
        region: of the training embeddings.
        seed: of the samples.
    """
    moved = known_shift(before_SD, now_SD) if len(before_SD) else None
    notes = []
    if moved is None:
        notes.append("no node of the training graph is in the new data: known nodes are not judged")
    share = shift = None
    if len(new_RD) >= MIN_NEW_NODES:
        share = float(region.outside(new_RD).mean())
        shift = two_sample_shift(new_RD, z_ND, normalise=region.is_unit, seed=seed)
    elif len(new_RD):
        notes.append(f"{len(new_RD)} new nodes are too few to judge by, {MIN_NEW_NODES} are needed")
    return Shift({"known_shift": moved, "outlier_share": share, "shift": shift}, tuple(notes))


def nearest(z_RD: np.ndarray, anchor_KD: np.ndarray, *, normalise: bool) -> tuple[np.ndarray, np.ndarray]:
    """The nearest anchor of each row.

    Args:
        z_RD: float32 embeddings; may be mapped.
        anchor_KD: float32 centroids, or other points of their space.
        normalise: scale the embeddings to length 1 first, as the anchors are.

    Returns:
        int32 [R] which, and float32 [R] its Euclidean distance.
    """
    nearest_R, distance_R = np.zeros(len(z_RD), np.int32), np.zeros(len(z_RD), np.float32)
    for rows in row_slices(len(z_RD), 8 * (len(anchor_KD) + z_RD.shape[1])):
        points_BD = _points(z_RD[rows], is_unit=normalise).astype(np.float64)
        square_BK = squared_distance(points_BD, anchor_KD)
        nearest_R[rows] = square_BK.argmin(1)
        distance_R[rows] = np.sqrt(square_BK.min(1))
    return nearest_R, distance_R


def known_shift(before_SD: np.ndarray, now_SD: np.ndarray) -> float:
    """Mean cosine distance (0 to 2) of the same nodes' embeddings, then and now; 0 where nothing moved.

    Args:
        before_SD: float32, from training.
        now_SD: float32, of the same model in the new graph. Zero rows are at distance 0 of each other, 1 of
            all else.
    """
    unit_SD, other_SD = (unit_rows(z_SD).astype(np.float64) for z_SD in (before_SD, now_SD))
    both_zero_S = ~(unit_SD.any(1) | other_SD.any(1))
    # Half the squared distance of unit vectors: exact where 1 - cos would cancel.
    distance_S = ((unit_SD - other_SD) ** 2).sum(1) / 2
    one_zero_S = unit_SD.any(1) != other_SD.any(1)
    return float(np.where(both_zero_S, 0.0, np.where(one_zero_S, 1.0, distance_S)).mean())


def two_sample_shift(new_RD: np.ndarray, z_ND: np.ndarray, *, normalise: bool, seed: int) -> float:
    """Unbiased squared maximum mean discrepancy of new and training embeddings.

    With the kernel k(a, b) = exp(-|a - b|^2 / (2 m)), m the median squared distance of training nodes, and at
    most 1,000 nodes of each side, drawn by `seed`::

        mean k(new, new') + mean k(old, old') - 2 mean k(new, old),   pairs of different nodes

    Its expectation is 0 where both sides are draws of one distribution, however few, so it may be negative;
    it does not grow with the number of nodes, only its error shrinks. Two sides that have nothing in common
    give about 2 exp(-1/2), and at most 2.

    Source: Gretton et al. 2012, "A kernel two-sample test", equation 3; median heuristic as in section 8.

    Args:
        new_RD: float32 embeddings, R >= 2.
        z_ND: float32 training embeddings, N >= 2; may be mapped.
        normalise: compare directions.
        seed: of the samples.
    """
    new_SD, old_SD = (
        _points(_sampled(z_BD, seed, side), is_unit=normalise).astype(np.float64)
        for side, z_BD in (("new", new_RD), ("old", z_ND))
    )
    within_old = _square_distances(old_SD, old_SD)
    median = float(np.median(within_old[np.triu_indices(len(old_SD), 1)]))
    scale = 2 * max(median, float(np.finfo(np.float32).tiny))

    def mean_within(square_SS: np.ndarray) -> float:
        size = len(square_SS)
        return float((np.exp(-square_SS / scale).sum() - size) / (size * (size - 1)))

    across = float(np.exp(-_square_distances(new_SD, old_SD) / scale).mean())
    return mean_within(_square_distances(new_SD, new_SD)) + mean_within(within_old) - 2 * across


def _points(z_BD: np.ndarray, *, is_unit: bool) -> np.ndarray:
    return unit_rows(z_BD) if is_unit else np.asarray(z_BD, np.float32)


def _sampled(z_ND: np.ndarray, seed: int, side: str) -> np.ndarray:
    if len(z_ND) <= _NUM_COMPARED:
        return z_ND
    chosen = numpy_generator(seed, f"two_sample_shift_{side}").permutation(len(z_ND))[:_NUM_COMPARED]
    return np.asarray(z_ND[np.sort(chosen)])


def _square_distances(a_SD: np.ndarray, b_SD: np.ndarray) -> np.ndarray:
    """float64; exactly 0 between a row and itself."""
    found = squared_distance(a_SD, b_SD).astype(np.float64)
    if a_SD is b_SD:
        np.fill_diagonal(found, 0)
    return np.asarray(found)
