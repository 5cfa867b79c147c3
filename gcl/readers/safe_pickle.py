"""The pickles of the Planetoid files, read as data by an interpreter that can build six known things only.

Pickle's machine is a small stack language whose danger is that GLOBAL imports and REDUCE calls anything.
Here both only ever make inert records of six names, which are turned into arrays afterwards, by our own
code and after every size has been checked. Nothing named in a file is imported or called, so a hostile
file can at worst be refused; memory is bounded by limits on bytes and instructions, which is why no
separate process is needed.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from gcl.errors import SourceUnreadable, UnsafeSource
from gcl.readers.printable import printable
from gcl.readers.sparse_parts import csr_from_parts

MAX_FILE_BYTES = 1 << 30
MAX_INSTRUCTIONS = 20_000_000

# Each of the six, under the names of Python 2 and 3 and of old and new numpy and scipy.
_KNOWN = {
    "scipy.sparse.csr csr_matrix": "csr_matrix",
    "scipy.sparse._csr csr_matrix": "csr_matrix",
    "numpy.core.multiarray _reconstruct": "_reconstruct",
    "numpy._core.multiarray _reconstruct": "_reconstruct",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "collections defaultdict": "defaultdict",
    "__builtin__ list": "list",
    "builtins list": "list",
}
_CALLABLE = {"_reconstruct", "dtype", "defaultdict"}
_NUMBER_TYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
_MARK = object()


@dataclass(frozen=True)
class _Name:
    """One of the six names, never the thing itself."""

    name: str


class _Record:
    """What a call of a name would have made: its arguments, and the state given to it."""

    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.name, self.arguments, self.state = name, arguments, None


def load_pickle(path: Path) -> np.ndarray | sp.csr_matrix | dict[int, list[int]]:
    """The numeric array, the CSR matrix or the adjacency lists that a Planetoid pickle holds.

    Raises:
        UnsafeSource: it asks for anything beyond the six names, or is larger than the limits.
        SourceUnreadable: it is cut short, or holds something else.
    """
    what = path.name
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UnsafeSource(f"{what}: more than the limit of {MAX_FILE_BYTES} bytes")
        return _value(_Machine(what).run(path.read_bytes()), what)
    except OSError as error:
        raise SourceUnreadable(f"{what}: {error}") from error


class _Machine:
    """Executes the instructions of data, and refuses all others."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
                if count >= MAX_INSTRUCTIONS:
                    raise UnsafeSource(f"{self.what}: more than {MAX_INSTRUCTIONS} instructions")
                action = _ACTIONS.get(opcode.name)
                if action is None:
                    raise UnsafeSource(f"{self.what}: the pickle instruction {opcode.name} is not allowed")
                action(self, argument)
            return self.stack.pop()
        except (ValueError, TypeError, IndexError, KeyError, AttributeError, RecursionError) as error:
            raise SourceUnreadable(f"{self.what}: not a readable pickle: {printable(error)}") from error

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def to_mark(self) -> list[Any]:
        """Pop everything above the last mark."""
        position = len(self.stack) - 1
        while self.stack[position] is not _MARK:
            position -= 1
            if position < 0:
                raise ValueError("a mark is missing")
        values = self.stack[position + 1 :]
        del self.stack[position:]
        return values

    def known(self, name: str) -> None:
        if name not in _KNOWN:
            raise UnsafeSource(f"{self.what}: the pickle names {name[:100]!r}, which is not allowed")
        self.push(_Name(_KNOWN[name]))

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):  # lists of lists print without end
            raise UnsafeSource(f"{self.what}: the pickle names something by other than text")
        self.known(f"{module} {name}")

    def reduce(self) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, _Name) or called.name not in _CALLABLE or not isinstance(arguments, tuple):
            raise UnsafeSource(f"{self.what}: the pickle calls something it must not")
        self.push({} if called.name == "defaultdict" else _Record(called.name, arguments))

    def new_object(self) -> None:
        arguments, made = self.stack.pop(), self.stack.pop()
        if not isinstance(made, _Name) or made.name != "csr_matrix" or arguments != ():
            raise UnsafeSource(f"{self.what}: the pickle makes something it must not")
        self.push(_Record("csr_matrix", ()))

    def build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Record):
            raise UnsafeSource(f"{self.what}: the pickle sets the state of something it must not")
        self.stack[-1].state = state

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("items without a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, int | str):
                raise ValueError("a key that is neither a number nor a string")
            target[key] = value

    def append(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("values without a list")
        self.stack[-1].extend(values)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def tuple_of(self, count: int) -> None:
        values = tuple(self.stack[-count:])
        if len(values) < count:
            raise ValueError("a tuple with too few values")
        del self.stack[-count:]
        self.push(values)


def _push(machine: _Machine, argument: Any) -> None:
    machine.push(argument)


def _ignore(machine: _Machine, argument: Any) -> None:
    pass


_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _ignore),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "BINFLOAT", "FLOAT"), _push),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE"), _push),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE"), _push),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "MARK": lambda m, _: m.push(_MARK),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "LIST": lambda m, _: m.push(m.to_mark()),
    "TUPLE": lambda m, _: m.push(tuple(m.to_mark())),
    "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2),
    "TUPLE3": lambda m, _: m.tuple_of(3),
    "APPEND": lambda m, _: m.append([m.stack.pop()]),
    "APPENDS": lambda m, _: m.append(m.to_mark()),
    "SETITEM": lambda m, _: m.set_item(),
    "SETITEMS": lambda m, _: m.set_items(m.to_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda m, at: m.memo.__setitem__(at, m.stack[-1])),
    "MEMOIZE": lambda m, _: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, at: m.push(m.memo[at])),
    "GLOBAL": lambda m, name: m.known(name),
    "STACK_GLOBAL": lambda m, _: m.stack_global(),
    "REDUCE": lambda m, _: m.reduce(),
    "NEWOBJ": lambda m, _: m.new_object(),
    "BUILD": lambda m, _: m.build(),
}


def _value(item: Any, what: str) -> np.ndarray | sp.csr_matrix | dict[int, list[int]]:
    if isinstance(item, _Record) and item.name == "_reconstruct":
        return _array(item, what)
    if isinstance(item, _Record) and item.name == "csr_matrix":
        return _csr_matrix(item, what)
    if isinstance(item, dict):
        return _adjacency_lists(item, what)
    raise SourceUnreadable(f"{what}: holds neither an array, nor a CSR matrix, nor adjacency lists")


def _array(item: Any, what: str) -> np.ndarray:
    """An array from `_reconstruct(ndarray, ...)` with state (version, shape, dtype, is_fortran, bytes)."""
    if not isinstance(item, _Record) or not isinstance(item.state, tuple) or len(item.state) != 5:
        raise SourceUnreadable(f"{what}: an array is not complete")
    _, shape, dtype_record, is_fortran, data = item.state
    dtype = _dtype(dtype_record, what)
    if isinstance(data, str):
        # A string of Python 2 is bytes; pickletools decodes it as Latin-1, one character a byte.
        data = data.encode("latin-1", errors="replace")
    if not isinstance(data, bytes):
        raise UnsafeSource(f"{what}: the data of an array are not bytes")
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise SourceUnreadable(f"{what}: the shape of an array is not made of counts")
    num_values = 1
    for size in shape:
        num_values *= size
    if num_values * dtype.itemsize != len(data):
        raise SourceUnreadable(f"{what}: an array of shape {str(shape)[:80]} has {len(data)} bytes of data")
    array: np.ndarray = np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")
    return array.astype(dtype.newbyteorder("="))


def _dtype(item: Any, what: str) -> np.dtype:
    """The type of a record `dtype(code, 0, 1)` with state (version, byte order, ...): plain numbers only."""
    if not isinstance(item, _Record) or item.name != "dtype" or not item.arguments:
        raise SourceUnreadable(f"{what}: an array has no type")
    code = item.arguments[0]
    if not isinstance(code, str) or code not in _NUMBER_TYPES:
        shown = code[:20] if isinstance(code, str) else type(code).__name__
        raise UnsafeSource(f"{what}: an array of type {shown!r} is not allowed")
    order = item.state[1] if isinstance(item.state, tuple) and len(item.state) > 1 else "="
    return np.dtype(f">{code}" if order == ">" else f"<{code}")


def _csr_matrix(item: _Record, what: str) -> sp.csr_matrix:
    state: dict[Any, Any] = item.state if isinstance(item.state, dict) else {}
    shape = state.get("_shape")
    if not isinstance(shape, tuple) or len(shape) != 2 or not all(type(size) is int for size in shape):
        raise SourceUnreadable(f"{what}: a sparse matrix has no shape")
    parts = (_array(state.get(part), what) for part in ("data", "indices", "indptr"))
    return csr_from_parts(*parts, shape=shape, what=what)


def _adjacency_lists(item: dict[Any, Any], what: str) -> dict[int, list[int]]:
    for node, neighbours in item.items():
        if type(node) is not int or not isinstance(neighbours, list):
            raise SourceUnreadable(f"{what}: not a dictionary from a node to a list of nodes")
        if not all(type(neighbour) is int for neighbour in neighbours):
            raise SourceUnreadable(f"{what}: a neighbour of node {node} is not an integer")
    return item
