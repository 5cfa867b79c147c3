"""A small shop as a heterogeneous graph in CSV: users buy items and follow users."""

import json
from pathlib import Path
from typing import Any

import numpy as np

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
