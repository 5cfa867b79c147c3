"""Graph contrastive learning: readers, smoothing, methods, losses, clustering, uncertainty, evaluation.

What a notebook needs is here by name, and loaded when asked for: ``import gcl`` costs nothing.
"""

from importlib import import_module
from typing import Any

# By name, not by import statements: a stage's key covers all that the modules it reaches import, and
# every module of gcl reaches this one. Types for checkers and editors are in the stub beside this file.
_EXPORTS = {
    "METHODS": "gcl.methods",
    "ClusterConfig": "gcl.clustering.config",
    "ContrastiveEmbedding": "gcl.estimator",
    "Graph": "gcl.graph",
    "Labels": "gcl.graph",
    "SmoothingConfig": "gcl.smoothing",
    "cluster_embeddings": "gcl.clustering.fit",
    "read_dataset": "gcl.dataset",
    "smooth_features": "gcl.smoothing",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'gcl' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
