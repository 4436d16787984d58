# SPDX-License-Identifier: Apache-2.0
"""
Test sessions that need environments of their own, which uv creates under ``.nox``.

``make test-matrix`` tests every supported version of Airflow, ``make test-storage`` the object stores and warehouses,
``make test-package`` the published archives, and ``make test-browser`` Airflow's UI.

The newest Airflow is installed with the versions in ``constraints.txt``. Older ones get the newest dependencies that
they accept, as an installation today would. The oldest is also tested with the lowest versions that ``pyproject.toml``
allows.
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
    A version of Airflow in the test matrix.

    :param requirements: requirements to install in addition to the package
    :param pythons: Python versions to test on, in order of preference; the session uses the first one installed. The
        orders differ so that the matrix covers every supported Python.
    :param lowest: install the lowest versions of the package's direct dependencies, those of the extras included
    :param whole: include the tests that do not depend on Airflow
    :param system: include the tests with a real scheduler and triggerer. On any other version,
        ``nox --session tests-3.1 -- tests/system/test_real_airflow.py`` runs them.
    """

    name: str
    requirements: tuple[str, ...]
    pythons: tuple[str, ...]
    lowest: bool = False
    whole: bool = False
    system: bool = False


MATRIX = (
    # Whole, because the download and the archives use aiohttp, urllib3 and isal. The examples' loads read with
    # Airflow's ObjectStoragePath, and that of 2.11.0 does not work with universal_pathlib 0.3.
    Airflow("2.11-lowest", ("universal-pathlib<0.3",), ("3.11", "3.12"), whole=True, lowest=True),
    Airflow("2.11", ("apache-airflow==2.11.*",), ("3.12", "3.11"), system=True),
    # Airflow 3.0 does not set the content type that newer versions of FastAPI require, so dag.test() fails with them.
    # Airflow's own constraints have these versions.
    Airflow("3.0", ("apache-airflow==3.0.*", "fastapi<0.117", "cadwyn<5.5", "universal-pathlib<0.3"), ("3.11", "3.12")),
    Airflow("3.1", ("apache-airflow==3.1.*",), ("3.12", "3.11", "3.13")),
    # Airflow 3.2's task API cannot be imported with FastAPI 0.136 or later ("needs a discriminator field"). In
    # dag.test(), svcs 26 closes the task API before the first request.
    Airflow("3.2", ("apache-airflow==3.2.*", "fastapi<0.136", "svcs<26"), ("3.11", "3.12", "3.13")),
    # `make test` runs all tests on the newest Airflow, on one Python. This session prefers another Python.
    Airflow("3.3", ("apache-airflow", "--constraints", "constraints.txt"), ("3.13", "3.12", "3.11")),
)


#: Files, and single tests, whose subject does not depend on Airflow. `make test` and the sessions marked ``whole`` run
#: them.
INDEPENDENT_OF_AIRFLOW = (
    "tests/unit/test_api.py",
    "tests/unit/test_archive.py",
    "tests/unit/test_arriving_archive.py",
    "tests/unit/test_cancellation.py",
    "tests/unit/test_check_findings.py",
    "tests/unit/test_column_selection.py",
    "tests/unit/test_column_values.py",
    "tests/unit/test_deduplication.py",
    "tests/unit/test_intervals.py",
    "tests/unit/test_json_lines.py",
    "tests/unit/test_local_tables.py",
    "tests/unit/test_pagination.py",
    "tests/unit/test_periods.py",
    "tests/unit/test_project.py",
    "tests/unit/test_rate_limit.py",
    "tests/unit/test_resources.py",
    "tests/unit/test_row_files.py",
    "tests/unit/test_sandbox_company.py",
    "tests/unit/test_sandbox_faults.py",
    "tests/unit/test_sandbox_resources.py",
    "tests/unit/test_source_objects.py",
    "tests/unit/test_supported_versions.py",
    "tests/unit/test_tables.py",
    "tests/integration/test_account.py",
    "tests/integration/test_bench.py",
    "tests/integration/test_check.py",
    "tests/integration/test_demo.py",
    "tests/integration/test_flips.py",
    # The other tests of this file write every format on every version.
    "tests/integration/test_formats.py::test_every_format_has_the_same_rows",
    "tests/integration/test_interruptions.py",
    # The limits are kept by client/, which has no Airflow.
    "tests/integration/test_iter_rows.py::test_no_more_connections_than_the_connection_allows",
    "tests/integration/test_iter_rows.py::test_subscriptions_keep_the_limits_of_the_account",
    "tests/integration/test_kills.py",
    "tests/integration/test_many_waits.py::test_500_waits_stay_within_the_documented_limits",
    "tests/integration/test_many_waits.py::test_one_429_pauses_all_waits",
    # tests/integration/test_dags.py transfers all resources on every version.
    "tests/integration/test_resource_transfer.py::test_fault_in_the_middle_of_a_walk_costs_no_row",
    "tests/integration/test_resource_transfer.py::test_raw_rows_are_those_of_the_account",
    "tests/integration/test_resource_transfer.py::test_requests_are_a_page_of_200_rows_each",
    "tests/integration/test_resource_transfer.py::test_schema_is_the_same_without_rows",
    "tests/integration/test_resource_transfer.py::test_tables_have_the_values_of_the_account",
    "tests/integration/test_sandbox.py",
    "tests/integration/test_sandbox_faults.py",
    "tests/integration/test_sandbox_lists.py",
    "tests/integration/test_walk.py",
    "tests/integration/test_warehouse_processes.py",
    "tests/integration/test_warehouse_property.py",
)


#: The package's extras that unit and integration tests need.
EXTRAS = ("amazon", "parquet")


def _candidates(minor: str) -> Iterator[str]:
    """Yield candidate interpreters: the running one, then those on ``PATH`` and in pyenv."""
    yield sys.executable
    if found := shutil.which(f"python{minor}"):
        yield found
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    yield from (str(path) for path in sorted(pyenv.glob(f"{minor}.*/bin/python"), reverse=True))


@cache
def _minor(python: str) -> str | None:
    """Return the interpreter's minor version, or ``None`` if it does not run, such as an idle pyenv shim."""
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        process = subprocess.run([python, "-I", "-c", script], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()


def _interpreter(pythons: tuple[str, ...]) -> str:
    """Return the interpreter for a session, or a name that nox then reports as missing."""
    for minor in pythons:
        for python in _candidates(minor):
            if _minor(python) == minor:
                return python
    return f"python{pythons[0]}"


def _lowest_versions(session: nox.Session) -> str:
    """Write a constraints file with the lowest versions that ``pyproject.toml`` allows, and return its path."""
    project = load_toml("pyproject.toml")["project"]
    path = Path(session.create_tmp()) / "lowest.txt"
    path.write_text("")
    # The package's own dependencies come first, since an extra's may need higher versions of them.
    for extras in ((), EXTRAS):
        groups = [project["optional-dependencies"][extra] for extra in extras] or [project["dependencies"]]
        direct = {canonicalize_name(Requirement(line).name) for group in groups for line in group}
        resolved = session.run_install(
            *("uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--resolution", "lowest-direct"),
            *("--python", str(session.python), "--constraints", str(path), *(f"--extra={extra}" for extra in extras)),
            "pyproject.toml",
            silent=True,
            external=True,
        )
        # Indirect dependencies, such as Airflow's, are not constrained, as in an installation today.
        lowest = [line for line in str(resolved).splitlines() if canonicalize_name(Requirement(line).name) in direct]
        session.log("lowest versions: " + ", ".join(lowest))
        with path.open("a") as constraints:
            constraints.writelines(f"{line}\n" for line in lowest)
    return str(path.resolve())


def _add_session(airflow: Airflow) -> None:
    @nox.session(name=f"tests-{airflow.name}", python=_interpreter(airflow.pythons))
    def tests(session: nox.Session) -> None:
        requirements = airflow.requirements
        if airflow.lowest:
            requirements += ("--constraints", _lowest_versions(session))
        session.install("--quiet", "--editable", f".[{','.join(EXTRAS)}]", "--group", "test", *requirements)
        # Each version has its own home, since a database migrated by another version does not work.
        home = str(Path(session.create_tmp()).resolve())
        env = {"AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        session.run("python", "--version")
        session.run("airflow", "version", env=env)
        if session.posargs:
            session.run("pytest", *session.posargs, env=env)
            return
        # dlt is installed where `make test` runs only; its rows do not depend on Airflow.
        ignored = ["--ignore=tests/integration/test_dlt.py"]
        if not airflow.whole:
            ignored += [f"--{'deselect' if '::' in test else 'ignore'}={test}" for test in INDEPENDENT_OF_AIRFLOW]
        if airflow.lowest:
            # Beside the lowest requests and urllib3 there is only a ChartMogul client from before these lists.
            ignored.append("--deselect=tests/integration/test_sandbox_lists.py::test_official_client_reads_all_lists")
        parallel = ("--numprocesses", "4", "--dist", "worksteal")  # the same as in `make test`
        session.run("pytest", *parallel, "tests/unit", "tests/integration", *ignored, env=env)
        if airflow.system:
            session.run("pytest", "tests/system/test_real_airflow.py", env=env)

    tests.__doc__ = f"Run unit and integration tests on Airflow {airflow.name}, or the tests named after `--`."


for _airflow in MATRIX:
    _add_session(_airflow)


# Google's provider, dbt and their libraries need other versions of uritemplate, protobuf and tenacity than chartmogul
# and ``constraints.txt``, so only Airflow's version is taken from there.
@nox.session(name="storage", python=_interpreter(MATRIX[-1].pythons), default=False)
def storage(session: nox.Session) -> None:
    """Test publishing to every object store that has an extra, the examples for warehouses, and dbt."""
    lines = Path("constraints.txt").read_text().splitlines()
    airflow = [line for line in lines if line.startswith("apache-airflow==")]
    extras = ".[amazon,google,microsoft-azure]"
    session.install("--quiet", "--editable", extras, "--group", "storage", "--group", "warehouses", *airflow)
    # Two processes, because fsspec would reuse a file system that is connected to the other suite's server.
    session.run("pytest", "tests/storage", *session.posargs)
    session.run("pytest", "tests/warehouses", *session.posargs)


# The session has neither Airflow nor this package; the tests install the archives into empty environments.
@nox.session(name="package", python=_interpreter(MATRIX[-1].pythons), default=False)
def package(session: nox.Session) -> None:
    """Build, check, install and use the archives that are published on PyPI."""
    session.install("--quiet", "--group", "package", "--constraints", "constraints.txt")
    session.run("pytest", "--confcutdir", "tests/package", "tests/package", *session.posargs)


def _add_browser_session(airflow: Airflow) -> None:
    @nox.session(name=f"browser-{airflow.name}", python=_interpreter(airflow.pythons), default=False)
    def browser(session: nox.Session) -> None:
        session.install("--quiet", "--editable", ".", "--group", "browser", *airflow.requirements)
        # The tests of a DAG's pages are for Airflow 3 only.
        tests = "tests/browser" if airflow.name != "2.11" else "tests/browser/test_connection_form.py"
        session.run("pytest", tests, *session.posargs)

    browser.__doc__ = f"Test the UI of Airflow {airflow.name} in a real browser."


# Airflow 2 takes the connection form from the hook, Airflow 3 from the provider's metadata.
for _airflow in MATRIX:
    if _airflow.name in ("2.11", "3.3"):
        _add_browser_session(_airflow)
