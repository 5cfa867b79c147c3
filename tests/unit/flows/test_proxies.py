"""A web proxy in the environment is not used for this machine, by any of our ways to a server."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows import server, up
from flows.deploy import connect
from flows.home import Home
from flows.proxies import without_proxy
from tests.healthy_server import healthy_server

NAMES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server on this machine, which the environment's proxy would not reach."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with healthy_server() as url:
        yield url


def test_a_server_here_answers_and_is_spoken_to(url: str) -> None:
    assert server.answers(url)
    with connect({"PREFECT_API_URL": url}) as client:
        assert client.request("GET", "/health").status_code == 200


def test_clients_and_children_get_no_proxy_for_this_machine(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    with home.locked():
        home.write("server", {"port": int(url.rpartition(":")[2].removesuffix("/api"))})
    monkeypatch.setattr(server.Service, "process", psutil.Process())
    code = f"import httpx; print(httpx.get('{url}/health').status_code)"
    for settings in (server.client_environment(home), up._plain_environment()):
        environment = {**os.environ, **settings}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.stdout == "200\n", done.stderr
    monkeypatch.setenv("PREFECT_API_URL", url)
    assert "127.0.0.1" in server.lasting_server()["NO_PROXY"]


@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        ({}, "127.0.0.1,localhost"),
        ({"NO_PROXY": "example.org, localhost"}, "example.org,localhost,127.0.0.1"),
        ({"no_proxy": ".inner", "NO_PROXY": "x"}, ".inner,127.0.0.1,localhost"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_what_was_excepted_already_stays(known: dict[str, str], wanted: str) -> None:
    assert without_proxy(known) == {"NO_PROXY": wanted, "no_proxy": wanted}
