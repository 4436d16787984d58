# SPDX-License-Identifier: Apache-2.0
"""
What all tests stand on: an Airflow home of their own, set up before Airflow is imported, and a sandbox.

Tests speak HTTP to the sandbox, or to small servers of their own, over real sockets. What is replaced is the
environment and, where a test would have to wait, the clock.
"""

from __future__ import annotations

import atexit
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
    # moto takes any; without some, the S3 client would look for the metadata service of a cloud machine.
    AWS_ACCESS_KEY_ID="testing",
    AWS_SECRET_ACCESS_KEY="testing",
    AWS_DEFAULT_REGION="us-east-1",
)

import pytest  # noqa: E402

pytest.register_assert_rewrite("tests.storage_cases")

from airflow_provider_chartmogul.sandbox import Sandbox  # noqa: E402


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """A migrated database, for what asks it."""
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"], check=True, stdout=subprocess.DEVNULL, timeout=300
    )


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A ChartMogul whose exports are done at once, and an Airflow connection to it."""
    with Sandbox(export_seconds=0) as running:
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", running.connection_uri)
        yield running


@pytest.fixture
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of retries, made to run faster."""
    monkeypatch.setattr(retries, "_MAX_BACKOFF_SECONDS", 0.05)


@pytest.fixture
def archive() -> bytes:
    """An archive that comes from elsewhere than the sandbox."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("activities.csv", "uuid,date\n" + "".join(f"{n},2024-01-01\n" for n in range(5000)))
    return buffer.getvalue()
