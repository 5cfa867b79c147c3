"""Sealed JSON: what was written comes back, and nothing else does."""

import math

import pytest

from tasks.sealed import MAX_BYTES, seal, unseal

BODY = {"run": "x", "values": [1, 2.5, None, "ü"]}


def test_what_was_sealed_comes_back() -> None:
    assert unseal(seal(BODY)) == BODY


@pytest.mark.parametrize("position", range(len(seal(BODY))))
def test_every_flipped_bit_is_noticed(position: int) -> None:
    data = bytearray(seal(BODY))
    data[position] ^= 1
    with pytest.raises(ValueError):
        unseal(bytes(data))


@pytest.mark.parametrize("data", [b"", b"[]", b'{"body": 1}', seal(1) + b" ", b"[" * 100_000])
def test_what_was_not_sealed_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        unseal(data)


def test_what_is_too_large_is_refused() -> None:
    data = seal("x" * MAX_BYTES)
    with pytest.raises(ValueError, match="larger than 16,777,216 bytes"):
        unseal(data)
    assert unseal(data, max_bytes=2 * MAX_BYTES)


def test_what_is_no_json_is_not_sealed() -> None:
    with pytest.raises(ValueError):
        seal(math.nan)
