from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from gcl.errors import NotDefined
from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.protocols import PROTOCOLS, chosen_protocols, protocol_of, random_splits
from gcl.evaluation.results import EvaluationInputs
from gcl.graph import Graph, Labels, Split

EDGELESS = Graph(100, np.zeros(0, np.int64), np.zeros(0, np.int64))


def inputs(splits=(), y_N=None, labels=True):
    y_N = np.arange(100, dtype=np.int32) % 3 if y_N is None else y_N
    return EvaluationInputs(
        {"method": np.eye(100)}, EDGELESS, Labels(y_N, ("a", "b", "c")) if labels else None, splits
    )


def split(name):
    return Split(name, np.array([0, 1, 2]), np.array([3, 4, 5]), np.array([6, 7, 8]))


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("public", "planetoid-public"),
        ("planetoid-public", "planetoid-public"),
        ("digits-20", "digits-20"),
        ("geom-10/0", "geom-10"),
        ("geom_gcn_7", "given"),
        ("geom-gcn-7", "geom-10"),
        ("heco-40", "heco-40"),
        ("given/3", "given"),
        ("fold 3", "given"),
        ("kmeans-final", "given"),
    ],
)
def test_split_names_map_to_one_protocol(name, protocol):
    assert protocol_of(split(name)) == protocol


def test_auto_prefers_the_data_sets_own_splits():
    assert chosen_protocols(inputs((split("public"),)), EvaluateConfig()) == (
        "planetoid-public",
        "kmeans-final",
    )
    assert chosen_protocols(inputs(), EvaluateConfig()) == ("random-10-10-80", "kmeans-final")
    assert chosen_protocols(inputs(labels=False), EvaluateConfig()) == ()


def test_rows_are_clustered_as_they_are_too_where_the_runs_own_clustering_takes_them_so():
    raw = replace(inputs(), is_cluster_normalised=False)
    assert chosen_protocols(raw, EvaluateConfig()) == ("random-10-10-80", "kmeans-final", "kmeans-raw")


@pytest.mark.parametrize("names", [("no-such",), (), ("given", "given")])
def test_unknown_empty_or_repeated_protocols_are_refused(names):
    with pytest.raises(ValidationError, match="protocols"):
        EvaluateConfig(protocols=names)


@pytest.mark.parametrize("grid", [(1.0, 1.0), (2.0, 1.0), (0.0, 1.0), ()])
def test_penalty_grid_must_ascend_from_above_zero(grid):
    with pytest.raises(ValidationError):
        EvaluateConfig(probe_c=grid)


def test_random_splits_are_disjoint_covering_seeded_and_different():
    y_N = np.arange(100, dtype=np.int32) % 3
    y_N[:7] = -1
    rule = PROTOCOLS["random-10-10-80"].splits
    splits = rule(inputs(y_N=y_N), EvaluateConfig())
    assert len(splits) == 20
    for one in splits:
        everyone = np.concatenate([one.train, one.validation, one.test])
        assert sorted(everyone) == list(range(7, 100))
        assert (len(one.train), len(one.validation)) == (9, 9)
    assert len({one.train.tobytes() for one in splits}) == 20
    again = rule(inputs(y_N=y_N), EvaluateConfig())
    assert [a.test.tobytes() for a in splits] == [b.test.tobytes() for b in again]
    other = rule(inputs(y_N=y_N), EvaluateConfig(split_seed=1))
    assert splits[0].train.tobytes() != other[0].train.tobytes()


@pytest.mark.parametrize(("num_labelled", "count"), [(2708, 20), (10_000, 20), (18_333, 10), (10**6, 5)])
def test_large_sets_get_fewer_splits(num_labelled, count):
    assert EvaluateConfig().num_random_splits(num_labelled) == count
    assert EvaluateConfig(num_splits=3).num_random_splits(num_labelled) == 3


def test_too_few_labelled_nodes_are_not_defined():
    y_N = np.full(100, -1, np.int32)
    y_N[:3] = [0, 1, 2]
    with pytest.raises(NotDefined, match="too few"):
        random_splits(inputs(y_N=y_N), EvaluateConfig(), train_rate=0.1, validation_rate=0.1)


def test_a_protocol_whose_splits_are_absent_is_not_defined():
    with pytest.raises(NotDefined, match="geom-10"):
        PROTOCOLS["geom-10"].splits(inputs((split("public"),)), EvaluateConfig())
