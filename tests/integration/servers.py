# SPDX-License-Identifier: Apache-2.0
"""A server that sends scripted responses over a real socket and records the requests that it gets."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Response:
    """
    A scripted response, or a connection error in its place.

    :param truncate_at: close the connection after this many bytes of the body; ``Content-Length`` is that of the whole
    :param hang_up: read the request and close the connection without a response
    :param reset: the same by RST, as a machine that has forgotten the connection does
    :param stall: send nothing until the server stops
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    truncate_at: int | None = None
    hang_up: bool = False
    reset: bool = False
    stall: bool = False


@dataclass(frozen=True)
class RecordedRequest:
    """A request, with the names of its headers in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def json_response(content: Any, status: int = 200, **headers: str) -> Response:
    return Response(status, json.dumps(content).encode(), {"Content-Type": "application/json", **headers})


class ScriptedServer:
    """
    Sends one response after the other, and repeats the last one.

    :param responses: responses, or functions that return one for a request
    :param tls: serve https, at ``localhost``
    """

    def __init__(
        self, *responses: Response | Callable[[RecordedRequest], Response], tls: ssl.SSLContext | None = None
    ) -> None:
        self.responses = list(responses)
        self.requests: list[RecordedRequest] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()

            def respond(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                request = RecordedRequest(
                    self.command,
                    self.path,
                    {name.lower(): value for name, value in self.headers.items()},
                    self.rfile.read(length),
                )
                response = server._next(request)
                if response.reset:
                    self.close_connection = True
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    # Not by way of shutdown(), which would send a FIN first.
                    os.close(self.connection.detach())
                    return
                if response.stall:
                    server._stopped.wait(60)
                if response.stall or response.hang_up:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(response.status)
                for name, value in response.headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in response.headers:
                    self.send_header("Content-Length", str(len(response.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(response.body[: response.truncate_at])
                self.wfile.flush()
                if response.truncate_at is not None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = respond

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._scheme_and_host = "http://127.0.0.1" if tls is None else "https://localhost"
        if tls is not None:
            # The handler's thread does the handshake, so that an error in it does not stop the server.
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def _next(self, request: RecordedRequest) -> Response:
        with self._lock:
            self.requests.append(request)
            response = self.responses.pop(0) if len(self.responses) > 1 else self.responses[0]
        return response(request) if callable(response) else response

    @property
    def url(self) -> str:
        return f"{self._scheme_and_host}:{self._server.server_port}"

    def connection_json(self, **extra: Any) -> str:
        """Return an Airflow connection to this server, as the value of an ``AIRFLOW_CONN_…`` variable."""
        return json.dumps(
            {"conn_type": "chartmogul", "host": self.url, "password": "the-api-key-of-the-test", "extra": extra}
        )

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """Reserve a port of this machine on which nothing listens while the test runs."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]
