"""The streamed profile equals a computation on the whole table."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts import TABLES, reading
from data_contracts.profile import profile_table

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@pytest.fixture(autouse=True, params=[64, 1 << 17])
def batches_of_a_few_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows a batch, and the normal size: the borders between batches must not show."""
    if request.param == 64:
        monkeypatch.setattr(reading, "_batch_rows", lambda metadata, columns: 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profiles")


def write(folder: Path, name: str, columns: dict[str, Any], **schema: Any) -> Path:
    table = TABLES[name]
    wanted = table.schema(**schema)
    arrays = [pa.array(columns[field.name], field.type) for field in wanted]
    path = folder / "t.parquet"
    pq.write_table(pa.Table.from_arrays(arrays, schema=wanted), path, row_group_size=7)
    return path


@settings(max_examples=40, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(-5, 9), st.integers(-5, 9)), max_size=40))
def test_edge_profile_equals_naive(pairs: list[tuple[int, int]], folder: Path) -> None:
    path = write(folder, "graph.edges", {"src": [p[0] for p in pairs], "dst": [p[1] for p in pairs]})
    profile = profile_table(path, "graph.edges")
    assert profile["rows"] == len(pairs)
    for position, name in enumerate(("src", "dst")):
        values = [pair[position] for pair in pairs]
        assert profile[f"{name}.min"] == min(values, default=None)
        assert profile[f"{name}.max"] == max(values, default=None)
    assert profile["no_self_loops.broken"] == sum(s == d for s, d in pairs)
    neighbours = zip(pairs, pairs[1:], strict=False)
    assert profile["edges_strictly_increasing.broken"] == sum(b <= a for a, b in neighbours)
    assert profile["edges.asymmetric"] == int(sorted(pairs) != sorted((d, s) for s, d in pairs))


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(FLOATS, FLOATS, FLOATS), max_size=25))
def test_feature_profile_equals_naive(rows: list[tuple[float, ...]], folder: Path) -> None:
    path = write(folder, "graph.features", {"x": rows}, width=3)
    profile = profile_table(path, "graph.features")
    values = [value for row in rows for value in row]
    finite = [value for value in values if math.isfinite(value)]
    assert profile["x.non_finite"] == len(values) - len(finite)
    assert profile["x.min"] == min(finite, default=None)
    assert profile["x.max"] == max(finite, default=None)
    assert profile["x.max_abs"] == max(map(abs, finite), default=None)
    assert profile["x.width"] == 3


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.lists(st.integers(-1, 5), max_size=4), max_size=25))
def test_sparse_profile_equals_naive(rows: list[list[int]], folder: Path) -> None:
    values = [[1.0] * len(row) for row in rows]
    path = write(folder, "graph.features", {"indices": rows, "values": values}, layout="sparse")
    profile = profile_table(path, "graph.features")
    assert profile["indices.min"] == min((item for row in rows for item in row), default=None)
    assert profile["indices.max_length"] == max(map(len, rows), default=None)
    assert profile["indices_match_values.broken"] == 0
    unordered = [row for row in rows if sorted(set(row)) != row]
    assert profile["indices_strictly_increasing.broken"] == len(unordered)


@settings(max_examples=30, deadline=None)
@given(clusters=st.lists(st.integers(-1, 4), max_size=25), ids=st.data())
def test_cluster_profile_equals_naive(clusters: list[int], ids: st.DataObject, folder: Path) -> None:
    size = len(clusters)
    names = ids.draw(st.lists(st.sampled_from(["a", "b", "", "é"]), min_size=size, max_size=size))
    columns = {
        "node": list(range(size)),
        "node_id": names,
        "cluster": clusters,
        "confidence": [None] * size,
        "membership": [None] * size,
    }
    profile = profile_table(
        write(folder, "clusters.clusters", columns, node_id_type=pa.string()), "clusters.clusters"
    )
    counts = [clusters.count(value) for value in set(clusters)]
    assert profile["cluster.distinct"] == len(counts)
    assert profile["cluster.rarest"] == (min(counts) if counts else None)
    assert profile["cluster.commonest"] == (max(counts) if counts else None)
    assert profile["keys.repeats"] == size - len(set(names))
    assert profile["confidence.present"] == 0
    assert profile["ids_dense.broken"] == 0


def test_embedding_profile_equals_numpy(folder: Path) -> None:
    z = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    z[:, 3] = z[:, 0]
    columns = {"node": list(range(50)), "node_id": list(range(50)), "z": list(z)}
    profile = profile_table(write(folder, "embeddings.embeddings", columns, width=4), "embeddings.embeddings")
    spectrum = np.linalg.eigvalsh(np.cov(z.astype(np.float64), rowvar=False, bias=True))
    shares = spectrum[spectrum > 1e-12] / spectrum.sum()
    assert profile["z.effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)
    assert profile["z.mean_norm"] == pytest.approx(np.linalg.norm(z, axis=1).mean(), rel=1e-6)
    assert profile["z.min_variance"] == pytest.approx(z.var(axis=0).min(), rel=1e-4)


def test_identifiers_beyond_2_to_53_are_exact(folder: Path) -> None:
    columns = {"node": [0, 1, 2], "node_id": [2**53, 2**53 + 1, 2**63 - 1]}
    profile = profile_table(write(folder, "graph.nodes", columns), "graph.nodes")
    assert profile["keys.repeats"] == 0
    assert profile["node_id.max"] == 2**63 - 1


def test_splits_are_told_apart(folder: Path) -> None:
    columns = {
        "split": ["s", "s", "t", "t", "u"],
        "node": list(range(5)),
        "role": ["train", "test", "train", "train", "validation"],
    }
    profile = profile_table(write(folder, "labels.splits", columns), "labels.splits")
    assert profile["splits.distinct"] == 3
    assert profile["splits.without_train"] == 1
    assert profile["splits.without_test"] == 2
