"""Fuzz targets: functions of bytes that read them as a stranger's file and may raise declared errors only.

The formats of several files take one byte more: it says which of the files the rest replaces, the others stay
well-formed. That lets one buffer reach every parser without a container format of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flows.config import ConfigurationError
from gcl.errors import CheckpointMismatch, InvalidGraph, SourceUnreadable
from tests import collection_sources, hetero_sources, sources
from tests.fuzz import formats
from tests.fuzz.formats import files_of, members_of, one_file_of, one_member_of

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Target:
    """A function of bytes.

    Attributes:
        run: reads the data, or raises.
        seeds: inputs that it reads, made in code.
        tokens: pieces that take mutations past the first check.
        may_raise: the errors that are a refusal; anything else is a finding.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]] = list
    tokens: tuple[bytes, ...] = ()
    may_raise: tuple[type[Exception], ...] = (SourceUnreadable, InvalidGraph)

    def __call__(self, data: bytes) -> str:
        """Run; what came of it. Errors that were not declared go through."""
        try:
            self.run(data)
        except self.may_raise as error:
            return f"{type(error).__name__}: {str(error)[:80]}"
        return "read"


def seeds(name: str) -> list[bytes]:
    """The inputs a target starts from: its corpus folder, and those made in code."""
    kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
    return [*kept, *TARGETS[name].seeds()]


_BENCHMARK = tuple(sources.benchmark_arrays())
_HETEROPHILOUS = ("node_features", "node_labels", "edges", "train_masks", "val_masks", "test_masks")
_CSV = ("nodes.csv", "edges.csv", "graph.toml")
_PARQUET = ("nodes.parquet", "edges.parquet")
_MUSAE = ("edges/tiny_edges.csv", "features/tiny.json", "target/tiny_target.csv")
_GEOM = ("out1_graph_edges.txt", "out1_node_feature_label.txt")
_ADGC = ("tiny_feat.npy", "tiny_label.npy", "tiny_adj.npy")
_GCONSTRUCT = ("graph.json", "users.csv", "buys.csv", "train.csv")
_GCONSTRUCT_PARQUET = ("users.parquet", "items.parquet", "buys.parquet", "graph.json")
_DGL_CSV = tuple(hetero_sources.DGL_FILES)
_HECO = ("pa.txt", "p_feat.npz", "a_feat.npz", "labels.npy", "train_20.npy")
_TU = tuple(collection_sources.tu_files())
_ONE_FILE = ("TINY.txt",)
_PLANETOID = tuple(f"ind.tiny.{part}" for part in formats.PLANETOID_PARTS)

_NUMBER = (b"nan", b"inf", b"1e309", b"-1", b"-0", b"9223372036854775808")
_TEXT = (*_NUMBER, b",", b"\n", b'"', b"\r\n", b"\t", b"\xff", b"\0", b"0:", b" ")
_NPY = (b"\x93NUMPY\x01\x00", b"<f8", b"|O", b"(-1,)", b"(4611686018427387904,)", b"True", b"(), }", b"<U1")
_ZIP = (*_NPY, b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06")
_PICKLE = (b"cposix\nsystem\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"]\x94", b"h\x00", b"e", b"R",
           b"b", b"\x93", b"0", b"2", b"t", b"(", b"\x8a\x08")  # fmt: skip
_TOML = (*_NUMBER, b"=", b"[", b"[[", b"]", b"'", b'"""', b".", b"{", b"}", b"true", b"1979-05-27", b"\n")
_JSON = (*_NUMBER, b"{", b"}", b"[", b"]", b"null", b"NaN", b'"\\ud800"', b"true", b":", b",")
_YAML = (b"&a", b"*a", b"- ", b": ", b"[", b"{", b"|", b">", b"!!python/name:os.system", b"? ", b"---", b"#")

TARGETS = {
    "csv": Target(one_file_of(formats.csv, *_CSV), files_of(formats.csv, *_CSV), _TEXT),
    "csv_sparse": Target(one_file_of(formats.csv_sparse, *_CSV), files_of(formats.csv_sparse, *_CSV), _TEXT),
    "parquet": Target(one_file_of(sources.own_parquet, *_PARQUET), files_of(sources.own_parquet, *_PARQUET)),
    "parquet_text": Target(
        one_file_of(formats.parquet_text, *_PARQUET), files_of(formats.parquet_text, *_PARQUET)
    ),
    "musae": Target(one_file_of(sources.musae, *_MUSAE), files_of(sources.musae, *_MUSAE), (*_TEXT, *_JSON)),
    "geom_gcn": Target(one_file_of(sources.geom, *_GEOM), files_of(sources.geom, *_GEOM), _TEXT),
    "planetoid": Target(
        one_file_of(sources.planetoid, *_PLANETOID), formats.planetoid_seeds, (*_PICKLE, *_TEXT)
    ),
    "gnn_benchmark_npz": Target(
        one_member_of(sources.benchmark, _BENCHMARK), members_of(sources.benchmark, _BENCHMARK), _ZIP
    ),
    "heterophilous_npz": Target(
        one_member_of(sources.heterophilous, _HETEROPHILOUS),
        members_of(sources.heterophilous, _HETEROPHILOUS),
        _ZIP,
    ),
    "adgc_npy": Target(one_file_of(sources.adgc, *_ADGC), files_of(sources.adgc, *_ADGC), _NPY),
    "gconstruct": Target(
        one_file_of(hetero_sources.gconstruct_csv, *_GCONSTRUCT),
        files_of(hetero_sources.gconstruct_csv, *_GCONSTRUCT),
        (*_TEXT, *_JSON),
    ),
    "gconstruct_parquet": Target(
        one_file_of(hetero_sources.gconstruct_parquet, *_GCONSTRUCT_PARQUET),
        files_of(hetero_sources.gconstruct_parquet, *_GCONSTRUCT_PARQUET),
    ),
    "dgl_csv": Target(
        one_file_of(hetero_sources.dgl_csv, *_DGL_CSV),
        files_of(hetero_sources.dgl_csv, *_DGL_CSV),
        (*_TEXT, *_YAML),
    ),
    "heco": Target(
        one_file_of(hetero_sources.heco_acm, *_HECO),
        files_of(hetero_sources.heco_acm, *_HECO),
        (*_TEXT, *_ZIP),
    ),
    "tu_text": Target(
        one_file_of(collection_sources.tu_text, *_TU), files_of(collection_sources.tu_text, *_TU), _TEXT
    ),
    "tu_powerful_gnns": Target(
        one_file_of(collection_sources.one_file, *_ONE_FILE),
        files_of(collection_sources.one_file, *_ONE_FILE),
        _TEXT,
    ),
    "archive": Target(formats.archive, formats.archive_seeds, _ZIP, (SourceUnreadable,)),
    "manifest": Target(formats.manifest, formats.manifest_seeds, _JSON, (ValueError,)),
    "config_file": Target(formats.config_file, tokens=_TOML, may_raise=(ConfigurationError,)),
    "config_overrides": Target(formats.config_overrides, tokens=_TOML, may_raise=(ConfigurationError,)),
    "checkpoint": Target(
        formats.checkpoint,
        files_of(formats.checkpoint_files, *formats.CHECKPOINT_FILES),
        _JSON,
        (SourceUnreadable, CheckpointMismatch),
    ),
}
