"""Progress of a stage in Prefect: a bar in the UI, and the loop's figures in the run's log."""

import logging
import time
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tasks.progress import Progress

_ARTIFACT_SECONDS = 2.0
_NUM_LINES = 10


class ProgressLog:
    """Logs the first report of each tenth of the work, so that a loop of any length leaves ten lines.

    Args:
        logger: the task run's.
    """

    def __init__(self, logger: "logging.Logger | logging.LoggerAdapter[Any]") -> None:
        self._logger = logger
        self._last = 0

    def __call__(self, progress: Progress) -> None:
        """Log this report if it is the first of its tenth."""
        tenth = _NUM_LINES * progress.done // max(progress.total, 1)
        if tenth > self._last:
            self._last = tenth
            self._logger.info(
                "%s: %d of %d  %s", progress.stage, progress.done, progress.total, progress.detail
            )


class ProgressArtifact:
    """Mirrors progress into a Prefect artifact, at most every two seconds."""

    def __init__(self) -> None:
        self._id: object = None
        self._next = time.monotonic() + _ARTIFACT_SECONDS

    def __call__(self, progress: Progress) -> None:
        """Move the bar, unless it has just been moved."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _ARTIFACT_SECONDS
        percent = 100.0 * progress.done / max(progress.total, 1)
        try:
            if self._id is None:
                self._id = create_progress_artifact(
                    percent, description=f"{progress.stage} {progress.detail}"
                )
            else:
                update_progress_artifact(self._id, percent, description=f"{progress.stage} {progress.detail}")  # type: ignore[arg-type]
        except Exception:  # noqa: BLE001  progress is a courtesy; the work must not fail with it
            logging.getLogger(__name__).debug("progress artifact not written", exc_info=True)
