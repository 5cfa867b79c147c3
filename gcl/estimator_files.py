"""A trained estimator on disk: weights as safetensors, everything else as JSON, no code in either."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from gcl.checkpoint import save_weights
from gcl.errors import SourceUnreadable
from gcl.graph import Graph
from gcl.methods.base import Method

FORMAT = "gclflow-embedding-1"
RECORD_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


@dataclass(frozen=True)
class SavedRecord:
    """All but the weights.

    Attributes:
        settings: sections ``method``, ``train`` and, for methods that read smoothed rows, ``smooth``.
        seed: run seed.
        num_nodes: N of the graph it was fitted on.
        num_features: F, columns the method was built for.
        num_classes: K it was built for, or None.
        graph_sha256: digest of the graph it was fitted on.
        history: loss terms of each epoch.
    """

    settings: dict[str, Any]
    seed: int
    num_nodes: int
    num_features: int
    num_classes: int | None
    graph_sha256: str
    history: list[dict[str, float]]


def write_saved(folder: Path, method: Method, record: SavedRecord) -> None:
    """Write a folder that `read_saved` verifies; equal models give equal bytes.

    Args:
        folder: made when missing; what it held before is replaced.
        method: its weights.
        record: everything else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(method, folder / WEIGHTS_FILE)
    sealed = {"format": FORMAT, "weights_sha256": _sha256(folder / WEIGHTS_FILE), **asdict(record)}
    # Last, and at once: two files that do not belong together do not load.
    partial = folder / f".{RECORD_FILE}.partial"
    partial.write_text(json.dumps(sealed, indent=1) + "\n")
    partial.replace(folder / RECORD_FILE)


def read_saved(folder: Path) -> SavedRecord:
    """The record of a folder whose weights belong to it.

    Raises:
        SourceUnreadable: files missing, damaged, of another format, or not belonging together.
    """
    try:
        sealed = json.loads((folder / RECORD_FILE).read_bytes())
        if sealed.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        if _sha256(folder / WEIGHTS_FILE) != sealed.pop("weights_sha256"):
            raise ValueError(f"{WEIGHTS_FILE} does not match the checksum in {RECORD_FILE}")
        return SavedRecord(**sealed)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceUnreadable(f"{folder}: not a saved embedding: {error}") from error


def graph_digest(graph: Graph) -> str:
    """sha256 of what a method can read of a graph: nodes, edges, weights, features.

    Args:
        graph: in canonical form, so that equal graphs have equal digests.
    """
    parts: list[np.ndarray | None] = [np.array([graph.num_nodes]), graph.src_E, graph.dst_E, graph.weight_E]
    if sp.issparse(graph.x_NF):
        parts += [graph.x_NF.data, graph.x_NF.indices.astype(np.int64), graph.x_NF.indptr.astype(np.int64)]
    else:
        parts.append(graph.x_NF)
    return arrays_digest(*parts)


def arrays_digest(*parts: np.ndarray | None) -> str:
    """sha256 of arrays, their types and shapes; None is a part of its own."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"none" if part is None else f"{part.dtype.str}{part.shape}".encode())
        if part is not None:
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
