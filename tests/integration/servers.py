# SPDX-License-Identifier: Apache-2.0
"""A server that says what a test wants it to, over a real socket, and remembers what it was asked."""

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
class Answer:
    """
    What the server says: a status, headers and a body.

    ``cut`` closes the connection after so many bytes of the body, though more were announced; ``hang_up`` reads
    the request and closes without a word; ``reset`` does so by RST, as a machine that has forgotten the connection
    does; ``stall`` says nothing, until the server stops.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    hang_up: bool = False
    reset: bool = False
    stall: bool = False


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def json_answer(content: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, json.dumps(content).encode(), {"Content-Type": "application/json", **headers})


class ScriptedServer:
    """
    Answers one after the other; the last one again and again.

    An answer may be a function of the request. With ``tls`` it is reached by https, as ``localhost``.
    """

    def __init__(self, *answers: Answer | Callable[[Asked], Answer], tls: ssl.SSLContext | None = None) -> None:
        self.answers = list(answers)
        self.asked: list[Asked] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                asked = Asked(
                    self.command,
                    self.path,
                    {name.lower(): value for name, value in self.headers.items()},
                    self.rfile.read(length),
                )
                answer = server._next(asked)
                if answer.reset:
                    self.close_connection = True
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    # At once, and not by way of a shutdown, which would say good-bye first.
                    os.close(self.connection.detach())
                    return
                if answer.stall:
                    server._stopped.wait(60)
                if answer.stall or answer.hang_up:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in answer.headers:
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body if answer.cut is None else answer.body[: answer.cut])
                self.wfile.flush()
                if answer.cut is not None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._scheme_and_host = "http://127.0.0.1" if tls is None else "https://localhost"
        if tls is not None:
            # The handshake is the handler's, whose errors are its own.
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def _next(self, asked: Asked) -> Answer:
        with self._lock:
            self.asked.append(asked)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer(asked) if callable(answer) else answer

    @property
    def url(self) -> str:
        return f"{self._scheme_and_host}:{self._server.server_port}"

    def connection_json(self, **extra: Any) -> str:
        """An Airflow connection to this server, as ``AIRFLOW_CONN_…`` holds it."""
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
    """A port of this machine at which nobody listens, and nobody will as long as the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
