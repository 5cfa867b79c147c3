"""How sure an embedding is of each node, without labels."""

from gcl.uncertainty.config import UncertaintyConfig
from gcl.uncertainty.score import METHODS, UncertaintyInputs, score_uncertainty

__all__ = ["METHODS", "UncertaintyConfig", "UncertaintyInputs", "score_uncertainty"]
