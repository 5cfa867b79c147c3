"""A small shop as a heterogeneous graph in CSV: users buy items and follow users."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from tests.sources import npy

USERS = b"user,team,age,height\nann,red,31,1.7\nbob,blue,25,1.8\ncyd,red,40,1.6\ndee,blue,22,1.9\n"
ITEMS = b"item,price\npen,1\ncup,2\nbox,3\n"
BUYS = b"user,item\nann,pen\nann,cup\nbob,cup\ncyd,pen\ndee,box\nbob,box\n"
MANIFEST: dict[str, Any] = {
    "version": "gconstruct-v0.1",
    "nodes": [
        {
            "node_type": "user",
            "format": {"name": "csv"},
            "files": "users.csv",
            "node_id_col": "user",
            "features": [{"feature_col": ["age", "height"]}],
            "labels": [{"label_col": "team", "task_type": "classification"}],
        },
        {
            "node_type": "item",
            "format": {"name": "csv"},
            "files": "items.csv",
            "node_id_col": "item",
            "features": [{"feature_col": "price"}],
        },
    ],
    "edges": [
        {
            "relation": ["user", "buys", "item"],
            "format": {"name": "csv"},
            "files": "buys.csv",
            "source_id_col": "user",
            "dest_id_col": "item",
        }
    ],
    "x_hetero": {"schema": "1", "metapaths": [{"name": "UIU", "path": "user-item-user"}]},
}


def write_shop(folder: Path, *, more: dict[str, Any] | None = None, **files: bytes | None) -> dict[str, Any]:
    """Write the shop with some files replaced (``users=b"..."``, None leaves one out).

    Args:
        folder: existing.
        more: entries of ``x_hetero`` beside those of the shop.
        **files: content of ``users``, ``items``, ``buys``, or of further files ``NAME.csv``.

    Returns:
        the manifest as written, to be changed and written again.
    """
    manifest: dict[str, Any] = json.loads(json.dumps(MANIFEST))
    manifest["x_hetero"] |= more or {}
    for name, content in ({"users": USERS, "items": ITEMS, "buys": BUYS} | files).items():
        if content is not None:
            (folder / f"{name}.csv").write_bytes(content)
    write_manifest(folder, manifest)
    return manifest


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / "graph.json").write_text(json.dumps(manifest))


def write_large_shop(folder: Path, *, num_users: int = 120, num_items: int = 40, seed: int = 0) -> None:
    """Users of three teams who buy the items of their team more often."""
    draws = np.random.default_rng(seed)
    team = np.arange(num_users) % 3
    features = draws.normal(size=(num_users, 4)) + team[:, None]
    rows = [f"u{i},{'abc'[team[i]]},{','.join(f'{x:.4f}' for x in features[i])}" for i in range(num_users)]
    buys = set()
    for i in range(num_users):
        own = draws.integers(0, num_items // 3, 4) * 3 + team[i]
        buys |= {(i, int(item)) for item in [*own, draws.integers(0, num_items)] if item < num_items}
    write_shop(
        folder,
        users="\n".join(["user,team,f0,f1,f2,f3", *rows, ""]).encode(),
        items="\n".join(["item,price", *(f"i{i},{i % 7}" for i in range(num_items)), ""]).encode(),
        buys="\n".join(["user,item", *(f"u{i},i{item}" for i, item in sorted(buys)), ""]).encode(),
    )
    manifest = json.loads((folder / "graph.json").read_text())
    manifest["nodes"][0]["features"] = [{"feature_col": "f*"}]
    write_manifest(folder, manifest)


def gconstruct_csv(folder: Path) -> dict[str, str]:
    """The shop with what the manifest knows: splits, counts, weights."""
    split_sets = {"s": {"train": "train.csv", "test": "test.csv"}}
    write_shop(
        folder,
        more={"split_sets": split_sets, "node_count": {"item": 3}},
        buys=BUYS.replace(b"\n", b",1\n").replace(b"user,item,1", b"user,item,weight"),
        train=b"node_id\nann\n",
        test=b"node_id\nbob\n",
    )
    return {"format": "gconstruct", "path": str(folder)}


def gconstruct_parquet(folder: Path) -> dict[str, str]:
    """The shop in Parquet: integers as ids, lists and pairs of lists as features."""
    manifest = write_shop(folder)
    indices = pa.field("feat_indices", pa.list_(pa.int32()), metadata={"num_features": "3"})
    items = [
        pa.array([[0, 2], [], [1]], indices.type),
        pa.array([[1.0, 2.0], [], [0.5]], pa.list_(pa.float32())),
    ]
    pairs = pa.schema([pa.field("item", pa.int64()), indices, pa.field("feat_values", items[1].type)])
    users = {
        "user": pa.array([7, 5, 3]),
        "team": ["red", None, "blue"],
        "x": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
    }
    pq.write_table(pa.table(users), folder / "users.parquet")
    pq.write_table(
        pa.Table.from_arrays([pa.array([1, 2, 3]), *items], schema=pairs), folder / "items.parquet"
    )
    pq.write_table(pa.table({"user": [7, 5, 3], "item": [1, 2, 2]}), folder / "buys.parquet")
    for entry, name in zip([*manifest["nodes"], *manifest["edges"]], ("users", "items", "buys"), strict=True):
        entry |= {"format": {"name": "parquet"}, "files": f"{name}.parquet"}
    manifest["nodes"][0]["features"] = [{"feature_col": "x"}]
    manifest["nodes"][1]["features"] = [{"feature_col": "feat"}]
    write_manifest(folder, manifest)
    return {"format": "gconstruct", "path": str(folder)}


DGL_META = """
dataset_name: shop
node_data:
- file_name: users.csv
  ntype: user
- file_name: items.csv
  ntype: item
  node_id_field: item
edge_data:
- file_name: buys.csv
  etype: [user, buys, item]
"""
_DGL_USERS = "node_id,feat,label,train_mask,val_mask,test_mask\n"
DGL_FILES = {
    "meta.yaml": DGL_META,
    "users.csv": _DGL_USERS + '7,"1,0.5",1,1,0,0\n3,"0,2",0,0,0,1\n5,"1,1",1,0,1,0\n',
    "items.csv": "item\n1\n2\n",
    "buys.csv": "src_id,dst_id\n7,1\n3,1\n5,2\n",
}


def dgl_csv(folder: Path, **files: str) -> dict[str, str]:
    """A folder of dgl.data.CSVDataset with some files replaced (``meta_yaml="..."``)."""
    replaced = {name.replace("_", "."): text for name, text in files.items()}
    for name, content in (DGL_FILES | replaced).items():
        (folder / name).write_text(content)
    return {"format": "dgl_csv", "path": str(folder), "target": "user", "id_type": "int64"}


def heco(folder: Path, **files: bytes | None) -> dict[str, str]:
    """HeCo's files of four movies of two classes, two actors, a director, a writer; some replaced."""
    valid: dict[str, bytes | None] = {
        "ma.txt": b"0\t0\n1\t0\n2\t1\n3\t1\n",
        "md.txt": b"0\t0\n1\t0\n2\t0\n3\t0\n",
        "mw.txt": b"0\t0\n1\t0\n2\t0\n3\t0\n",
        "labels.npy": npy(np.array([0.0, 1.0, 0.0, 1.0])),
    }
    for rate in (20, 40, 60):
        valid |= {f"train_{rate}.npy": npy(np.array([0, 1])), f"val_{rate}.npy": npy(np.array([2]))}
        valid[f"test_{rate}.npy"] = npy(np.array([3]))
    for name, content in (valid | files).items():
        if content is not None:
            (folder / name).write_bytes(content)
    return {"format": "heco", "path": str(folder), "name": "freebase"}


def heco_acm(folder: Path) -> dict[str, str]:
    """HeCo's files of ACM with features: three papers."""
    heco(folder, **{"pa.txt": b"0\t0\n1\t0\n2\t1\n", "ps.txt": b"0\t0\n1\t0\n2\t0\n"})
    for name, content in (("labels", [0, 1, 0]), ("train", [0]), ("val", [1]), ("test", [2])):
        for rate in ("",) if name == "labels" else ("_20", "_40", "_60"):
            (folder / f"{name}{rate}.npy").write_bytes(npy(np.array(content)))
    sp.save_npz(folder / "p_feat.npz", sp.csr_matrix(np.eye(3)))
    sp.save_npz(folder / "a_feat.npz", sp.coo_matrix(np.eye(2, 3)))
    return {"format": "heco", "path": str(folder), "name": "acm"}
