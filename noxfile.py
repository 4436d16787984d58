# SPDX-License-Identifier: Apache-2.0
"""
The test matrix: unit and integration tests on every version of Airflow that is supported; the stores; the package.

``make test-matrix`` runs the first, ``make test-storage`` the second, ``make test-package`` the third, and
``make test-browser`` looks at Airflow's page. Each session is an environment of its own under ``.nox``, made by uv. The
newest Airflow is the one in ``constraints.txt``, with the versions that stand there. The older ones take what fits
them, as an installation of today would, since their own dependencies differ. The oldest is tried with the lowest
versions that ``pyproject.toml`` allows, too.
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
from nox.project import load_toml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

nox.options.default_venv_backend = "uv"
nox.options.error_on_external_run = True
nox.options.error_on_missing_interpreters = True
nox.options.reuse_venv = "yes"


@dataclass(frozen=True)
class Airflow:
    """
    A version of Airflow, and where it runs.

    :param requirements: what is installed beside the package
    :param pythons: the Pythons it supports, of those that we do; the first that the machine has is the one it is
        tried on, so that together they try every Python
    :param lowest: take the lowest versions of all that the package itself asks for
    :param whole: run the tests of what has nothing of Airflow in it too
    :param system: run the tests with a real scheduler and triggerer too; on any other version,
        ``nox --session tests-3.1 -- tests/system/test_real_airflow.py`` does
    """

    name: str
    requirements: tuple[str, ...]
    pythons: tuple[str, ...]
    lowest: bool = False
    whole: bool = False
    system: bool = False


MATRIX = (
    # Whole, since the floors of aiohttp, urllib3 and isal are those of the download and the archive. The examples'
    # loads read with Airflow's ObjectStoragePath, and that of 2.11.0 is not one that today's universal_pathlib knows.
    Airflow("2.11-lowest", ("universal-pathlib<0.3",), ("3.11", "3.12"), whole=True, lowest=True),
    Airflow("2.11", ("apache-airflow==2.11.*",), ("3.12", "3.11"), system=True),
    # Airflow 3.0 does not set the content type that today's FastAPI insists on, so dag.test() fails with it; its own
    # constraints have these.
    Airflow("3.0", ("apache-airflow==3.0.*", "fastapi<0.117", "cadwyn<5.5"), ("3.11", "3.12")),
    Airflow("3.1", ("apache-airflow==3.1.*",), ("3.12", "3.11", "3.13")),
    # Airflow 3.2's API of tasks cannot be imported with FastAPI 0.136 or later ("needs a discriminator field"), and in
    # dag.test() it is gone before the first request with svcs 26, which clears up after itself.
    Airflow("3.2", ("apache-airflow==3.2.*", "fastapi<0.136", "svcs<26"), ("3.11", "3.12", "3.13")),
    # The newest; `make test` has it, whole, on one Python, and here it is another, if the machine has it.
    Airflow("3.3", ("apache-airflow", "--constraints", "constraints.txt"), ("3.13", "3.12", "3.11")),
)


#: Tests of what has nothing of Airflow in it: the API, intervals, the archive, the download, loads, the sandbox, our
#: papers. `make test` runs them, and the sessions that are whole.
THE_SAME_ON_ALL = (
    "tests/unit/test_api.py",
    "tests/unit/test_archive.py",
    "tests/unit/test_cancellation.py",
    "tests/unit/test_intervals.py",
    "tests/unit/test_project.py",
    "tests/unit/test_rate_limit.py",
    "tests/unit/test_sandbox_company.py",
    "tests/unit/test_sandbox_faults.py",
    "tests/unit/test_supported_versions.py",
    "tests/integration/test_bench.py",
    "tests/integration/test_breaks.py",
    "tests/integration/test_flips.py",
    "tests/integration/test_kills.py",
    "tests/integration/test_loads.py",
    "tests/integration/test_sandbox.py",
    "tests/integration/test_sandbox_faults.py",
)


def _candidates(minor: str) -> Iterator[str]:
    """Interpreters that may do: the one that runs this, ``PATH``'s, pyenv's."""
    yield sys.executable
    if found := shutil.which(f"python{minor}"):
        yield found
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    yield from (str(path) for path in sorted(pyenv.glob(f"{minor}.*/bin/python"), reverse=True))


@cache
def _minor(python: str) -> str | None:
    """What the interpreter says of itself; ``None`` for one that does not run, such as an idle pyenv shim."""
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        said = subprocess.run([python, "-I", "-c", script], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip()


def _interpreter(pythons: tuple[str, ...]) -> str:
    """The interpreter for a session; where there is none, a name that nox then reports as missing."""
    for minor in pythons:
        for python in _candidates(minor):
            if _minor(python) == minor:
                return python
    return f"python{pythons[0]}"


def _floors(session: nox.Session) -> str:
    """Write the lowest versions that ``pyproject.toml`` allows, as uv finds them, as constraints; give the file."""
    resolved = session.run_install(
        *("uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--resolution", "lowest-direct"),
        *("--python", str(session.python), "pyproject.toml"),
        silent=True,
        external=True,
    )
    ours = {
        canonicalize_name(Requirement(line).name) for line in load_toml("pyproject.toml")["project"]["dependencies"]
    }
    # What Airflow asks for in its turn stays what an installation of today would take.
    floors = [line for line in str(resolved).splitlines() if canonicalize_name(Requirement(line).name) in ours]
    session.log("the lowest: " + ", ".join(floors))
    path = Path(session.create_tmp()) / "floors.txt"
    path.write_text("\n".join(floors) + "\n")
    return str(path.resolve())


def _add_session(airflow: Airflow) -> None:
    @nox.session(name=f"tests-{airflow.name}", python=_interpreter(airflow.pythons))
    def tests(session: nox.Session) -> None:
        requirements = airflow.requirements
        if airflow.lowest:
            requirements += ("--constraints", _floors(session))
        session.install("--quiet", "--editable", ".[amazon,parquet]", "--group", "test", *requirements)
        # A home of its own: a database of another version would be in the way.
        home = str(Path(session.create_tmp()).resolve())
        env = {"AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        session.run("python", "--version")
        session.run("airflow", "version", env=env)
        if session.posargs:
            session.run("pytest", *session.posargs, env=env)
            return
        left_out = [] if airflow.whole else [f"--ignore={path}" for path in THE_SAME_ON_ALL]
        parallel = ("--numprocesses", "4", "--dist", "worksteal")  # as `make test`
        session.run("pytest", *parallel, "tests/unit", "tests/integration", *left_out, env=env)
        if airflow.system:
            session.run("pytest", "tests/system/test_real_airflow.py", env=env)

    tests.__doc__ = f"Unit and integration tests on Airflow {airflow.name}, or what is named after `--`."


for _airflow in MATRIX:
    _add_session(_airflow)


# An environment of its own: Google's provider, dbt and their libraries want other versions of uritemplate, protobuf and
# tenacity than chartmogul has and ``constraints.txt`` names. Of the latter, Airflow's alone is taken.
@nox.session(name="storage", python=_interpreter(MATRIX[-1].pythons), default=False)
def storage(session: nox.Session) -> None:
    """What is published, to every store that has an extra; the examples for warehouses, and dbt."""
    lines = Path("constraints.txt").read_text().splitlines()
    airflow = [line for line in lines if line.startswith("apache-airflow==")]
    extras = ".[amazon,google,microsoft-azure]"
    session.install("--quiet", "--editable", extras, "--group", "storage", "--group", "warehouses", *airflow)
    # Two processes: a file system that was made for the one's server would be found again by the other's.
    session.run("pytest", "tests/storage", *session.posargs)
    session.run("pytest", "tests/warehouses", *session.posargs)


# Without Airflow and without this package: what is built is installed into environments that are empty.
@nox.session(name="package", python=_interpreter(MATRIX[-1].pythons), default=False)
def package(session: nox.Session) -> None:
    """What is published on PyPI: built, checked, installed and used."""
    session.install("--quiet", "--group", "package", "--constraints", "constraints.txt")
    session.run("pytest", "--confcutdir", "tests/package", "tests/package", *session.posargs)


def _add_browser_session(airflow: Airflow) -> None:
    @nox.session(name=f"browser-{airflow.name}", python=_interpreter(airflow.pythons), default=False)
    def browser(session: nox.Session) -> None:
        session.install("--quiet", "--editable", ".", "--group", "browser", *airflow.requirements)
        # A DAG's pages are looked at on Airflow 3 alone.
        tests = "tests/browser" if airflow.name != "2.11" else "tests/browser/test_connection_form.py"
        session.run("pytest", tests, *session.posargs)

    browser.__doc__ = f"Airflow {airflow.name}'s page, in a real browser."


# The two pages there are: Airflow 2's, which the hook describes the form to, and Airflow 3's, which reads metadata.
for _airflow in MATRIX:
    if _airflow.name in ("2.11", "3.3"):
        _add_browser_session(_airflow)
