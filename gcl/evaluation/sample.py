"""Which nodes are measured: all that have a label, or one seeded sample of very many.

Method and controls are measured on the same nodes, and so are runs that differ in their seed alone: the
sample is drawn with the seed of the splits. Node ids stay those of the graph up to here; what is read is
a small data set of R rows, in which a node is its position.

Legend: N nodes, R nodes whose rows are read, D columns.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from gcl.evaluation.classification import check_splits
from gcl.evaluation.clusters import silhouette_nodes
from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.protocols import chosen_protocols, labelled_nodes, protocol_of
from gcl.evaluation.results import EvaluationInputs
from gcl.graph import Labels, Split
from gcl.random import numpy_generator


@dataclass(frozen=True, eq=False)
class Sample:
    """The nodes of an evaluation.

    Attributes:
        nodes_R: int64, ascending: nodes whose rows are read; all N where N is no more than `max_nodes`.
        labels: those of the nodes that were drawn, the others hidden; for what draws splits or clusters.
        splits: the data set's own, of the nodes that are measured.
        facts: how many nodes were drawn, of how many, with which seed; None where no sample was needed.
        notes: what a reader must know.
    """

    nodes_R: np.ndarray
    labels: Labels | None
    splits: tuple[Split, ...]
    facts: dict[str, int] | None
    notes: tuple[str, ...] = ()

    def positions(self, nodes: np.ndarray) -> np.ndarray:
        """int64 places in `nodes_R` of nodes that are among them."""
        return np.searchsorted(self.nodes_R, nodes)

    def local_split(self, split: Split) -> Split:
        """A split by positions."""
        return Split(split.name, *(self.positions(part) for part in _parts(split)))

    def local_labels(self, labels: Labels) -> Labels:
        """Labels of the nodes whose rows are read."""
        return Labels(labels.y_N[self.nodes_R], labels.class_names)


def draw_sample(inputs: EvaluationInputs, config: EvaluateConfig, *, seed: int) -> Sample:
    """Choose the nodes to measure on.

    Splits that the data set brings are its own rule: they stay whole unless a protocol's splits name more
    than `max_nodes` labelled nodes. Then one sample of these is kept, so that every part of every split
    shrinks in the same proportion, up to chance.

    Args:
        inputs: labels, splits, number of nodes.
        config: how many nodes, and the seed they are drawn with.
        seed: the run's seed, of the nodes the silhouette of the clusters is taken on.

    Raises:
        ValueError: splits that share nodes or name nodes there are not.
    """
    num_nodes = inputs.graph.num_nodes
    if num_nodes <= config.max_nodes:
        return Sample(np.arange(num_nodes), inputs.labels, inputs.splits, None)
    read = [] if inputs.cluster_N is None else [silhouette_nodes(num_nodes, config, seed=seed)]
    if inputs.labels is None:
        return Sample(_union(read, num_nodes), None, inputs.splits, None)
    chosen = chosen_protocols(inputs, config)
    splits = tuple(split for split in inputs.splits if protocol_of(split) in chosen)
    check_splits(splits, num_nodes)
    y_N, labelled = inputs.labels.y_N, labelled_nodes(inputs.labels)
    notes: list[str] = []
    is_sampled = len(labelled) > config.max_nodes
    if is_sampled:
        splits, notes = _measured_splits(splits, y_N, config)
    for split in splits:
        read += [part[y_N[part] >= 0] for part in _parts(split)]
    if not is_sampled:
        return Sample(_union([*read, labelled], num_nodes), inputs.labels, splits, None)
    drawn = _draw(labelled, config)
    y_drawn_N = np.full_like(y_N, -1)
    y_drawn_N[drawn] = y_N[drawn]
    note = f"measured on {_share(len(labelled), config)}"
    return Sample(
        _union([*read, drawn], num_nodes),
        Labels(y_drawn_N, inputs.labels.class_names),
        splits,
        {"num_nodes": len(drawn), "num_labelled": len(labelled), "seed": config.split_seed},
        (note, *notes),
    )


def _measured_splits(
    splits: tuple[Split, ...], y_N: np.ndarray, config: EvaluateConfig
) -> tuple[tuple[Split, ...], list[str]]:
    """The splits, those of protocols with too many nodes reduced to a sample, and notes on either."""
    notes: list[str] = []
    kept: dict[str, np.ndarray] = {}
    for protocol in dict.fromkeys(map(protocol_of, splits)):
        own = (split for split in splits if protocol_of(split) == protocol)
        named = _union((part for split in own for part in _parts(split)), len(y_N))
        named = named[y_N[named] >= 0]
        if len(named) <= config.max_nodes:
            notes.append(f"{protocol}: measured on all {len(named):,} labelled nodes of its splits")
            continue
        kept[protocol] = y_N < 0  # unlabelled nodes of a split are counted, and left out, later
        kept[protocol][_draw(named, config)] = True
        share = _share(len(named), config)
        notes.append(f"{protocol}: measured on {share}, the parts of its splits in proportion")
    return tuple(_reduced(split, kept.get(protocol_of(split))) for split in splits), notes


def _parts(split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return split.train, split.validation, split.test


def _reduced(split: Split, is_kept_N: np.ndarray | None) -> Split:
    if is_kept_N is None:
        return split
    return Split(split.name, *(part[is_kept_N[part]] for part in _parts(split)))


def _draw(nodes: np.ndarray, config: EvaluateConfig) -> np.ndarray:
    """`max_nodes` of the nodes, ascending."""
    generator = numpy_generator(config.split_seed, "evaluation-sample")
    return nodes[np.sort(generator.choice(len(nodes), config.max_nodes, replace=False))]


def _share(num_labelled: int, config: EvaluateConfig) -> str:
    return f"{config.max_nodes:,} of {num_labelled:,} labelled nodes, drawn with seed {config.split_seed}"


def _union(parts: Iterable[np.ndarray], num_nodes: int) -> np.ndarray:
    """int64, ascending: the nodes of any part."""
    is_named_N = np.zeros(num_nodes, bool)
    for part in parts:
        is_named_N[part] = True
    return np.flatnonzero(is_named_N)
