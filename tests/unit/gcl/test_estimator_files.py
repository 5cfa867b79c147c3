"""A saved estimator: what its graph's digest covers, and damage of every kind is noticed."""

import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from gcl.errors import SourceUnreadable
from gcl.estimator import ContrastiveEmbedding
from gcl.estimator_files import graph_digest
from tests.tiny_estimators import GRAPH, NUM_NODES, small


def test_digest_of_a_graph_covers_all_that_a_method_reads():
    weight_E = np.ones(GRAPH.num_edges, np.float32)
    changes = [
        {},
        {"num_nodes": NUM_NODES + 1},
        {"src_E": GRAPH.src_E[::-1]},
        {"dst_E": GRAPH.dst_E[::-1]},
        {"weight_E": weight_E},
        {"weight_E": 2 * weight_E},
        {"x_NF": GRAPH.x_NF + 1},
        {"x_NF": sp.csr_matrix(GRAPH.x_NF)},
        {"x_NF": None},
    ]
    digests = [graph_digest(replace(GRAPH, **change)) for change in changes]
    assert len(set(digests)) == len(changes)
    assert graph_digest(replace(GRAPH, x_NF=GRAPH.x_NF.copy())) == digests[0]


def _break_weights(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")


def _edit(**changes):
    def change(folder):
        record = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**record, **changes}))

    return change


@pytest.mark.parametrize(
    "damage",
    [
        _break_weights,
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text("[]"),
        _edit(format="something-else"),
        _edit(settings={"method": {"name": "dmat_i", "embedding_size": 0}}),
        _edit(settings={"method": {"name": "no_such_method"}}),
        _edit(settings=3),
        _edit(num_features="many"),
        _edit(more=1),
    ],
)
def test_damaged_folder_does_not_load(damage, tmp_path):
    folder = small("dmat_i").fit(GRAPH).save(tmp_path)
    damage(folder)
    with pytest.raises(SourceUnreadable):
        ContrastiveEmbedding.load(folder)


def test_loaded_model_without_a_graph_says_what_it_needs(tmp_path):
    loaded = ContrastiveEmbedding.load(small("dmat_i").fit(GRAPH).save(tmp_path))
    with pytest.raises(ValueError, match="no graph"):
        loaded.embed()
    assert loaded.notes == []
