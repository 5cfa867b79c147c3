"""From nothing to a finished run: `gclflow up`, `prefect deployment run`, a run, its artifacts, `down`.

    python benchmarks/first_run.py            # writes benchmarks/results/first_run.json

Everything happens in a fresh folder, with the deployments that come with gclflow and their embedded data set.
Times are wall clock, from the first command on; the run is the nightly pipeline, nothing of it cached.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from losses import machine  # noqa: E402  beside this file, which need not be installed

RESULTS = HERE / "results" / "first_run.json"
ALLOWED_SECONDS = 180.0
_PATIENCE_SECONDS = 600.0


def command(folder: Path, *arguments: str, **environment: str) -> str:
    """Run a command in `folder`; returns what it prints."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    settings = {**plain, "GCLFLOW_HOME": str(folder / ".gclflow"), **environment}
    done = subprocess.run(arguments, cwd=folder, env=settings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout


def measure() -> dict[str, Any]:
    """One life of an installation."""
    from flows.deploy import connect
    from flows.home import Home
    from flows.server import client_environment

    gclflow = (sys.executable, "-c", "from flows.cli import main; main()")
    with tempfile.TemporaryDirectory(prefix="gclflow-first-") as name:
        folder = Path(name)
        started = time.monotonic()
        command(folder, *gclflow, "up")
        up = time.monotonic() - started
        try:
            environment = client_environment(Home(folder / ".gclflow"))
            prefect = (sys.executable, "-m", "prefect", "deployment", "run", "pipeline/nightly")
            command(folder, *prefect, **environment)
            with connect(environment) as client:
                state = ""
                while state not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                    time.sleep(0.2)
                    if time.monotonic() - started > _PATIENCE_SECONDS:
                        raise SystemExit("the run has not ended")
                    runs = [run for run in client.read_flow_runs() if run.deployment_id is not None]
                    state = runs[0].state.type.value if runs and runs[0].state else ""
                finished = time.monotonic() - started
                artifacts = {artifact.key for artifact in client.read_artifacts() if artifact.key}
            record = json.loads((folder / "out" / "nightly" / "run.json").read_text())
        finally:
            command(folder, *gclflow, "down")
    return {
        "up_seconds": round(up, 1),
        "finished_seconds": round(finished, 1),
        "down_seconds": round(time.monotonic() - started - finished, 1),
        "allowed_seconds": ALLOWED_SECONDS,
        "state": state,
        "stages": {stage["stage"]: stage["state"] for stage in record["stages"]},
        "artifacts": sorted(artifacts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--no-keep", action="store_true", help=f"do not write {RESULTS.name}")
    options = parser.parse_args()
    turns = [measure() for _ in range(options.turns)]
    for turn in turns:
        print(
            f"up {turn['up_seconds']} s, finished {turn['finished_seconds']} s ({turn['state']}), "
            f"{len(turn['artifacts'])} artifacts"
        )
    if not options.no_keep:
        kept = {"machine": machine(), "arguments": vars(options), "turns": turns}
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
