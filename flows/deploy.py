"""What a standing server holds of ours: the work pool, and the deployments of a prefect.yaml."""

import hashlib
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
from flows.installed import flow_sources, versions
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
    """What tells whether deployments must be made again: file and folder, flows, versions, settings.

    Args:
        file: the prefect.yaml.
        folder: that relative paths in it start from.
    """
    from flows.config import PipelineConfig

    known = [f"{name} {version}" for name, version in sorted(versions().items())]
    known += [str(folder), json.dumps(PipelineConfig.model_json_schema(), sort_keys=True)]
    digest = hashlib.sha256(file.read_bytes() + "\n".join(known).encode() + flow_sources())
    for path in _own_flows(file, folder):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _own_flows(file: Path, folder: Path) -> list[Path]:
    """The files of entrypoints such as ``mine.py:flow``."""
    entrypoints = [str(deployment.get("entrypoint") or "") for deployment in _deployments(file)]
    paths = [folder / found.rpartition(":")[0] for found in entrypoints if ":" in found]
    return [path for path in paths if path.is_file()]


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
    try:
        return {
            f"{deployment['name']} {schedule['slug']}": bool(schedule.get("active", True))
            for deployment in _deployments(file)
            for schedule in deployment.get("schedules") or ()
            if "slug" in schedule
        }
    except (TypeError, KeyError, AttributeError):
        return {}  # Prefect will say what is wrong with it


def _deployments(file: Path) -> list[dict[str, Any]]:
    """The deployments in a prefect.yaml, as they stand there; none where it cannot be read."""
    import yaml

    try:
        found = yaml.safe_load(file.read_text("utf-8"))["deployments"]
        return [deployment for deployment in found if isinstance(deployment, dict)]
    except (yaml.YAMLError, UnicodeError, TypeError, KeyError):
        return []


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
    switched = switches(client) or home.read("seen").get("switches", {})  # none: its database is new
    switched = {**switched, **home.read("switches")}
    switched = kept_switches(switched, home.read("deployed").get("switches", {}), file_switches(file))
    home.write("switches", switched)
    before = {deployment.id: deployment.updated for deployment in client.read_deployments()}
    try:
        _deploy(_as_switched(file, switched, home), folder, environment)
    finally:
        names = names_of(client)
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


def remember_switches(client: "SyncPrefectClient", home: Home) -> None:
    """Note the switches beside the server, for the case that its database is lost."""
    if found := switches(client):
        home.write("seen", {"switches": found})


def remove_deployments(client: "SyncPrefectClient", names: set[str]) -> None:
    """Delete deployments that were made from an earlier file, schedules and all."""
    for identity, name in names_of(client).items():
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


def _as_switched(file: Path, switched: Mapping[str, bool], home: Home) -> Path:
    """A prefect.yaml whose schedules are on or off as they shall be; the one given, where they are already.

    Deployed as written and switched afterwards, a schedule that is off would start runs meanwhile.
    """
    import yaml

    is_changed, deployments = False, _deployments(file)
    for deployment in deployments:
        for schedule in filter(lambda found: isinstance(found, dict), deployment.get("schedules") or ()):
            slug = f"{deployment.get('name')} {schedule.get('slug')}"
            wanted = {active for name, active in switched.items() if name.partition("/")[2] == slug}
            if len(wanted) == 1 and wanted != {schedule.get("active", True)}:
                schedule["active"], is_changed = wanted.pop(), True
    if not is_changed:
        return file
    document = {**yaml.safe_load(file.read_text("utf-8")), "deployments": deployments}
    made = home.folder / "prefect.yaml"
    made.write_text(yaml.safe_dump(document, sort_keys=False), "utf-8")
    return made


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


def names_of(client: "SyncPrefectClient") -> dict[Any, str]:
    """``flow/deployment`` by id: two flows may have deployments of one name."""
    flows = {found.id: found.name for found in client.read_flows()}
    return {found.id: f"{flows[found.flow_id]}/{found.name}" for found in client.read_deployments()}


def switches(client: "SyncPrefectClient") -> dict[str, bool]:
    """Whether each schedule with a slug is on, by ``flow/deployment slug``."""
    names = names_of(client)
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
