# SPDX-License-Identifier: Apache-2.0
"""All stores. ``make test-storage`` installs what they need, but for Azurite, which the tests install."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# gcsfs would request the kind of a bucket by gRPC, which the emulator does not support.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

import pytest

from tests.stores import CLOUDS, Cloud, Servers, Store


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with Servers() as running:
        yield running


@pytest.fixture(params=["file", *CLOUDS])
def store(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    return servers.open(request.param, tmp_path, monkeypatch)


@pytest.fixture(params=list(CLOUDS))
def cloud(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    cloud = servers.open(request.param, tmp_path, monkeypatch)
    assert isinstance(cloud, Cloud)
    return cloud
