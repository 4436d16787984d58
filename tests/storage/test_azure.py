# SPDX-License-Identifier: Apache-2.0
"""What only Azure Blob Storage has, and adlfs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_chartmogul.exceptions import ObjectStorageError
from tests.integration.servers import Response
from tests.integration.transfers import serve_export, transfer
from tests.storage_cases import large_archive
from tests.stores import AzureBlobs, Servers


@pytest.fixture
def azure(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AzureBlobs:
    store = servers.open("abfs", tmp_path, monkeypatch)
    assert isinstance(store, AzureBlobs)
    return store


@pytest.fixture(params=["small", "large"])
def publish(request: pytest.FixtureRequest, archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Move an archive that goes up with one request, or in blocks."""
    content = archive if request.param == "small" else large_archive()

    def publish(destination: str, **told: Any) -> None:
        with serve_export(lambda request: Response(200, content), monkeypatch):
            transfer("e-1", destination, **told)

    return publish


def test_tags_and_tier_reach_the_store(publish: Callable[..., None], azure: AzureBlobs) -> None:
    from azure.storage.blob import StandardBlobTier

    options = {"tags": {"kind": "raw"}, "standard_blob_tier": StandardBlobTier.COOL}
    publish(f"{azure.base}/x.zip", upload_options=options)
    blob = azure.client.get_blob_client("x.zip")
    assert blob.get_blob_tags() == {"kind": "raw"}
    assert blob.get_blob_properties().blob_tier == "Cool"


def test_metadata_is_adlfs_s_own(publish: Callable[..., None], azure: AzureBlobs) -> None:
    with pytest.raises(ObjectStorageError, match="multiple values for keyword argument 'metadata'"):
        publish(f"{azure.base}/x.zip", upload_options={"metadata": {"team": "data"}})
    assert azure.list() == []


def test_a_wrong_key_is_told_in_the_store_s_words(
    publish: Callable[..., None], azure: AzureBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = azure.connection(azure.proxy.url, "AAAA" + azure.key[4:])
    monkeypatch.setenv("AIRFLOW_CONN_ANOTHER_KEY", json.dumps(another))
    with pytest.raises(ObjectStorageError) as raised:
        publish(f"abfs://another_key@{azure.bucket}/x.zip")
    assert str(raised.value).startswith(f"could not write {azure.plain}/x.zip (connection another_key): ")
    assert "Server failed to authenticate the request" in str(raised.value)
    assert azure.list() == []
