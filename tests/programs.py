"""Programs of tests that need a process of their own, as what it holds in memory is measured."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any


def reported(program: str, folder: Path) -> Any:
    """Run Python source with a folder as its argument, on one thread; what it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        env={
            **os.environ,
            "DGLBACKEND": "pytorch",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Growth:
    """How much more anonymous memory this process held at its peak than when this was made."""

    def __init__(self) -> None:
        import dgl  # noqa: F401  what the libraries take is not what the work takes
        import torch  # noqa: F401

        self._start = self._peak = _anonymous_bytes()
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def num_bytes(self) -> int:
        """Bytes, so far."""
        return self._peak - self._start

    def _watch(self) -> None:
        while True:
            self._peak = max(self._peak, _anonymous_bytes())
            time.sleep(0.005)


def _anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return max(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
