"""R17, R20, R27, R29: values that are not finite, edges in any order, types and spellings of numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_contracts.errors import ContractViolation
from flows.config import load_config
from flows.exit_codes import exit_code
from flows.wiring import PipelineState, request_ingest
from gcl.errors import InvalidGraph, SourceUnreadable
from tasks.artifact import Manifest
from tasks.ingest import INGEST
from tasks.store import Store
from tests.sources import adgc, heterophilous, own_csv

pytestmark = pytest.mark.fault
REFUSED = (ContractViolation, InvalidGraph, SourceUnreadable)
SHAPE = (4, 3)


def ingest(overrides: dict[str, Any], folder: Path) -> tuple[Store, Manifest]:
    store = Store(folder)
    settings = [f"dataset.{name}={value}" for name, value in overrides.items()]
    config = load_config(preset="none", overrides=settings)[0]
    return store, INGEST.execute(request_ingest(PipelineState(config, store)), store)


def features(store: Store, manifest: Manifest) -> np.ndarray:
    table = pq.read_table(store.path(manifest.artifacts["graph"]) / "features.parquet")
    return np.array(table.column("x").to_pylist())


# --- R17 ------------------------------------------------------------------------------------------------

BAD = [float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", ">f8"])
def test_a_value_that_is_not_finite_is_refused_with_its_row_and_column(dtype: str, tmp_path: Path) -> None:
    """Every position of a small table in turn, and every kind of value."""
    positions = list(np.ndindex(SHAPE))
    for number, position in enumerate(positions if dtype == "<f4" else positions[5:7]):
        x_NF = np.ones(SHAPE, dtype)
        x_NF[position] = BAD[number % 3]
        with pytest.raises(ContractViolation) as caught:
            ingest(adgc(tmp_path, feat=x_NF), tmp_path / "store")
        (failure,) = (f for f in caught.value.failures if f.rule == "features_finite")
        assert (failure.num_rows, failure.sample[0]["row"]) == (1, position[0])
        assert str(position[1]) in str(failure.sample[0]), "the column is shown"
    assert exit_code(caught.value) == 3
    assert not list(Store(tmp_path / "store").folders())


@pytest.mark.parametrize("value", [1e39, -1e300])
def test_a_number_beyond_float32_is_refused_and_not_made_infinite(value: float, tmp_path: Path) -> None:
    with pytest.raises(ContractViolation, match="features_finite"):
        ingest(adgc(tmp_path, feat=np.full(SHAPE, value)), tmp_path / "store")


# --- R20 ------------------------------------------------------------------------------------------------


def test_the_order_of_edges_does_not_reach_the_graph_and_merged_ones_are_counted(tmp_path: Path) -> None:
    lines = [b"ann,bob", b"bob,cyd", b"ann,bob", b"cyd,cyd", b"cyd,ann"]
    digests, draws = set(), np.random.default_rng(20)
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        order = draws.permutation(len(lines)) if number else range(len(lines))
        edges = b"source,target\n" + b"\n".join(lines[i] for i in order) + b"\n"
        store, manifest = ingest(own_csv(folder, edges=edges), folder / "store")
        digests.add(manifest.artifacts["graph"].digest)
    assert len(digests) == 1
    notes = json.loads((store.path(manifest.artifacts["graph"]) / "metadata.json").read_bytes())
    counted = {name: notes[f"source_{name}"] for name in ("edges", "self_loops", "duplicates", "one_way")}
    assert counted == {"edges": 5, "self_loops": 1, "duplicates": 1, "one_way": 3}


@pytest.mark.parametrize("policy", ["self_loops", "duplicates", "one_way"])
def test_a_policy_of_refusal_refuses(policy: str, tmp_path: Path) -> None:
    edges = b"source,target\nann,bob\nbob,ann\n" + {
        "self_loops": b"cyd,cyd\n", "duplicates": b"ann,bob\n", "one_way": b"cyd,ann\n",
    }[policy]  # fmt: skip
    manifest = own_csv(tmp_path, edges=edges)
    text = (tmp_path / "graph.toml").read_bytes()
    (tmp_path / "graph.toml").write_bytes(text + b"directed = true\n")
    with pytest.raises(InvalidGraph, match=r"graph\.edges"):
        ingest(manifest | {policy: "reject"}, tmp_path / "store")


# --- R27 ------------------------------------------------------------------------------------------------

WHOLE = np.arange(12).reshape(SHAPE)
FEATURES: dict[str, Callable[[], np.ndarray]] = {
    "bool": lambda: WHOLE % 2 == 0,
    **{
        kind: (lambda kind=kind: WHOLE.astype(kind))
        for kind in ("i1", "u1", "<i2", ">i4", "<u8", ">f8", "<f2")
    },
    "object": lambda: WHOLE.astype(object),
    "complex": lambda: WHOLE + 1j,
    "text": lambda: WHOLE.astype("U3"),
    "dates": lambda: WHOLE.astype("M8[s]"),
    "records": lambda: np.zeros(SHAPE, [("a", "f4")]),
}


@pytest.mark.parametrize("kind", FEATURES)
def test_features_of_any_type_keep_their_values_or_are_refused(kind: str, tmp_path: Path) -> None:
    values = FEATURES[kind]()
    if kind in ("object", "complex", "text", "dates", "records"):
        with pytest.raises(SourceUnreadable):
            ingest(adgc(tmp_path, feat=values), tmp_path / "store")
        return
    try:
        store, manifest = ingest(adgc(tmp_path, feat=values), tmp_path / "store")
    except REFUSED:
        return
    assert np.array_equal(features(store, manifest), values.astype(float))


@pytest.mark.parametrize("kind", ["|b1", "<f8", "<c16", "O", "U2", "<u8", ">i8", "i1", ">u2"])
def test_edges_of_any_type_keep_their_nodes_or_are_refused(kind: str, tmp_path: Path) -> None:
    edges = np.array([[0, 1], [1, 2]])
    try:
        store, manifest = ingest(heterophilous(tmp_path, edges=edges.astype(kind)), tmp_path / "store")
    except REFUSED:
        assert kind in ("|b1", "<f8", "<c16", "O", "U2", "<u8")
        return
    table = pq.read_table(store.path(manifest.artifacts["graph"]) / "edges.parquet").to_pydict()
    assert set(zip(table["src"], table["dst"], strict=True)) == {(0, 1), (1, 0), (1, 2), (2, 1)}


@pytest.mark.parametrize("kind", ["<f8", "|b1", "<c16", "O", "<u8", ">i4", "i1"])
def test_labels_of_any_type_keep_their_classes_or_are_refused(kind: str, tmp_path: Path) -> None:
    labels = np.array([0, 1, 0])
    try:
        store, manifest = ingest(heterophilous(tmp_path, node_labels=labels.astype(kind)), tmp_path / "store")
    except REFUSED:
        return
    table = pq.read_table(store.path(manifest.artifacts["labels"]) / "labels.parquet").to_pydict()
    assert table["label"] == [0, 1, 0]


# --- R29 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["1,5", "1.000,5", "1 000", "1'000", "0x10", "1_000", "١", "１", "1e", "--1", "½"]
)
def test_a_number_of_another_locale_or_language_is_refused(text: str, tmp_path: Path) -> None:
    nodes = f'id,label,a,b\nann,x,"{text}",2\nbob,y,3,4\ncyd,x,5,6\n'.encode()
    with pytest.raises(SourceUnreadable, match="invalid value"):
        ingest(own_csv(tmp_path, nodes=nodes), tmp_path / "store")


@pytest.mark.parametrize(
    ("text", "value"), [("1.5", 1.5), ("1e5", 1e5), ("-0.25", -0.25), ("+7", 7.0), ("007", 7.0)]
)
def test_a_plain_number_is_what_it_says_or_refused(text: str, value: float, tmp_path: Path) -> None:
    nodes = f"id,label,a,b\nann,x,{text},2\nbob,y,3,4\ncyd,x,5,6\n".encode()
    try:
        store, manifest = ingest(own_csv(tmp_path, nodes=nodes), tmp_path / "store")
    except SourceUnreadable:
        assert text.startswith("+")
        return
    assert features(store, manifest)[0, 0] == np.float32(value)
