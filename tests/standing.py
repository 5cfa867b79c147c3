"""A standing installation for tests: gclflow up in a folder of its own, and what its server knows."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from flows.deploy import connect
from flows.home import Home
from flows.server import client_environment

REPOSITORY = Path(__file__).resolve().parents[1]
TINY: dict[str, Any] = {
    "dataset": {"format": "synthetic", "name": "tiny", "nodes": 200, "features": 8, "classes": 3},
    "method": {"name": "dmat_i", "embedding_size": 8},
    "train": {"epochs": 2},
    "cluster": {"num_clusters": 3, "num_stability_runs": 0},
    "evaluate": {"num_splits": 1, "num_clustering_seeds": 1},
}


def gclflow(folder: Path, *arguments: str) -> str:
    """Run a command of ours in `folder`, with the home there; returns what it prints."""
    command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"GCLFLOW_HOME": str(folder / ".gclflow"), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_deployments(folder: Path, config: dict[str, Any], *, schedules: list[dict[str, Any]]) -> None:
    """A prefect.yaml in `folder`: ours, with this configuration and these schedules of the nightly run."""
    document = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    nightly = document["deployments"][0]
    nightly["parameters"]["config"] = config
    nightly["schedules"] = schedules
    (folder / "prefect.yaml").write_text(yaml.safe_dump(document))


def flow_runs(home: Home, **wanted: Any) -> list[Any]:
    """The flow runs whose state has these attributes."""
    with connect(client_environment(home)) as client:
        return [
            run
            for run in client.read_flow_runs(limit=200)
            if all(getattr(run.state, name) == value for name, value in wanted.items())
        ]


def processes_of(home: Home) -> list[psutil.Process]:
    """Every process that carries the home in its environment."""
    return [process for process in psutil.process_iter() if _belongs_to(process, home)]


def _belongs_to(process: psutil.Process, home: Home) -> bool:
    try:
        return str(home.folder) in " ".join(process.environ().values())
    except psutil.Error:
        return False


def wait(look: Callable[[], Any], what: str, *, seconds: float = 240.0) -> Any:
    """Look again and again until something is there."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what} did not come within {seconds:.0f} s"
        time.sleep(0.5)
    return found
