# SPDX-License-Identifier: Apache-2.0
"""Fixtures with the warehouses' stand-ins and their object stores, which ``make test-storage`` installs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# gcsfs would query the type of the bucket over gRPC, which the emulator does not support.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

import pytest

from tests.postgres import postgres_server
from tests.stores import Servers
from tests.warehouses.examples import BigQuery, Redshift, Warehouse


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with Servers() as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with postgres_server() as uri:
        yield uri


@pytest.fixture(params=["bigquery", "redshift"])
def warehouse(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Warehouse:
    if request.param == "bigquery":
        return BigQuery(servers.open("gs", tmp_path, monkeypatch))
    server = request.getfixturevalue("postgres")
    return Redshift(servers.open("s3", tmp_path, monkeypatch), server, monkeypatch)
