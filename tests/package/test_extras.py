# SPDX-License-Identifier: Apache-2.0
"""Tests that pip resolves each extra in an empty environment, without constraints and without a long search."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from packaging.version import Version

from tests.package.conftest import ROOT, Built, run

#: An older pip, which tries the versions of conflicting packages in another order, and the newest.
PIPS = ("pip==24.0", "pip")

#: Each extra, and the packages that it adds to the package's own dependencies.
EXTRAS = {
    "amazon": {"apache-airflow-providers-amazon", "s3fs", "boto3"},
    "google": {"apache-airflow-providers-google", "gcsfs"},
    "microsoft-azure": {"apache-airflow-providers-microsoft-azure", "adlfs"},
    "parquet": {"pyarrow"},
    "duckdb": {"duckdb", "pyarrow"},
    "postgres": {"apache-airflow-providers-postgres", "pyarrow"},
    "snowflake": {"apache-airflow-providers-snowflake", "pyarrow"},
}

Resolution = dict[str, Version]


@pytest.fixture(scope="module")
def resolutions(
    built: Built, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, str], Future[Resolution]]]:
    """Resolve every extra with every pip, two at a time; a future raises when pip fails or searches too long."""
    folder = tmp_path_factory.mktemp("resolutions")

    def create_environment(pip: str) -> Path:
        venv = folder / pip
        run(sys.executable, "-m", "venv", str(venv), cwd=folder)
        python = venv / "bin" / "python"
        run(str(python), "-m", "pip", "install", "--quiet", "--upgrade", pip, cwd=folder)
        return python

    def resolve(python: Path, extra: str) -> Resolution:
        report = python.parent / f"{extra}.json"
        install = ("install", "--dry-run", "--quiet", "--report", str(report), f"{built.wheel}[{extra}]")
        # A search that walks back through hundreds of releases takes more than ten minutes.
        run(str(python), "-m", "pip", "--disable-pip-version-check", *install, cwd=folder, timeout=400)
        entries = (entry["metadata"] for entry in json.loads(report.read_text())["install"])
        return {entry["name"].lower().replace("_", "-"): Version(entry["version"]) for entry in entries}

    with ThreadPoolExecutor(2) as pool:
        pythons = dict(zip(PIPS, pool.map(create_environment, PIPS), strict=True))
        yield {(pip, extra): pool.submit(resolve, pythons[pip], extra) for pip in PIPS for extra in EXTRAS}


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("pip", PIPS)
def test_pip_resolves_extra_without_constraints(
    pip: str, extra: str, resolutions: dict[tuple[str, str], Future[Resolution]]
) -> None:
    resolved = resolutions[pip, extra].result()
    assert EXTRAS[extra] <= resolved.keys()
    # The resolver has not gone back to older versions of Airflow and its providers than the tests use.
    tested = dict(re.findall(r"^(apache-airflow[a-z-]*)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    older = {name: str(version) for name, version in resolved.items() if version < Version(tested.get(name, "0"))}
    assert older == {}
