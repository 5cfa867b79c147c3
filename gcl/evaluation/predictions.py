"""One answer a node, with calibrated confidence, abstention and a prediction set.

Three disjoint groups of labelled nodes have three jobs. Training nodes fit the probe. The first half of
the validation nodes chooses its penalty, the temperature and the candidate thresholds. The second half,
untouched until then, sets the abstention threshold and the conformal quantile, which is what their
guarantees ask for. Test nodes are only measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gcl.errors import NotDefined
from gcl.evaluation import calibration
from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.conformal import conformal_quantile, set_scores
from gcl.evaluation.judge import Everyone, Judge, Judged, predicted_blocks
from gcl.evaluation.probe import fit_probes, prepared
from gcl.evaluation.results import MetricRow, PredictedNodes, Predictions, summarise
from gcl.evaluation.selective import guaranteed_threshold, risk_at_coverage, risk_coverage, selective_scores
from gcl.graph import Labels, Split
from gcl.random import numpy_generator

_COVERAGES_TRIED = np.linspace(0.1, 1.0, 10)
Curve = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predictions with the figures and curves that say how good they are on the test nodes."""

    predictions: Predictions
    rows: list[MetricRow]
    curves: dict[str, Curve]
    notes: list[str]


def predict_nodes(
    z_RD: np.ndarray,
    labels: Labels,
    split: Split,
    everyone: Everyone,
    config: EvaluateConfig,
    *,
    protocol: str,
    seed: int,
    uncertainty_R: np.ndarray | None = None,
    row: str = "node",
) -> Predicted:
    """Predict every node from `split`'s training nodes, and measure on its test nodes.

    Args:
        z_RD: float32 embeddings of the R nodes that are measured.
        labels: classes of the same nodes.
        split: by positions among them, with at least 4 validation nodes; all its nodes labelled.
        everyone: all nodes, which are predicted in blocks, and which of them are measured.
        config: probe, target risk, conformal score, ...
        protocol: the split's, for the record.
        seed: of the halving of the validation nodes and of aps's draws.
        uncertainty_R: label-free uncertainty to compare with the probe's confidence; NaN is left out.
        row: what messages call a row: node, or graph.

    Raises:
        NotDefined: with too few validation nodes, or one class in training.
    """
    if len(split.validation) < 4:
        raise NotDefined(f"predictions need 4 validation {row}s to calibrate on, not {len(split.validation)}")
    order = numpy_generator(seed, "calibration").permutation(split.validation)
    choose, calibrate = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    y_R = labels.y_N
    fitting = Split(split.name, split.train, choose, split.test)
    z_RD = prepared(z_RD, config)
    probe = fit_probes(z_RD, y_R, fitting, config, num_classes=labels.num_classes, seed=seed)[0]
    logit_RK = probe.logits(z_RD)
    temperature = calibration.fit_temperature(logit_RK[choose], y_R[choose])
    judge = Judge(probe, logit_RK, temperature, everyone, config, seed=seed)
    chosen, calibrated, tested = (
        judge.judged(nodes, y_R[nodes]) for nodes in (choose, calibrate, split.test)
    )
    threshold = guaranteed_threshold(
        np.quantile(chosen.confidence_M, 1 - _COVERAGES_TRIED),
        calibrated.confidence_M,
        calibrated.is_wrong_M,
        target_risk=config.target_risk,
        delta=1 - config.risk_confidence,
    )
    quantile = conformal_quantile(calibrated.score_M, config.conformal_alpha)

    def blocks() -> Iterator[PredictedNodes]:
        return predicted_blocks(judge, threshold=threshold, quantile=quantile)

    uncertainty_M = None if uncertainty_R is None else uncertainty_R[split.test]
    in_sets = set_scores(tested.score_M <= quantile, judge.set_sizes(split.test, quantile))
    scores, curves = _measure(tested, threshold, in_sets, config, uncertainty_M)
    parts: list[tuple[Literal["validation", "test"], dict[str, float]]] = [
        ("validation", _answered(calibrated, threshold) | {"temperature": temperature}),
        ("test", scores),
    ]
    rows = [
        figure
        for part, values in parts
        for figure in summarise(
            [values],
            task="node_classification",
            protocol=protocol,
            split=part,
            seed=seed,
            embedding="method",
            over="calibrated probes",
        )
    ]
    notes = _notes(threshold, len(calibrate), config, row=row)
    return Predicted(Predictions(blocks, protocol, threshold), rows, curves, notes)


def _notes(threshold: float, num_calibration: int, config: EvaluateConfig, *, row: str) -> list[str]:
    if np.isfinite(threshold):
        return []
    return [
        f"no threshold on {num_calibration} calibration {row}s guarantees a risk of {config.target_risk:g} "
        f"with probability {config.risk_confidence:g}: every {row} abstains"
    ]


def _answered(judged: Judged, threshold: float) -> dict[str, float]:
    """Share of nodes with an answer, and the error rate among those (NaN where none has one)."""
    is_answered_M = judged.confidence_M >= threshold
    num_answered = int(is_answered_M.sum())
    risk = judged.is_wrong_M[is_answered_M].mean() if num_answered else np.nan
    return {"answered": num_answered / len(is_answered_M), "answered_risk": float(risk)}


def _measure(
    tested: Judged,
    threshold: float,
    in_sets: dict[str, float],
    config: EvaluateConfig,
    uncertainty_M: np.ndarray | None,
) -> tuple[dict[str, float], dict[str, Curve]]:
    """Figures, those of the prediction sets among them, and curves on the test nodes."""
    bins = config.num_calibration_bins
    confidence_M, before_M, is_wrong_M = tested.confidence_M, tested.uncalibrated_M, tested.is_wrong_M
    curves = {
        "risk_coverage_confidence": risk_coverage(-confidence_M, is_wrong_M),
        "reliability": calibration.reliability(confidence_M, ~is_wrong_M, num_bins=bins)[:2],
        "reliability_uncalibrated": calibration.reliability(before_M, ~is_wrong_M, num_bins=bins)[:2],
    }
    scores = {
        "calibrated_accuracy": float((~is_wrong_M).mean()),
        "ece": calibration.expected_calibration_error(confidence_M, ~is_wrong_M, num_bins=bins),
        "ece_uncalibrated": calibration.expected_calibration_error(before_M, ~is_wrong_M, num_bins=bins),
        "brier": float(tested.squared_error_M.mean()),
        "nll": calibration.negative_log_likelihood(tested.p_true_M),
        **selective_scores(-confidence_M, is_wrong_M),
        "risk_at_coverage": risk_at_coverage(-confidence_M, is_wrong_M, config.target_coverage),
        **_answered(tested, threshold),
        **in_sets,
    }
    if uncertainty_M is not None and (is_scored_M := np.isfinite(uncertainty_M)).any():
        uncertainty_S, is_wrong_S = uncertainty_M[is_scored_M], is_wrong_M[is_scored_M]
        curves["risk_coverage_uncertainty"] = risk_coverage(uncertainty_S, is_wrong_S)
        by_uncertainty = selective_scores(uncertainty_S, is_wrong_S)
        scores |= {f"{name}_uncertainty": value for name, value in by_uncertainty.items()}
    return scores, curves
