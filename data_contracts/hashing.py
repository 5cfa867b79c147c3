"""Hashes of rows: duplicates of unsorted keys, and whether every edge has its reverse.

Mixing is the finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
generators, OOPSLA 2014), vectorised; strings go through pandas' SipHash.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.arrow import Array
from data_contracts.predicates import Mask, Predicate, Window
from data_contracts.reading import count_rows, read_batches

Words = npt.NDArray[np.uint64]

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SEEDS = (0x243F6A8885A308D3, 0x13198A2E03707344)
_TEXT_KEYS = ("gclflow contract", "second hash word")

MAX_KEYS_IN_MEMORY = 1 << 23  # two words each: 128 MiB
MAX_EDGES_FOR_SAMPLE = 1 << 24


def _mix(words: Words) -> Words:
    """SplitMix64's finaliser, in place."""
    words ^= words >> np.uint64(30)
    words *= _MIX_1
    words ^= words >> np.uint64(27)
    words *= _MIX_2
    words ^= words >> np.uint64(31)
    return words


def _integer_words(array: Array) -> Words:
    """Integers as the words they are; a null as 0."""
    filled: Words = pc.cast(array, pa.int64()).fill_null(0).to_numpy(zero_copy_only=False).view(np.uint64)
    return filled


def _column_words(array: Array, which: int) -> Words:
    """One word a row: integers as they are, text hashed, a null as 0 or empty text."""
    from pandas.util import hash_array

    if pa.types.is_string(array.type):
        text = array.fill_null("").to_numpy(zero_copy_only=False).astype(object)
        words = hash_array(text, hash_key=_TEXT_KEYS[which], categorize=False)
    else:
        words = _integer_words(array)
    return words.astype(np.uint64, copy=False)


def row_words(batch: pa.RecordBatch, columns: Sequence[str], which: int) -> Words:
    """One of the two hash words (`which` 0 or 1) of each row's key."""
    state = np.full(batch.num_rows, _SEEDS[which], np.uint64)
    for name in columns:
        array = batch.column(name)
        state = _mix(state * np.uint64(_GOLDEN) + _column_words(array, which))
        if array.null_count:
            # After mixing, so that no value of the column hashes like a null.
            state ^= array.is_null().to_numpy(zero_copy_only=False) * np.uint64(_SEEDS[1 - which])
    return state


def duplicated_keys(path: Path, table: str, columns: Sequence[str]) -> tuple[int, Words]:
    """How many rows repeat the key of an earlier row, and the first hash words of repeated keys.

    Every row's key becomes 128 bits; equal keys are found by sorting, so the answer is exact but for a
    collision of 128 bits. Files of more than MAX_KEYS_IN_MEMORY rows are read several times, each time
    sorting only the keys of one residue class: memory stays bounded and the answer exact.
    """
    num_classes = -(-count_rows(path, table) // MAX_KEYS_IN_MEMORY) or 1
    repeats, repeated = 0, [np.zeros(0, np.uint64)]
    for residue in range(num_classes):
        first, second = _keys_of_class(path, table, columns, (residue, num_classes))
        order = np.argsort(first, kind="stable")
        first, second = first[order], second[order]
        same = np.zeros(len(first), np.bool_)
        same[1:] = first[1:] == first[:-1]
        same[:-1] |= same[1:].copy()
        # Rows with equal first words: only these need the second word.
        pairs = np.stack([first[same], second[same]], axis=1)
        distinct, counts = np.unique(pairs, axis=0, return_counts=True)
        repeats += int((counts - 1).sum())
        repeated.append(distinct[counts > 1, 0])
    return repeats, np.concatenate(repeated)


def _keys_of_class(
    path: Path, table: str, columns: Sequence[str], residue_class: tuple[int, int]
) -> tuple[Words, Words]:
    residue, modulus = residue_class
    firsts, seconds = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    for batch in read_batches(path, table, columns=columns):
        first, second = row_words(batch, columns, 0), row_words(batch, columns, 1)
        if modulus > 1:
            mine = first % np.uint64(modulus) == np.uint64(residue)
            first, second = first[mine], second[mine]
        firsts.append(first)
        seconds.append(second)
    return np.concatenate(firsts), np.concatenate(seconds)


def repeated(path: Path, table: str, columns: Sequence[str]) -> Predicate:
    """Rows whose key occurs more than once in the file, the first occurrence included."""
    _, words = duplicated_keys(path, table, columns)

    def mask(window: Window) -> Mask:
        return np.isin(row_words(window.batch, columns, 0), words)

    return Predicate(tuple(columns), mask)


def edge_sums(batch: pa.RecordBatch, *, with_weight: bool) -> tuple[int, int]:
    """Order-free 128-bit hashes of the edges and of their reverses: sums of words, modulo 2^64 each.

    The edges of a file are symmetric exactly when both sums over the file agree (but for a collision).
    """
    forward, backward = 0, 0
    for which in (0, 1):
        ahead, behind = _edge_words(batch, which, with_weight=with_weight)
        forward |= int(ahead.sum(dtype=np.uint64)) << (64 * which)
        backward |= int(behind.sum(dtype=np.uint64)) << (64 * which)
    return forward, backward


def add_sums(first: int, second: int) -> int:
    """Sum of two pairs of words, each modulo 2^64."""
    low = (first + second) & 0xFFFF_FFFF_FFFF_FFFF
    high = ((first >> 64) + (second >> 64)) & 0xFFFF_FFFF_FFFF_FFFF
    return high << 64 | low


def _edge_words(batch: pa.RecordBatch, which: int, *, with_weight: bool) -> tuple[Words, Words]:
    """A word for each (src, dst) and for each (dst, src)."""
    a = np.uint64(_SEEDS[which] | 1)
    b = np.uint64(_SEEDS[1 - which] * 4 + 1 & 0xFFFF_FFFF_FFFF_FFFF)
    src, dst = _integer_words(batch.column("src")), _integer_words(batch.column("dst"))
    ahead, behind = src * a, dst * a
    ahead += dst * b
    behind += src * b
    ahead, behind = _mix(ahead), _mix(behind)
    if with_weight:
        weight = batch.column("weight").to_numpy(zero_copy_only=False).astype(np.float32)
        bits = (weight + np.float32(0)).view(np.uint32).astype(np.uint64) * np.uint64(_GOLDEN)
        ahead, behind = _mix(ahead ^ bits), _mix(behind ^ bits)
    return ahead, behind


def one_way(path: Path, table: str, *, with_weight: bool) -> Predicate:
    """Edges whose reverse is missing (or has another weight).

    Keeps a word for each edge, so it serves samples only: beyond MAX_EDGES_FOR_SAMPLE no edge is named.
    """
    columns = ("src", "dst", "weight") if with_weight else ("src", "dst")
    if count_rows(path, table) > MAX_EDGES_FOR_SAMPLE:
        return Predicate(columns, lambda window: np.zeros(window.batch.num_rows, np.bool_))
    words = [np.zeros(0, np.uint64)]
    for batch in read_batches(path, table, columns=columns):
        words.append(_edge_words(batch, 0, with_weight=with_weight)[0])
    present = np.sort(np.concatenate(words))

    def mask(window: Window) -> Mask:
        reverse = _edge_words(window.batch, 0, with_weight=with_weight)[1]
        where = np.minimum(np.searchsorted(present, reverse), max(len(present) - 1, 0))
        absent: Mask = present[where] != reverse
        return absent

    return Predicate(columns, mask)
