"""Programs of tests that need a process of their own, as what it holds in memory is measured."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def reported(program: str, folder: Path) -> Any:
    """Run Python source with a folder as its argument, on one thread; what it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        env={**os.environ, "DGLBACKEND": "pytorch", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
