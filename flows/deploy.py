"""What a standing server holds: work pool, deployments of prefect.yaml, the automation for dead runs."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.config import ConfigurationError
from flows.form import arranged
from flows.server import ServerNotStarted

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.events import AutomationCore

WORK_POOL = "gclflow"
DEAD_RUNS = "gclflow: mark dead runs as crashed"
HEARTBEAT_SECONDS = 30  # the shortest that Prefect allows
_SILENT_SECONDS = 90.0
_DEPLOY_SECONDS = 180.0


def deployments_file(given: Path | None = None) -> Path:
    """The prefect.yaml to deploy: the one named, the one of this folder, or the one that comes with gclflow.

    Raises:
        ConfigurationError: there is none.
    """
    beside_the_sources = Path(__file__).resolve().parents[1] / "prefect.yaml"
    for file in (given,) if given else (Path("prefect.yaml"), beside_the_sources):
        if file.is_file():
            return file.resolve()
    raise ConfigurationError(f"{given or 'prefect.yaml'}: there is no such file of deployments")


def fingerprint(file: Path) -> str:
    """What tells whether the deployments must be made again: the file, where it is run, our version."""
    from flows.record import versions

    known = f"{versions()['gclflow']} {versions()['prefect']} {Path.cwd()}"
    return hashlib.sha256(file.read_bytes() + known.encode()).hexdigest()


def connect(environment: Mapping[str, str]) -> "SyncPrefectClient":
    """A client of the server that the environment names."""
    from prefect.client.orchestration import SyncPrefectClient

    return SyncPrefectClient(
        environment["PREFECT_API_URL"], auth_string=environment.get("PREFECT_API_AUTH_STRING")
    )


def make_work_pool(client: "SyncPrefectClient") -> None:
    """Create the process work pool where it does not exist yet."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    pool = WorkPoolCreate(
        name=WORK_POOL,
        type="process",
        description="Flow runs as processes of this machine.",
        base_job_template=ProcessWorker.get_default_base_job_template(),
    )
    try:
        client.create_work_pool(pool)
    except ObjectAlreadyExists:
        return


def make_deployments(client: "SyncPrefectClient", file: Path, environment: Mapping[str, str]) -> None:
    """Deploy everything in a prefect.yaml; schedules that somebody switched on or off stay as they are.

    Raises:
        ServerNotStarted: Prefect refused; with its words.
    """
    switched = _switches(client)
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    done = subprocess.run(  # noqa: S603  our own interpreter
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=_DEPLOY_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise ServerNotStarted(f"the deployments of {file} were refused:\n{tail}")
    for deployment in client.read_deployments():
        _arrange_form(client, deployment)
        for schedule in deployment.schedules:
            known = switched.get((deployment.name, schedule.slug))
            if known is not None and known != schedule.active:
                client.update_deployment_schedule(deployment.id, schedule.id, active=known)


def _arrange_form(client: "SyncPrefectClient", deployment: "DeploymentResponse") -> None:
    from prefect.client.schemas.actions import DeploymentUpdate

    form = arranged(deployment.parameter_openapi_schema or {}, deployment.parameters or {})
    client.update_deployment(deployment.id, DeploymentUpdate(parameter_openapi_schema=form))


def _switches(client: "SyncPrefectClient") -> dict[tuple[str, str | None], bool]:
    return {
        (deployment.name, schedule.slug): schedule.active
        for deployment in client.read_deployments()
        for schedule in deployment.schedules
    }


def make_dead_run_automation(client: "SyncPrefectClient") -> None:
    """Install, or bring up to date, what marks a run as crashed when its process has fallen silent."""
    wanted = dead_run_automation()
    known = client.read_automations_by_name(DEAD_RUNS)
    for extra in known[1:]:
        client.delete_automation(extra.id)
    if known:
        client.update_automation(known[0].id, wanted)
    else:
        client.create_automation(wanted)


def dead_run_automation(silent_seconds: float = _SILENT_SECONDS) -> "AutomationCore":
    """A run that has started or sent a heartbeat, and then neither ends nor sends another, is dead.

    A process killed together with its worker, or a machine that went down, cannot report its own end; such a
    run would stay Running for ever and hold its deployment's slot.

    Args:
        silent_seconds: how long a run may say nothing; three heartbeats.
    """
    from prefect.client.schemas.objects import StateType
    from prefect.events import AutomationCore
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture

    ends = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed", "Paused")}
    signs: dict[str, Any] = {
        "after": {"prefect.flow-run.Running", "prefect.flow-run.heartbeat"},
        "expect": {"prefect.flow-run.heartbeat", *ends},
    }
    trigger = EventTrigger(
        match={"prefect.resource.id": ["prefect.flow-run.*"]},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=silent_seconds),
        **signs,
    )
    message = f"no heartbeat for {silent_seconds:.0f} s: the process of this run is dead"
    return AutomationCore(
        name=DEAD_RUNS,
        description="Frees the slot of runs whose process died without a word. Installed by `gclflow up`.",
        trigger=trigger,
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=message)],
    )
