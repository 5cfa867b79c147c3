"""What the fuzz targets run: the data stand in place of one file or array of something well-formed."""

import atexit
import contextlib
import functools
import io
import json
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gcl.edges import canonical_edges
from tests import sources

Build = Callable[[Path], sources.Overrides]
Run = Callable[[bytes], None]
Seeds = Callable[[], list[bytes]]

PLANETOID_PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")
CHECKPOINT_FILES = ("weights.safetensors", "epoch-00000001.json", "epoch-00000001.safetensors")


def read_source(overrides: sources.Overrides) -> None:
    """Read a data set to its end, as ingest does: features, labels, and edges in canonical order."""
    from pydantic import TypeAdapter

    from gcl.readers import AnyDataset, edge_policy, open_source, reader_of

    config = TypeAdapter(AnyDataset).validate_python({"weights": "honour", **overrides})
    source = open_source(config)
    if reader_of(config.format).holds != "graph":  # read whole when it is opened
        return
    if source.feature_chunks is not None:
        for _ in source.feature_chunks():
            pass
    if source.label_chunks is not None:
        np.concatenate(list(source.label_chunks()))
    with tempfile.TemporaryDirectory() as scratch:
        edges = canonical_edges(
            source.edge_chunks(),
            num_nodes=source.num_nodes,
            policy=edge_policy(config, source),
            scratch=Path(scratch),
        )
        for _ in edges:
            pass


@functools.cache
def folder_of(name: str) -> Path:
    """A folder for a target's files, gone when the process ends."""
    root = Path(tempfile.mkdtemp(prefix="gclflow-fuzz-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    (root / name).mkdir()
    return root / name


@functools.cache
def well_formed(build: Build) -> tuple[Path, sources.Overrides, dict[Path, bytes]]:
    """The folder of a well-formed source, how it is read, and the bytes of its files."""
    folder = folder_of(build.__name__)
    overrides = build(folder)
    return folder, overrides, {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def restored(build: Build) -> tuple[Path, sources.Overrides]:
    """The same, made good again after an earlier input."""
    folder, overrides, files = well_formed(build)
    for path, content in files.items():
        path.write_bytes(content)
    return folder, overrides


def chosen(data: bytes, choices: Sequence[str]) -> tuple[str, bytes]:
    """The choice that the first byte stands for, and the rest."""
    return choices[data[0] % len(choices)] if data else choices[0], data[1:]


def one_file_of(build: Build, *files: str) -> Run:
    """Reads a data set in which the data stand in place of one of its files."""

    def run(data: bytes) -> None:
        folder, overrides = restored(build)
        name, content = chosen(data, files)
        (folder / name).write_bytes(content)
        read_source(overrides)

    return run


def files_of(build: Build, *files: str) -> Seeds:
    """Each of the files as it should be, behind the byte that stands for it."""

    def make() -> list[bytes]:
        folder, _ = restored(build)
        return [bytes([index]) + (folder / name).read_bytes() for index, name in enumerate(files)]

    return make


def one_member_of(build: Build, names: Sequence[str]) -> Run:
    """Reads an npz in which the data stand in place of one array, or of the whole archive."""

    def run(data: bytes) -> None:
        _, overrides = restored(build)
        path = Path(overrides["path"])
        name, content = chosen(data, [*names, "archive"])
        if name == "archive":
            path.write_bytes(content)
        else:
            with zipfile.ZipFile(path) as archive:
                members = {info.filename: archive.read(info) for info in archive.infolist()}
            with zipfile.ZipFile(path, "w") as archive:
                for filename, member in (members | {f"{name}.npy": content}).items():
                    archive.writestr(filename, member)
        read_source(overrides)

    return run


def members_of(build: Build, names: Sequence[str]) -> Seeds:
    """Each array as it should be, and the whole archive."""

    def make() -> list[bytes]:
        path = Path(restored(build)[1]["path"])
        with zipfile.ZipFile(path) as archive:
            made = [bytes([index]) + archive.read(f"{name}.npy") for index, name in enumerate(names)]
        return [*made, bytes([len(names)]) + path.read_bytes()]

    return make


_CSV_MANIFEST = b"""
[nodes]
file = "nodes.csv"
id = "id"
label = "label"
split = "role"
features = ["a", "b"]
[edges]
file = "edges.csv"
weight = "w"
"""
_SPARSE_MANIFEST = _CSV_MANIFEST.replace(b'features = ["a", "b"]', b'sparse_features = "s"\nnum_features = 8')


def csv(folder: Path) -> sources.Overrides:
    """CSV with everything the layout knows: labels, a split, features, weights."""
    nodes = b'id,label,role,a,b,s\nann,x,train,1,2,0 3:2.5\nbob,y,test,3,4,\n"c,d",,,-5e2,6,7\n'
    edges = b'source,target,w\nann,bob,1\nbob,"c,d",0.5\n'
    return sources.own_csv(folder, nodes=nodes, edges=edges, manifest=_CSV_MANIFEST)


def csv_sparse(folder: Path) -> sources.Overrides:
    """The same with sparse features."""
    overrides = csv(folder)
    (folder / "graph.toml").write_bytes(_SPARSE_MANIFEST)
    return overrides


def parquet_text(folder: Path) -> sources.Overrides:
    """Parquet with ids and labels as text, features as sparse lists."""
    import pyarrow as pa

    overrides = sources.own_parquet(
        folder,
        id_type="string",
        id=pa.array(["a", "b", "c"]),
        label=pa.array(["x", None, "x"]).dictionary_encode(),
        indices=pa.array([[0, 2], [], [1]], pa.list_(pa.int32())),
        values=pa.array([[0.5, 2.0], [], [1.0]], pa.list_(pa.float32())),
        edge_source=pa.array(["a", "b"]),
        edge_target=pa.array(["b", "c"]),
    )
    text = (folder / "graph.toml").read_text()
    sparse = 'label = "label"\nsparse_features = ["indices", "values"]\nnum_features = 3'
    (folder / "graph.toml").write_text(text.replace('features = "x"', sparse))
    return overrides


def planetoid_seeds() -> list[bytes]:
    """Every part, in the two protocols that have bytes."""
    made = []
    for index, part in enumerate(PLANETOID_PARTS):
        value = sources.planetoid_parts()[part]
        protocols = [] if isinstance(value, bytes) else [3, 4]
        contents = [pickle.dumps(value, protocol=protocol) for protocol in protocols] or [value]
        made += [bytes([index]) + content for content in contents]
    return made


def archive(data: bytes) -> None:
    """An npz, or an npy, with nothing known of its arrays."""
    from gcl.readers.safe_archive import ArraySpec, read_npy, read_npz

    kind, content = chosen(data, ["npz", "npy"])
    path = folder_of("archive") / "data"
    path.write_bytes(content)
    if kind == "npy":
        read_npy(path, ArraySpec(1), max_bytes=1 << 20)
    else:
        specs = {name: ArraySpec(ndim, "biufU", required=False) for ndim, name in enumerate("abc")}
        read_npz(path, specs, max_bytes=1 << 20)


def archive_seeds() -> list[bytes]:
    """An npz of a number, a row and a table of text; two npy."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, array in {"a": np.array(3), "b": np.arange(4), "c": np.array([["x", "yz"]])}.items():
            opened.writestr(f"{name}.npy", sources.npy(array))
    plain = [b"\1" + sources.npy(np.arange(3.0)), b"\1" + sources.npy(np.arange(3))]
    return [b"\0" + buffer.getvalue(), *plain]


def manifest(data: bytes) -> None:
    """A stage's manifest, as it is; and, where it is JSON, with a checksum that is right."""
    from tasks.artifact import Manifest, canonical_json, hash_json

    with contextlib.suppress(ValueError):
        document = json.loads(data)
        body = document.get("manifest", document) if isinstance(document, dict) else document
        Manifest.load(canonical_json({"manifest": body, "checksum": hash_json(body)}) + b"\n")
    Manifest.load(data)


def manifest_seeds() -> list[bytes]:
    """A small manifest, and its body without the checksum."""
    from tasks.artifact import Artifact, FileEntry, Manifest

    made = Manifest(
        stage="smooth",
        key="0" * 64,
        identity={"config": {"alpha": 0.1}, "inputs": {"graph": "1" * 64}},
        artifacts={
            "x": Artifact(kind="x", uri="smooth/0/x", digest="2" * 64, num_bytes=1, num_rows={"x": 1})
        },
        files={"x/x.parquet": FileEntry(num_bytes=1, sha256="3" * 64)},
    )
    return [made.dump(), made.model_dump_json().encode()]


def config_file(data: bytes) -> None:
    """A configuration file."""
    from flows.config import load_config

    path = folder_of("config") / "run.toml"
    path.write_bytes(data)
    load_config(file=path)


def config_overrides(data: bytes) -> None:
    """`--set`, one a line."""
    from flows.config import load_config

    load_config(preset="none", overrides=data.decode("utf-8", "replace").splitlines())


def checkpoint_files(folder: Path) -> sources.Overrides:
    """A weights file and a checkpoint."""
    import torch

    from gcl.checkpoint import capture_state, save_checkpoint, save_weights

    method = _module()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    save_weights(method, folder / CHECKPOINT_FILES[0])
    state = capture_state(method, optimizer, epoch=1, history=[{"loss": 0.5}])
    save_checkpoint(folder, state, {"method": "tiny"})
    return {}


def checkpoint(data: bytes) -> None:
    """A weights file, the record of a checkpoint, or its tensors."""
    from gcl.checkpoint import load_checkpoint, load_weights

    folder, _ = restored(checkpoint_files)
    name, content = chosen(data, CHECKPOINT_FILES)
    (folder / name).write_bytes(content)
    if name == CHECKPOINT_FILES[0]:
        load_weights(_module(), folder / name)
    else:
        load_checkpoint(folder, {"method": "tiny"})


def _module() -> Any:
    import torch

    module = torch.nn.Linear(2, 3)
    torch.nn.init.constant_(module.weight, 0.5)
    torch.nn.init.zeros_(module.bias)
    return module
