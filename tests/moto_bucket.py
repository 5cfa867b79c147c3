"""S3 on loopback, by moto: a server on a free port whose requests can be counted and made to fail."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

BUCKET = "results"


class MotoServer:
    """moto's S3 server in a thread.

    Requests are served one at a time: moto looks at a condition and then writes, which a real service does in
    one step.

    Attributes:
        requests: method and path of every request, in order.
        fault: what becomes of a request: None for nothing, ``slow`` for 503 SlowDown, ``denied`` for 403,
            ``cut`` for half of the answer and the end of the connection, ``lost`` for a request that is
            served and never answered.
    """

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, type: str, message: str, *arguments: Any) -> None: ...

        self.requests: list[tuple[str, str]] = []
        self.fault: Callable[[str, str], str | None] = lambda method, path: None
        self._app = DomainDispatcherApplication(create_backend_app)
        self._one_at_a_time = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def environment(self) -> dict[str, str]:
        """What makes AWS tools use this server, and nothing else of this machine."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            **WITHOUT_CREDENTIALS,
        }

    def reset(self) -> None:
        """Empty all buckets, and make ours again."""
        import boto3

        self.fault = lambda method, path: None
        with mock.patch.dict(os.environ, self.environment()):
            from urllib.request import Request, urlopen

            urlopen(Request(f"{self.url}/moto-api/reset", method="POST"), timeout=10).close()
            self.client = boto3.session.Session().client("s3")
            self.client.create_bucket(Bucket=BUCKET)
        self.requests.clear()

    def names(self, prefix: str = "") -> list[str]:
        """Names of all objects of the bucket that begin so."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]

    def read(self, name: str) -> bytes:
        """The bytes of an object."""
        data: bytes = self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        return data

    def _serve(self, environ: dict[str, Any], start_response: Any) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        fault = self.fault(method, path)
        if fault in ("slow", "denied"):
            status, code = {
                "slow": ("503 Slow Down", "SlowDown"),
                "denied": ("403 Forbidden", "AccessDenied"),
            }[fault]
            start_response(status, [("Content-Type", "application/xml")])
            return [f"<Error><Code>{code}</Code><Message>a test asks for it</Message></Error>".encode()]
        with self._one_at_a_time:
            answer = b"".join(self._app(environ, start_response))
        if fault == "lost":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return self._first_half(answer) if fault == "cut" else [answer]

    @staticmethod
    def _first_half(answer: bytes) -> Iterator[bytes]:
        yield answer[: len(answer) // 2]
        raise ConnectionAbortedError("a fault that a test has asked for")


WITHOUT_CREDENTIALS = {
    "AWS_EC2_METADATA_DISABLED": "true",  # it would look for credentials on the network
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@contextmanager
def moto_server() -> Iterator[MotoServer]:
    """A server while the body runs."""
    server = MotoServer()
    try:
        yield server
    finally:
        server.stop()


def file_of(path: Path, content: bytes) -> Path:
    """A file with this content."""
    path.write_bytes(content)
    return path
