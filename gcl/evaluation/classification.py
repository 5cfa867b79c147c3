"""Node classification: the same probe on the method's embeddings and on both controls."""

from collections.abc import Iterable

import numpy as np
from scipy.special import softmax

from gcl.errors import NotDefined
from gcl.evaluation.agreement import classification_scores
from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.probe import Probe, fit_probes, prepared
from gcl.evaluation.protocols import PROTOCOLS
from gcl.evaluation.restarts import auc_scores, restart_scores
from gcl.evaluation.results import MetricRow, summarise
from gcl.graph import Labels, Split


def classification_rows(
    z_ND: np.ndarray,
    labels: Labels,
    splits: tuple[Split, ...],
    config: EvaluateConfig,
    *,
    protocol: str,
    embedding: str,
    seed: int,
) -> list[MetricRow]:
    """Validation and test scores of one embedding under one protocol.

    Several splits: a value a split (the mean of its probe seeds). One split: a value a probe seed; the
    logistic probe has none, so n is 1 and std 0.

    Args:
        z_ND: float32 embeddings.
        labels: classes; the splits' nodes must have one (see `usable_splits`).
        splits: of the protocol.
        config: probe and budget.
        protocol: for the rows.
        embedding: for the rows.
        seed: the run's seed.

    Raises:
        NotDefined: when a split has fewer than two classes in training.
    """
    z_ND = prepared(z_ND, config)
    repeats: dict[str, list[dict[str, float]]] = {"validation": [], "test": []}
    for split in splits:
        for part, scores in _scores(z_ND, labels, split, config, protocol=protocol, seed=seed).items():
            if len(splits) > 1 and scores:
                scores = [{name: float(np.mean([s[name] for s in scores])) for name in scores[0]}]
            repeats[part] += scores
    over = "splits" if len(splits) > 1 else "probe seeds"
    return [
        row
        for part in ("validation", "test")
        for row in summarise(
            repeats[part],
            task="node_classification",
            protocol=protocol,
            split="validation" if part == "validation" else "test",
            seed=seed,
            embedding=embedding,
            over=over,
        )
    ]


def _scores(
    z_ND: np.ndarray, labels: Labels, split: Split, config: EvaluateConfig, *, protocol: str, seed: int
) -> dict[str, list[dict[str, float]]]:
    """The scores of each probe on the validation and the test nodes of a split."""
    has_restarts = PROTOCOLS[protocol].has_restarts
    if has_restarts and config.probe == "linear":
        return restart_scores(z_ND, labels.y_N, split, config, num_classes=labels.num_classes, seed=seed)
    probes = fit_probes(z_ND, labels.y_N, split, config, num_classes=labels.num_classes, seed=seed)
    predicted = [probe.predict(z_ND) for probe in probes]
    found: dict[str, list[dict[str, float]]] = {"validation": [], "test": []}
    for part, values in found.items():
        nodes = getattr(split, part)
        if not len(nodes):
            continue
        values += [classification_scores(given_N[nodes], labels.y_N[nodes]) for given_N in predicted]
        if has_restarts:
            for score, probe in zip(values, probes, strict=True):
                score["auc"] = _auc(probe, z_ND[nodes], labels.y_N[nodes])
    return found


def _auc(probe: Probe, z_MD: np.ndarray, y_M: np.ndarray) -> float:
    p_MK = softmax(probe.logits(z_MD), 1)[:, None, probe.classes_C]
    return float(auc_scores(p_MK, y_M, probe.classes_C)[0])


def usable_splits(
    splits: tuple[Split, ...], labels: Labels, *, row: str = "node"
) -> tuple[tuple[Split, ...], list[str]]:
    """Splits without their unlabelled nodes, and notes on what a reader must know about them.

    Args:
        splits: as given or drawn.
        labels: of all rows.
        row: what messages call a row: node, or graph.

    Raises:
        NotDefined: when the labels hold fewer than two classes, or a part loses all its nodes.
        ValueError: when the parts of a split share nodes or point outside the graph.
    """
    present = np.unique(labels.y_N[labels.y_N >= 0])
    if len(present) < 2:
        raise NotDefined(f"{row} classification needs two classes; the labels hold {len(present)}")
    check_splits(splits, len(labels.y_N))
    usable, notes = [], []
    for split in splits:
        everyone = (split.train, split.validation, split.test)
        parts = [part[labels.y_N[part] >= 0] for part in everyone]
        if not len(parts[0]) or not len(parts[2]):
            raise NotDefined(f"split {split.name} has no labelled training or test {row}")
        num_dropped = sum(map(len, everyone)) - sum(map(len, parts))
        notes += _split_notes(split.name, num_dropped, parts, labels, row=row)
        usable.append(Split(split.name, *parts))
    return tuple(usable), notes


def check_splits(splits: Iterable[Split], num_nodes: int) -> None:
    """Refuse splits that are none.

    Raises:
        ValueError: when the parts of a split share nodes or point outside the graph.
    """
    for split in splits:
        parts = [part for part in (split.train, split.validation, split.test) if len(part)]
        if any(part.min() < 0 or part.max() >= num_nodes for part in parts):
            raise ValueError(f"split {split.name} names nodes outside 0..{num_nodes - 1}")
        is_named_N = np.zeros(num_nodes, bool)
        for part in parts:
            is_named_N[part] = True
        if np.count_nonzero(is_named_N) != sum(map(len, parts)):
            raise ValueError(f"split {split.name}: train, validation and test share nodes")


def _split_notes(
    name: str, num_dropped: int, parts: list[np.ndarray], labels: Labels, *, row: str
) -> list[str]:
    notes = []
    if num_dropped:
        notes.append(f"split {name}: {num_dropped} unlabelled {row}(s) left out")
    if not len(parts[1]):
        notes.append(f"split {name}: no validation {row}s, so nothing is chosen: C = 1, or the last epoch")
    missing = np.setdiff1d(labels.y_N[parts[2]], labels.y_N[parts[0]])
    if len(missing):
        names = ", ".join(labels.class_names[k] for k in missing)
        notes.append(f"split {name}: no training {row} of class {names}; its test {row}s count as errors")
    return notes
