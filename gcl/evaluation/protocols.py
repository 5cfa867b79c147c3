"""Evaluation protocols: one name, one rule.

A protocol that takes the data set's own splits recognises them by their names; a generated one draws
them. To add a protocol, add its function and one line in PROTOCOLS.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gcl.errors import NotDefined
from gcl.evaluation.results import EvaluationInputs, MetricRow
from gcl.evaluation.svm import MAX_ROWS, svm_rows
from gcl.graph import Labels, Split
from gcl.random import numpy_generator

if TYPE_CHECKING:
    from gcl.evaluation.config import EvaluateConfig

SplitRule = Callable[[EvaluationInputs, "EvaluateConfig"], tuple[Split, ...]]


@dataclass(frozen=True)
class Protocol:
    """One named rule.

    Attributes:
        task: node_classification, clustering or link_prediction.
        rule: the rule in words, for reports.
        splits: gives the splits of a node classification protocol.
        rows: gives the figures of one embedding, for one that is more than splits and a probe.
        has_restarts: whether AUC is reported too, and the linear probe is HeCo's: see `restarts`.
    """

    task: str
    rule: str
    splits: SplitRule | None = None
    has_restarts: bool = False
    rows: Callable[..., list[MetricRow]] | None = None


_NUMBERED = re.compile(r"(.+?)[-_/:. ]?\d+")
_SYNONYMS = {
    "public": "planetoid-public",
    "planetoid": "planetoid-public",
    "geom-gcn": "geom-10",
    "geom": "geom-10",
}


def protocol_of(split: Split) -> str:
    """The node classification protocol a data set's own split belongs to, by its name.

    A registered name stands for itself; otherwise a trailing number (the split's own) is dropped and the
    rest looked up, so ``geom-10/3`` and ``geom_3`` are splits of ``geom-10``. Anything else is ``given``.
    """
    name = split.name.lower()
    for candidate in (name, *(match[1] for match in [_NUMBERED.fullmatch(name)] if match)):
        candidate = _SYNONYMS.get(candidate, candidate)
        if candidate in PROTOCOLS and PROTOCOLS[candidate].task == "node_classification":
            return candidate
    return "given"


def own_splits(inputs: EvaluationInputs, config: "EvaluateConfig", *, protocol: str) -> tuple[Split, ...]:
    """The data set's splits that belong to `protocol`.

    Raises:
        NotDefined: where it has none.
    """
    found = tuple(split for split in inputs.splits if protocol_of(split) == protocol)
    if not found:
        raise NotDefined(f"the data set brings no split of protocol {protocol}")
    return found


def random_splits(
    inputs: EvaluationInputs, config: "EvaluateConfig", *, train_rate: float, validation_rate: float
) -> tuple[Split, ...]:
    """Seeded, disjoint splits of the labelled nodes, not stratified; the rest is test.

    Raises:
        NotDefined: with no labels, or too few to give every part a node.
    """
    nodes = labelled_nodes(inputs.labels)
    num_train, num_validation = round(len(nodes) * train_rate), round(len(nodes) * validation_rate)
    if min(num_train, num_validation, len(nodes) - num_train - num_validation) < 1:
        raise NotDefined(f"{len(nodes)} labelled {inputs.row}s are too few for a random split")
    splits = []
    for number in range(config.num_random_splits(len(nodes))):
        order = numpy_generator(config.split_seed, "split", number).permutation(nodes)
        train, validation, test = np.split(order, [num_train, num_train + num_validation])
        splits.append(Split(f"random/{number}", np.sort(train), np.sort(validation), np.sort(test)))
    return tuple(splits)


def labelled_nodes(labels: Labels | None) -> np.ndarray:
    """int64 ids of the nodes that have a label, ascending; empty without labels."""
    return np.zeros(0, np.int64) if labels is None else np.flatnonzero(labels.y_N >= 0)


def _own(name: str, rule: str, *, has_restarts: bool = False) -> Protocol:
    return Protocol("node_classification", rule, partial(own_splits, protocol=name), has_restarts)


def _heco(number: int) -> Protocol:
    rule = f"{number} training nodes a class, 1000 validation, 1000 test, as given"
    return _own(f"heco-{number}", rule, has_restarts=True)


PROTOCOLS: dict[str, Protocol] = {
    "planetoid-public": _own(
        "planetoid-public", "the data set's own split: 20 training nodes a class, 500 validation, 1000 test"
    ),
    "digits-20": _own("digits-20", "20 training nodes a class, 300 validation, the rest test"),
    "geom-10": _own("geom-10", "the 10 given splits, 48/32/20 %"),
    "wikics-20": _own("wikics-20", "the 20 given splits"),
    "heco-20": _heco(20),
    "heco-40": _heco(40),
    "heco-60": _heco(60),
    "given": _own("given", "the splits the data set brings"),
    "random-10-10-80": Protocol(
        "node_classification",
        "seeded random 10/10/80 splits of the labelled nodes, disjoint, not stratified",
        partial(random_splits, train_rate=0.1, validation_rate=0.1),
    ),
    "random-80-10-10": Protocol(
        "node_classification",
        "seeded random 80/10/10 splits of the labelled nodes, disjoint, not stratified",
        partial(random_splits, train_rate=0.8, validation_rate=0.1),
    ),
    "svm-10fold": Protocol(
        "node_classification",
        "ten stratified folds, shuffled with a seed; RBF support vector machine on embeddings as they are, C "
        "from 1e-3 to 1e3 by an inner five-fold search on the training part; std over the folds",
        rows=svm_rows,
    ),
    "kmeans-final": Protocol(
        "clustering",
        "k-means++ on the L2-normalised final embeddings of all labelled nodes, as many clusters as classes "
        "there, best inertia of the restarts; accuracy and macro F1 after Hungarian matching",
    ),
    "kmeans-raw": Protocol(
        "clustering",
        "as kmeans-final, on final embeddings as they are; added where the run's own clustering takes them "
        "so (cluster.normalise=false), whose controls it gives",
    ),
    "link-10-5": Protocol(
        "link_prediction",
        "10 % test and 5 % validation edges against as many non-edges, scored by cosine similarity",
    ),
}  # fmt: skip


def _for_graphs(labels: Labels) -> list[str]:
    """Collections are small, and known by their folds; predictions come from the first of the splits."""
    folds = ["svm-10fold"] if len(labelled_nodes(labels)) <= MAX_ROWS else []
    return [*folds, "random-80-10-10"]


def chosen_protocols(inputs: EvaluationInputs, config: "EvaluateConfig") -> tuple[str, ...]:
    """The protocols asked for, or those that suit the data: its own splits before random ones."""
    if config.protocols != "auto":
        return config.protocols
    names: list[str] = []
    if inputs.labels is not None:
        names += dict.fromkeys(protocol_of(split) for split in inputs.splits)
        names = names or (_for_graphs(inputs.labels) if inputs.rows_are_graphs else ["random-10-10-80"])
        names += ["kmeans-final"] if inputs.is_cluster_normalised else ["kmeans-final", "kmeans-raw"]
    if inputs.held_out is not None:
        names.append("link-10-5")
    return tuple(names)
