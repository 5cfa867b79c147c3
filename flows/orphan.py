"""A run that a worker has started ends when its worker is gone.

A worker that is killed leaves the processes of its runs behind, with their output going nowhere. Most break
on that sooner or later; some wait for ever, send their heartbeats, and hold the place of the next run.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flows.home import Home

logger = logging.getLogger(__name__)

STARTED_BY_UP = "GCLFLOW_STARTED_BY_UP"
STARTED_BY_WORKER = "PREFECT__FLOW_RUN_ID"
_LOOK_SECONDS = 1.0
_GRACE_SECONDS = 30.0


@contextmanager
def ends_with_worker(*, grace_seconds: float = _GRACE_SECONDS) -> Iterator[None]:
    """End this process while the body runs, should the worker that has started it die.

    It gets SIGTERM, as from the worker, so that the run is reported as crashed, and SIGKILL if it does not
    end. Outside of a worker's process nothing happens.

    Args:
        grace_seconds: from SIGTERM to SIGKILL.
    """
    if STARTED_BY_WORKER not in os.environ:
        yield
        return
    done = threading.Event()
    watch = threading.Thread(
        target=_watch, args=(os.getppid(), done, grace_seconds), name="ends-with-worker", daemon=True
    )
    watch.start()
    try:
        yield
    finally:
        done.set()


def _watch(worker: int, done: threading.Event, grace_seconds: float) -> None:
    # If it is not our worker, that died while this process was still importing.
    was_orphan = STARTED_BY_UP in os.environ and worker != _recorded_worker()
    while not done.wait(_LOOK_SECONDS):
        if was_orphan or os.getppid() != worker:
            logger.critical("the worker of this run is gone; the run ends")
            os.kill(os.getpid(), signal.SIGTERM)
            if not done.wait(grace_seconds):
                os.kill(os.getpid(), signal.SIGKILL)
            return


def _recorded_worker() -> object:
    """The process id of the worker that `gclflow up` has started last."""
    return Home().read("worker").get("pid")
