"""Blocks of work on Dask: a cluster on this machine for the duration of a stage, or an existing scheduler.

One Prefect task owns the cluster, so a lost worker is seen here, as Dask sees it, and nothing outlives the
stage.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

BlockType = TypeVar("BlockType")
Result = TypeVar("Result")

# A block that outlived this many workers is what kills them.
ALLOWED_WORKER_DEATHS = 3
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class WorkerLost(Exception):
    """Workers died on one block again and again, most often for want of memory; a retry needs smaller blocks.

    Attributes:
        block: the block, as text.
    """

    def __init__(self, block: str) -> None:
        self.block = block
        super().__init__(block)

    def __str__(self) -> str:
        """What happened and what to try."""
        return (
            f"several Dask workers in turn died on {self.block}, most likely out of memory; "
            "set a smaller smooth.block_columns, or a larger smooth.memory_limit"
        )


class SchedulerLost(Exception):
    """The Dask scheduler cannot be reached, or stopped answering while blocks were out."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(address)

    def __str__(self) -> str:
        """Which scheduler, and what to check."""
        return f"lost the Dask scheduler at {self.address}; check that it runs and answers, then run again"


class DaskMap(Protocol):
    """Runs a function on every block; results in the order of the blocks."""

    def __call__(self, function: Callable[[BlockType], Result], blocks: Sequence[BlockType]) -> list[Result]:
        """Run `function` on `blocks`."""
        ...


@contextmanager
def dask_map(
    *,
    num_workers: int = 2,
    threads_per_worker: int = 1,
    memory_limit: int | None = None,
    address: str | None = None,
    folder: Path | None = None,
    connect_seconds: float = 30.0,
) -> Iterator[DaskMap]:
    """A map over blocks on Dask workers; the workers are gone when the context ends.

    The function travels by name, so it must be importable on the workers, and it must be idempotent: a block
    whose worker dies runs again on another. A worker holds one block at a time.

    Args:
        num_workers: processes of a local cluster (count).
        threads_per_worker: threads of the numerical libraries within one block (count).
        memory_limit: bytes a local worker may use before it is restarted; none sets no limit.
        address: an existing scheduler to use instead, ``tcp://host:8786``; its workers must see the same
            files, have gclflow installed, and keep their own limits. It is left running.
        folder: where local workers put their own files; none takes the working folder of the system.
        connect_seconds: how long to wait for the scheduler at `address`.

    Raises:
        WorkerLost: one block killed several workers.
        SchedulerLost: the scheduler is not there, or went away.
    """
    with ExitStack() as stack:
        if address is None:
            client = _start_local(stack, num_workers, threads_per_worker, memory_limit, folder)
        else:
            client = _connect(stack, address, connect_seconds)

        def run(function: Callable[[BlockType], Result], blocks: Sequence[BlockType]) -> list[Result]:
            return _run_blocks(client, function, blocks)

        yield run


def _start_local(
    stack: ExitStack,
    num_workers: int,
    threads_per_worker: int,
    memory_limit: int | None,
    folder: Path | None,
) -> "Client":
    import dask
    from distributed import Client, LocalCluster
    from distributed.security import Security

    threads = {name: str(threads_per_worker) for name in THREAD_VARIABLES}
    settings = {
        "distributed.scheduler.allowed-failures": ALLOWED_WORKER_DEATHS,
        # The scheduler opens a web port even without a dashboard; let it serve nothing.
        "distributed.scheduler.http.routes": [],
        # What workers say of their own end is told by WorkerLost.
        "logging": {"distributed": "critical"},
    }
    stack.enter_context(dask.config.set(settings))
    # Loopback is open to every user of the machine, and a scheduler runs what it is sent: use certificates.
    security = Security.temporary()  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Port 8787 is already in use")
        cluster = LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=num_workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=memory_limit or 0,
            host="127.0.0.1",
            protocol="tls://",
            security=security,
            dashboard_address=None,
            local_directory=None if folder is None else str(folder),
            silence_logs=logging.CRITICAL,
            env=threads,
        )
    stack.enter_context(cluster)
    client: Client = Client(cluster, security=security)  # type: ignore[no-untyped-call]
    stack.enter_context(client)
    return client


def _connect(stack: ExitStack, address: str, connect_seconds: float) -> "Client":
    from distributed import Client

    try:
        client: Client = Client(address, timeout=connect_seconds)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError) as error:
        raise SchedulerLost(address) from error
    stack.enter_context(client)
    return client


def _run_blocks(
    client: "Client", function: Callable[[BlockType], Result], blocks: Sequence[BlockType]
) -> list[Result]:
    from distributed import as_completed

    address = str(client.scheduler.address) if client.scheduler else "unknown"
    # Not pure: a result kept by an existing scheduler from an earlier run would name files that are gone.
    futures = [client.submit(function, block, pure=False) for block in blocks]
    block_of = dict(zip((future.key for future in futures), blocks, strict=True))
    try:
        results: dict[Any, Result] = {}
        finished = as_completed(futures)  # type: ignore[no-untyped-call]
        for num_done, future in enumerate(finished, start=1):
            results[future.key] = _result(future, repr(block_of[future.key]), address)
            logger.info("%d of %d blocks done", num_done, len(blocks))
        return [results[future.key] for future in futures]
    finally:
        if client.status == "running":
            client.cancel(futures)  # type: ignore[no-untyped-call]


def _result(future: "Future[Any]", block: str, address: str) -> Any:
    """The future's result; Dask's own failures become ours, the function's come as they are."""
    from concurrent.futures import CancelledError

    from distributed import KilledWorker

    if future.status == "error":
        try:
            return future.result()
        except KilledWorker as error:
            raise WorkerLost(block) from error
    try:
        return future.result()
    except (OSError, TimeoutError, CancelledError) as error:  # the block is done, fetching its result failed
        raise SchedulerLost(address) from error
