"""One answer a node, with calibrated confidence, abstention and a prediction set.

Three disjoint groups of labelled nodes have three jobs. Training nodes fit the probe. The first half of
the validation nodes chooses its penalty, the temperature and the candidate thresholds. The second half,
untouched until then, sets the abstention threshold and the conformal quantile, which is what their
guarantees ask for. Test nodes are only measured.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from gcl.errors import NotDefined
from gcl.evaluation import calibration
from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.conformal import conformal_quantile, nonconformity, set_scores
from gcl.evaluation.probe import fit_probes, prepared
from gcl.evaluation.results import MetricRow, Predictions, summarise
from gcl.evaluation.selective import guaranteed_threshold, risk_at_coverage, risk_coverage, selective_scores
from gcl.graph import Graph, Labels, Split
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
    z_ND: np.ndarray,
    labels: Labels,
    split: Split,
    graph: Graph,
    config: EvaluateConfig,
    *,
    protocol: str,
    seed: int,
    uncertainty_N: np.ndarray | None = None,
) -> Predicted:
    """Predict every node from `split`'s training nodes, and measure on its test nodes.

    Args:
        z_ND: float32 embeddings.
        labels: classes.
        split: with at least 4 validation nodes; all its nodes labelled.
        graph: for the daps score.
        config: probe, target risk, conformal score, ...
        protocol: the split's, for the record.
        seed: of the halving of the validation nodes and of aps's draws.
        uncertainty_N: label-free uncertainty to compare with the probe's confidence; NaN is left out.

    Raises:
        NotDefined: with too few validation nodes, or one class in training.
    """
    if len(split.validation) < 4:
        raise NotDefined(f"predictions need 4 validation nodes to calibrate on, not {len(split.validation)}")
    order = numpy_generator(seed, "calibration").permutation(split.validation)
    choose, calibrate = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    y_N = labels.y_N
    fitting = Split(split.name, split.train, choose, split.test)
    probe = fit_probes(
        prepared(z_ND, config), y_N, fitting, config, num_classes=labels.num_classes, seed=seed
    )[0]
    temperature = calibration.fit_temperature(probe.logit_NK[choose], y_N[choose])
    p_NK = calibration.probabilities(probe.logit_NK, temperature)
    predicted_N = p_NK.argmax(1)
    confidence_N = p_NK.max(1)
    threshold = guaranteed_threshold(
        np.quantile(confidence_N[choose], 1 - _COVERAGES_TRIED),
        confidence_N[calibrate],
        predicted_N[calibrate] != y_N[calibrate],
        target_risk=config.target_risk,
        delta=1 - config.risk_confidence,
    )
    set_NK = _prediction_sets(p_NK, y_N, calibrate, graph, config, seed=seed)
    predictions = Predictions(
        predicted_N.astype(np.int32),
        confidence_N.astype(np.float32),
        -(p_NK * np.log(np.where(p_NK > 0, p_NK, 1))).sum(1).astype(np.float32),
        confidence_N < threshold,
        set_NK,
        protocol,
        threshold,
    )
    uncalibrated_NK = calibration.probabilities(probe.logit_NK, 1.0)
    scores, curves = _measure(predictions, p_NK, uncalibrated_NK, y_N, split.test, config, uncertainty_N)
    on_calibration = _answered(predictions, y_N, calibrate) | {"temperature": temperature}
    parts: list[tuple[Literal["validation", "test"], dict[str, float]]] = [
        ("validation", on_calibration),
        ("test", scores),
    ]
    rows = [
        row
        for part, values in parts
        for row in summarise(
            [values],
            task="node_classification",
            protocol=protocol,
            split=part,
            seed=seed,
            embedding="method",
            over="calibrated probes",
        )
    ]
    return Predicted(predictions, rows, curves, _notes(threshold, len(calibrate), config))


def _notes(threshold: float, num_calibration: int, config: EvaluateConfig) -> list[str]:
    if np.isfinite(threshold):
        return []
    return [
        f"no threshold on {num_calibration} calibration nodes guarantees a risk of {config.target_risk:g} "
        f"with probability {config.risk_confidence:g}: every node abstains"
    ]


def _prediction_sets(
    p_NK: np.ndarray,
    y_N: np.ndarray,
    calibrate: np.ndarray,
    graph: Graph,
    config: EvaluateConfig,
    *,
    seed: int,
) -> np.ndarray:
    draw_N = numpy_generator(seed, "conformal").random(len(p_NK))
    score_NK = nonconformity(
        p_NK, score=config.conformal, draw_N=draw_N, graph=graph, daps_weight=config.daps_weight
    )
    return np.asarray(
        score_NK <= conformal_quantile(score_NK[calibrate, y_N[calibrate]], config.conformal_alpha)
    )


def _answered(predictions: Predictions, y_N: np.ndarray, nodes: np.ndarray) -> dict[str, float]:
    """Share of nodes with an answer, and the error rate among those (NaN where none has one)."""
    answered = nodes[~predictions.abstain_N[nodes]]
    risk = (predictions.predicted_N[answered] != y_N[answered]).mean() if len(answered) else np.nan
    return {"answered": len(answered) / len(nodes), "answered_risk": float(risk)}


def _measure(
    predictions: Predictions,
    p_NK: np.ndarray,
    uncalibrated_NK: np.ndarray,
    y_N: np.ndarray,
    test: np.ndarray,
    config: EvaluateConfig,
    uncertainty_N: np.ndarray | None,
) -> tuple[dict[str, float], dict[str, Curve]]:
    """Figures and curves on the test nodes."""
    bins = config.num_calibration_bins
    y_M = y_N[test]
    is_right_M = predictions.predicted_N[test] == y_M
    confidence_M, before_M = p_NK[test].max(1), uncalibrated_NK[test].max(1)
    curves = {
        "risk_coverage_confidence": risk_coverage(-confidence_M, ~is_right_M),
        "reliability": calibration.reliability(confidence_M, is_right_M, num_bins=bins)[:2],
        "reliability_uncalibrated": calibration.reliability(before_M, is_right_M, num_bins=bins)[:2],
    }
    scores = {
        "calibrated_accuracy": float(is_right_M.mean()),
        "ece": calibration.expected_calibration_error(confidence_M, is_right_M, num_bins=bins),
        "ece_uncalibrated": calibration.expected_calibration_error(before_M, is_right_M, num_bins=bins),
        "brier": calibration.brier_score(p_NK[test], y_M),
        "nll": calibration.negative_log_likelihood(p_NK[test], y_M),
        **selective_scores(-confidence_M, ~is_right_M),
        "risk_at_coverage": risk_at_coverage(-confidence_M, ~is_right_M, config.target_coverage),
        **_answered(predictions, y_N, test),
        **set_scores(predictions.set_NK[test], y_M),
    }
    scored = test[np.isfinite(uncertainty_N[test])] if uncertainty_N is not None else test[:0]
    if uncertainty_N is not None and len(scored):
        is_wrong_S = predictions.predicted_N[scored] != y_N[scored]
        curves["risk_coverage_uncertainty"] = risk_coverage(uncertainty_N[scored], is_wrong_S)
        scores |= {
            f"{name}_uncertainty": value
            for name, value in selective_scores(uncertainty_N[scored], is_wrong_S).items()
        }
    return scores, curves
