import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts import predicates as p
from data_contracts.predicates import Predicate, Window


def mask_in_parts(predicate: Predicate, table: pa.Table, size: int) -> list[bool]:
    """Run a predicate over batches of `size` rows, as the profile does."""
    offset, previous, found = 0, None, []
    for batch in table.to_batches(max_chunksize=size):
        found += predicate.mask(Window(batch, offset, previous)).tolist()
        offset += batch.num_rows
        previous = batch.slice(batch.num_rows - 1)
    return found


SMALL = st.integers(-2, 3)


@settings(deadline=None)
@given(st.lists(st.tuples(SMALL, SMALL), min_size=1), st.integers(1, 4))
def test_not_increasing_equals_comparing_neighbours(pairs: list[tuple[int, int]], size: int) -> None:
    table = pa.table({"a": [pair[0] for pair in pairs], "b": [pair[1] for pair in pairs]})
    expected = [False] + [later <= earlier for earlier, later in zip(pairs, pairs[1:], strict=False)]
    assert mask_in_parts(p.not_increasing("a", "b"), table, size) == expected


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), SMALL), min_size=1), st.integers(1, 4))
def test_decreasing_within_equals_comparing_neighbours(rows: list[tuple[str, int]], size: int) -> None:
    table = pa.table({"g": [row[0] for row in rows], "v": [row[1] for row in rows]})
    expected = [False] + [b[0] == a[0] and b[1] < a[1] for a, b in zip(rows, rows[1:], strict=False)]
    assert mask_in_parts(p.decreasing_within("g", "v"), table, size) == expected


LISTS = st.lists(st.one_of(st.none(), st.lists(SMALL, max_size=4)), min_size=1)


@settings(deadline=None)
@given(LISTS, st.integers(1, 4))
def test_unordered_items_equals_comparing_items(lists: list[list[int] | None], size: int) -> None:
    table = pa.table({"l": pa.array(lists, pa.list_(pa.int32()))})
    expected = [any(b <= a for a, b in zip(row or [], (row or [])[1:], strict=False)) for row in lists]
    assert mask_in_parts(p.unordered_items("l"), table, size) == expected


@settings(deadline=None)
@given(LISTS, st.integers(1, 4))
def test_outside_equals_comparing_items(lists: list[list[int] | None], size: int) -> None:
    table = pa.table({"l": pa.array(lists, pa.list_(pa.int32()))})
    expected = [any(not -1 <= item <= 2 for item in row or []) for row in lists]
    assert mask_in_parts(p.outside("l", low=-1, high=2), table, size) == expected


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.tuples(SMALL, SMALL)), min_size=1), st.integers(1, 4))
def test_fixed_lists_with_nulls_keep_their_rows(rows: list[tuple[int, int] | None], size: int) -> None:
    table = pa.table({"x": pa.array(rows, pa.list_(pa.float32(), 2))})
    expected = [row is not None and max(row) > 1 for row in rows]
    assert mask_in_parts(p.outside("x", low=None, high=1), table, size) == expected
    assert mask_in_parts(p.missing("x"), table, size) == [row is None for row in rows]


def test_outside_ignores_null_and_nan() -> None:
    table = pa.table({"v": [None, float("nan"), 2.0, float("inf")]})
    assert mask_in_parts(p.outside("v", low=0, high=1), table, 9) == [False, False, True, True]
    assert mask_in_parts(p.not_finite("v"), table, 9) == [False, True, False, True]


@pytest.mark.parametrize("shares", [[0.5, float("nan")], [1.5, -0.5], [0.5, 0.49], [float("inf"), 0.0], []])
def test_not_a_distribution_finds(shares: list[float]) -> None:
    table = pa.table({"m": pa.array([shares, [0.25, 0.75], None], pa.list_(pa.float32()))})
    assert mask_in_parts(p.not_a_distribution("m", tolerance=1e-3), table, 9) == [True, False, False]


def test_named_ranges_leave_unknown_names_alone() -> None:
    table = pa.table({"n": ["a", "b", None, "a"], "v": [2.0, 2.0, 2.0, None]})
    assert mask_in_parts(p.outside_named("n", "v", {"a": (None, 1.0)}), table, 9) == [
        True,
        False,
        False,
        False,
    ]


def test_any_per_row_of_empty_rows() -> None:
    flags = np.array([True, False])
    assert p.any_per_row(flags, np.array([0, 1, 0, 1, 0])).tolist() == [False, True, False, False, False]
