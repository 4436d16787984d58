# SPDX-License-Identifier: Apache-2.0
"""What only Google Cloud Storage has, and gcsfs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_chartmogul.exceptions import ObjectStorageError
from tests.integration.servers import Response
from tests.integration.transfers import serve_export, transfer
from tests.storage_cases import large_archive
from tests.stores import GoogleStorage, Servers


@pytest.fixture
def google(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GoogleStorage:
    store = servers.open("gs", tmp_path, monkeypatch)
    assert isinstance(store, GoogleStorage)
    return store


@pytest.fixture(params=["small", "large"])
def publish(request: pytest.FixtureRequest, archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Transfer an archive that is uploaded by one request, or in chunks."""
    content = archive if request.param == "small" else large_archive()

    def publish(destination: str, **parameters: Any) -> None:
        with serve_export(lambda request: Response(200, content), monkeypatch):
            transfer("e-1", destination, **parameters)

    return publish


def test_fixed_key_metadata_reaches_the_store(publish: Callable[..., None], google: GoogleStorage) -> None:
    publish(f"{google.base}/x.zip", upload_options={"fixed_key_metadata": {"content_disposition": "attachment"}})
    bodies = b"".join(request.body for request in google.proxy.requests if "upload_id=" not in request.path)
    assert b'"contentDisposition": "attachment"' in bodies


def test_chunk_size_is_one_that_google_accepts(google: GoogleStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_export(lambda request: Response(200, large_archive()), monkeypatch):
        transfer("e-1", f"{google.base}/x.zip")
    sizes = [len(request.body) for request in google.proxy.requests if google.is_part(request)]
    assert all(size == 8 << 20 for size in sizes[:-1])


def test_gcsfs_without_create_mode_is_not_relied_on(google: GoogleStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 2024.12, its ``put_file`` accepts ``mode="create"`` like any unknown option, and overwrites."""
    import gcsfs

    current = gcsfs.GCSFileSystem._put_file

    async def old_put_file(
        self: Any, lpath: str, rpath: str, metadata: Any = None, content_type: Any = None, chunksize: int = 0, **_: Any
    ) -> None:
        await current(self, lpath, rpath, metadata=metadata, content_type=content_type, chunksize=chunksize)

    monkeypatch.setattr(gcsfs.GCSFileSystem, "_put_file", old_put_file)

    def write_meanwhile(request: Any) -> Response:
        google.write("x.zip", b"the other's")
        return Response(200, large_archive())

    with serve_export(write_meanwhile, monkeypatch), pytest.raises(AirflowFailException, match="already exists"):
        transfer("e-1", f"{google.base}/x.zip", if_exists="fail")
    assert google.read("x.zip") == b"the other's"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "Anonymous caller does not have storage.objects.create access"),
        (400, "The specified location constraint is not valid."),
    ],
)
def test_refusal_is_reported_with_the_store_s_message(
    status: int, message: str, publish: Callable[..., None], google: GoogleStorage
) -> None:
    google.proxy.instead = lambda request: Response(
        status, b'{"error": {"code": %d, "message": "%s"}}' % (status, message.encode())
    )
    with pytest.raises(ObjectStorageError) as raised:
        publish(f"{google.base}/x.zip")
    assert str(raised.value).startswith(f"could not write {google.plain}/x.zip (connection lake): ")
    assert message in str(raised.value)
