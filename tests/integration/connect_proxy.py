# SPDX-License-Identifier: Apache-2.0
"""An HTTP proxy that tunnels connections (``CONNECT``), or refuses to."""

from __future__ import annotations

import base64
import contextlib
import selectors
import socket
import socketserver
import threading


class ConnectProxy:
    """
    A proxy on this machine.

    :param status: the status of its responses; 200 opens the tunnel
    :param credentials: ``user:password`` that it requires, with 407 otherwise
    :param target: port on this machine that every tunnel leads to, whatever host a client names
    """

    def __init__(self, target: int, *, status: int = 200, credentials: str | None = None) -> None:
        self.requested: list[str] = []
        proxy = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    proxy._handle(self, target, status, credentials)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def _handle(
        self, handler: socketserver.StreamRequestHandler, target: int, status: int, credentials: str | None
    ) -> None:
        request, *headers = iter(lambda: handler.rfile.readline().decode().strip(), "")
        self.requested.append(request)
        given = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in headers)}
        if credentials is not None:
            expected = "Basic " + base64.b64encode(credentials.encode()).decode()
            status = status if given.get("proxy-authorization") == expected else 407
        # A proxy's own text may quote what it was sent.
        body = str(given).encode() if status != 200 else b""
        head = f"HTTP/1.1 {status} {given.get('proxy-authorization', 'OK')}\r\nContent-Length: {len(body)}\r\n\r\n"
        handler.wfile.write(head.encode() + body)
        if status == 200:
            with socket.create_connection(("127.0.0.1", target)) as server:
                _relay(handler.connection, server)

    def __enter__(self) -> ConnectProxy:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Copy bytes in both directions until one side closes."""
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in selector.select():
                data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                if not data:
                    return
                key.data.sendall(data)
