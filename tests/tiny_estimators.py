"""A graph small enough for tests of the notebook's object, and estimators that fit it in no time."""

import numpy as np
import pytest

from gcl.estimator import ContrastiveEmbedding
from gcl.graph import Graph
from gcl.methods import method_class
from tests.methods import ON_ONE_GRAPH

NUM_NODES, NUM_CLASSES = 60, 3
SMALL = {"embedding_size": 8, "hidden_size": 8, "projection_size": 8}
by_method = pytest.mark.parametrize("name", ON_ONE_GRAPH)


def blobs(seed=0):
    """A graph of three noisy groups with features, and the group of each node."""
    generator = np.random.default_rng(seed)
    y_N = np.arange(NUM_NODES) % NUM_CLASSES
    x_NF = np.eye(NUM_CLASSES)[y_N].repeat(4, axis=1) + 0.3 * generator.normal(size=(NUM_NODES, 12))
    same_NN = y_N[:, None] == y_N[None, :]
    adjacency_NN = np.triu(generator.random((NUM_NODES, NUM_NODES)) < np.where(same_NN, 0.3, 0.02), 1)
    return Graph.from_scipy(adjacency_NN, np.abs(x_NF)), y_N


GRAPH, Y = blobs()


def small(name, **settings):
    fields = method_class(name).Config.model_fields
    sizes = {key: value for key, value in SMALL.items() if key in fields}
    return ContrastiveEmbedding(name, **{"epochs": 2, "batch_size": 32, **sizes, **settings})


def extras(name):
    """What fit needs beside the graph."""
    num_classes = (
        {"num_classes": NUM_CLASSES} if "num_clusters" in method_class(name).Config.model_fields else {}
    )
    return {"labels": Y} if method_class(name).uses_labels else num_classes


def reads_rows(name):
    return "smoothed" in method_class(name).inputs
