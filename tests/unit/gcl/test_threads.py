"""The size of the processor's cache, from a libc that may know nothing of it."""

import os

import pytest

from gcl.threads import cache_bytes


@pytest.mark.parametrize(("told", "expected"), [(32 << 20, 32 << 20), (0, 1 << 20), (-1, 1 << 20)])
def test_the_cache_is_what_the_system_tells_or_too_small_for_any(told, expected, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda _: told)
    assert cache_bytes() == expected


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_a_libc_without_the_number_is_no_error(error, monkeypatch):
    def refuse(_):
        raise error

    monkeypatch.setattr(os, "sysconf", refuse)
    assert cache_bytes() == 1 << 20
