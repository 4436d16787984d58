# SPDX-License-Identifier: Apache-2.0
"""What only Azure Blob Storage has, and adlfs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_chartmogul.exceptions import ObjectStorageError
from airflow_provider_chartmogul.storage.file_systems import FileSystemObject
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
    """Transfer an archive that is uploaded by one request, or in blocks."""
    content = archive if request.param == "small" else large_archive()

    def publish(destination: str, **parameters: Any) -> None:
        with serve_export(lambda request: Response(200, content), monkeypatch):
            transfer("e-1", destination, **parameters)

    return publish


def test_tags_and_tier_reach_the_store(publish: Callable[..., None], azure: AzureBlobs) -> None:
    from azure.storage.blob import StandardBlobTier

    options = {"tags": {"kind": "raw"}, "standard_blob_tier": StandardBlobTier.COOL}
    publish(f"{azure.base}/x.zip", upload_options=options)
    blob = azure.client.get_blob_client("x.zip")
    assert blob.get_blob_tags() == {"kind": "raw"}
    assert blob.get_blob_properties().blob_tier == "Cool"


def test_metadata_option_is_refused_by_adlfs(publish: Callable[..., None], azure: AzureBlobs) -> None:
    with pytest.raises(ObjectStorageError, match="multiple values for keyword argument 'metadata'"):
        publish(f"{azure.base}/x.zip", upload_options={"metadata": {"team": "data"}})
    assert azure.list() == []


def test_environment_has_the_credentials_without_a_connection(
    publish: Callable[..., None], azure: AzureBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azure.connection_string(azure.proxy.url, azure.key))
    publish(f"{azure.plain}/x.zip")
    assert azure.list() == ["x.zip"]


def test_access_without_a_connection_is_not_anonymous(azure: AzureBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the default of adlfs is, which has changed."""
    monkeypatch.delenv("AZURE_STORAGE_ANON", raising=False)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", azure.account)
    stored = FileSystemObject("abfs", f"{azure.plain}/x.zip", None)
    stored.prepare()
    assert stored._fs.anon is False
    assert os.environ["AZURE_STORAGE_ANON"] == "false"


def test_wrong_key_is_reported_with_the_store_s_message(
    publish: Callable[..., None], azure: AzureBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = azure.connection(azure.proxy.url, "AAAA" + azure.key[4:])
    monkeypatch.setenv("AIRFLOW_CONN_ANOTHER_KEY", json.dumps(another))
    with pytest.raises(ObjectStorageError) as raised:
        publish(f"abfs://another_key@{azure.bucket}/x.zip")
    assert str(raised.value).startswith(f"could not write {azure.plain}/x.zip (connection another_key): ")
    assert "Server failed to authenticate the request" in str(raised.value)
    assert azure.list() == []
