# SPDX-License-Identifier: Apache-2.0
"""A Redis server of the tests' own: in memory, on a free port of 127.0.0.1, for a ``with`` block."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from dev.real_airflow import free_port, tail


@contextmanager
def redis_server() -> Iterator[str]:
    """Start a server; give the URL of its first database. Nothing of it is left afterwards."""
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("these tests need a Redis server: `apt-get install redis-server`, or the like")
    with tempfile.TemporaryDirectory(prefix="chartmogul-redis-") as name:
        folder, port = Path(name), free_port()
        settings = {"bind": "127.0.0.1", "port": str(port), "dir": name, "save": "", "appendonly": "no"}
        command = [program, *(part for key, value in settings.items() for part in (f"--{key}", value))]
        with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
            try:
                with redis.Redis(port=port) as client:
                    _wait_until_it_answers(client, server, folder / "log")
                yield f"redis://127.0.0.1:{port}/0"
            finally:
                server.terminate()


def _wait_until_it_answers(client: redis.Redis, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            client.ping()
        except redis.ConnectionError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Redis did not start:\n{tail(log, 30)}") from error
            time.sleep(0.05)
        else:
            return
