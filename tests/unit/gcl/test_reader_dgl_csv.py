"""Folders of dgl.data.CSVDataset: what is read, what is refused."""

from pathlib import Path

import numpy as np
import pytest

from gcl.errors import SourceUnreadable
from gcl.hetero_findings import InvalidHetero, UnreadableHetero
from gcl.metapaths import MetapathsConfig, build_metapaths, chosen_metapaths
from gcl.readers.dgl_csv import DglCsvConfig, open_source, source_files
from tests.hetero_sources import DGL_META, dgl_csv

MORE = "- file_name: more.csv\n  etype: [user, likes, item]\n"


def folder(path: Path, **files: str) -> DglCsvConfig:
    return DglCsvConfig.model_validate(dgl_csv(path, **files))


def test_a_folder_is_read(tmp_path: Path) -> None:
    source = open_source(folder(tmp_path))
    assert source.graph.num_nodes == {"user": 3, "item": 2}
    assert source.node_ids["user"].to_pylist() == [7, 3, 5]
    np.testing.assert_array_equal(source.graph.features["user"], [[1, 0.5], [0, 2], [1, 1]])
    assert source.y_N is not None
    assert source.y_N.tolist() == [1, 0, 1]
    (split,) = source.splits
    assert [part.tolist() for part in (split.train, split.validation, split.test)] == [[0], [2], [1]]
    config = MetapathsConfig(paths=("user-item-user",))
    plans = chosen_metapaths(config, source.metapaths, list(source.graph.edges), target="user")
    (metapath,) = build_metapaths(source.graph, plans, max_entries=100, seed=0)
    np.testing.assert_array_equal(metapath.adjacency_NN.toarray(), [[1, 1, 0], [1, 1, 0], [0, 0, 1]])


def test_a_graph_of_one_type_needs_no_names(tmp_path: Path) -> None:
    meta = "node_data:\n- file_name: users.csv\nedge_data:\n- file_name: follows.csv\n"
    folder(tmp_path, meta_yaml=meta, follows_csv="src_id,dst_id\n7,3\n3,7\n")
    source = open_source(DglCsvConfig(path=tmp_path))
    assert list(source.graph.edges) == [("_V", "_E", "_V")]
    assert source.node_ids["_V"].to_pylist() == ["7", "3", "5"]


@pytest.mark.parametrize(
    ("files", "error", "told"),
    [
        ({"meta_yaml": DGL_META + "graph_data: {file_name: graphs.csv}\n"}, SourceUnreadable, "graph_data"),
        ({"meta_yaml": DGL_META + 'separator: "|"\n'}, SourceUnreadable, "separator"),
        ({"meta_yaml": "a: &a [1]\nb: *a\n"}, SourceUnreadable, "aliases are refused"),
        ({"meta_yaml": "!!python/object/apply:os.system [true]"}, SourceUnreadable, "not YAML"),
        ({"meta_yaml": "[" * 5000}, SourceUnreadable, "deeper than 32"),
        ({"meta_yaml": DGL_META + MORE}, UnreadableHetero, "H01 .*more.csv"),
        ({"meta_yaml": DGL_META.replace("buys.csv", "../buys.csv")}, SourceUnreadable, "below the manifest"),
        ({"buys_csv": "from,dst_id\n7,1\n"}, UnreadableHetero, "H02 .*src_id"),
        ({"buys_csv": "src_id,dst_id\n8,1\n"}, InvalidHetero, "H06 .*user 8"),
        ({"buys_csv": "src_id,dst_id\nann,1\n"}, UnreadableHetero, "H01 .*ann"),
        ({"users_csv": 'node_id,feat\n7,"1,2"\n3,1\n5,1\n'}, InvalidHetero, "H10 .*row 2: 1, not 2"),
        ({"users_csv": "node_id,train_mask\n7,1\n3,maybe\n5,1\n"}, UnreadableHetero, "'maybe' is neither"),
    ],
)  # fmt: skip
def test_a_broken_folder_is_refused(
    files: dict[str, str], error: type[Exception], told: str, tmp_path: Path
) -> None:
    config = folder(tmp_path, **files)
    with pytest.raises(error, match=told):
        source_files(config)
        open_source(config)


@pytest.mark.parametrize(("field", "told"), [("features", "feta"), ("features", "feta*"), ("label", "lable")])
def test_a_column_that_is_asked_for_and_in_no_table_is_missing(field: str, told: str, tmp_path: Path) -> None:
    config = folder(tmp_path).model_copy(update={field: told})
    with pytest.raises(UnreadableHetero) as caught:
        open_source(config)
    (found,) = caught.value.findings
    assert (found.code, found.sample) == ("H02", (told,))


def test_columns_by_their_usual_names_may_be_missing(tmp_path: Path) -> None:
    source = open_source(folder(tmp_path, users_csv="node_id\n7\n3\n5\n"))
    assert not source.graph.features
    assert source.y_N is None
