"""Probes: each watches the batches of one streamed pass go by and gives a few figures at the end."""

from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts import hashing
from data_contracts.arrow import is_list, item_type, leaves
from data_contracts.predicates import Predicate, Window
from data_contracts.spectrum import Figure, SecondMoments

_MAX_DISTINCT = 1 << 16


class Probe(Protocol):
    """Something that watches a table go by."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it reads."""

    def add(self, window: Window) -> None:
        """See a batch."""

    def figures(self) -> dict[str, Figure]:
        """The figures, after the last batch."""


class Numbers:
    """Nulls, range and non-finite values of one column, over the items of a list.

    Figures: ``.present`` and ``.nulls``, rows with and without a value, ``.min`` and ``.max`` of the
    finite values (null if there are none), ``.max_abs``, ``.non_finite``; of lists also ``.null_items``,
    ``.min_length``, ``.max_length``; of fixed-size lists ``.width``.
    """

    def __init__(self, column: str, type_: pa.DataType) -> None:
        self.columns = (column,)
        self._column, self._type = column, type_
        self._is_list = is_list(type_)
        self._item = item_type(type_)
        self._present = self._nulls = self._null_items = self._non_finite = 0
        self._min: float | int | None = None
        self._max: float | int | None = None
        self._lengths: tuple[int, int] | None = None

    def add(self, window: Window) -> None:
        """See a batch."""
        array = window.batch.column(self._column)
        self._nulls += array.null_count
        self._present += len(array) - array.null_count
        items, lengths_B = leaves(array)
        if lengths_B is not None:
            self._null_items += items.null_count
            self._see_lengths(lengths_B[array.is_valid().to_numpy(zero_copy_only=False)])
        if pa.types.is_string(self._item):
            return
        if pa.types.is_boolean(self._item):
            items = pc.cast(items, pa.int8())
        self._see_values((items.drop_null() if items.null_count else items).to_numpy(zero_copy_only=False))

    def _see_lengths(self, lengths_B: np.ndarray) -> None:
        if len(lengths_B):
            low, high = int(lengths_B.min()), int(lengths_B.max())
            old = self._lengths or (low, high)
            self._lengths = (min(low, old[0]), max(high, old[1]))

    def _see_values(self, values: np.ndarray) -> None:
        if not len(values):
            return
        low, high = values.min(), values.max()
        if values.dtype.kind == "f" and not (np.isfinite(low) and np.isfinite(high)):
            # Only now is a third pass over the values worth its time.
            finite = values[np.isfinite(values)]
            self._non_finite += len(values) - len(finite)
            if not len(finite):
                return
            low, high = finite.min(), finite.max()
        self._min = low.item() if self._min is None else min(self._min, low.item())
        self._max = high.item() if self._max is None else max(self._max, high.item())

    def figures(self) -> dict[str, Figure]:
        """The figures of the column, each named ``column.figure``."""
        found: dict[str, Figure] = {"present": self._present, "nulls": self._nulls}
        if not pa.types.is_string(self._item):
            found |= {"min": self._min, "max": self._max}
        if pa.types.is_floating(self._item):
            bounds = None if self._min is None or self._max is None else max(-self._min, self._max)
            found |= {"max_abs": bounds, "non_finite": self._non_finite}
        if self._is_list:
            shortest, longest = self._lengths or (None, None)
            found |= {"null_items": self._null_items, "min_length": shortest, "max_length": longest}
        if pa.types.is_fixed_size_list(self._type):
            found["width"] = self._type.list_size
        return {f"{self._column}.{name}": value for name, value in found.items()}


class BrokenRows:
    """Counts the rows that break one rule."""

    def __init__(self, figure: str, predicate: Predicate) -> None:
        self.columns = predicate.columns
        self._figure, self._predicate, self._count = figure, predicate, 0

    def add(self, window: Window) -> None:
        """See a batch."""
        self._count += int(np.count_nonzero(self._predicate.mask(window)))

    def figures(self) -> dict[str, Figure]:
        """The count."""
        return {self._figure: self._count}


class Symmetry:
    """Whether every edge has its reverse, and with the same weight.

    Figures: ``edges.asymmetric`` and, with weights, ``weights.asymmetric``: 0 or 1;
    ``edges.forward_hash`` and ``edges.backward_hash`` as hexadecimal text.
    """

    def __init__(self, *, with_weight: bool) -> None:
        self.columns = ("src", "dst", "weight") if with_weight else ("src", "dst")
        self._sums = {flag: (0, 0) for flag in ((False, True) if with_weight else (False,))}

    def add(self, window: Window) -> None:
        """See a batch."""
        for with_weight, (forward, backward) in self._sums.items():
            ahead, behind = hashing.edge_sums(window.batch, with_weight=with_weight)
            self._sums[with_weight] = (hashing.add_sums(forward, ahead), hashing.add_sums(backward, behind))

    def figures(self) -> dict[str, Figure]:
        """The figures."""
        forward, backward = self._sums[False]
        found: dict[str, Figure] = {
            "edges.asymmetric": int(forward != backward),
            "edges.forward_hash": f"{forward:032x}",
            "edges.backward_hash": f"{backward:032x}",
        }
        if True in self._sums:
            found["weights.asymmetric"] = int(self._sums[True][0] != self._sums[True][1])
        return found


class Occurrences:
    """How often each value of an integer column occurs, up to 65,536 different ones.

    Figures: ``.distinct``, ``.rarest`` and ``.commonest`` (rows); null when there are more values.
    """

    def __init__(self, column: str) -> None:
        self.columns = (column,)
        self._column = column
        self._counts: dict[int, int] | None = {}

    def add(self, window: Window) -> None:
        """See a batch."""
        if self._counts is None:
            return
        values = window.batch.column(self._column).drop_null().to_numpy(zero_copy_only=False)
        for value, count in zip(*np.unique(values, return_counts=True), strict=True):
            self._counts[int(value)] = self._counts.get(int(value), 0) + int(count)
        if len(self._counts) > _MAX_DISTINCT:
            self._counts = None

    def figures(self) -> dict[str, Figure]:
        """The figures."""
        counts = None if self._counts is None else list(self._counts.values())
        return {
            f"{self._column}.distinct": None if counts is None else len(counts),
            f"{self._column}.rarest": min(counts) if counts else None,
            f"{self._column}.commonest": max(counts) if counts else None,
        }


class SplitRoles:
    """Which roles each split has. Figures: ``splits.distinct``, ``.without_train``, ``.without_test``."""

    columns = ("split", "role")

    def __init__(self) -> None:
        self._roles: dict[str, set[str]] = {}

    def add(self, window: Window) -> None:
        """See a batch."""
        pairs = (
            pa.Table.from_batches([window.batch.select(self.columns)])
            .group_by(["split", "role"])
            .aggregate([])
        )
        for split, role in zip(pairs["split"].to_pylist(), pairs["role"].to_pylist(), strict=True):
            if len(self._roles) < _MAX_DISTINCT:
                self._roles.setdefault(str(split), set()).add(str(role))

    def figures(self) -> dict[str, Figure]:
        """The figures."""
        return {
            "splits.distinct": len(self._roles),
            "splits.without_train": sum("train" not in roles for roles in self._roles.values()),
            "splits.without_test": sum("test" not in roles for roles in self._roles.values()),
        }


class Spread:
    """Effective rank, mean norm and variances of a vector column; see `spectrum`."""

    def __init__(self, column: str, width: int) -> None:
        self.columns = (column,)
        self._column, self._width = column, width
        self._moments = SecondMoments(width)

    def add(self, window: Window) -> None:
        """See a batch."""
        items, _ = leaves(window.batch.column(self._column))
        # A missing item is reported elsewhere; as NaN it takes its row out of the moments.
        values = items.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        self._moments.add(values.reshape(-1, self._width))

    def figures(self) -> dict[str, Figure]:
        """The figures."""
        return self._moments.figures(self._column)
