"""Every homogeneous reader against an independent conversion of the same public graphs."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from pydantic import TypeAdapter

from gcl.edges import canonical_edges
from gcl.readers import AnyDataset, GraphSource, edge_policy, open_source, source_files

pytestmark = pytest.mark.real_data


@dataclass(frozen=True)
class Expected:
    """A line of the table of public graphs: undirected edges without self-loops."""

    overrides: dict[str, str]
    num_nodes: int
    num_edges: int
    num_features: int
    num_classes: int
    split_sizes: tuple[int, ...] | None = None
    num_splits: int = 0
    num_without_label: int = 0


def adgc(name: str) -> dict[str, str]:
    return {"format": "adgc_npy", "path": f"adgc_npy/{name}", "name": name}


def npz(name: str) -> dict[str, str]:
    return {"format": "gnn_benchmark_npz", "path": f"gnn_benchmark_npz/{name}.npz"}


PLANETOID = {"format": "planetoid", "path": "planetoid"}
TEXAS = {"format": "geom_gcn", "path": "geom_gcn/new_data/texas", "splits": "geom_gcn/splits"}
CHAMELEON = {"format": "heterophilous_npz", "path": "heterophilous/chameleon_filtered.npz"}
GRAPHS = {
    "cora": Expected(PLANETOID | {"name": "cora"}, 2708, 5278, 1433, 7, (140, 500, 1000), 1),
    "citeseer": Expected(PLANETOID | {"name": "citeseer"}, 3327, 4552, 3703, 6, (120, 500, 1000), 1, 15),
    "amazon_photo": Expected(npz("amazon_electronics_photo"), 7650, 119_081, 745, 8),
    "coauthor_cs": Expected(npz("ms_academic_cs"), 18_333, 81_894, 6805, 15),
    "bat": Expected(adgc("bat"), 131, 1003, 81, 4),
    "eat": Expected(adgc("eat"), 399, 5993, 203, 4),
    "uat": Expected(adgc("uat"), 1190, 13_599, 239, 4),
    "texas": Expected(TEXAS, 183, 279, 1703, 5, (87, 59, 37), 10),
    "chameleon_filtered": Expected(CHAMELEON, 890, 8854, 2325, 5, (409, 287, 194), 10),
    "musae_facebook": Expected(
        {"format": "musae", "path": "musae", "name": "facebook"}, 22_470, 170_823, 4714, 4
    ),
}


def opened(overrides: dict[str, str], folder: Path) -> tuple[GraphSource, np.ndarray, np.ndarray]:
    """The source, and its canonical edges."""
    rooted = {k: str(folder / v) if k in ("path", "splits") else v for k, v in overrides.items()}
    config = TypeAdapter(AnyDataset).validate_python(rooted)
    assert all(path.is_file() for path in source_files(config).values())
    source = open_source(config)
    with tempfile.TemporaryDirectory() as scratch:
        edges = canonical_edges(
            source.edge_chunks(),
            num_nodes=source.num_nodes,
            policy=edge_policy(config, source),
            scratch=Path(scratch),
        )
        chunks = list(edges)
    return source, np.concatenate([c.src for c in chunks]), np.concatenate([c.dst for c in chunks])


def features_of(source: GraphSource) -> sp.csr_matrix:
    blocks = list(source.feature_chunks())
    assert all(block.dtype == np.float32 for block in blocks)
    return sp.csr_matrix(sp.vstack([sp.csr_matrix(block) for block in blocks]))


@pytest.mark.parametrize("name", GRAPHS)
def test_reader_gives_the_published_graph(name: str, real_data: Path) -> None:
    expected = GRAPHS[name]
    canonical = np.load(real_data / "canonical" / f"{name}.npz", allow_pickle=False)
    source, src, dst = opened(expected.overrides, real_data)

    assert (source.num_nodes, len(src)) == (expected.num_nodes, 2 * expected.num_edges)
    assert (source.num_features, len(source.class_names)) == (expected.num_features, expected.num_classes)
    assert np.array_equal(src, canonical["edge_src"])
    assert np.array_equal(dst, canonical["edge_dst"])

    x_NF = features_of(source)
    parts = tuple(canonical[f"x_{part}"] for part in ("data", "indices", "indptr"))
    assert x_NF.shape == tuple(canonical["x_shape"])
    assert (x_NF != sp.csr_matrix(parts, shape=x_NF.shape)).nnz == 0

    y_N = np.concatenate(list(source.label_chunks()))
    assert y_N.dtype == np.int32
    labelled = y_N >= 0
    assert int((~labelled).sum()) == expected.num_without_label
    assert np.array_equal(y_N[labelled], canonical["y"][labelled])

    assert len(source.splits) == expected.num_splits
    for i, split in enumerate(source.splits):
        for role, sizes in zip(("train", "val", "test"), expected.split_sizes or (), strict=True):
            nodes = getattr(split, {"val": "validation"}.get(role, role))
            if f"{role}_masks" in canonical:
                assert np.array_equal(nodes, np.flatnonzero(canonical[f"{role}_masks"][i]))
            else:
                assert np.array_equal(nodes, canonical[f"{role}_idx"])
            assert i > 0 or len(nodes) == sizes


def test_citeseer_keeps_isolated_nodes_and_leaves_missing_ones_empty(real_data: Path) -> None:
    source, src, _ = opened(GRAPHS["citeseer"].overrides, real_data)
    assert source.num_nodes - len(np.unique(src)) == 48
    y_N = np.concatenate(list(source.label_chunks()))
    missing = np.flatnonzero(y_N < 0)
    assert features_of(source)[missing].nnz == 0
    assert not np.isin(missing, source.splits[0].test).any()
    assert source.notes["nodes_without_label"] == 15


def test_musae_class_names_are_those_of_the_file(real_data: Path) -> None:
    source, _, _ = opened(GRAPHS["musae_facebook"].overrides, real_data)
    assert source.class_names == ("company", "government", "politician", "tvshow")


def test_geom_splits_are_optional_and_found_by_name(real_data: Path) -> None:
    source, _, _ = opened({k: v for k, v in TEXAS.items() if k != "splits"}, real_data)
    assert source.splits == ()
    named, _, _ = opened(TEXAS | {"name": "texas"}, real_data)
    assert [split.name for split in named.splits] == [f"geom-10-{i}" for i in range(10)]
