"""What a standing server holds of ours: the work pool, and the deployments of a prefect.yaml."""

import hashlib
import importlib.metadata
import json
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.config import ConfigurationError
from flows.form import arranged
from flows.home import Home
from flows.proxies import client_settings
from flows.server import ServerNotStarted

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

WORK_POOL = "gclflow"
_DEPLOY_SECONDS = 180.0


def deployments_file(given: Path | None = None) -> Path:
    """The prefect.yaml to deploy: the one named, the one of this folder, or the one that comes with gclflow.

    Raises:
        ConfigurationError: there is none.
    """
    beside_the_sources = Path(__file__).resolve().parents[1] / "prefect.yaml"
    installed = Path(sysconfig.get_path("data"), "share", "gclflow", "prefect.yaml")
    for file in (given,) if given else (Path("prefect.yaml"), beside_the_sources, installed):
        if file.is_file():
            return file.resolve()
    raise ConfigurationError(f"{given or 'prefect.yaml'}: there is no such file of deployments")


def fingerprint(file: Path, folder: Path) -> str:
    """What tells whether deployments must be made again: the file, where it runs, versions, our settings.

    Args:
        file: the prefect.yaml.
        folder: that relative paths in it start from.
    """
    from flows.config import PipelineConfig

    known = [importlib.metadata.version(name) for name in ("gclflow", "prefect")]
    known += [str(folder), json.dumps(PipelineConfig.model_json_schema(), sort_keys=True)]
    return hashlib.sha256(file.read_bytes() + "\n".join(known).encode()).hexdigest()


def connect(environment: Mapping[str, str]) -> "SyncPrefectClient":
    """A client of the server that the environment names."""
    from prefect.client.orchestration import SyncPrefectClient

    url = environment["PREFECT_API_URL"]
    auth = environment.get("PREFECT_API_AUTH_STRING")
    return SyncPrefectClient(url, auth_string=auth, httpx_settings=client_settings(url))


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


def file_switches(file: Path) -> dict[str, bool]:
    """What a prefect.yaml says of each schedule with a slug: whether it is on, by ``deployment slug``."""
    import yaml

    try:
        document = yaml.safe_load(file.read_text("utf-8"))
        return {
            f"{deployment['name']} {schedule['slug']}": bool(schedule.get("active", True))
            for deployment in document["deployments"]
            for schedule in deployment.get("schedules") or ()
            if "slug" in schedule
        }
    except (yaml.YAMLError, UnicodeError, TypeError, KeyError, AttributeError):
        return {}  # Prefect will say what is wrong with it


def make_deployments(
    client: "SyncPrefectClient", home: Home, file: Path, folder: Path, environment: Mapping[str, str]
) -> tuple[str, ...]:
    """Deploy everything in a prefect.yaml.

    Schedules that somebody switched on or off stay as they are, unless the file says otherwise than it did
    the last time: the latest wish counts.

    Args:
        client: of the server.
        home: where the switches are kept until they are set again, so that a failure does not lose them;
            and what the file said the last time.
        file: the prefect.yaml.
        folder: that relative paths in it start from.
        environment: of the command that deploys.

    Returns:
        Names of what is deployed now, as ``flow/deployment``.

    Raises:
        ServerNotStarted: Prefect refused; with its words.
    """
    switched = _switches(client) | home.read("switches")
    switched = kept_switches(switched, home.read("deployed").get("switches", {}), file_switches(file))
    home.write("switches", switched)
    before = {deployment.id: deployment.updated for deployment in client.read_deployments()}
    try:
        _deploy(file, folder, environment)
    finally:
        names = _names(client)
        for deployment in client.read_deployments():
            _set_switches(client, deployment, names[deployment.id], switched)
    home.forget("switches")
    made = []
    for deployment in client.read_deployments():
        if before.get(deployment.id) == deployment.updated:  # not touched: the file has it no longer
            continue
        made.append(names[deployment.id])
        _arrange_form(client, deployment)
    return tuple(sorted(made))


def remove_deployments(client: "SyncPrefectClient", names: set[str]) -> None:
    """Delete deployments that were made from an earlier file, schedules and all."""
    for identity, name in _names(client).items():
        if name in names:
            client.delete_deployment(identity)


def kept_switches(
    switched: Mapping[str, bool], said: Mapping[str, bool], says: Mapping[str, bool]
) -> dict[str, bool]:
    """The switches that stay: those of which the file says what it said the last time.

    Args:
        switched: as they are, by ``flow/deployment slug``.
        said: by the file of the last time, by ``deployment slug``.
        says: by the file now.
    """
    rewritten = {name for name, active in says.items() if said.get(name, active) != active}
    return {name: active for name, active in switched.items() if name.partition("/")[2] not in rewritten}


def _deploy(file: Path, folder: Path, environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    try:
        done = subprocess.run(  # noqa: S603  our own interpreter
            command,
            cwd=folder,
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=_DEPLOY_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ServerNotStarted(f"the deployments of {file} took more than {_DEPLOY_SECONDS:.0f} s") from None
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise ServerNotStarted(f"the deployments of {file} were refused:\n{tail}")


def _names(client: "SyncPrefectClient") -> dict[Any, str]:
    """``flow/deployment`` by id: two flows may have deployments of one name."""
    flows = {found.id: found.name for found in client.read_flows()}
    return {found.id: f"{flows[found.flow_id]}/{found.name}" for found in client.read_deployments()}


def _switches(client: "SyncPrefectClient") -> dict[str, bool]:
    names = _names(client)
    return {
        f"{names[deployment.id]} {schedule.slug}": schedule.active
        for deployment in client.read_deployments()
        for schedule in deployment.schedules
        if schedule.slug
    }


def _set_switches(
    client: "SyncPrefectClient", deployment: "DeploymentResponse", name: str, switched: Mapping[str, bool]
) -> None:
    for schedule in deployment.schedules:
        known = switched.get(f"{name} {schedule.slug}")
        if known is not None and known != schedule.active:
            client.update_deployment_schedule(deployment.id, schedule.id, active=known)


def _arrange_form(client: "SyncPrefectClient", deployment: "DeploymentResponse") -> None:
    from prefect.client.schemas.actions import DeploymentUpdate

    form = arranged(deployment.parameter_openapi_schema or {}, deployment.parameters or {})
    client.update_deployment(deployment.id, DeploymentUpdate(parameter_openapi_schema=form))
