"""Tiny well-formed sources of every format, each with a place to break it."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

Overrides = dict[str, str]


def planetoid_parts() -> dict[str, Any]:
    """Eight nodes: six in allx, two test nodes; two classes."""
    x = sp.csr_matrix(np.eye(8, 5, dtype=np.float32))
    y = np.eye(2, dtype=np.int32)[[0, 1, 0, 1, 0, 1, 0, 1]]
    return {
        "x": x[:2], "y": y[:2], "allx": x[:6], "ally": y[:6], "tx": x[6:], "ty": y[6:],
        "graph": {node: [(node + 1) % 8, (node - 1) % 8] for node in range(8)},
        "test.index": b"6\n7\n",
    }  # fmt: skip


def planetoid(folder: Path, **parts: Any) -> Overrides:
    """Write a Planetoid data set with some parts replaced; bytes are written as they are, None not at all."""
    for part, value in (
        planetoid_parts() | {k.replace("test_index", "test.index"): v for k, v in parts.items()}
    ).items():
        if value is not None:
            content = value if isinstance(value, bytes) else pickle.dumps(value, protocol=3)
            (folder / f"ind.tiny.{part}").write_bytes(content)
    return {"format": "planetoid", "path": str(folder), "name": "tiny"}


def benchmark_arrays() -> dict[str, np.ndarray]:
    """Four nodes in a path, two classes."""
    adj = sp.csr_matrix(np.diag(np.ones(3, np.float32), 1))
    attr = sp.csr_matrix(np.eye(4, 3, dtype=np.float32))
    return {
        f"{name}_{part}": np.asarray(getattr(matrix, part))
        for name, matrix in (("adj", adj), ("attr", attr))
        for part in ("data", "indices", "indptr", "shape")
    } | {"labels": np.array([0, 1, 0, 1])}


def benchmark(folder: Path, **arrays: Any) -> Overrides:
    """Write a GNN benchmark npz with some arrays replaced; bytes are written as the member's content."""
    path = folder / "graph.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in (benchmark_arrays() | arrays).items():
            if value is not None:
                archive.writestr(f"{name}.npy", value if isinstance(value, bytes) else npy(value))
    return {"format": "gnn_benchmark_npz", "path": str(path)}


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npy_header(descr: str, shape: str) -> bytes:
    """An npy file of a header only."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def adgc(folder: Path, **arrays: Any) -> Overrides:
    ring = np.eye(4, k=1, dtype=np.int32) + np.eye(4, k=-1, dtype=np.int32)
    valid = {"feat": np.eye(4, 3), "label": np.array([0, 1, 0, 1]), "adj": ring}
    for role, value in (valid | arrays).items():
        if value is not None:
            (folder / f"tiny_{role}.npy").write_bytes(value if isinstance(value, bytes) else npy(value))
    return {"format": "adgc_npy", "path": str(folder), "name": "tiny"}


def heterophilous(folder: Path, **arrays: Any) -> Overrides:
    masks = np.eye(3, dtype=bool)
    valid = {
        "node_features": np.eye(3, 4, dtype=np.float32), "node_labels": np.array([0, 1, 0]),
        "edges": np.array([[0, 1], [1, 2]]), "train_masks": masks[:1], "val_masks": masks[1:2],
        "test_masks": masks[2:],
    }  # fmt: skip
    np.savez(folder / "graph.npz", **(valid | arrays))
    return {"format": "heterophilous_npz", "path": str(folder / "graph.npz")}


def geom(folder: Path, edges: bytes | None = None, nodes: bytes | None = None) -> Overrides:
    (folder / "out1_graph_edges.txt").write_bytes(edges or b"node_id\tnode_id\n0\t1\n1\t2\n")
    (folder / "out1_node_feature_label.txt").write_bytes(
        nodes or b"node_id\tfeature\tlabel\n0\t1,0\t0\n1\t0,1\t1\n2\t1,1\t0\n"
    )
    return {"format": "geom_gcn", "path": str(folder)}


def musae(folder: Path, **files: bytes | None) -> Overrides:
    valid: dict[str, bytes | None] = {
        "edges": b"id_1,id_2\n0,1\n1,2\n",
        "features": b'{"0": [0, 2], "1": [1], "2": []}',
        "target": b"id,name,kind\n0,a,red\n1,b,blue\n2,c,red\n",
    }
    names = {"edges": "tiny_edges.csv", "features": "tiny.json", "target": "tiny_target.csv"}
    for role, content in (valid | files).items():
        (folder / role).mkdir(exist_ok=True)
        if content is not None:
            (folder / role / names[role]).write_bytes(content)
    return {"format": "musae", "path": str(folder), "name": "tiny"}


NODES = b"id,label,a,b\nann,x,1,2\nbob,y,3,4\ncyd,x,5,6\n"
EDGES = b"source,target\nann,bob\nbob,cyd\n"
CSV_MANIFEST = b"""
[nodes]
file = "nodes.csv"
id = "id"
label = "label"
features = ["a", "b"]
[edges]
file = "edges.csv"
"""


def own_csv(
    folder: Path, *, nodes: bytes = NODES, edges: bytes | None = EDGES, manifest: bytes = CSV_MANIFEST
) -> Overrides:
    (folder / "graph.toml").write_bytes(manifest)
    (folder / "nodes.csv").write_bytes(nodes)
    if edges is not None:
        (folder / "edges.csv").write_bytes(edges)
    return {"format": "csv", "path": str(folder)}


def own_parquet(folder: Path, *, id_type: str = "int64", **columns: pa.Array) -> Overrides:
    """Three nodes with a list of two features each; columns named `edge_*` replace columns of the edges."""
    edges = {"source": pa.array([10, 20]), "target": pa.array([20, 30])}
    nodes = {"id": pa.array([10, 20, 30]), "x": pa.array([[1.0, 2.0]] * 3, pa.list_(pa.float32()))}
    edges |= {k.removeprefix("edge_"): v for k, v in columns.items() if k.startswith("edge_")}
    nodes |= {k: v for k, v in columns.items() if not k.startswith("edge_")}
    pq.write_table(pa.table(nodes), folder / "nodes.parquet")
    pq.write_table(pa.table(edges), folder / "edges.parquet")
    (folder / "graph.toml").write_text(
        f'[nodes]\nfile = "nodes.parquet"\nid = "id"\nid_type = "{id_type}"\nfeatures = "x"\n'
        '[edges]\nfile = "edges.parquet"\n'
    )
    return {"format": "parquet", "path": str(folder)}


def cut(build: Callable[[Path], Overrides], file: str, share: float = 0.5) -> Callable[[Path], Overrides]:
    """The source with one file cut to a share of its bytes."""

    def built(folder: Path) -> Overrides:
        overrides = build(folder)
        path = folder / file
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        return overrides

    return built
