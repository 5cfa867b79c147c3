from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts import hashing
from data_contracts.predicates import Window
from data_contracts.statistics import Symmetry

PAIRS = st.lists(st.tuples(st.integers(-3, 6), st.integers(-3, 6)), max_size=30)


def batch_of(pairs: list[tuple[int, int]]) -> pa.RecordBatch:
    src, dst = ([pair[side] for pair in pairs] for side in (0, 1))
    return pa.record_batch({"src": pa.array(src, pa.int64()), "dst": pa.array(dst, pa.int64())})


def is_asymmetric(batches: list[pa.RecordBatch]) -> object:
    probe = Symmetry(with_weight=False)
    for batch in batches:
        probe.add(Window(batch, 0, None))
    return probe.figures()["edges.asymmetric"]


@settings(deadline=None)
@given(PAIRS, st.integers(0, 30))
def test_symmetry_hash_agrees_with_sets(pairs: list[tuple[int, int]], cut: int) -> None:
    distinct = sorted(set(pairs))
    expected = {(d, s) for s, d in distinct} != set(distinct)
    assert is_asymmetric([batch_of(distinct[:cut]), batch_of(distinct[cut:])]) == int(expected)


@settings(deadline=None)
@given(PAIRS)
def test_symmetrised_edges_are_symmetric(pairs: list[tuple[int, int]]) -> None:
    assert is_asymmetric([batch_of(pairs + [(d, s) for s, d in pairs])]) == 0


def test_hash_does_not_depend_on_order() -> None:
    pairs = [(1, 2), (5, 3), (0, 2**40)]
    assert hashing.edge_sums(batch_of(pairs), with_weight=False) == hashing.edge_sums(
        batch_of(pairs[::-1]), with_weight=False
    )


def test_sums_wrap_word_by_word() -> None:
    top = (1 << 64) - 1
    assert hashing.add_sums(top, 1) == 0
    assert hashing.add_sums(top << 64, 1 << 64) == 0


@pytest.mark.parametrize("keys_in_memory", [1, 7, 1 << 20])
@settings(max_examples=25, deadline=None)
@given(
    keys=st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, 2**53, 2**53 + 1])),
            st.one_of(st.none(), st.sampled_from(["", "a", "1", "001", "\x00"])),
        ),
        max_size=40,
    )
)
def test_duplicates_agree_with_a_counter(
    keys_in_memory: int, keys: list[tuple[int | None, str | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("keys") / "t.parquet"
    columns = {
        "a": pa.array([k[0] for k in keys], pa.int64()),
        "b": pa.array([k[1] for k in keys], pa.string()),
    }
    pq.write_table(pa.table(columns), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "MAX_KEYS_IN_MEMORY", keys_in_memory)
        repeats, words = hashing.duplicated_keys(path, "t", ("a", "b"))
    assert repeats == len(keys) - len(set(keys))
    assert len(words) == len({key for key in keys if keys.count(key) > 1})


def test_null_is_unlike_zero_and_empty_text(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [0, None, 0, None], "b": ["", "", None, None]}), path)
    assert hashing.duplicated_keys(path, "t", ("a", "b"))[0] == 0
    assert hashing.duplicated_keys(path, "t", ("a",))[0] == 2


def test_equal_first_words_are_told_apart_by_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": pa.array([5, 1, 5, 2, 1, 5], pa.int64())}), path)
    whole = hashing.row_words

    def colliding(batch: pa.RecordBatch, columns: list[str], which: int) -> np.ndarray:
        return whole(batch, columns, 1) if which else np.zeros(batch.num_rows, np.uint64)

    monkeypatch.setattr(hashing, "row_words", colliding)
    assert hashing.duplicated_keys(path, "t", ["a"])[0] == 3


def test_too_many_edges_give_no_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_batches([batch_of([(0, 1), (1, 2)])]), path)
    window = Window(batch_of([(0, 1), (1, 2)]), 0, None)
    assert hashing.one_way(path, "t", with_weight=False).mask(window).tolist() == [True, True]
    monkeypatch.setattr(hashing, "MAX_EDGES_FOR_SAMPLE", 1)
    assert not hashing.one_way(path, "t", with_weight=False).mask(window).any()
