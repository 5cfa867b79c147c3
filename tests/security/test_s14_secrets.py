"""S14: no secret of the environment or of a URL reaches an output: logs, records, reports, errors."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from flows.exit_codes import describe
from flows.server import ServerNotStarted, prefect_server
from tasks.errors import StoreUnusable
from tasks.store import Store
from tests.tiny_runs import TINY

REPOSITORY = Path(__file__).resolve().parents[2]
CANARY = "canary7f3a9e"
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": f"aws-{CANARY}",
    "GITHUB_TOKEN": f"ghp-{CANARY}",
    "PREFECT_API_AUTH_STRING": f"name:{CANARY}",
    "DATABASE_URL": f"postgres://name:{CANARY}@127.0.0.1/db",
    "HTTPS_PROXY_PASSWORD": CANARY,
}


def gclflow(
    folder: Path, *arguments: str, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", *arguments],
        capture_output=True,
        timeout=240,
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, **SECRETS, **environment, "GCLFLOW_HOME": str(folder / "home")},
    )


def leaks(*folders: Path) -> list[str]:
    """Files that hold the canary, and files that have it in their name."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if CANARY.encode() in path.read_bytes() or CANARY in path.name]


@pytest.mark.slow
def test_no_output_of_a_run_holds_a_secret(tmp_path: Path, prefect_api: str) -> None:
    """Every byte of store, results and terminal."""
    store, out = tmp_path / "store", tmp_path / "out"
    settings = [f"--set={text}" for text in TINY]
    done = gclflow(
        tmp_path, "run", "--preset=none", *settings, f"--store={store}", f"--out={out}",
        environment={"PREFECT_API_URL": prefect_api, "PREFECT_LOGGING_LEVEL": "DEBUG"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert (out / "run.json").exists()
    assert leaks(store, out) == []
    assert CANARY.encode() not in done.stdout + done.stderr


@pytest.mark.slow
def test_log_of_everything_holds_no_secret(tmp_path: Path, prefect_api: str) -> None:
    settings = [f"--set={text}" for text in TINY]
    done = gclflow(
        tmp_path, "--debug", "run", "--preset=none", *settings, "--until=ingest",
        f"--store={tmp_path}/store", f"--out={tmp_path}/out",
        environment={"PREFECT_API_URL": prefect_api, "PREFECT_LOGGING_LEVEL": "DEBUG"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert b"DEBUG" in done.stderr
    assert CANARY.encode() not in done.stdout + done.stderr


@pytest.mark.slow
def test_no_record_of_a_failed_run_holds_a_secret(tmp_path: Path, prefect_api: str) -> None:
    done = gclflow(
        tmp_path, "run", "--preset=none", "--set=dataset.format=csv", f"--set=dataset.path={tmp_path}/none",
        f"--store={tmp_path / 'store'}", f"--out={tmp_path / 'out'}",
        environment={"PREFECT_API_URL": prefect_api},
    )  # fmt: skip
    assert done.returncode == 4
    assert json.loads((tmp_path / "out" / "failure.json").read_bytes())["error"] == "SourceUnreadable"
    assert leaks(tmp_path / "store", tmp_path / "out") == []
    assert CANARY.encode() not in done.stdout + done.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:9", "127.0.0.1:port", "[::1"])
def test_server_that_does_not_answer_is_named_without_its_userinfo(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://name:{CANARY}@{address}/api")
    with pytest.raises(ServerNotStarted) as caught, prefect_server(tmp_path / "home"):
        pytest.fail("it must not get here")
    assert address in describe(caught.value)
    assert CANARY not in describe(caught.value)


def test_address_of_a_store_is_named_without_its_userinfo() -> None:
    with pytest.raises(StoreUnusable) as caught:
        Store(f"s3://name:{CANARY}@bucket/prefix")
    assert CANARY not in describe(caught.value)


def test_records_have_no_field_for_an_environment() -> None:
    """What a record says of the machine is chosen field by field; there is no place that takes all of it."""
    from flows.record import machine, versions

    assert set(machine()) == {"platform", "cores", "memory_bytes"}
    assert not [name for name in versions() if name.upper() == name]
    for folder in ("flows", "tasks", "gcl", "data_contracts"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            text = path.read_text("utf-8")
            assert "dict(os.environ" not in text, path
            assert "os.environ.copy()" not in text, path


def test_settings_have_no_field_for_a_secret() -> None:
    """Settings are kept in manifests and shown in the UI: nothing secret may have a place among them."""
    from flows.config import PipelineConfig

    names = json.dumps(PipelineConfig.model_json_schema()).lower()
    assert not [
        word for word in ("password", "token", "secret", "api_key", "credential") if f'"{word}' in names
    ]
