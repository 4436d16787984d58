# SPDX-License-Identifier: Apache-2.0
"""Runs fakesnow, which implements Snowflake's protocol and runs its SQL in DuckDB."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.certificates import write_certificate
from tests.stores import free_port


@contextlib.contextmanager
def snowflake_server(folder: Path, wrap: Callable[[Any], Any] = lambda app: app) -> Iterator[tuple[int, Path]]:
    """
    Run fakesnow over TLS, which Airflow's hook requires, and yield its port and certificate.

    :param wrap: returns the ASGI application to serve, which may look at requests before it passes them on
    """
    import fakesnow.server
    import uvicorn

    certificate, key = write_certificate(folder)
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(
            wrap(fakesnow.server.app),
            host="127.0.0.1",
            port=port,
            log_level="warning",
            ssl_certfile=str(certificate),
            ssl_keyfile=str(key),
            # Clients keep connections open, so a graceful shutdown would not end.
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 120
    while not server.started:
        assert thread.is_alive(), "fakesnow did not start"
        assert time.monotonic() < deadline, "fakesnow did not start within 120 s"
        time.sleep(0.05)
    try:
        yield port, certificate
    finally:
        server.should_exit = True
        thread.join(60)
