# SPDX-License-Identifier: Apache-2.0
"""The test matrix: unit and integration tests on the oldest and the newest Airflow that is supported.

``make test-matrix`` runs it. Each session is an environment of its own under ``.nox``, made by uv. The newest
Airflow is the one in ``constraints.txt``, with the versions that stand there. The older ones take what fits
them, as an installation of today would, since their own dependencies differ.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv"
nox.options.error_on_external_run = True
nox.options.error_on_missing_interpreters = True
nox.options.reuse_venv = "yes"

OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Airflow:
    """A version of Airflow, and where it runs."""

    name: str
    requirements: tuple[str, ...]
    newest_python: tuple[int, int]


MATRIX = (
    Airflow("2.11", ("apache-airflow==2.11.*",), (3, 12)),
    # Airflow 3.0 does not set the content type that today's FastAPI insists on, so dag.test() fails with it; its own
    # constraints have these.
    Airflow("3.0", ("apache-airflow==3.0.*", "fastapi<0.117", "cadwyn<5.5"), (3, 12)),
    Airflow("newest", ("apache-airflow", "--constraints", "constraints.txt"), (3, 13)),
)


def _candidates(newest: tuple[int, int]) -> Iterator[str]:
    """Interpreters that may do, the likeliest first: the one that made ``.venv``, ``PATH``'s, pyenv's."""
    yield sys.executable
    minors = [f"3.{minor}" for minor in range(newest[1], OLDEST_PYTHON[1] - 1, -1)]
    for minor in minors:
        if found := shutil.which(f"python{minor}"):
            yield found
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in minors:
        yield from (str(path) for path in sorted(pyenv.glob(f"{minor}.*/bin/python"), reverse=True))


@cache
def _version(python: str) -> tuple[int, int] | None:
    """What the interpreter says of itself; ``None`` for one that does not run, such as an idle pyenv shim."""
    script = "import sys; print(*sys.version_info[:2])"
    try:
        said = subprocess.run([python, "-I", "-c", script], capture_output=True, text=True, timeout=30, check=True)
        major, minor = said.stdout.split()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return int(major), int(minor)


def _interpreter(newest: tuple[int, int]) -> str:
    """The interpreter for a session; where there is none, a name that nox then reports as missing."""
    for python in _candidates(newest):
        version = _version(python)
        if version is not None and OLDEST_PYTHON <= version <= newest:
            return python
    return f"python{newest[0]}.{newest[1]}"


def _add_session(airflow: Airflow) -> None:
    @nox.session(name=f"tests-{airflow.name}", python=_interpreter(airflow.newest_python))
    def tests(session: nox.Session) -> None:
        session.install("--quiet", "--editable", ".[amazon,parquet]", "--group", "test", *airflow.requirements)
        # A home of its own: a database of another version would be in the way.
        home = str(Path(session.create_tmp()).resolve())
        env = {"AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        session.run("airflow", "version", env=env)
        session.run("pytest", "tests/unit", "tests/integration", *session.posargs, env=env)

    tests.__doc__ = f"Unit and integration tests on Airflow {airflow.name}."


for _airflow in MATRIX:
    _add_session(_airflow)
