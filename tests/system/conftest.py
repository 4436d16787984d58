# SPDX-License-Identifier: Apache-2.0
"""What the system tests share. The sandbox's request log is silenced, so that they print only their own progress."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import airflow_provider_chartmogul.sandbox  # noqa: F401 - loads Airflow, which configures logging
from tests.postgres import postgres_server

logging.getLogger("airflow_provider_chartmogul.sandbox").setLevel(logging.WARNING)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that objects are published to."""
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URI of a PostgreSQL for Airflow's metadata."""
    with postgres_server() as uri:
        yield uri
