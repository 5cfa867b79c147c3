"""Heterogeneous graphs held in a notebook become sources, checked, and folders that the pipeline reads."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gcl.hetero_findings import InvalidHetero
from gcl.interop_hetero import to_dgl
from gcl.readers.gconstruct import GconstructConfig, open_source
from gcl.readers.gconstruct_writer import write_gconstruct
from gcl.readers.hetero_base import HeteroSource
from gcl.readers.hetero_held import held_source, source_from_dgl, source_from_pyg
from tests.unit.gcl.test_gconstruct_writer import assert_same
from tests.unit.gcl.test_interop_hetero import LIKES, FakeHeteroData, same, shop

MASKS = {
    "train_mask": torch.tensor([True, False, False, False, False]),
    "val_mask": torch.tensor([False, False, False, True, False]),
    "test_mask": torch.tensor([False, True, True, False, False]),
}
CLASSES = torch.tensor([1, 0, 1, 0, -1])


def from_pyg_with(**of_target: Any) -> HeteroSource:
    graph, data = shop(weights={LIKES: [1.0, 2.0, 3.0]}), FakeHeteroData()
    for type_, count in graph.num_nodes.items():
        data.stores[type_] = SimpleNamespace(num_nodes=count, x=graph.features[type_])
    for relation, ends in graph.edges.items():
        data.stores[relation] = SimpleNamespace(edge_index=torch.tensor(np.stack(ends)))
    data.stores[LIKES].edge_weight = torch.tensor([1.0, 2.0, 3.0])
    for name, values in of_target.items():
        setattr(data.stores["user"], name, values)
    return source_from_pyg(data, target="user", metapaths=["user >buys> item <likes< user"])


def from_dgl_with(**of_target: Any) -> HeteroSource:
    pytest.importorskip("dgl")
    heterograph = to_dgl(shop(features={"user": np.arange(10).reshape(5, 2), "item": np.eye(3)}))
    for name, values in of_target.items():
        heterograph.nodes["user"].data["label" if name == "y" else name] = values
    return source_from_dgl(heterograph, target="user", metapaths=["UIU=user >buys> item <buys< user"])


@pytest.mark.parametrize("held", [from_pyg_with, from_dgl_with])
def test_labels_masks_and_metapaths_come_along_and_into_a_folder(held: Any, tmp_path: Path) -> None:
    source = held(y=CLASSES, **MASKS)
    assert source.y_N is not None
    assert source.y_N.tolist() == [1, 0, 1, 0, -1]
    assert source.class_names == ("0", "1")
    (split,) = source.splits
    assert split.name == "masks"
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == ([0], [3], [1, 2])
    assert [plan.name for plan in source.metapaths] == ["UIU"]
    write_gconstruct(tmp_path, source)
    assert_same(source, open_source(GconstructConfig(path=tmp_path, weights="honour")))


@pytest.mark.parametrize("held", [from_pyg_with, from_dgl_with])
def test_labels_and_masks_are_optional(held: Any) -> None:
    assert held().y_N is None
    assert held(y=CLASSES).splits == ()
    assert held(y=CLASSES, train_mask=MASKS["train_mask"]).splits == ()


def test_the_graph_stays_what_it_is() -> None:
    graph = shop(weights={LIKES: [1.0, 2.0, 3.0]})
    assert same(held_source(graph).graph, graph)


def test_nodes_may_have_ids_of_their_own() -> None:
    users = ["u3", "u1", "u4", "u5", "u9"]
    splits = {"mine": {"train": ["u3"], "validation": ["u9"], "test": ["u1"]}}
    source = held_source(shop(), labels=list("ababa"), splits=splits, node_ids={"user": users})
    assert source.node_ids["user"].to_pylist() == users
    assert source.node_ids["item"].to_pylist() == [0, 1, 2]
    assert source.class_names == ("a", "b")
    (split,) = source.splits
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == ([0], [4], [1])


def test_one_report_lists_all_that_is_wrong() -> None:
    with pytest.raises(InvalidHetero) as refused:
        held_source(
            shop(),
            labels=[0, 1, 0, None, 1],
            splits={"mine": {"train": [0, 3], "validation": [7], "test": [0]}},
            node_ids={"item": [4, 4, 5]},
        )
    message = str(refused.value)
    for expected in ("H04", "item 4", "H14", "train: 3", "validation: 7", "mine: 0"):
        assert expected in message, expected


@pytest.mark.parametrize("wrong", [{"labels": [0, 1]}, {"node_ids": {"user": [1, 2]}}])
def test_labels_and_ids_of_another_number_are_refused(wrong: Any) -> None:
    with pytest.raises(InvalidHetero, match="H16"):
        held_source(shop(), **wrong)


def test_a_metapath_that_does_not_chain_is_refused() -> None:
    with pytest.raises(InvalidHetero, match="H11"):
        held_source(shop(), metapaths=["user-planet-user"])
