"""S3: the restricted reader of Planetoid pickles builds six things and executes nothing."""

import ast
import contextlib
import pickle
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import gcl.readers.safe_pickle as safe_pickle
from gcl.errors import SourceUnreadable, UnsafeSource
from gcl.readers.safe_pickle import load_pickle
from tests.malformed import MALFORMED, MARKER
from tests.sources import planetoid_parts

HOSTILE = sorted(name for name in MALFORMED if name.startswith("pickle_"))


def loaded(content: bytes, folder: Path) -> object:
    path = folder / "data"
    path.write_bytes(content)
    return load_pickle(path)


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<i4", "|b1", "|u1"])
def test_arrays_come_back_as_they_were(protocol: int, order: str, dtype: str, tmp_path: Path) -> None:
    array = np.array(np.arange(6).reshape(2, 3) % 2, dtype, order=order)
    read = loaded(pickle.dumps(array, protocol=protocol), tmp_path)
    assert isinstance(read, np.ndarray)
    assert np.array_equal(read, array)
    assert read.dtype == array.dtype.newbyteorder("=")


def test_matrices_and_adjacency_lists_come_back_as_they_were(tmp_path: Path) -> None:
    matrix = sp.random(6, 5, 0.4, format="csr", random_state=1, dtype=np.float32)
    read = loaded(pickle.dumps(matrix, protocol=3), tmp_path)
    assert isinstance(read, sp.csr_matrix)
    assert (read != matrix).nnz == 0
    lists = defaultdict(list, {0: [1, 2], 1: [], 2: [0]})
    assert loaded(pickle.dumps(lists, protocol=2).replace(b"cbuiltins", b"c__builtin__"), tmp_path) == dict(
        lists
    )


def test_strings_of_python_2_are_bytes(tmp_path: Path) -> None:
    """A protocol-2 pickle as numpy wrote it under Python 2: every byte above 127 must survive."""
    values = np.array([-1.5, 1e-300, 255.0])
    data = values.tobytes()
    content = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x03\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"U" + bytes([len(data)]) + data + b"tb."
    )
    assert np.array_equal(loaded(content, tmp_path), values)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickle_is_refused_and_leaves_no_trace(name: str, tmp_path: Path) -> None:
    MALFORMED[name].build(tmp_path)
    modules = set(sys.modules)
    part = "graph" if name == "pickle_nested" else "allx"
    is_only_broken = name in ("pickle_huge_memo", "pickle_huge_string")
    kind = SourceUnreadable if is_only_broken else UnsafeSource
    with pytest.raises(kind, match=MALFORMED[name].match):
        load_pickle(tmp_path / f"ind.tiny.{part}")
    assert not list(tmp_path.rglob(MARKER))
    assert set(sys.modules) == modules


def test_hostile_pickles_would_do_harm_elsewhere(tmp_path: Path) -> None:
    """The cases are real: plain pickle executes what ours refuses."""
    for name in ("pickle_eval", "pickle_nested", "pickle_system"):
        folder = tmp_path / name
        folder.mkdir()
        MALFORMED[name].build(folder)
        part = "graph" if name == "pickle_nested" else "allx"
        pickle.loads((folder / f"ind.tiny.{part}").read_bytes())
        assert (folder / MARKER).exists(), name


def test_module_imports_no_unpickler() -> None:
    tree = ast.parse(Path(safe_pickle.__file__).read_text())
    imported = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    } | {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & {"pickle", "_pickle", "cPickle", "marshal", "shelve", "importlib"}
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"eval", "exec", "getattr", "__import__", "compile"}


def test_limits_on_bytes_and_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pickle.dumps(planetoid_parts()["graph"], protocol=2)
    monkeypatch.setattr(safe_pickle, "MAX_INSTRUCTIONS", 10)
    with pytest.raises(UnsafeSource, match="more than 10 instructions"):
        loaded(content, tmp_path)
    monkeypatch.setattr(safe_pickle, "MAX_FILE_BYTES", 10)
    with pytest.raises(UnsafeSource, match="limit of 10 bytes"):
        loaded(content, tmp_path)


@pytest.mark.parametrize(
    "shape",
    [(2**60,), (-1, -6), (2**40, 0, 3), ("6",), (6.0,), [6]],
    ids=["huge", "negative", "empty", "text", "float", "list"],
)
def test_shape_that_does_not_fit_its_bytes_is_refused(shape: object, tmp_path: Path) -> None:
    state = safe_pickle._Record("_reconstruct", ())
    dtype = safe_pickle._Record("dtype", ("f8", 0, 1))
    state.state = (1, shape, dtype, False, b"\0" * 48)
    with pytest.raises(SourceUnreadable):
        safe_pickle._array(state, "x")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = pickle.dumps(planetoid_parts()["allx"], protocol=3)
    for end in range(len(content)):
        with pytest.raises(SourceUnreadable):
            loaded(content[:end], tmp_path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_pickle_is_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    part = data.draw(st.sampled_from(["allx", "ally", "graph"]))
    content = bytearray(pickle.dumps(planetoid_parts()[part], protocol=data.draw(st.sampled_from([3, 4]))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(SourceUnreadable):
        loaded(bytes(content), tmp_path_factory.getbasetemp())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    with contextlib.suppress(SourceUnreadable):
        loaded(b"\x80\x02" + content, tmp_path_factory.getbasetemp())


@pytest.mark.real_data
def test_all_real_files_load(real_data: Path) -> None:
    files = [path for path in sorted((real_data / "planetoid").glob("ind.*")) if path.suffix != ".index"]
    assert len(files) == 14
    for path in files:
        load_pickle(path)


@pytest.mark.parametrize(
    "asks_for",
    [b"\x8c\x01x\x93.", b"cnumpy.core.multiarray\n_reconstruct\nh\x00\x85R."],
    ids=["name", "call"],
)
def test_lists_of_lists_are_never_spelled_out(asks_for: bytes, tmp_path: Path) -> None:
    """Fifty levels of [x, x] take a few hundred bytes and would print as a quadrillion."""
    laughs = b"".join(b"](h" + bytes([i]) + b"h" + bytes([i]) + b"e\x94" for i in range(50))
    with pytest.raises(SourceUnreadable):
        loaded(b"\x80\x04]\x94" + laughs + asks_for, tmp_path)


def test_type_of_an_array_that_is_no_text_is_not_printed(tmp_path: Path) -> None:
    code: list[object] = []
    for _ in range(60):
        code = [code, code]
    with pytest.raises(UnsafeSource, match="type 'list'"):
        safe_pickle._dtype(safe_pickle._Record("dtype", (code, 0, 1)), "x")


def test_width_that_no_bytes_stand_for_is_limited(tmp_path: Path) -> None:
    matrix = sp.csr_matrix((2, 2**40), dtype=np.float32)
    with pytest.raises(SourceUnreadable, match="more than 16777216 columns"):
        loaded(pickle.dumps(matrix, protocol=3), tmp_path)
