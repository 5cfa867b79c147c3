"""The processor: one thread for one result, and how large its cache is."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SC_LEVEL3_CACHE_SIZE = 194  # of glibc; Python has no name for it


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold BLAS and OpenMP to one thread inside.

    Sums split over threads round differently: k-means on the same points with one and with two threads
    gives centroids that differ in their last bits, and an artifact's digest would depend on the machine.
    """
    import threadpoolctl  # type: ignore[import-untyped]

    with threadpoolctl.threadpool_limits(limits=1):
        yield


def cache_bytes() -> int:
    """Bytes of the last cache of a processor as glibc tells; 1 MiB where nothing does, or less is told."""
    least = 1 << 20
    if sys.platform != "linux":
        return least
    try:
        return max(os.sysconf(_SC_LEVEL3_CACHE_SIZE), least)
    except (OSError, ValueError):  # another libc, where the number means nothing
        return least
