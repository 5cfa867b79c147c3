"""Predicates on rows: each says, for every row of a batch, whether it breaks a rule.

The same predicate counts rows while the profile streams and finds the sample afterwards, so what is
counted is what is shown. All are vectorised. Shape legend: B rows of a batch, L leaves (list items).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.arrow import Array, leaves

Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Window:
    """What a predicate sees: a batch, where it starts, and the row before it.

    Attributes:
        batch: B rows.
        offset: position of its first row in the file.
        previous: the row before, as a batch of one; None at the start of the file.
    """

    batch: pa.RecordBatch
    offset: int
    previous: pa.RecordBatch | None

    def with_previous(self, name: str) -> tuple[Values, bool]:
        """Values of a column without nulls, the previous row's first if there is one, and whether it is."""
        values: Values = self.batch.column(name).to_numpy(zero_copy_only=False)
        if self.previous is None:
            return values, False
        before = self.previous.column(name).to_numpy(zero_copy_only=False)
        return np.concatenate([before, values]), True


@dataclass(frozen=True)
class Predicate:
    """A rule's violation, row by row.

    Attributes:
        columns: the columns it reads.
        mask: bool (B,), true where a row breaks the rule.
        leaf: for rules on single items: bool (L,) over the items, to show which item of a list is wrong.
    """

    columns: tuple[str, ...]
    mask: Callable[[Window], Mask]
    leaf: Callable[[Array], Mask] | None = None


def any_per_row(flags_L: Mask, lengths_B: npt.NDArray[np.int64] | None) -> Mask:
    """Whether any item of a row is flagged."""
    if lengths_B is None:
        return flags_L
    ends = np.cumsum(lengths_B)
    running = np.concatenate([np.zeros(1, np.int64), np.cumsum(flags_L)])
    flagged: Mask = running[ends] > running[ends - lengths_B]
    return flagged


def _leafwise(column: str, leaf: Callable[[Array], Mask]) -> Predicate:
    def mask(window: Window) -> Mask:
        items, lengths_B = leaves(window.batch.column(column))
        return any_per_row(leaf(items), lengths_B)

    return Predicate((column,), mask, leaf)


def _true(condition: Any) -> Mask:
    flags: Mask = pc.fill_null(condition, False).to_numpy(zero_copy_only=False)
    return flags


def _beyond(numbers: Any, low: Any, high: Any) -> Mask:
    flags = np.zeros(len(numbers), np.bool_)
    if low is not None:
        flags |= _true(pc.less(numbers, low))
    if high is not None:
        flags |= _true(pc.greater(numbers, high))
    return flags


def missing(column: str) -> Predicate:
    """Rows without a value."""
    return Predicate((column,), lambda window: _true(window.batch.column(column).is_null()))


def missing_items(column: str) -> Predicate:
    """Rows with a list that has a null item."""
    return _leafwise(column, lambda items: _true(items.is_null()))


def not_finite(column: str) -> Predicate:
    """Rows with NaN or an infinity."""

    def leaf(items: Array) -> Mask:
        if not pa.types.is_floating(items.type):
            return np.zeros(len(items), np.bool_)
        return _true(pc.invert(pc.is_finite(items)))

    return _leafwise(column, leaf)


def outside(column: str, *, low: float | None, high: float | None) -> Predicate:
    """Rows with a value below `low` or above `high`; nulls and NaN are other rules' business."""

    def leaf(items: Array) -> Mask:
        numbers = pc.cast(items, pa.int8()) if pa.types.is_boolean(items.type) else items
        return _beyond(numbers, low, high)

    return _leafwise(column, leaf)


def unknown(column: str, known: tuple[str, ...]) -> Predicate:
    """Rows whose text is none of the known ones."""

    def leaf(items: Array) -> Mask:
        return _true(pc.invert(pc.is_in(items, value_set=pa.array(known, items.type))))

    return _leafwise(column, leaf)


def known(column: str, names: tuple[str, ...]) -> Predicate:
    """Rows whose text is one of these, which have no place there."""
    return _leafwise(column, lambda items: _true(pc.is_in(items, value_set=pa.array(names, items.type))))


def out_of_place(column: str) -> Predicate:
    """Rows whose value is not their own position in the file, counted from 0."""

    def mask(window: Window) -> Mask:
        values_B = window.batch.column(column).to_numpy(zero_copy_only=False)
        displaced: Mask = values_B != np.arange(window.offset, window.offset + len(values_B))
        return displaced

    return Predicate((column,), mask)


def equal(first: str, second: str) -> Predicate:
    """Rows in which two columns agree: self loops."""

    def mask(window: Window) -> Mask:
        return _true(pc.equal(window.batch.column(first), window.batch.column(second)))

    return Predicate((first, second), mask)


def not_increasing(*columns: str) -> Predicate:
    """Rows that do not come strictly after the row before them, in lexicographic order of `columns`."""

    def mask(window: Window) -> Mask:
        later: Mask | None = None
        tied: Mask | None = None
        has_previous = False
        for column in columns:
            values, has_previous = window.with_previous(column)
            above, same = values[1:] > values[:-1], values[1:] == values[:-1]
            later = above if later is None or tied is None else later | (tied & above)
            tied = same if tied is None else tied & same
        broken = ~later if later is not None else np.zeros(0, np.bool_)
        return broken if has_previous else np.concatenate([np.zeros(1, np.bool_), broken])

    return Predicate(columns, mask)


def gap_within(group: str, column: str) -> Predicate:
    """Rows whose value does not count on from the row before them: 0, 1, 2, ... in each group."""

    def mask(window: Window) -> Mask:
        groups, has_previous = window.with_previous(group)
        values, _ = window.with_previous(column)
        expected = np.where(groups[1:] == groups[:-1], values[:-1] + 1, 0)
        broken: Mask = values[1:] != expected
        return broken if has_previous else np.concatenate([values[:1] != 0, broken])

    return Predicate((group, column), mask)


def beyond_size(group: str, column: str, sizes: str) -> Predicate:
    """Rows with a value below 0 or not below the size of the row's group.

    Args:
        group: column with the number of the group; one without a size is another rule's business.
        column: integers, or lists of them.
        sizes: where the file's metadata hold the sizes, as JSON.
    """

    def mask(window: Window) -> Mask:
        size_G = np.array(
            json.loads((window.batch.schema.metadata or {}).get(sizes.encode(), b"[]")), np.int64
        )
        group_B = window.batch.column(group).to_numpy(zero_copy_only=False)
        known_B = (group_B >= 0) & (group_B < len(size_G))
        size_B = np.full(len(group_B), np.iinfo(np.int64).max)
        size_B[known_B] = size_G[group_B[known_B]]
        items, lengths_B = leaves(window.batch.column(column))
        values = items.fill_null(0).to_numpy(zero_copy_only=False)
        if lengths_B is None:
            return np.asarray((values < 0) | (values >= size_B))
        return any_per_row((values < 0) | (values >= np.repeat(size_B, lengths_B)), lengths_B)

    return Predicate((group, column), mask)


def outside_group(group: str, column: str, bounds: str) -> Predicate:
    """Rows with a value outside the range that belongs to the row's group.

    Args:
        group: column with the number of the group; one without a range is another rule's business.
        column: integers.
        bounds: where the file's metadata hold where each group's range begins, and the end, as JSON.
    """

    def mask(window: Window) -> Mask:
        metadata = window.batch.schema.metadata or {}
        first_G = np.array(json.loads(metadata.get(bounds.encode(), b"[0]")), np.int64)
        group_B, value_B = (
            window.batch.column(name).to_numpy(zero_copy_only=False) for name in (group, column)
        )
        known_B = (group_B >= 0) & (group_B < len(first_G) - 1)
        group_B = np.where(known_B, group_B, 0)
        end_B = first_G[np.minimum(group_B + 1, len(first_G) - 1)]
        outside_B = (value_B < first_G[group_B]) | (value_B >= end_B)
        return np.asarray(known_B & outside_B)

    return Predicate((group, column), mask)


def decreasing_within(group: str, column: str) -> Predicate:
    """Rows whose value is below that of the row before them in the same group."""

    def mask(window: Window) -> Mask:
        groups, has_previous = window.with_previous(group)
        values, _ = window.with_previous(column)
        broken: Mask = (groups[1:] == groups[:-1]) & (values[1:] < values[:-1])
        return broken if has_previous else np.concatenate([np.zeros(1, np.bool_), broken])

    return Predicate((group, column), mask)


def unordered_items(column: str) -> Predicate:
    """Rows whose list is not strictly increasing."""

    def mask(window: Window) -> Mask:
        items, lengths_B = leaves(window.batch.column(column))
        values = items.fill_null(0).to_numpy(zero_copy_only=False)
        if lengths_B is None or len(values) == 0:
            return np.zeros(window.batch.num_rows, np.bool_)
        broken = np.zeros(len(values), np.bool_)
        broken[1:] = values[1:] <= values[:-1]
        starts = (np.cumsum(lengths_B) - lengths_B)[lengths_B > 0]
        broken[starts] = False
        return any_per_row(broken, lengths_B)

    return Predicate((column,), mask)


def unequal_lengths(first: str, second: str) -> Predicate:
    """Rows in which two lists have different lengths."""

    def mask(window: Window) -> Mask:
        lengths = [
            pc.fill_null(pc.list_value_length(window.batch.column(name)), 0) for name in (first, second)
        ]
        return _true(pc.not_equal(*lengths))

    return Predicate((first, second), mask)


def not_a_distribution(column: str, *, tolerance: float) -> Predicate:
    """Rows whose list is not of shares in [0, 1] that sum to 1 within `tolerance`; nulls pass."""

    def mask(window: Window) -> Mask:
        array = window.batch.column(column)
        items, lengths_B = leaves(array)
        shares = items.to_numpy(zero_copy_only=False).astype(np.float64)
        if lengths_B is None:
            return np.zeros(window.batch.num_rows, np.bool_)
        # Through the predicates above NaN is neither below 0 nor above 1: compare so that it fails.
        wrong = any_per_row(~((shares >= 0.0) & (shares <= 1.0)), lengths_B)
        rows = np.repeat(np.arange(len(lengths_B)), lengths_B)
        sums_B = np.bincount(
            rows, weights=np.nan_to_num(shares, posinf=0.0, neginf=0.0), minlength=len(lengths_B)
        )
        present: Mask = array.is_valid().to_numpy(zero_copy_only=False)
        broken: Mask = present & (wrong | (np.abs(sums_B - 1.0) > tolerance))
        return broken

    return Predicate((column,), mask)


def outside_named(
    name: str, value: str, ranges: Mapping[str, tuple[float | None, float | None]]
) -> Predicate:
    """Rows whose value leaves the range that belongs to the row's name; unknown names have none."""

    def mask(window: Window) -> Mask:
        values = window.batch.column(value)
        names, flags = window.batch.column(name), np.zeros(window.batch.num_rows, np.bool_)
        for known in pc.unique(names):
            low, high = ranges.get(str(known), (None, None))
            rows = _true(pc.equal(names, known))
            flags |= rows & _beyond(values, low, high)
        return flags

    return Predicate((name, value), mask)
