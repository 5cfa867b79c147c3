"""A Prefect server with triggers, a receiver beside it, and runs that go wrong: the posts arrive."""

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.errors import ContractViolation
from flows.notices import NAME, OVERDUE_EVENT, Overdue, install_notice, notify, remove_notice
from flows.running import run_pipeline
from flows.server import free_port, server_command, server_environment, wait_until_up
from tasks.regression import RunRegressed
from tests.tiny_runs import tiny

pytestmark = pytest.mark.slow
AUTH = "tests:of-notices"
ARRIVES_SECONDS = 60.0


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server as `gclflow up` leaves it, with login and triggers; the settings of its clients."""
    folder, port = tmp_path_factory.mktemp("standing"), free_port()
    url, log = f"http://127.0.0.1:{port}/api", folder / "server.log"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    settings = {**plain, **server_environment(folder, port), "PREFECT_SERVER_API_AUTH_STRING": AUTH}
    with ExitStack() as stack:
        output = stack.enter_context(log.open("wb"))
        process = subprocess.Popen(server_command(port), stdout=output, stderr=output, env=settings)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        wait_until_up(url, process, log)
        client = {"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": AUTH}
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in client.items():
            patch.setenv(name, value)
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

        stack.enter_context(temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: AUTH}))
        yield client


class Receiver:
    """A web server that keeps the JSON bodies it is sent."""

    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []
        posts = self.posts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                posts.append(json.loads(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait_for(self, *events: str, where: Callable[[dict[str, Any]], bool] = bool) -> list[dict[str, Any]]:
        """The first post of each event, once all are there."""
        deadline = time.monotonic() + ARRIVES_SECONDS
        while True:
            found = [next((p for p in self.posts if p["event"] == e and where(p)), None) for e in events]
            if all(found):
                return [post for post in found if post]
            assert time.monotonic() < deadline, f"waited for {events}, got {self.posts}"
            time.sleep(0.2)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def noticed(standing: dict[str, str], receiver: Receiver) -> Iterator[Receiver]:
    """The receiver, with the notice installed."""
    _forget_other_servers()
    install_notice(receiver.url, standing)
    yield receiver
    remove_notice(standing)
    _forget_other_servers()


def _forget_other_servers() -> None:
    """Prefect goes on sending a process's events to the server that its first run has used."""
    from prefect.events.worker import EventsWorker

    EventsWorker.drain_all(timeout=10)


def run(store: Path, *overrides: str, seed: int = 0, **options: Any) -> None:
    run_pipeline(tiny(*overrides), seeds=[seed], store=str(store), out=store.parent / "out", **options)


def not_a_number(work: Any, config: object) -> None:
    """Smooths, then writes NaN where the contract wants numbers."""
    from tasks.convert import write_matrix

    x_NF = np.full((work.metadata("graph")["num_nodes"], 8), np.nan, np.float32)
    path = work.output("smoothed") / "features.parquet"
    write_matrix(path, "smoothed.features", x_NF, others={"node": np.arange(len(x_NF))})
    work.expect("smoothed.features", num_nodes=len(x_NF), num_features=8)


def test_a_violated_contract_and_the_failed_run_are_posted(
    noticed: Receiver, store_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.smooth import SMOOTH

    monkeypatch.setitem(SMOOTH.__dict__, "body", not_a_number)
    with pytest.raises(ContractViolation):
        run(store_copy, "smooth.alpha=0.3")
    violated, failed = noticed.wait_for("gclflow.contract.violated", "prefect.flow-run.Failed")
    assert violated["details"]["table"] == "smoothed.features"
    assert violated["details"]["stage"] == "smooth"
    assert violated["details"]["rules"][0]["num_rows"] == 120
    assert "smoothed.features" in violated["reason"]
    assert "smoothed.features" in violated["text"]
    assert violated["run"] == failed["run"] == "tiny-dmat_i-seed0"
    assert "smoothed.features" in failed["reason"]
    assert failed["resource"].startswith("prefect.flow-run.")


def test_a_process_that_ends_at_once_is_heard_all_the_same(noticed: Receiver, tmp_path: Path) -> None:
    source = tmp_path / "graph"
    source.mkdir()
    (source / "nodes.csv").write_text("user,age\nann,31\nbob,25\n")
    (source / "edges.csv").write_text("from,to\nann,nobody\n")
    (source / "graph.toml").write_text(
        '[nodes]\nfile = "nodes.csv"\nid = "user"\nfeatures = ["age"]\n'
        '[edges]\nfile = "edges.csv"\nsource = "from"\ntarget = "to"\n'
    )
    command = [sys.executable, "-c", "from flows.cli import main; main()", "run", "--preset", "none"]
    command += [
        "--set",
        "dataset.format=csv",
        "--set",
        f"dataset.path={source}",
        "--set",
        "dataset.name=people",
    ]
    command += ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 3, done.stderr
    violated, failed = noticed.wait_for(
        "gclflow.contract.violated", "prefect.flow-run.Failed", where=lambda post: "people" in post["run"]
    )
    assert violated["details"]["table"] == "graph.edges"
    assert "nobody" in str(violated["details"]["rules"][0]["sample"])
    assert violated["run"] == failed["run"]


def test_a_regressed_run_is_posted_and_a_good_one_is_not(noticed: Receiver, store_copy: Path) -> None:
    run(store_copy, series="nightly")
    with pytest.raises(RunRegressed):
        bounds = ("regression.max_embedding_drift=0.0", "regression.max_accuracy_drop=none")
        run(store_copy, *bounds, seed=1, series="nightly")
    (post, failed) = noticed.wait_for("gclflow.run.regressed", "prefect.flow-run.Failed")
    assert post["resource"] == "gclflow.series.nightly"
    assert post["run"] == failed["run"] == "tiny-dmat_i-seed1"
    assert "embedding_drift" in post["reason"]
    assert [row["name"] for row in post["details"]["rows"]] == ["embedding_drift"]
    assert all(found["run"] != "tiny-dmat_i-seed0" for found in noticed.posts)


def test_a_notice_is_installed_once_moved_tested_and_removed(
    standing: dict[str, str], receiver: Receiver
) -> None:
    from flows.deploy import connect

    assert notify("http://127.0.0.1:9/elsewhere") == "installed"
    assert "test notice" in notify(receiver.url, test=True)
    with connect(standing) as client:
        (known,) = client.read_automations_by_name(NAME)
        block = client.read_block_document_by_name(NAME, "webhook", include_secrets=False)
    assert known.enabled
    assert "hook" not in str(block.data["url"]), "the address is a secret"
    (post,) = receiver.wait_for("gclflow.notice.test")
    assert post["reason"] == "notices arrive here"
    assert notify(None, remove=True) == "removed"
    assert notify(None, remove=True) == "there was none"
    with connect(standing) as client:
        assert not client.read_automations_by_name(NAME)


def test_a_series_without_a_good_run_for_too_long_is_posted_once(
    standing: dict[str, str], receiver: Receiver
) -> None:
    from flows.deploy import connect

    def again() -> None:
        install_notice(receiver.url, standing, overdue=Overdue("nightly", timedelta(seconds=12)))

    again()
    ends = []
    with connect(standing) as client:
        for series, wait in (("nightly", 8.0), ("other", 0.0), ("nightly", 0.0)):
            ends.append(datetime.now(UTC))
            event = {
                "event": "gclflow.run.finished",
                "occurred": ends[-1].isoformat(),
                "id": str(uuid.uuid4()),
                "resource": {
                    "prefect.resource.id": f"gclflow.series.{series}",
                    "prefect.resource.name": series,
                },
                "payload": {},
            }
            client.request("POST", "/events", json=[event])
            time.sleep(wait)
    time.sleep(4)
    again()  # the deadline that is waited for stays
    (post,) = receiver.wait_for(OVERDUE_EVENT)
    assert datetime.now(UTC) - ends[-1] > timedelta(seconds=12)
    assert post["resource"] == "gclflow.series.nightly"
    assert post["occurred"].startswith(f"{ends[-1]:%Y-%m-%d %H:%M:%S}"), "of the last good run"
    assert "nightly: no good run since" in post["text"]
    assert "watched" not in post["text"]
    time.sleep(4 * 12)  # in each of these windows nothing comes, too
    assert [found["event"] for found in receiver.posts] == [OVERDUE_EVENT], "once, until the next good run"
    assert notify(None, remove=True) == "removed"
    with connect(standing) as client:
        assert not [found for found in client.read_automations() if found.name.startswith(NAME)]
        assert not _failed_posts(client)


def _failed_posts(client: Any) -> list[Any]:
    """What the server says of posts that it could not make."""
    wanted = {"filter": {"event": {"name": ["prefect.automation.action.failed"]}}}
    return list(client.request("POST", "/events/filter", json=wanted).json()["events"])


def test_a_series_that_never_had_a_good_run_is_posted_once(
    standing: dict[str, str], receiver: Receiver
) -> None:
    began = datetime.now(UTC)
    install_notice(receiver.url, standing, overdue=Overdue("newborn", timedelta(seconds=10)))
    (post,) = receiver.wait_for(OVERDUE_EVENT)
    assert datetime.now(UTC) - began > timedelta(seconds=10)
    assert post["resource"] == "gclflow.series.newborn"
    assert "newborn: no good run since it is watched, " in post["text"]
    time.sleep(25)
    assert len(receiver.posts) == 1
    remove_notice(standing)


def test_what_comes_from_data_arrives_as_text(noticed: Receiver, standing: dict[str, str]) -> None:
    from flows.deploy import connect

    hostile = '<!channel> {{ 7 * 7 }} "quoted" \\ <script>alert(1)</script>'
    event = {
        "event": "gclflow.contract.violated",
        "occurred": "2026-01-01T00:00:00Z",
        "id": "00000000-0000-4000-8000-000000000001",
        "resource": {"prefect.resource.id": "gclflow.table.x"},
        "payload": {"reason": hostile, "run": "x"},
    }
    with connect(standing) as client:
        client.request("POST", "/events", json=[event])
    (post,) = noticed.wait_for("gclflow.contract.violated", where=lambda found: found["run"] == "x")
    assert post["reason"] == hostile
    assert "<" not in post["text"]
    assert "{{ 7 * 7 }}" in post["text"]
