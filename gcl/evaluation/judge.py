"""From logits to calibrated probabilities and conformal scores: of nodes that are measured, and of all.

Everything is worked out a block of nodes at a time, and no node's answer depends on its block.

Legend: N nodes, R nodes that are measured, K classes, D columns, B nodes of a block, M nodes asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gcl.evaluation import calibration
from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.conformal import mixed_with_neighbours, nonconformity
from gcl.evaluation.probe import Probe, prepared
from gcl.evaluation.results import PredictedNodes
from gcl.graph import Graph
from gcl.random import numpy_generator
from gcl.row_blocks import Matrix, row_blocks
from gcl.threads import one_thread
from gcl.workspace import MEMORY, Workspace, row_slices

_NUM_TEMPORARIES = 8  # float64 matrices [B, K] that a block takes


@dataclass(frozen=True, eq=False)
class Everyone:
    """All nodes of the graph.

    Attributes:
        matrix: float32 [N, D] embeddings, read in blocks.
        graph: for the daps score.
        nodes_R: int64, ascending: those of them that are measured.
        workspace: where the daps score puts the scores of all nodes.
    """

    matrix: Matrix
    graph: Graph
    nodes_R: np.ndarray
    workspace: Workspace = MEMORY


@dataclass(frozen=True, eq=False)
class Judged:
    """What is known of some labelled nodes.

    Attributes:
        confidence_M: float64 calibrated probability of the most probable class.
        is_wrong_M: bool, whether that class is not theirs.
        uncalibrated_M: float64 confidence before calibration.
        p_true_M: float64 calibrated probability of their class.
        squared_error_M: float64 squared distance of the probabilities from the truth.
        score_M: float64 nonconformity of their class.
    """

    confidence_M: np.ndarray
    is_wrong_M: np.ndarray
    uncalibrated_M: np.ndarray
    p_true_M: np.ndarray
    squared_error_M: np.ndarray
    score_M: np.ndarray


class Judge:
    """A probe with its temperature.

    Args:
        probe: fitted.
        logit_RK: its scores of the nodes that are measured.
        temperature: of the softmax.
        everyone: all nodes, and which of them are measured.
        config: conformal score.
        seed: of aps's draws.
    """

    def __init__(
        self,
        probe: Probe,
        logit_RK: np.ndarray,
        temperature: float,
        everyone: Everyone,
        config: EvaluateConfig,
        *,
        seed: int,
    ) -> None:
        self.probe, self.temperature = probe, temperature
        self.logit_RK = logit_RK
        self.everyone, self.config = everyone, config
        self._draw_N = numpy_generator(seed, "conformal").random(everyone.graph.num_nodes)
        self._own_NK = self._scores_of_all() if config.conformal == "daps" else None

    def probabilities(self, logit_BK: np.ndarray) -> np.ndarray:
        """float64 [B, K], calibrated."""
        return calibration.probabilities(logit_BK, self.temperature)

    def scores(self, p_BK: np.ndarray, nodes_B: np.ndarray) -> np.ndarray:
        """float64 [B, K] nonconformity of some nodes of the graph, given their probabilities."""
        if self._own_NK is None:
            return nonconformity(p_BK, score=self.config.conformal, draw_B=self._draw_N[nodes_B])
        return mixed_with_neighbours(
            self._own_NK, self.everyone.graph, nodes_B, weight=self.config.daps_weight
        )

    def logit_blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """First node and float32 [B, K] logits of consecutive nodes, over all N."""
        start, row_bytes = 0, 8 * self.probe.num_classes * _NUM_TEMPORARIES
        for logit_BK in self._products():
            for rows in row_slices(len(logit_BK), row_bytes):
                yield start + rows.start, logit_BK[rows]
            start += len(logit_BK)

    def _products(self) -> Iterator[np.ndarray]:
        # How a product rounds depends on how many rows it has; where all nodes are measured there is one.
        if len(self.logit_RK) == self.everyone.graph.num_nodes:
            yield self.logit_RK
            return
        for z_BD in row_blocks(self.everyone.matrix).blocks():
            with one_thread():
                logit_BK = self.probe.logits(prepared(z_BD, self.config))
            yield logit_BK

    def _scores_of_all(self) -> np.ndarray:
        """float64 [N, K]: every node's own score, which its neighbours ask for."""
        own_NK = self.everyone.workspace.empty((len(self._draw_N), self.probe.num_classes), np.float64)
        for start, logit_BK in self.logit_blocks():
            rows = slice(start, start + len(logit_BK))
            own_NK[rows] = nonconformity(self.probabilities(logit_BK), score="aps", draw_B=self._draw_N[rows])
        return own_NK

    def judged(self, rows_M: np.ndarray, y_M: np.ndarray) -> Judged:
        """Judge some of the nodes that are measured.

        Args:
            rows_M: their positions among these.
            y_M: their classes.
        """
        blocks = []
        for some, p_BK in self._probability_blocks(rows_M):
            place, y_B = np.arange(len(p_BK)), y_M[some]
            uncalibrated_BK = calibration.probabilities(self.logit_RK[rows_M[some]], 1.0)
            score_BK = self.scores(p_BK, self.everyone.nodes_R[rows_M[some]])
            error_B = calibration.squared_error(p_BK, y_B)
            is_wrong_B = p_BK.argmax(1) != y_B
            blocks.append(
                (
                    p_BK.max(1),
                    is_wrong_B,
                    uncalibrated_BK.max(1),
                    p_BK[place, y_B],
                    error_B,
                    score_BK[place, y_B],
                )
            )
        return Judged(*map(np.concatenate, zip(*blocks, strict=True)))

    def set_sizes(self, rows_M: np.ndarray, quantile: float) -> np.ndarray:
        """int64 [M] classes in the prediction sets of some of the nodes that are measured."""
        sizes = [
            (self.scores(p_BK, self.everyone.nodes_R[rows_M[some]]) <= quantile).sum(1)
            for some, p_BK in self._probability_blocks(rows_M)
        ]
        return np.concatenate(sizes)

    def _probability_blocks(self, rows_M: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        for some in row_slices(len(rows_M), 8 * self.probe.num_classes * _NUM_TEMPORARIES):
            yield some, self.probabilities(self.logit_RK[rows_M[some]])


def predicted_blocks(judge: Judge, *, threshold: float, quantile: float) -> Iterator[PredictedNodes]:
    """The answers of all nodes, in order.

    Args:
        judge: of the probe that predicts.
        threshold: confidence from which an answer is given.
        quantile: nonconformity up to which a class is in the prediction set.
    """
    for start, logit_BK in judge.logit_blocks():
        p_BK = judge.probabilities(logit_BK)
        confidence_B = p_BK.max(1)
        yield PredictedNodes(
            p_BK.argmax(1).astype(np.int32),
            confidence_B.astype(np.float32),
            -(p_BK * np.log(np.where(p_BK > 0, p_BK, 1))).sum(1).astype(np.float32),
            confidence_B < threshold,
            judge.scores(p_BK, np.arange(start, start + len(p_BK))) <= quantile,
        )
