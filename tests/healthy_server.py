"""A server on this machine that answers every request as a Prefect server that is up does."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None: ...


@contextmanager
def healthy_server() -> Iterator[str]:
    """The URL of its API while the body runs."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Healthy) as answering:
        threading.Thread(target=answering.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{answering.server_port}/api"
        answering.shutdown()
