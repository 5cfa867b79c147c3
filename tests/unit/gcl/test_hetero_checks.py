"""H01 to H18: each check, a source that breaks it, and the offending rows in the one report."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gcl.errors import InvalidGraph, SourceUnreadable
from gcl.hetero_findings import Finding, InvalidHetero, UnreadableHetero
from gcl.metapaths import MetapathsConfig, build_metapaths, chosen_metapaths
from gcl.readers.gconstruct import GconstructConfig, open_source, source_files
from gcl.readers.hetero_base import HeteroSource
from tests.hetero_sources import write_manifest, write_shop

WIDE = b"user,team,age,height\n" + b"".join(b"u%d,red,1,1\n" % i for i in range(20))


def opened(folder: Path, **options: Any) -> HeteroSource:
    config = GconstructConfig(path=folder, **options)
    source_files(config)
    return open_source(config)


def findings(folder: Path, **options: Any) -> dict[str, Finding]:
    """The findings by code; of several with one code the last."""
    with pytest.raises((UnreadableHetero, InvalidHetero)) as caught:
        opened(folder, **options)
    return {finding.code: finding for finding in caught.value.findings}


@pytest.mark.parametrize(
    ("code", "rule", "shown", "files", "more"),
    [
        ("H01", "files_present", "buys.csv", {"buys": None}, {}),
        ("H02", "columns_present", "age", {"users": b"user,team,height\nann,red,1\n"}, {}),
        (
            "H03",
            "ids_present",
            "user, row 2",
            {"users": b"user,team,age,height\nann,red,1,1\n,red,1,1\n"},
            {},
        ),
        ("H03", "ids_present", "row 2", {"buys": b"user,item\nann,pen\nann,\n"}, {}),
        ("H04", "ids_unique", "item pen", {"items": b"item,price\npen,1\npen,1\ncup,1\nbox,1\n"}, {}),
        ("H06", "endpoints_known", "row 1: user zed", {"buys": b"user,item\nzed,pen\n"}, {}),
        ("H06", "endpoints_known", "row 2: item hat", {"buys": b"user,item\nann,pen\nann,hat\n"}, {}),
        ("H08", "edges_unique", "ann, pen", {"buys": b"user,item\nann,pen\nann,cup\nann,pen\n"}, {}),
        ("H09", "features_finite", "item cup", {"items": b"item,price\npen,1\ncup,nan\nbox,inf\n"}, {}),
        ("H09", "features_finite", "item cup", {"items": b"item,price\npen,1\ncup,\nbox,1\n"}, {}),
        (
            "H09",
            "features_finite",
            "item cup",
            {"items": b'item,price\npen,"1,2"\ncup,\nbox,"3,4"\n'},
            {},
        ),
        ("H01", "files_readable", "row 2, column", {"items": b"item,price\npen,1\ncup,1_0\nbox,1\n"}, {}),
        (
            "H10",
            "same_width_in_every_row",
            "row 3: 1",
            {"items": b'item,price\npen,"1,2"\ncup,"1,2"\nbox,1\n'},
            {},
        ),
        (
            "H11",
            "metapaths_chain",
            "X: goes from user",
            {},
            {"metapaths": [{"name": "X", "path": "user-item"}]},
        ),
        (
            "H11",
            "metapaths_chain",
            "X: there is no relation user/sells/item",
            {},
            {"metapaths": [{"name": "X", "path": [["user", "sells", "item"]]}]},
        ),
        (
            "H11",
            "metapaths_chain",
            "X: step user/buys/item ends at item",
            {},
            {"metapaths": [{"name": "X", "path": [["user", "buys", "item"], ["user", "buys", "item"]]}]},
        ),
        ("H14", "split_ids_known", "zed", {"train": b"node_id\nann\nzed\n"}, {}),
        ("H14", "split_roles_disjoint", "ann", {"test": b"node_id\nann\n"}, {}),
        (
            "H14",
            "split_nodes_labelled",
            "ann",
            {"users": b"user,team,age,height\nann,,1,1\nbob,a,1,1\ncyd,b,1,1\ndee,b,1,1\n"},
            {},
        ),
        ("H15", "labels_are_classes", "bob: blue", {}, {"classes": ["red", "green"]}),
        ("H16", "node_counts_as_declared", "item: 3 nodes, declared 4", {}, {"node_count": {"item": 4}}),
        ("H17", "sha256_as_declared", "declared 000", {}, {"sha256": {"items.csv": "0" * 64}}),
        ("H18", "nothing_unsafe", "items.csv: a pickle", {"items": pickle.dumps({"item": ["pen"]})}, {}),
    ],
)
def test_a_source_that_breaks_a_check_is_refused_with_the_rows(
    code: str, rule: str, shown: str, files: dict[str, bytes], more: dict[str, Any], tmp_path: Path
) -> None:
    splits = {"train": b"node_id\nann\n", "test": b"node_id\nbob\n"}
    split_sets = {"s": {"train": "train.csv", "test": "test.csv"}}
    write_shop(tmp_path, more={"split_sets": split_sets} | more, **(splits | files))
    found = findings(tmp_path)
    assert code in found, found
    assert found[code].rule == rule
    assert any(shown in row for row in found[code].sample), found[code]


@pytest.mark.parametrize("name", ["train.CSV", "train.txt", "train*", "train.parquet", "train.PARQUET"])
def test_files_of_splits_are_as_their_suffix_says_or_as_the_targets(name: str, tmp_path: Path) -> None:
    split_sets = {"s": {"train": name, "test": "test.csv"}}
    write_shop(tmp_path, more={"split_sets": split_sets}, test=b"node_id\nbob\n")
    path = tmp_path / name.replace("*", "ing")
    if path.suffix.lower() == ".parquet":
        pq.write_table(pa.table({"node_id": ["ann"]}), path)
    else:
        path.write_bytes(b"node_id\nann\n")
    assert [split.train.tolist() for split in opened(tmp_path).splits] == [[0]]


def test_a_relation_of_an_undeclared_type_is_refused(tmp_path: Path) -> None:
    manifest = write_shop(tmp_path, likes=b"src_id,dst_id\nann,jazz\n")
    likes = {"relation": ["user", "likes", "band"], "format": {"name": "csv"}, "files": "likes.csv"}
    manifest["edges"].append(likes)
    write_manifest(tmp_path, manifest)
    assert "user/likes/band: band" in findings(tmp_path)["H07"].sample
    manifest["x_hetero"]["node_count"] = {"band": 1}
    write_manifest(tmp_path, manifest)
    assert opened(tmp_path).graph.num_nodes["band"] == 1, "a type may do without a table"


def test_ids_of_two_types_are_refused(tmp_path: Path) -> None:
    manifest = write_shop(tmp_path)
    pq.write_table(pa.table({"user": [1, 2], "item": ["pen", "cup"]}), tmp_path / "buys.parquet")
    manifest["edges"][0] |= {"format": {"name": "parquet"}, "files": "buys.parquet"}
    write_manifest(tmp_path, manifest)
    found = findings(tmp_path)["H05"]
    assert found.rule == "id_types_equal"
    assert "user: int64, in its node table string" in found.sample


def test_a_parquet_column_of_bytes_is_refused(tmp_path: Path) -> None:
    manifest = write_shop(tmp_path)
    table = pa.table({"item": ["pen"], "price": pa.array([pickle.dumps(1)], pa.binary())})
    pq.write_table(table, tmp_path / "items.parquet")
    manifest["nodes"][1] |= {"format": {"name": "parquet"}, "files": "items.parquet"}
    write_manifest(tmp_path, manifest)
    assert "holds bytes" in findings(tmp_path)["H18"].sample[0]


def test_everything_that_is_wrong_is_in_one_report(tmp_path: Path) -> None:
    """Ten of the rows each, and how many there are in all."""
    more = {"node_count": {"item": 9}, "sha256": {"items.csv": "0" * 64}}
    buys = b"user,item\n" + b"".join(b"zed%d,pen\n" % i for i in range(25)) + b"ann,\n"
    users = b"user,team,age,height\nann,red,31,\nann,blue,25,1.8\n"
    write_shop(tmp_path, users=users, buys=buys, more=more)
    with pytest.raises(SourceUnreadable) as caught:
        opened(tmp_path)
    text = str(caught.value)
    assert text.startswith("6 check(s) failed")
    assert "\n" not in text
    for code in ("H03", "H04", "H06", "H09", "H16", "H17"):
        assert code in text
    assert "broken by 25 row(s)" in text
    assert text.count("zed") == 10


def test_missing_files_are_reported_together_with_the_rest(tmp_path: Path) -> None:
    write_shop(tmp_path, items=None, users=b"user,team,age,height\nann,red,,1\n")
    assert {"H01", "H09"} <= findings(tmp_path).keys()


def test_an_empty_glob_and_a_way_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    manifest = write_shop(folder)
    manifest["nodes"][1]["files"] = "items-*.csv"
    write_manifest(folder, manifest)
    assert findings(folder)["H01"].sample == ("items-*.csv",)
    for way_out in ("../items.csv", str(tmp_path / "items.csv")):
        (tmp_path / "items.csv").write_bytes((folder / "items.csv").read_bytes())
        manifest["nodes"][1]["files"] = way_out
        write_manifest(folder, manifest)
        with pytest.raises(SourceUnreadable, match="below the manifest's folder"):
            opened(folder)
    (folder / "items.csv").unlink()
    (folder / "items.csv").symlink_to(tmp_path / "items.csv")
    manifest["nodes"][1]["files"] = "items.csv"
    write_manifest(folder, manifest)
    with pytest.raises(SourceUnreadable, match="leads out"):
        opened(folder)


@pytest.mark.parametrize(("policy", "num_users", "num_edges"), [("skip", 4, 1), ("add", 6, 3)])
def test_unknown_nodes_may_be_skipped_or_added(
    policy: str, num_users: int, num_edges: int, tmp_path: Path
) -> None:
    write_shop(tmp_path, buys=b"user,item\nzed,pen\nann,pen\nabe,cup\n")
    source = opened(tmp_path, on_unknown_node=policy)
    assert source.graph.num_nodes["user"] == num_users
    assert len(source.graph.edges["user", "buys", "item"][0]) == num_edges
    if policy == "add":
        assert source.node_ids["user"].to_pylist() == ["ann", "bob", "cyd", "dee", "abe", "zed"]
        np.testing.assert_array_equal(source.graph.features["user"][4:], np.zeros((2, 2)))
        assert source.y_N is not None
        np.testing.assert_array_equal(source.y_N[4:], [-1, -1])
        assert source.notes["nodes_added_user"] == 2
    else:
        assert source.notes["edges_skipped_user/buys/item_src"] == 2


def test_repeated_edges_may_be_taken_once_or_counted(tmp_path: Path) -> None:
    write_shop(tmp_path, buys=b"user,item\nann,pen\nann,pen\nbob,pen\n")
    relation = ("user", "buys", "item")
    once = opened(tmp_path, duplicate_edges="dedup")
    assert [part.tolist() for part in once.graph.edges[relation]] == [[0, 1], [0, 0]]
    assert not once.graph.weights
    counted = opened(tmp_path, duplicate_edges="sum")
    assert counted.graph.weights[relation].tolist() == [2.0, 1.0]


def test_weights_need_a_decision_and_are_above_zero(tmp_path: Path) -> None:
    write_shop(tmp_path, buys=b"user,item,weight\nann,pen,2\nann,cup,0.5\n")
    with pytest.raises(InvalidGraph, match="weights_decided"):
        opened(tmp_path)
    relation = ("user", "buys", "item")
    assert opened(tmp_path, weights="honour").graph.weights[relation].tolist() == [0.5, 2.0][::-1]
    assert not opened(tmp_path, weights="discard").graph.weights
    write_shop(tmp_path, buys=b"user,item,weight\nann,pen,0\nann,cup,nan\n")
    assert findings(tmp_path, weights="honour")["H09"].num_rows == 2
    write_shop(tmp_path, buys=b"user,item,weight\nann,pen,1\nann,pen,2\n")
    found = findings(tmp_path, weights="honour", duplicate_edges="dedup")
    assert found["H08"].rule == "weights_of_repeats_agree"


def test_rows_of_a_report_are_those_of_the_file(tmp_path: Path) -> None:
    """Whatever was left out or sorted before the check."""
    buys = b"user,item,weight\nzed,pen,1\ndee,box,1\nann,pen,1\nann,cup,3\nann,pen,2\n"
    write_shop(tmp_path, buys=buys)
    found = findings(tmp_path, weights="honour", duplicate_edges="dedup", on_unknown_node="skip")["H08"]
    assert (found.rule, found.sample) == ("weights_of_repeats_agree", ("row 5",))
    manifest = write_shop(tmp_path, follows=b"src_id,dst_id\nzed,ann\ndee,ann\nann,ann\n")
    follows = {"relation": ["user", "follows", "user"], "format": {"name": "csv"}, "files": "follows.csv"}
    manifest["edges"].append(follows)
    write_manifest(tmp_path, manifest)
    found = findings(tmp_path, self_loops="reject", on_unknown_node="skip")["H08"]
    assert (found.rule, found.sample) == ("no_self_loops", ("row 3",))


@pytest.mark.parametrize("files", [".", "./", ["users.csv", "."]])
def test_files_that_name_the_folder_are_missing(files: Any, tmp_path: Path) -> None:
    manifest = write_shop(tmp_path)
    manifest["nodes"][0]["files"] = files
    write_manifest(tmp_path, manifest)
    assert findings(tmp_path)["H01"].rule == "files_present"


def test_a_metapath_without_steps_is_refused(tmp_path: Path) -> None:
    write_shop(tmp_path, more={"metapaths": [{"name": "X", "path": []}]})
    assert findings(tmp_path)["H11"].sample == ("X: has no steps",)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"files": []}, "nodes.0.files"),
        ({"features": [{"feature_col": []}]}, "nodes.0.features.0.feature_col"),
        (
            {"labels": [{"label_col": "team", "task_type": "classification", "split_pct": [0.8, 0.1, 0.1]}]},
            "split_pct draws its split at random",
        ),
    ],
)
def test_what_would_be_ignored_is_refused(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    manifest = write_shop(tmp_path)
    manifest["nodes"][0] |= change
    write_manifest(tmp_path, manifest)
    with pytest.raises(SourceUnreadable, match=told):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"split_sets": {"s": {"train": [], "test": "test.csv"}}}, "split_sets.s.train"),
        ({"split_sets": {"s": {"train": "train.csv", "column": []}}}, "split_sets.s.column"),
        ({"feature_norm": "l1_row"}, "smooth.normalise_input=l1"),
    ],
)
def test_parts_that_would_be_ignored_are_refused(more: dict[str, Any], told: str, tmp_path: Path) -> None:
    write_shop(tmp_path, more=more, train=b"node_id\nann\n", test=b"node_id\nbob\n")
    with pytest.raises(SourceUnreadable, match=told):
        opened(tmp_path)


def test_a_metapath_beyond_its_budget_is_refused_before_it_is_built(tmp_path: Path) -> None:
    write_shop(tmp_path, users=WIDE, buys=b"user,item\n" + b"".join(b"u%d,pen\n" % i for i in range(20)))
    source = opened(tmp_path)
    with pytest.raises(InvalidHetero, match=r"H12 .*UIU: 400 entries \(above metapaths.max_entries=399"):
        list(build_metapaths(source.graph, source.metapaths, max_entries=399, seed=0))
    (metapath,) = build_metapaths(source.graph, source.metapaths, max_entries=400, seed=0)
    assert metapath.adjacency_NN.nnz == 400


def test_nodes_that_a_metapath_joins_to_nobody_are_listed(tmp_path: Path) -> None:
    write_shop(tmp_path, users=WIDE, buys=b"user,item\nu0,pen\nu2,pen\n")
    source = opened(tmp_path)
    with pytest.raises(InvalidHetero) as caught:
        list(
            build_metapaths(
                source.graph, source.metapaths, max_entries=400, seed=0, node_ids=source.node_ids["user"]
            )
        )
    (found,) = caught.value.findings
    assert (found.code, found.num_rows) == ("H13", 18)
    assert found.sample == ("u1", *(f"u{i}" for i in range(3, 12)))
    assert "metapaths.self_loops=add" in str(caught.value)
    relations = list(source.graph.edges)
    plans = chosen_metapaths(MetapathsConfig(self_loops="add"), source.metapaths, relations, target="user")
    (metapath,) = build_metapaths(source.graph, plans, max_entries=400, seed=0)
    np.testing.assert_array_equal(metapath.adjacency_NN.diagonal(), np.ones(20))


def test_a_declared_number_of_entries_is_held_to(tmp_path: Path) -> None:
    write_shop(tmp_path, more={"metapaths": [{"name": "UIU", "path": "user-item-user", "nnz": 11}]})
    source = opened(tmp_path)
    with pytest.raises(InvalidHetero, match="H16 .*10, declared 11"):
        list(build_metapaths(source.graph, source.metapaths, max_entries=400, seed=0))


@pytest.mark.parametrize("error", [UnreadableHetero, InvalidHetero])
def test_reports_survive_pickling(error: Any) -> None:
    raised = error([Finding.of("H06", "endpoints_known", "edges buys", ["row 1"])])
    again = pickle.loads(pickle.dumps(raised))
    assert str(again) == str(raised)
    assert again.findings == raised.findings


def test_settings_of_graphs_of_one_type_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one_way does not apply"):
        GconstructConfig(path=tmp_path, one_way="keep")


def test_a_manifest_that_is_none_says_where(tmp_path: Path) -> None:
    manifest = write_shop(tmp_path)
    manifest["nodes"][0]["features"][0]["transform"] = {"name": "max_min_norm"}
    write_manifest(tmp_path, manifest)
    with pytest.raises(SourceUnreadable, match=r"nodes\.0\.features\.0.*transformations are not applied"):
        opened(tmp_path)
    (tmp_path / "graph.json").write_text("[" * 100_000)
    with pytest.raises(SourceUnreadable, match="not JSON"):
        opened(tmp_path)
    (tmp_path / "graph.json").write_text(json.dumps({"version": "gconstruct-v0.1", "edges": []}))
    with pytest.raises(SourceUnreadable, match="edges"):
        opened(tmp_path)
