"""Evaluation of embeddings under named protocols; the only part of gcl that reads labels."""

from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.evaluate import evaluate_embeddings
from gcl.evaluation.links import LeakedEdges, LinkPairs, assert_no_leak
from gcl.evaluation.protocols import PROTOCOLS
from gcl.evaluation.results import Evaluation, EvaluationInputs, MetricRow, PredictedNodes, Predictions

__all__ = [
    "PROTOCOLS",
    "EvaluateConfig",
    "Evaluation",
    "EvaluationInputs",
    "LeakedEdges",
    "LinkPairs",
    "MetricRow",
    "PredictedNodes",
    "Predictions",
    "assert_no_leak",
    "evaluate_embeddings",
]
