"""Peak memory of a stage: the anonymous memory of the whole process tree, sampled.

`ru_maxrss` never falls within a process and counts mapped files, so it says nothing about one stage.
"""

import threading
from pathlib import Path
from types import TracebackType

import psutil

_INTERVAL_SECONDS = 0.1


class PeakMemory:
    """Context manager that samples while its body runs; `num_bytes` is the peak seen."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)

    def __enter__(self) -> "PeakMemory":
        self.num_bytes = anonymous_bytes()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.num_bytes = max(self.num_bytes, anonymous_bytes())

    def _sample(self) -> None:
        while not self._stop.wait(_INTERVAL_SECONDS):
            self.num_bytes = max(self.num_bytes, anonymous_bytes())


def anonymous_bytes() -> int:
    """Anonymous resident memory of this process and its descendants, in bytes.

    A Prefect server that the command line keeps for the run is not counted: it is not the stage's.
    """
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            if "prefect.server" in " ".join(process.cmdline()):
                continue
            status = Path(f"/proc/{process.pid}/status")
            total += _anonymous(status.read_text()) if status.exists() else process.memory_info().rss
        except (psutil.Error, OSError):  # it has just ended
            continue
    return total


def _anonymous(status: str) -> int:
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
