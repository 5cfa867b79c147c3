"""What a trained method reads, opened from artifacts: the same for training and for scoring with it."""

import numpy as np

from gcl.errors import UnsuitableSetting
from gcl.graph import Labels
from gcl.methods import build_method, method_class
from gcl.methods.base import Method, TrainingData
from gcl.methods.configs import MethodConfig
from gcl.workspace import Workspace
from tasks.convert import num_rows, read_graph, read_labels, read_matrix, read_splits
from tasks.other_inputs import read_other_inputs
from tasks.work import Work


def open_training_data(
    work: Work, config: MethodConfig, *, with_labels: bool = True, shared: Workspace | None = None
) -> TrainingData:
    """The inputs the method declares, and nothing more.

    Labels are opened only for a method that declares it uses them, and then only those of the
    training role of the source's first split are handed over; embedding needs none, even then.

    Args:
        work: the stage's.
        config: the method's configuration.
        with_labels: False leaves them out.
        shared: where smoothed rows are put; None for the workspace of all else.
    """
    declared = method_class(config.name)
    rows, workspace = work.input("smoothed") / "features.parquet", work.workspace()
    x_NF = read_matrix(rows, "x", shared or workspace) if "smoothed" in declared.inputs else None
    graph = read_graph(work.input("graph"), workspace=workspace) if "graph" in declared.inputs else None
    num_nodes = num_rows(rows) if graph is None else graph.num_nodes
    y_N = _training_labels(work) if declared.uses_labels and with_labels else None
    others = read_other_inputs(work, declared.inputs)
    return TrainingData(num_nodes=num_nodes, x_NF=x_NF, graph=graph, y_N=y_N, workspace=workspace, **others)


def build_for(data: TrainingData, config: MethodConfig, *, num_classes: int | None, seed: int) -> Method:
    """The untrained method for this data."""
    if data.x_NF is not None:
        num_features = data.x_NF.shape[1]
    elif data.collection is not None:
        num_features = data.collection.union.num_features
    else:
        num_features = data.graph.num_features if data.graph is not None else 0
    return build_method(
        config,
        num_features=num_features,
        num_classes=num_classes,
        num_nodes=data.num_nodes,
        num_metapaths=len(data.metapaths or ()),
        seed=seed,
    )


def _training_labels(work: Work) -> np.ndarray:
    folder = work.input("labels")
    labels: Labels | None = read_labels(folder)
    splits = read_splits(folder)
    if labels is None or not splits:
        raise UnsuitableSetting(
            f"{work.stage}: a method that uses labels needs a source with labels and a split"
        )
    y_N = np.full(len(labels.y_N), -1, np.int32)
    y_N[splits[0].train] = labels.y_N[splits[0].train]
    return y_N
