"""Blocks of work on Dask: a cluster on this machine for the duration of a stage, or an existing scheduler.

One Prefect task owns the cluster, so a lost worker is seen here, as Dask sees it, and nothing outlives the
stage.
"""

import logging
import multiprocessing
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

logger = logging.getLogger(__name__)

BlockType = TypeVar("BlockType")
Result = TypeVar("Result")

# A block that outlived this many workers is what kills them.
ALLOWED_WORKER_DEATHS = 3
_LOOK_SECONDS, _ASK_SECONDS, _END_SECONDS = 0.05, 10.0, 10.0
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
        certificates = (
            ", with certificates of one authority (distributed.comm.tls in the Dask configuration)"
            if self.address.startswith("tls://")
            else ""
        )
        return (
            f"lost the Dask scheduler at {self.address}; check that it runs and answers{certificates}, then "
            "run again"
        )


class NoWorkers(Exception):
    """An existing scheduler answers and has nobody who works."""

    def __init__(self, address: str, seconds: float) -> None:
        self.address, self.seconds = address, seconds
        super().__init__(address, seconds)

    def __str__(self) -> str:
        """Which scheduler, for how long, and what to do."""
        return (
            f"the Dask scheduler at {self.address} has had no workers for {self.seconds:.0f} s; start some "
            f"(dask worker {self.address}), then run again"
        )


class ClusterNotStarted(Exception):
    """The Dask cluster of this machine did not come up."""

    def __init__(self, num_workers: int, reason: str) -> None:
        self.num_workers, self.reason = num_workers, reason
        super().__init__(num_workers, reason)

    def __str__(self) -> str:
        """What happened and what to try."""
        return (
            f"the Dask cluster of {self.num_workers} workers on this machine did not start: {self.reason}; "
            "see whether the Dask configuration preloads something that hangs, set fewer smooth.num_workers, "
            "or smooth.backend=direct"
        )


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
    start_seconds: float = 120.0,
    connect_seconds: float = 30.0,
    answer_seconds: float = 60.0,
    worker_seconds: float = 300.0,
) -> Iterator[DaskMap]:
    """A map over blocks on Dask workers; the workers are gone when the context ends.

    The function travels by name, so it must be importable on the workers, and it must be idempotent: a block
    whose worker dies runs again on another. A worker holds one block at a time.

    Args:
        num_workers: processes of a local cluster (count).
        threads_per_worker: threads of the numerical libraries within one block (count).
        memory_limit: bytes a local worker may use before it is restarted; none sets no limit.
        address: an existing scheduler to use instead, ``tcp://host:8786`` or ``tls://host:8786``; its workers
            must see the same files, have gclflow installed, and keep their own limits. It is left running.
            Certificates are those of the user's Dask configuration, ``distributed.comm.tls``.
        folder: where local workers put their own files; none takes the working folder of the system.
        start_seconds: how long local workers may take to start.
        connect_seconds: how long to wait for the scheduler at `address`.
        answer_seconds: how long the scheduler may be silent while blocks are out.
        worker_seconds: how long the scheduler may be without workers while blocks are out.

    Raises:
        ClusterNotStarted: the local cluster did not come up in time, or its workers died while it did.
        WorkerLost: one block killed several workers.
        SchedulerLost: the scheduler is not there, went away, or does not answer.
        NoWorkers: the scheduler has no workers.
    """
    with ExitStack() as stack:
        if address is None:
            client = _start_local(stack, num_workers, threads_per_worker, memory_limit, folder, start_seconds)
        else:
            client = _connect(stack, address, connect_seconds)
        watch = _Watch(client, answer_seconds, worker_seconds)

        def run(function: Callable[[BlockType], Result], blocks: Sequence[BlockType]) -> list[Result]:
            return _run_blocks(client, function, blocks, watch)

        yield run


def _start_local(
    stack: ExitStack,
    num_workers: int,
    threads_per_worker: int,
    memory_limit: int | None,
    folder: Path | None,
    start_seconds: float,
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

    def start() -> LocalCluster:
        return LocalCluster(  # type: ignore[no-untyped-call]
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
            death_timeout=start_seconds,
        )

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Port 8787 is already in use")
        try:
            cluster = _started(start, num_workers, start_seconds)
            stack.enter_context(cluster)
            client: Client = _within(start_seconds, lambda: Client(cluster, security=security))  # type: ignore[no-untyped-call]
        except Exception as error:
            is_late = isinstance(error, TimeoutError)
            reason = f"not within {start_seconds:.0f} s" if is_late else f"{type(error).__name__}: {error}"
            raise ClusterNotStarted(num_workers, reason) from error
    stack.enter_context(client)
    return client


def _started(start: "Callable[[], LocalCluster]", num_workers: int, seconds: float) -> "LocalCluster":
    """A cluster with all its workers; begun anew where one of them died before it was there.

    Raises:
        TimeoutError: it took longer than `seconds`.
        RuntimeError: workers died again and again.
    """
    deadline, deaths = time.monotonic() + seconds, 0
    while True:
        others = set(multiprocessing.active_children())
        try:  # Dask's own limit is for workers, ours for all else, and a little longer
            return _within(seconds + _END_SECONDS, start)
        except Exception as error:
            for process in set(multiprocessing.active_children()) - others:
                if process.name.startswith("Dask Worker"):  # Dask forgets those that it waits for
                    process.kill()
            if time.monotonic() >= deadline:
                raise TimeoutError from error
            if deaths == ALLOWED_WORKER_DEATHS or not isinstance(error, RuntimeError):
                raise
        deaths += 1
        logger.warning("one of %d Dask workers died while it started; starting them again", num_workers)


def _connect(stack: ExitStack, address: str, connect_seconds: float) -> "Client":
    from distributed import Client

    stack.enter_context(_quiet())
    try:
        client: Client = _within(
            connect_seconds + _END_SECONDS,
            lambda: Client(address, timeout=connect_seconds),  # type: ignore[no-untyped-call]
        )
    except (OSError, TypeError) as error:  # TypeError: of tls:// without certificates
        raise SchedulerLost(address) from error
    stack.callback(_close, client)
    return client


def _close(client: "Client") -> None:
    """Take leave of a scheduler, which may be past answering."""
    with suppress(TimeoutError):
        client.close(timeout=_END_SECONDS)  # type: ignore[no-untyped-call]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask from printing what is told by our own errors."""
    handlers = {handler: handler.level for handler in logging.getLogger("distributed").handlers}
    for handler in handlers:
        handler.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for handler, level in handlers.items():
            handler.setLevel(level)


def _within(seconds: float, function: Callable[[], Result]) -> Result:
    """The function's result, if it comes in time; Dask has waits without an end, as for a handshake.

    Raises:
        TimeoutError: it did not; the function is left to itself in a thread that ends with the process.
    """
    from concurrent.futures import Future as Outcome

    outcome: Outcome[Result] = Outcome()

    def run() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="dask-start", daemon=True).start()
    return outcome.result(seconds)


class _Watch:
    """Whether the scheduler still answers and has workers, asked while no block comes back."""

    def __init__(self, client: "Client", answer_seconds: float, worker_seconds: float) -> None:
        self.client, self.answer_seconds, self.worker_seconds = client, answer_seconds, worker_seconds
        self.address = str(client.scheduler.address) if client.scheduler else "unknown"
        self.saw_life()

    def saw_life(self) -> None:
        """A block came back, so all is well."""
        self.asked_at = self.worked_at = time.monotonic()

    def look(self) -> None:
        """Ask now and then.

        Raises:
            SchedulerLost: no answer.
            NoWorkers: no workers, for too long.
        """
        if time.monotonic() - self.asked_at < _ASK_SECONDS or self.client.scheduler is None:
            return
        try:
            ask = self.client.scheduler.identity
            found = self.client.sync(ask, callback_timeout=self.answer_seconds)  # type: ignore[no-untyped-call]
        except OSError as error:  # a TimeoutError is one
            raise SchedulerLost(self.address) from error
        self.asked_at = time.monotonic()
        if found["workers"]:
            self.worked_at = self.asked_at
        elif self.asked_at - self.worked_at > self.worker_seconds:
            raise NoWorkers(self.address, self.asked_at - self.worked_at)


def _run_blocks(
    client: "Client",
    function: Callable[[BlockType], Result],
    blocks: Sequence[BlockType],
    watch: _Watch,
) -> list[Result]:
    # Not pure: a result kept by an existing scheduler from an earlier run would name files that are gone.
    futures = [client.submit(function, block, pure=False) for block in blocks]
    pending = dict(zip(futures, blocks, strict=True))
    results: dict[Any, Result] = {}
    watch.saw_life()
    try:
        while pending:
            finished = [future for future in pending if future.status != "pending"]
            for future in finished:
                results[future.key] = _result(future, repr(pending.pop(future)), watch)
                watch.saw_life()
                logger.info("%d of %d blocks done", len(results), len(blocks))
            if not finished:
                watch.look()
                time.sleep(_LOOK_SECONDS)
        return [results[future.key] for future in futures]
    finally:
        if client.status == "running":
            client.cancel(futures)  # type: ignore[no-untyped-call]


def _result(future: "Future[Any]", block: str, watch: _Watch) -> Any:
    """The future's result; Dask's own failures become ours, the function's come as they are."""
    from concurrent.futures import CancelledError

    from distributed import KilledWorker

    if future.status == "error":
        try:
            return future.result()
        except KilledWorker as error:
            raise WorkerLost(block) from error
    while True:
        try:
            return future.result(timeout=_ASK_SECONDS)
        except TimeoutError:  # whoever held the result is gone, and the block runs again somewhere
            if str(future.status) == "error":  # it is the function's own
                raise
            watch.look()
        except (OSError, CancelledError) as error:  # the block is done, fetching its result failed
            raise SchedulerLost(watch.address) from error
