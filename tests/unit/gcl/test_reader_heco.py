"""HeCo's folders: what is read of them, and the metapath matrices that follow, against those on disk."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from gcl.errors import SourceUnreadable
from gcl.hetero_findings import UnreadableHetero
from gcl.metapaths import build_metapaths
from gcl.readers.heco import HecoConfig, open_source, source_files
from tests.hetero_sources import heco, heco_acm
from tests.sources import npy

ENTRIES = {
    "acm": {"PAP": 57_853, "PSP": 4_338_213},
    "dblp": {"APA": 11_113, "APCPA": 5_000_495, "APTPA": 7_043_571},
    "freebase": {"MDM": 8_404, "MAM": 254_702, "MWM": 10_706},
}
NODES = {
    "acm": {"paper": 4019, "author": 7167, "subject": 60},
    "dblp": {"author": 4057, "paper": 14328, "term": 7723, "conference": 20},
    "freebase": {"movie": 3492, "actor": 33401, "director": 2502, "writer": 4459},
}
EDGES = {
    "acm": {"pa": 13407, "ps": 4019},
    "dblp": {"pa": 19645, "pc": 14328, "pt": 85810},
    "freebase": {"ma": 65341, "md": 3762, "mw": 6414},
}
CLASSES = {"acm": [1993, 965, 1061], "dblp": [1197, 745, 1109, 1006], "freebase": [1327, 618, 1547]}
WIDTHS = {
    "acm": {"paper": 1902, "author": 1902},
    "dblp": {"author": 334, "paper": 4231, "term": 50},
    "freebase": {},
}


def config_of(real_data: Path, name: str) -> HecoConfig:
    folder = real_data / "heco" / name
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    return HecoConfig(path=folder, name=name)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ENTRIES)
def test_figures_are_the_published_ones(name: str, real_data: Path) -> None:
    source = open_source(config_of(real_data, name))
    assert source.graph.num_nodes == NODES[name]
    assert {key[1]: len(edges[0]) for key, edges in source.graph.edges.items()} == EDGES[name]
    assert {type_: x.shape[1] for type_, x in source.graph.features.items()} == WIDTHS[name]
    assert source.y_N is not None
    assert np.bincount(source.y_N).tolist() == CLASSES[name]
    assert [split.name for split in source.splits] == ["heco-20", "heco-40", "heco-60"]
    for split, rate in zip(source.splits, (20, 40, 60), strict=True):
        sizes = [len(part) for part in (split.train, split.validation, split.test)]
        assert sizes == [rate * len(source.class_names), 1000, 1000]


@pytest.mark.real_data
@pytest.mark.parametrize("name", ENTRIES)
def test_metapaths_are_those_on_disk(name: str, real_data: Path) -> None:
    """Seven files, and the published count for the one that is not there."""
    config = config_of(real_data, name)
    source = open_source(config)
    found = {}
    for metapath in build_metapaths(source.graph, source.metapaths, max_entries=10**8, seed=0):
        found[metapath.name] = metapath.adjacency_NN.nnz
        path = config.path / f"{metapath.name.lower()}.npz"
        if not path.exists():
            assert metapath.name == "APTPA"
            continue
        parts = np.load(path, allow_pickle=False)
        values = np.ones(len(parts["row"]), np.float32)
        on_disk = sp.csr_matrix((values, (parts["row"], parts["col"])), shape=metapath.adjacency_NN.shape)
        assert (on_disk != metapath.adjacency_NN).nnz == 0
    assert found == ENTRIES[name]
    assert list(found) == list(ENTRIES[name]), "in the order of the published loaders"


@pytest.mark.real_data
def test_pickles_are_never_opened(real_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "freebase"
    shutil.copytree(config_of(real_data, "freebase").path, folder)
    for path in [*folder.glob("nei_*.npy"), *folder.glob("*m.npz"), folder / "pos.npz"]:
        path.unlink()
    config = HecoConfig(path=folder, name="freebase")
    assert not any("nei" in path.name for path in source_files(config).values())
    assert open_source(config).graph.num_nodes == NODES["freebase"]


def tiny(folder: Path, **files: bytes | None) -> HecoConfig:
    return HecoConfig.model_validate(heco(folder, **files))


def test_a_tiny_folder_is_read(tmp_path: Path) -> None:
    source = open_source(tiny(tmp_path))
    assert source.graph.target == "movie"
    assert source.graph.num_nodes == {"movie": 4, "actor": 2, "director": 1, "writer": 1}
    assert source.y_N is not None
    assert source.y_N.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("files", "code", "told"),
    [
        ({"ma.txt": None, "val_40.npy": None}, "H01", "ma.txt"),
        ({"ma.txt": b"0 1\n"}, "H01", "two whole numbers a line"),
        ({"ma.txt": b"0\tx\n"}, "H01", "two whole numbers a line"),
        ({"ma.txt": b"0\t1_0\n"}, "H01", "two whole numbers a line"),
        ({"labels.npy": npy(np.array([0.5, 1, 0, 1]))}, "H01", "fractions"),
        ({"labels.npy": npy(np.array([0, 1, 0, None], object))}, "H18", "pickle"),
        ({"train_20.npy": npy(np.array([0, None], object))}, "H18", "pickle"),
    ],
)
def test_a_broken_folder_is_refused(
    files: dict[str, bytes | None], code: str, told: str, tmp_path: Path
) -> None:
    config = tiny(tmp_path, **files)
    with pytest.raises(UnreadableHetero) as caught:
        source_files(config)
        open_source(config)
    assert any(finding.code == code and told in str(finding) for finding in caught.value.findings)


def test_edges_and_splits_beyond_the_nodes_are_refused(tmp_path: Path) -> None:
    config = tiny(tmp_path, **{"ma.txt": b"0\t0\n7\t0\n", "test_20.npy": npy(np.array([9]))})
    with pytest.raises(Exception, match=r"H06 .*movie 7.*H14 .*heco-20, test: 9"):
        open_source(config)


@pytest.mark.parametrize("node", [99_999_999_999, 2**62])
def test_an_id_far_beyond_the_rows_is_one_unknown_node(node: int, tmp_path: Path) -> None:
    """Types without features or labels have as many nodes as edges name, within reason."""
    config = tiny(tmp_path, **{"ma.txt": b"0\t0\n1\t%d\n2\t1\n3\t1\n" % node})
    with pytest.raises(Exception, match=f"H06 ma.txt dst: .*row 2: actor {node}") as caught:
        open_source(config)
    assert "H16" not in str(caught.value)
    source = open_source(config.model_copy(update={"on_unknown_node": "skip"}))
    assert source.graph.num_nodes["actor"] == 2


def test_features_of_absurdly_many_rows_are_refused(tmp_path: Path) -> None:
    config = HecoConfig.model_validate(heco_acm(tmp_path))
    parts = {"row": np.array([0]), "col": np.array([0]), "data": np.array([1.0])}
    np.savez(tmp_path / "a_feat.npz", format=np.bytes_(b"coo"), shape=np.array([10**12, 3]), **parts)
    with pytest.raises(UnreadableHetero, match="1000000000000 rows"):
        open_source(config)


def test_a_name_that_heco_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="dataset.name is acm, dblp, freebase, aminer"):
        source_files(HecoConfig(path=tmp_path, name="imdb"))


def test_features_are_read_in_every_form(tmp_path: Path) -> None:
    """CSR, COO, and an array under the name of an archive."""
    config = HecoConfig.model_validate(heco_acm(tmp_path))
    source = open_source(config)
    np.testing.assert_array_equal(source.graph.features["paper"].toarray(), np.eye(3))
    np.testing.assert_array_equal(source.graph.features["author"].toarray(), np.eye(2, 3))
    (tmp_path / "a_feat.npz").write_bytes(npy(np.eye(2, 3)))
    np.testing.assert_array_equal(open_source(config).graph.features["author"], np.eye(2, 3))
    (tmp_path / "p_feat.npz").write_bytes(npy(np.eye(2, 3)))
    with pytest.raises(Exception, match="H16 .*2 rows of features, 3 labels"):
        open_source(config)
