"""S13: the Dask cluster that a stage starts is on loopback, needs a certificate, and serves no pages."""

import socket
import ssl

import psutil
import pytest

from tasks.dask_pool import dask_map

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def listening() -> list[tuple[str, int]]:
    """Addresses that this process and its children listen on while the cluster runs; then it is gone."""
    with dask_map(num_workers=2) as map_blocks:
        assert map_blocks(abs, [-1, 2]) == [1, 2]
        found = sockets()
        assert found
        yield found
    assert not set(sockets()) & set(found)


def sockets() -> list[tuple[str, int]]:
    own = psutil.Process()
    return [
        (connection.laddr.ip, connection.laddr.port)
        for process in (own, *own.children(recursive=True))
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN and "prefect" not in " ".join(process.cmdline())
    ]


def test_everything_listens_on_loopback(listening: list[tuple[str, int]]) -> None:
    assert {address for address, _ in listening} <= {"127.0.0.1", "::1"}


def test_no_dashboard_answers(listening: list[tuple[str, int]]) -> None:
    for address in listening:
        for path in (
            b"/",
            b"/status",
            b"/info/main/workers.html",
            b"/json/counts.json",
            b"/api/v1/retire_workers",
        ):
            answer = ask(address, b"GET " + path + b" HTTP/1.0\r\n\r\n")
            assert answer.split(b"\r\n")[0].split(b" ")[1:2] in ([], [b"404"]), (address, path, answer[:200])


def ask(address: tuple[str, int], request: bytes) -> bytes:
    """What a port answers to plain bytes; nothing where it hangs up."""
    with socket.create_connection(address, timeout=5) as client:
        client.sendall(request)
        client.settimeout(1)
        try:
            return client.recv(4096)
        except OSError:
            return b""


def test_nobody_enters_without_the_certificate(listening: list[tuple[str, int]]) -> None:
    """Other users of the machine reach loopback; a scheduler runs whatever it is sent."""
    for address in listening:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with pytest.raises((ssl.SSLError, ConnectionError, TimeoutError, OSError)):  # noqa: PT012
            with socket.create_connection(address, timeout=1) as plain, context.wrap_socket(plain) as client:
                client.settimeout(1)
                client.sendall(b"\0" * 64)
                if not client.recv(16):  # with TLS 1.3 the refusal comes after the client's first bytes
                    raise ConnectionResetError
