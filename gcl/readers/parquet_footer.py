"""How many values a Parquet file of strangers claims to hold, from its footer, before Arrow allocates them.

Parquet stores a million equal values in a few bytes, so the size of a file bounds nothing. Arrow knows the
counts too, but damaged metadata of columns end the process where pyarrow looks at them one by one. The footer
is a structure in Thrift's compact protocol, and this is the part of that protocol which it uses (Apache
Parquet, parquet.thrift; Apache Thrift, thrift-compact-protocol.md).
"""

from pathlib import Path
from typing import Any

from gcl.errors import SourceUnreadable, UnsafeSource

# Beyond so many values, they must be worth their room in the file.
FREE_VALUES = 1 << 26
MAX_RATIO = 64
_MAX_FOOTER_BYTES = 1 << 26
_MAX_DEPTH = 32
_TAIL_BYTES = 8  # the footer's length, and PAR1
_ROW_GROUPS, _COLUMNS, _NUM_ROWS, _COLUMN_META, _NUM_VALUES = 4, 1, 3, 3, 5


def check_num_values(path: Path) -> None:
    """Refuse a file whose columns hold far more values than its bytes can mean.

    Raises:
        SourceUnreadable: the footer is not one.
        UnsafeSource: the number of values is that of a decompression bomb.
    """
    try:
        num_values = _num_values(_Compact(_footer(path)).struct())
    except (OSError, IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = error if isinstance(error, OSError) else f"damaged footer: {str(error)[:100]}"
        raise SourceUnreadable(f"{path.name}: not a readable Parquet file: {reason}") from error
    check_ratio(path, num_values, free=FREE_VALUES, what="values")


def check_ratio(path: Path, count: int, *, free: int, what: str) -> None:
    """Refuse a count that is neither small nor in proportion to the size of the file."""
    num_bytes = path.stat().st_size
    if count > free and count > MAX_RATIO * num_bytes:
        raise UnsafeSource(f"{path.name}: {num_bytes} bytes claim to unpack to {count} {what}")


def _footer(path: Path) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL_BYTES))
        tail = file.read(_TAIL_BYTES)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != b"PAR1" or length > min(size - _TAIL_BYTES, _MAX_FOOTER_BYTES):
            raise ValueError("no footer where it should be")
        file.seek(size - _TAIL_BYTES - length)
        return file.read(length)


def _num_values(footer: dict[int, Any]) -> int:
    """The number of values of the column that has most; at least the number of rows."""
    totals: dict[int, int] = {}
    for group in footer.get(_ROW_GROUPS, []):
        for index, column in enumerate(group[_COLUMNS]):
            counts = (column.get(_COLUMN_META, {}).get(_NUM_VALUES, 0), group[_NUM_ROWS])
            totals[index] = totals.get(index, 0) + max(counts)
    return int(max([footer[_NUM_ROWS], *totals.values()]))


class _Compact:
    """Reads values of Thrift's compact protocol into dictionaries by field number, and lists."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._depth = data, 0, 0

    def struct(self) -> dict[int, Any]:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while header := self._byte():
            number = number + (header >> 4) if header >> 4 else self._integer()
            kind = header & 15
            # A field that is true or false holds that in its type.
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind)
        self._depth -= 1
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (1, 2, 3):  # in lists, a truth takes a byte like a small number
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind in (7, 8):
            return self._skip(8 if kind == 7 else self._varint())
        if kind in (9, 10):
            return self._list()
        if kind == 12:
            return self.struct()
        raise ValueError(f"type {kind}")  # maps too: the footer has none

    def _list(self) -> list[Any]:
        header = self._byte()
        size = header >> 4 if header >> 4 < 15 else self._varint()
        return [self._value(header & 15) for _ in range(size)]

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise ValueError("a number of more than 64 bits")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _skip(self, num_bytes: int) -> None:
        """Text and fractions, of which nothing is needed here."""
        self._at += num_bytes
        if self._at > len(self._data):
            raise ValueError("cut short")
