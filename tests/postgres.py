# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server of the tests' own: in a temporary folder, on a free port of 127.0.0.1, for a ``with`` block."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.real_airflow import free_port, tail

#: Where distributions put the server's programs, which are not on PATH. The newest comes first.
_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")


def _programs() -> Path:
    """The folder with ``initdb`` and ``postgres``."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    folders = [folder for pattern in _FOLDERS for folder in Path("/").glob(pattern[1:]) if (folder / "initdb").exists()]
    if not folders:
        raise RuntimeError(
            "these tests need a PostgreSQL server, 15 or later: `apt-get install postgresql`, or the like, or have its "
            "`initdb` on PATH"
        )
    return max(
        folders,
        key=lambda folder: [
            int(digits) for digits in "".join(letter if letter.isdigit() else " " for letter in str(folder)).split()
        ],
    )


def _unprivileged() -> str | None:
    """Whom to run the server as: it refuses to be root's."""
    if os.geteuid() != 0:
        return None
    names = {user.pw_name for user in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextmanager
def postgres_server() -> Iterator[str]:
    """Start a server; give the URI of its database. Nothing of it is left afterwards."""
    programs, user = _programs(), _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="chartmogul-postgres-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        data, log, port = folder / "data", folder / "log", free_port()
        # The locale of the machine may be one it does not have.
        told = {"user": user, "cwd": folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}, "check": True}
        initdb = [programs / "initdb", "--pgdata", data, "--username", "test", "--auth", "trust", "--no-sync"]
        subprocess.run([*initdb, "--encoding", "UTF8"], **told, stdout=subprocess.DEVNULL, timeout=120)
        # Nothing here has to survive a power cut.
        settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        control = [programs / "pg_ctl", "--pgdata", data, "--wait", "--timeout", "60"]
        try:
            try:
                subprocess.run(
                    [*control, "--log", log, "--options", settings, "start"],
                    **told,
                    stdout=subprocess.DEVNULL,
                    timeout=120,
                )
            except subprocess.CalledProcessError as error:
                raise RuntimeError(f"PostgreSQL did not start:\n{tail(log, 30)}") from error
            yield f"postgresql://test@127.0.0.1:{port}/postgres"
        finally:
            if (data / "postmaster.pid").exists():
                subprocess.run(
                    [*control, "--mode", "immediate", "stop"], **told, stdout=subprocess.DEVNULL, timeout=120
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
