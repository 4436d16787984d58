# SPDX-License-Identifier: Apache-2.0
"""
Fixtures of all tests: an Airflow home, set up before Airflow is imported, and a sandbox.

Tests send HTTP requests to the sandbox, or to small servers of their own, over real sockets. They patch the environment
and, where a test would have to wait, the clock.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from airflow_provider_chartmogul.api import retries

AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="airflow-home-"))
(AIRFLOW_HOME / "dags").mkdir()
atexit.register(shutil.rmtree, AIRFLOW_HOME, ignore_errors=True)

for _name in [name for name in os.environ if name.startswith(("AIRFLOW", "CHARTMOGUL", "AWS_"))]:
    del os.environ[_name]
os.environ.update(
    AIRFLOW_HOME=str(AIRFLOW_HOME),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__DAGS_FOLDER=str(AIRFLOW_HOME / "dags"),
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{AIRFLOW_HOME}/airflow.db",
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED="False",
    # moto accepts any; without credentials the S3 client would call the metadata service of a cloud machine.
    AWS_ACCESS_KEY_ID="testing",
    AWS_SECRET_ACCESS_KEY="testing",
    AWS_DEFAULT_REGION="us-east-1",
)

import pytest  # noqa: E402

pytest.register_assert_rewrite("tests.storage_cases")

from airflow_provider_chartmogul.sandbox import Sandbox  # noqa: E402


def pytest_collection_finish() -> None:
    """Spare the garbage collector the half million objects of Airflow and the tests; it took a sixth of the time."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let Python collect at its end what extension modules would otherwise report as leaked."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Migrate Airflow's database, for tests that query it."""
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"], check=True, stdout=subprocess.DEVNULL, timeout=300
    )


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A sandbox whose exports succeed at once, and an Airflow connection to it."""
    with Sandbox(export_seconds=0) as running:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", running.connection_uri)
        yield running


@pytest.fixture
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit the delay before a retry to a twentieth of a second."""
    monkeypatch.setattr(retries, "_MAX_BACKOFF_SECONDS", 0.05)


@pytest.fixture
def archive() -> bytes:
    """An archive with 5000 rows."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("activities.csv", "uuid,date\n" + "".join(f"{n},2024-01-01\n" for n in range(5000)))
    return buffer.getvalue()
