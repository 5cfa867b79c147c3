"""The files for Docker and Kubernetes: what they name exists, and Prefect accepts what they say."""

import json
import re
import subprocess
import sys
import tomllib
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
FILE = yaml.safe_load((REPOSITORY / "prefect.cluster.yaml").read_text())
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
DEPLOYMENTS: list[dict[str, Any]] = FILE["deployments"]
POOL_TYPES = {"gclflow-docker": "docker", "gclflow-cpu": "kubernetes", "gclflow-gpu": "kubernetes"}
names = pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])


def pool_variables(pool_type: str) -> set[str]:
    """What a pool of this type takes, from the templates that come with the installed Prefect."""
    views = resources.files("prefect.server.api.collections_data") / "views"
    workers = json.loads((views / "aggregate-worker-metadata.json").read_text())
    for package in workers.values():
        if pool_type in package:
            template = package[pool_type]["default_base_job_configuration"]
            return set(template["variables"]["properties"])
    raise AssertionError(pool_type)


@names
def test_entrypoint_takes_the_parameters(deployment: dict[str, Any]) -> None:
    module, _, name = deployment["entrypoint"].rpartition(".")
    flow = getattr(import_module(module), name)
    validated = flow.validate_parameters(deployment["parameters"])
    assert validated["config"].dataset.name == "synthetic-large"


@names
def test_the_pool_knows_every_job_variable(deployment: dict[str, Any]) -> None:
    pool = deployment["work_pool"]
    assert set(pool["job_variables"]) <= pool_variables(POOL_TYPES[pool["name"]])


@names
def test_triggers_and_schedules_are_ones_of_prefect(deployment: dict[str, Any]) -> None:
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.events import DeploymentTriggerTypes
    from pydantic import TypeAdapter

    for schedule in deployment.get("schedules", ()):
        assert schedule["active"] is False
        CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
    adapter: TypeAdapter[Any] = TypeAdapter(DeploymentTriggerTypes)
    for trigger in deployment.get("triggers", ()):
        parsed = adapter.validate_python(trigger)
        assert parsed.expect == {"prefect.flow-run.Completed"}
        awaited = trigger["match_related"]["prefect.resource.name"]
        assert awaited in {other["name"] for other in DEPLOYMENTS}


def test_the_chain_covers_the_pipeline_in_order_over_one_store() -> None:
    chain = [deployment for deployment in DEPLOYMENTS if deployment["name"] != "nightly-docker"]
    assert [deployment["parameters"].get("until") for deployment in chain] == ["smooth", "train", None]
    assert len({deployment["parameters"]["store"] for deployment in chain}) == 1
    assert [len(deployment.get("triggers", ())) for deployment in chain] == [0, 1, 1]


def test_settings_are_those_of_the_preset() -> None:
    preset = tomllib.loads((REPOSITORY / "flows" / "presets" / "synthetic-large.toml").read_text())
    preset.pop("about")
    assert FILE["definitions"]["settings"] == preset | {"memory_limit": "8GB"}


def test_the_image_copies_what_is_there_and_runs_as_nobody_special() -> None:
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.+) \S+$", dockerfile, re.M) for word in line.split()]
    assert {"flows", "tasks", "gcl", "data_contracts", "requirements.lock", "prefect.yaml"} <= set(copied)
    assert set(PROJECT["license-files"]) | {PROJECT["readme"]} <= set(copied)  # a build asks for them
    for name in copied:
        assert (REPOSITORY / name).exists()
    sent = [line.removeprefix("!") for line in (REPOSITORY / ".dockerignore").read_text().split()]
    assert set(copied) <= set(sent)
    assert re.search(r"^USER (?!root)\w+$", dockerfile, re.M)
    assert dockerfile.index("USER gclflow") > dockerfile.index("pip install --no-deps")


def test_the_image_is_of_this_version_and_python() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert FILE["definitions"]["image"] == f"gclflow:{project['version']}"
    assert "FROM python:3.11-slim" in (REPOSITORY / "Dockerfile").read_text()


def test_the_table_of_costs_is_computed_from_the_measured_curve() -> None:
    from tests.unit.test_results_page import program

    costs = program("costs")
    curve = json.loads(costs.CURVE.read_text())
    assert costs.table(curve) in costs.PAGE.read_text()
    train = next(row for row in costs.predicted(curve) if row["stage"] == "train")
    assert train["predicted"][0] >= 10 * train["measured"][0]


def test_a_core_for_an_hour_costs_what_is_said() -> None:
    from tests.unit.test_results_page import program

    costs = program("costs")
    assert costs.cost(3600, 0, cores=2) == pytest.approx(2 * costs.CORE_HOUR)
    assert costs.cost(7200, 10e9, cores=0) == pytest.approx(20 * costs.GB_HOUR)


def test_the_image_gets_what_a_run_needs_at_locked_versions(tmp_path: Path) -> None:
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    (program,) = re.findall(r"RUN python -c '(.+?)' > needed.txt", dockerfile, re.S)
    (tmp_path / "pyproject.toml").write_text((REPOSITORY / "pyproject.toml").read_text())
    program = program.replace("\\\n", "")  # as a shell reads it
    needed = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert set(PROJECT["dependencies"]) < set(needed)
    assert any(line.startswith("boto3") for line in needed)
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    locked = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert {re.split(r"[^\w.-]", line)[0].lower() for line in needed} <= locked
