"""S15: the suite uses no network, the guard that proves it works, and downloads are pinned."""

import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from flows.fetch import PUBLIC
from tests.network import NetworkUsed

ELSEWHERE = "192.0.2.1"  # an address reserved for documentation


def test_connection_to_another_machine_is_refused_and_noticed(network_attempts: list[str]) -> None:
    with socket.socket() as client, pytest.raises(NetworkUsed):
        client.connect((ELSEWHERE, 80))
    with socket.socket() as client, pytest.raises(NetworkUsed):
        client.connect_ex((ELSEWHERE, 80))
    with socket.socket(type=socket.SOCK_DGRAM) as client, pytest.raises(NetworkUsed):
        client.sendto(b"x", (ELSEWHERE, 53))
    with pytest.raises(NetworkUsed):
        socket.getaddrinfo("example.org", 443)
    assert len(network_attempts) == 4
    network_attempts.clear()


def test_libraries_are_refused_too(network_attempts: list[str]) -> None:
    import requests
    import urllib3

    with pytest.raises((requests.exceptions.RequestException, NetworkUsed)):
        requests.get(f"http://{ELSEWHERE}/", timeout=5)
    with pytest.raises((urllib3.exceptions.HTTPError, NetworkUsed)):
        urllib3.PoolManager(retries=False).request("GET", "http://example.org/")
    assert network_attempts
    network_attempts.clear()


def test_loopback_and_unix_sockets_are_free() -> None:
    left, right = socket.socketpair()
    with left, right, ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        socket.create_connection(("localhost", server.server_port), timeout=5).close()
        server.shutdown()


def test_every_download_is_pinned_and_encrypted() -> None:
    for name, dataset in PUBLIC.items():
        for file in dataset.files:
            assert re.fullmatch(r"[0-9a-f]{64}", file.sha256), f"{name}: {file.name}"
            parts = urlsplit(file.url)
            assert parts.scheme == "https", f"{name}: {file.url}"
            assert "@" not in parts.netloc


def test_fetching_follows_no_redirect_to_a_file(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a redirect leads to is downloaded over http or https or not at all: never a local file."""
    from flows import fetch
    from flows.fetch import PublicDataset, PublicFile, fetch_dataset
    from gcl.errors import SourceUnreadable

    secret = tmp_path / "secret"
    secret.write_text("canary")

    class Redirect(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", secret.as_uri())
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Redirect) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        file = PublicFile("data.bin", f"http://127.0.0.1:{server.server_port}/data.bin", "0" * 64)
        monkeypatch.setitem(fetch.PUBLIC, "made-up", PublicDataset("csv", "nowhere", (file,)))
        with pytest.raises(SourceUnreadable):
            fetch_dataset("made-up", tmp_path / "data")
        server.shutdown()
    assert not list((tmp_path / "data").rglob("data.bin"))
