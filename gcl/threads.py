"""One thread for one result."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold BLAS and OpenMP to one thread inside.

    Sums split over threads round differently: k-means on the same points with one and with two threads
    gives centroids that differ in their last bits, and an artifact's digest would depend on the machine.
    """
    import threadpoolctl  # type: ignore[import-untyped]

    with threadpoolctl.threadpool_limits(limits=1):
        yield
