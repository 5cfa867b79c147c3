"""The deployment of prefect.yaml, run once by a real worker."""

import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from flows.server import prefect_server

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = {
    "dataset": {"format": "synthetic", "name": "tiny", "nodes": 200, "features": 8, "classes": 3},
    "method": {"name": "dmat_i", "embedding_size": 8},
    "train": {"epochs": 2},
    "cluster": {"num_clusters": 3, "num_stability_runs": 0},
    "evaluate": {"num_splits": 1, "num_clustering_seeds": 1},
}


def prefect(*arguments: str) -> str:
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.slow
def test_worker_runs_the_deployed_pipeline(tmp_path: Path) -> None:
    with prefect_server(tmp_path / "server"):
        prefect("work-pool", "create", "gclflow", "--type", "process")
        prefect("deploy", "--all")
        parameters = {"config": TINY, "store": str(tmp_path / "store"), "out": str(tmp_path / "out")}
        prefect("deployment", "run", "pipeline/nightly", "--params", json.dumps(parameters))
        prefect("worker", "start", "--pool", "gclflow", "--run-once")
        states = _flow_run_states()
    assert states == {"tiny-dmat_i-seed0": ("Completed", None)}
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [stage["state"] for stage in record["stages"]] == ["ran"] * 7
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def _flow_run_states() -> dict[str, tuple[str, str | None]]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        runs = [(run.name, run.state) for run in client.read_flow_runs() if run.deployment_id is not None]
    return {str(name): (str(state.name), state.message) for name, state in runs if state is not None}


@pytest.mark.slow
def test_deployments_of_a_cluster_look_for_the_code_in_the_image(tmp_path: Path) -> None:
    """Without a word on where code comes from, Prefect would send runs to a folder the image has not got."""
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import WorkPoolCreate

    pools = {"gclflow-docker": "docker", "gclflow-cpu": "kubernetes", "gclflow-gpu": "kubernetes"}
    with prefect_server(tmp_path / "server") as url, SyncPrefectClient(url) as client:
        for name, kind in pools.items():
            client.create_work_pool(
                WorkPoolCreate(name=name, type=kind, base_job_template=job_template(kind))
            )
        prefect("deploy", "--prefect-file", "prefect.cluster.yaml", "--all")
        # Others of this session use the server too.
        made = {d.name: d for d in client.read_deployments() if d.work_pool_name in pools}
    assert set(made) == {"nightly-docker", "prepare", "train", "finish"}
    for deployment in made.values():
        assert not deployment.pull_steps
        assert deployment.job_variables["image"].startswith("gclflow:")


def job_template(kind: str) -> dict[str, Any]:
    """What a pool of this kind starts runs with, as the installed Prefect has it."""
    views = resources.files("prefect.server.api.collections_data") / "views"
    workers = json.loads((views / "aggregate-worker-metadata.json").read_text())
    found: dict[str, Any] = next(
        package[kind]["default_base_job_configuration"] for package in workers.values() if kind in package
    )
    return found
