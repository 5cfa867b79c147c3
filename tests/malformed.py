"""Named malformed sources, for the tests of the readers and of everything that runs them.

Each case builds files below a folder and gives the dataset overrides that read them. Exit code 4: the bytes
are not what their format says; 3: well-formed data that break a rule of the tables. A hostile case would
create `MARKER` in the folder if anything in it were executed.
"""

import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from tests.sources import (
    CSV_MANIFEST,
    EDGES,
    NODES,
    Overrides,
    adgc,
    benchmark,
    cut,
    geom,
    heterophilous,
    musae,
    npy,
    npy_header,
    own_csv,
    own_parquet,
    planetoid,
    planetoid_parts,
)

MARKER = "executed"


@dataclass(frozen=True)
class Case:
    """One malformed source: how to make it, the exit code of a run on it, a piece of the message (regex)."""

    build: Callable[[Path], Overrides]
    exit_code: int
    match: str


MALFORMED: dict[str, Case] = {}


def case(name: str, exit_code: int, match: str, build: Callable[[Path], Overrides]) -> None:
    assert name not in MALFORMED
    MALFORMED[name] = Case(build, exit_code, match)


# --- hostile pickles ------------------------------------------------------------------------------------


class _Call:
    """Pickles to a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def _hostile(make: Callable[[str], bytes], part: str = "x") -> Callable[[Path], Overrides]:
    return lambda folder: planetoid(folder, **{part: make(str(folder / MARKER))})


def _system(marker: str) -> bytes:
    return f"cposix\nsystem\n(S'touch {marker}'\ntR.".encode()


def _eval(marker: str) -> bytes:
    return pickle.dumps(_Call(eval, f"open({marker!r}, 'w').close()"), protocol=2)


def _getattr(marker: str) -> bytes:
    return pickle.dumps(_Call(getattr, _Call(__import__, "os"), "system"), protocol=4)


def _torch_bytes(marker: str) -> bytes:
    return b"ctorch.storage\n_load_from_bytes\n(" + pickle.dumps(_eval(marker), protocol=2)[2:-1] + b"tR."


def _nested(marker: str) -> bytes:
    return pickle.dumps({0: [_Call(pickle.loads, _eval(marker))]}, protocol=3)


def _dotted(marker: str) -> bytes:
    return b"\x80\x04\x8c\x05numpy\x8c\x09os.system\x93."


def _list_call(marker: str) -> bytes:
    return b"c__builtin__\nlist\n((lp0\ntR."


for name, match, make in (
    ("system", "posix system", _system),
    ("eval", "eval", _eval),
    ("getattr", "getattr", _getattr),
    ("torch_bytes", "torch.storage", _torch_bytes),
    ("nested", "loads", _nested),
    ("dotted_global", "os.system", _dotted),
    ("list_called", "calls something", _list_call),
    ("extension_code", "EXT1", lambda marker: b"\x80\x02\x82\x01."),
    ("persistent_id", "PERSID", lambda marker: b"Pfile\n."),
    ("instance", "INST", lambda marker: b"(S'true'\nios\nsystem\n."),
    ("object_array", "'O", lambda marker: pickle.dumps(np.array([{}, 1], object), protocol=3)),
    ("huge_memo", "holds neither", lambda marker: b"\x80\x02]r\xff\xff\xff\xff."),
    ("huge_string", "readable", lambda marker: b"\x80\x02T\xff\xff\xff\x7fabc."),
):
    case(
        f"pickle_{name}",
        4,
        match,
        _hostile(make, part="graph" if name == "nested" else "allx"),
    )


# --- everything else ------------------------------------------------------------------------------------

_parts = planetoid_parts()
_bad_graph = _parts["graph"] | {0: [1, 8]}
_nan_x = sp.csr_matrix(np.where(np.eye(6, 5) > 0, np.nan, 0).astype(np.float32))
_wide = sp.csr_matrix(np.eye(2, 9, dtype=np.float32))
case("planetoid_missing_labels", 4, r"no file .*ind\.tiny\.ally", lambda f: planetoid(f, ally=None))
case("planetoid_truncated", 4, "not a readable pickle", cut(planetoid, "ind.tiny.allx"))
case("planetoid_empty_file", 4, "not a readable pickle", lambda f: planetoid(f, ally=b""))
case(
    "planetoid_endpoint_out_of_range",
    3,
    r"endpoints_in_range.*\(0, 8\)",
    lambda f: planetoid(f, graph=_bad_graph),
)
case("planetoid_endpoint_2_to_64", 4, "64 bits", lambda f: planetoid(f, graph={0: [2**64]}))
case("planetoid_wrong_width", 4, "differ in width", lambda f: planetoid(f, tx=_wide))
case("planetoid_nan_feature", 3, "feature", lambda f: planetoid(f, allx=_nan_x))
case(
    "planetoid_two_classes_a_node",
    3,
    "one_class_a_node",
    lambda f: planetoid(f, ty=np.ones((2, 2), np.int32)),
)
case("planetoid_test_index_text", 4, "one node a line", lambda f: planetoid(f, test_index=b"6\nseven\n"))
case("planetoid_test_index_short", 4, "tx has 2 rows", lambda f: planetoid(f, test_index=b"6\n"))
case("planetoid_test_index_repeats", 3, "test_nodes_unique", lambda f: planetoid(f, test_index=b"6\n6\n"))
case(
    "planetoid_test_index_wild", 3, "test_nodes_after", lambda f: planetoid(f, test_index=b"6\n7000000000\n")
)

_nan = np.array([np.nan, 1, 1], np.float32)
_object = np.array([{"a": 1}, 2], object)


def _bomb_npz(folder: Path) -> Overrides:
    """260 MiB of zeros, which deflate packs a thousandfold."""
    overrides = benchmark(folder, labels=None)
    with zipfile.ZipFile(overrides["path"], "a", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("labels.npy", "w", force_zip64=True) as member:
            member.write(npy_header("|u1", f"({260 << 20},)"))
            for _ in range(260):
                member.write(bytes(1 << 20))
    return overrides


def _twice(folder: Path) -> Overrides:
    overrides = benchmark(folder)
    with zipfile.ZipFile(overrides["path"], "a") as archive:
        archive.writestr("./labels.npy".removeprefix("./"), npy(np.array([1, 1, 1, 1])))
    return overrides


def _member(name: str) -> Callable[[Path], Overrides]:
    def build(folder: Path) -> Overrides:
        overrides = benchmark(folder)
        with zipfile.ZipFile(overrides["path"], "a") as archive:
            archive.writestr(name, b"x")
        return overrides

    return build


def _flipped(folder: Path) -> Overrides:
    overrides = adgc(folder)
    overrides |= benchmark(folder)
    path = Path(overrides["path"])
    content = bytearray(path.read_bytes())
    content[content.index(b"attr_data.npy") + 40] ^= 0xFF
    path.write_bytes(content)
    return overrides | {"name": "tiny"}


case("npz_truncated", 4, "not a readable npz", cut(benchmark, "graph.npz"))
case(
    "npz_not_a_zip",
    4,
    "not a readable npz",
    lambda f: benchmark(f) | {"path": str(_write(f / "a.npz", b"hello"))},
)
case("npz_flipped_byte", 4, "npz|npy", _flipped)
case("npz_object_labels", 4, "pickles are not loaded", lambda f: benchmark(f, labels=_object))
case("npz_2_to_60_shape", 4, "needs", lambda f: benchmark(f, labels=npy_header("<i8", f"({2**60},)")))
case(
    "npz_negative_shape", 4, "negative|not an npy", lambda f: benchmark(f, labels=npy_header("<i8", "(-1,)"))
)
case(
    "npz_header_expression", 4, "not an npy", lambda f: benchmark(f, labels=npy_header("<i8", "(print(1),)"))
)
case("npz_member_is_no_array", 4, "not an npy", lambda f: benchmark(f, labels=b"not an array"))
case("npz_array_missing", 4, "no array named adj_indptr", lambda f: benchmark(f, adj_indptr=None))
case("npz_repeated_member", 4, "occurs twice", _twice)
case("npz_path_traversal", 4, "not the name of an array", _member("../../evil.npy"))
case("npz_absolute_path", 4, "not the name of an array", _member("/tmp/evil.npy"))
case("npz_bomb", 4, "claims to unpack", _bomb_npz)
case("npz_complex_values", 4, "not allowed", lambda f: benchmark(f, attr_data=np.ones(3, complex)))
case("npz_indptr_descends", 4, "do not ascend", lambda f: benchmark(f, adj_indptr=np.array([0, 3, 1, 2, 3])))
case("npz_feature_index_outside", 4, "3 columns", lambda f: benchmark(f, attr_indices=np.array([0, 1, 7])))
case("npz_labels_too_short", 4, "2 labels for 4 nodes", lambda f: benchmark(f, labels=np.array([0, 1])))
case("npz_label_negative", 3, "labels_are_class_ids", lambda f: benchmark(f, labels=np.array([0, -7, 0, 1])))
case(
    "npz_endpoint_negative", 3, "endpoints_in_range", lambda f: benchmark(f, adj_indices=np.array([1, -2, 3]))
)
case("npz_nan_feature", 3, "feature", lambda f: benchmark(f, attr_data=_nan))
case("npz_undecided_weights", 3, "weights_decided", lambda f: benchmark(f, adj_data=np.array([1, 2, 1.0])))
case("npz_shapes_disagree", 4, "shape", lambda f: benchmark(f, adj_shape=np.array([5, 5])))

case("npy_truncated", 4, "needs", cut(adgc, "tiny_feat.npy", 0.9))
case("npy_object_array", 4, "pickles are not loaded", lambda f: adgc(f, label=_object))
case("npy_wrong_width", 4, "adjacency of shape", lambda f: adgc(f, adj=np.ones((4, 3), np.int32)))
case("npy_missing_labels", 4, "no file", lambda f: adgc(f, label=None))
case("npy_float_labels", 4, "not allowed", lambda f: adgc(f, label=np.array([0.0, 1, 0, 1])))
case("npy_infinite_feature", 3, "feature", lambda f: adgc(f, feat=np.full((4, 3), np.inf)))
case(
    "npy_empty_graph",
    3,
    ".",
    lambda f: adgc(f, feat=np.ones((0, 3)), adj=np.ones((0, 0)), label=np.ones(0, int)),
)

case("heterophilous_float_edges", 4, "not allowed", lambda f: heterophilous(f, edges=np.ones((2, 2))))
case(
    "heterophilous_out_of_range",
    3,
    "endpoints_in_range",
    lambda f: heterophilous(f, edges=np.array([[0, 3]])),
)
case(
    "heterophilous_overlapping_split",
    3,
    "roles_disjoint",
    lambda f: heterophilous(f, val_masks=np.eye(3, dtype=bool)[:1]),
)
case("heterophilous_masks_too_long", 4, "masks", lambda f: heterophilous(f, test_masks=np.ones((1, 9), bool)))

_ragged = b"node_id\tfeature\tlabel\n0\t1,0\t0\n1\t0,1,1\t1\n"
_gap = b"node_id\tfeature\tlabel\n0\t1,0\t0\n5\t0,1\t1\n"
case("geom_ragged_features", 4, "line 3: 3 features", lambda f: geom(f, nodes=_ragged))
case(
    "geom_missing_field",
    4,
    "line 3: expected 2 fields",
    lambda f: geom(f, edges=b"node_id\tnode_id\n0\t1\n1\n"),
)
case("geom_no_header", 4, "line 1", lambda f: geom(f, edges=b"0\t1\n"))
case("geom_utf16", 4, "UTF-8", lambda f: geom(f, edges="node_id\tnode_id\n".encode("utf-16")))
case("geom_ids_with_gap", 3, "ids_are_0_to_n_minus_1", lambda f: geom(f, nodes=_gap))

case("musae_bad_json", 4, "not JSON", lambda f: musae(f, features=b'{"0": [1,'))
case("musae_deep_json", 4, "not JSON", lambda f: musae(f, features=b"[" * 200_000))
case("musae_unknown_node", 4, "is not one of the 3 nodes", lambda f: musae(f, features=b'{"9": [1]}'))
case("musae_float_id", 4, "invalid value '1.0'", lambda f: musae(f, edges=b"id_1,id_2\n1.0,2\n"))
case("musae_missing_target", 4, "no file", lambda f: musae(f, target=None))
case("musae_out_of_range", 3, "endpoints_in_range", lambda f: musae(f, edges=b"id_1,id_2\n0,3\n"))

case("csv_no_manifest", 4, "graph.toml", lambda f: {"format": "csv", "path": str(f)})
case(
    "csv_manifest_unknown_key",
    4,
    "nodes.colour",
    lambda f: own_csv(f, manifest=CSV_MANIFEST.replace(b"id =", b"colour = 1\nid =")),
)
case(
    "csv_manifest_outside",
    4,
    "nodes.file",
    lambda f: own_csv(f, manifest=CSV_MANIFEST.replace(b"nodes.csv", b"../nodes.csv")),
)
case("csv_missing_edges", 4, "no file", lambda f: own_csv(f, edges=None))
case("csv_ragged", 4, "Row #3", lambda f: own_csv(f, edges=EDGES.replace(b"bob,cyd", b"bob,cyd,1")))
case(
    "csv_nul_byte",
    4,
    "line 3: a NUL byte",
    lambda f: own_csv(f, edges=EDGES.replace(b"bob,cyd", b"bo\0b,cyd")),
)
case("csv_utf16", 4, "line 1", lambda f: own_csv(f, edges=EDGES.decode().encode("utf-16")))
case("csv_latin1", 4, "UTF8", lambda f: own_csv(f, nodes=NODES.replace(b"ann", b"\xe4nn")))
case("csv_open_quote", 4, "not closed", lambda f: own_csv(f, edges=EDGES + b'"ann,bob\n'))
case("csv_missing_column", 4, "no column named 'target'", lambda f: own_csv(f, edges=b"source,to\nann,bob\n"))
case("csv_repeated_column", 4, "occurs twice", lambda f: own_csv(f, edges=b"source,source\nann,bob\n"))
case("csv_text_feature", 4, "invalid value 'two'", lambda f: own_csv(f, nodes=NODES.replace(b",2", b",two")))
case("csv_empty_file", 4, "line 1", lambda f: own_csv(f, nodes=b""))
case("csv_no_nodes", 3, ".", lambda f: own_csv(f, nodes=b"id,label,a,b\n", edges=b"source,target\n"))
case("csv_nan_feature", 3, "feature", lambda f: own_csv(f, nodes=NODES.replace(b",2", b",nan")))
case("csv_huge_feature", 3, "feature", lambda f: own_csv(f, nodes=NODES.replace(b",2", b",1e39")))
case("csv_empty_feature", 3, "feature", lambda f: own_csv(f, nodes=NODES.replace(b",2", b",")))
case(
    "csv_duplicate_id",
    3,
    "id",
    lambda f: own_csv(f, nodes=NODES.replace(b"cyd", b"bob"), edges=b"source,target\nann,bob\n"),
)
case(
    "csv_unknown_endpoint",
    3,
    "edges.csv, row 2: 'dan'",
    lambda f: own_csv(f, edges=EDGES.replace(b"cyd", b"dan")),
)

_wide_lists = pa.array([[1.0, 2.0], [1.0], [1.0, 2.0]], pa.list_(pa.float32()))
case("parquet_truncated", 4, "not a readable Parquet", cut(own_parquet, "nodes.parquet"))
case("parquet_edges_cut_footer", 4, "not a readable Parquet", cut(own_parquet, "edges.parquet", 0.95))
case("parquet_float_ids", 4, "declared int64", lambda f: own_parquet(f, id=pa.array([10.0, 20, 30])))
case(
    "parquet_uint64_overflow",
    4,
    "does not fit",
    lambda f: own_parquet(f, id=pa.array([1, 2, 2**63], pa.uint64())),
)
case("parquet_ragged_lists", 3, "same_width_in_every_row", lambda f: own_parquet(f, x=_wide_lists))
case("parquet_null_id", 3, "ids_present", lambda f: own_parquet(f, id=pa.array([10, None, 30])))
case(
    "parquet_duplicate_id",
    3,
    "id",
    lambda f: own_parquet(
        f, id=pa.array([10, 20, 30]).take(pa.array([0, 1, 1])), edge_target=pa.array([20, 20])
    ),
)
case("parquet_unknown_endpoint", 3, "row 2: 31", lambda f: own_parquet(f, edge_target=pa.array([20, 31])))


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
