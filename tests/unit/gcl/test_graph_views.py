"""Views belong to their graph and epoch; pairs are weighed in fresh ones, a few anchors at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import gcl.methods.graph_views as graph_views
from gcl.methods import build_method
from gcl.methods.configs import NmlGclConfig, ProGclConfig
from tests.tiny_nml_gcl import NUM_NODES, SMALL, make_data

GCN = {"hidden_size": 6, "embedding_size": 4}
SETTINGS = {
    "network": NmlGclConfig(**SMALL),
    "free_form": NmlGclConfig(**SMALL, metric="free_form", alpha=1.2, alpha_scale="none"),
    "progcl": ProGclConfig(**GCN, projection_size=3, start_epoch=1, num_fit_columns=20),
}


class Heights(TorchDispatchMode):
    """Rows of the matrices [A, N] or [A, M] that are gathered from."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.gather.default and args[0].ndim == 2 and args[0].shape[1] == NUM_NODES:
            self.found.add(len(args[0]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("config", SETTINGS.values(), ids=SETTINGS.keys())
def test_a_few_anchors_at_a_time(config, monkeypatch):
    data, anchors_A = make_data(), np.arange(20)
    method = build_method(config, num_features=10, seed=0)
    method.after_epoch(data, epoch=0, seed=0)
    candidates_AM = (anchors_A[:, None] + np.arange(1, 9)) % NUM_NODES
    expected = method.negative_weights(data, anchors_A, candidates_AM, seed=3)
    for num_pairs, heights in ((7 * NUM_NODES, {7, 6}), (1, {1}), (1 << 24, {20})):
        monkeypatch.setattr(graph_views, "WEIGHED_PAIRS", num_pairs)
        with Heights() as seen:
            found = method.negative_weights(data, anchors_A, candidates_AM, seed=3)
        assert seen.found == heights
        np.testing.assert_allclose(found.weight_AM, expected.weight_AM, rtol=2e-4)
        np.testing.assert_allclose(found.similarity_AM, expected.similarity_AM, atol=1e-6)


def test_views_are_kept_for_an_epoch_and_never_serve_another_graph():
    graph = make_data().graph
    method = build_method(SETTINGS["progcl"], num_features=10, seed=0)
    first = method.views(graph, epoch=0, seed=0)
    assert method.views(graph, epoch=0, seed=0) is first
    assert method.views(graph, epoch=1, seed=0) is not first
    bare = replace(graph, src_E=graph.src_E[:0], dst_E=graph.dst_E[:0])
    method.views(graph, epoch=0, seed=0)
    assert [view.propagation.num_edges for view in method.views(bare, epoch=0, seed=0)] == [NUM_NODES] * 2
