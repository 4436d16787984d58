# SPDX-License-Identifier: Apache-2.0
"""
What the storage's response means for a download, and where a signed URL must not show up.

Interruptions have tests of their own, in ``test_interruptions.py``.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import redact

from airflow_provider_chartmogul.exceptions import (
    ArchiveError,
    DownloadError,
    DownloadRefusedError,
    RefusalReason,
)
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.storage.download import MAX_INTERRUPTIONS, download
from tests.integration.servers import RecordedRequest, Response, ScriptedServer
from tests.integration.transfers import create_export, serve_export, transfer
from tests.unit.values import run_python

LOG = logging.getLogger(__name__)
SIGNATURE = "verysecretsignature"
CONTENT = b"PK the content of the file" * 40


def error(status: int, code: str, message: str = "") -> Response:
    return Response(status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode())


#: Responses of S3, Google Cloud Storage, Azure and proxies to a URL that they do not serve.
REFUSALS = {
    "expired": (error(403, "AccessDenied", "Request has expired"), RefusalReason.EXPIRED),
    "signer's token expired": (
        error(400, "ExpiredToken", "The provided token has expired."),
        RefusalReason.EXPIRED,
    ),
    "token to be refreshed": (error(400, "TokenRefreshRequired"), RefusalReason.EXPIRED),
    "denied": (error(403, "AccessDenied", "Access Denied"), RefusalReason.FORBIDDEN),
    "denied by a proxy": (Response(403, b"<html>Blocked by policy</html>"), RefusalReason.FORBIDDEN),
    "unauthorized": (error(401, "AccessDenied"), RefusalReason.FORBIDDEN),
    "no such file": (error(404, "NoSuchKey", "The specified key does not exist."), RefusalReason.MISSING),
    "no such bucket": (error(404, "NoSuchBucket"), RefusalReason.MISSING),
    "gone": (Response(410), RefusalReason.MISSING),
}


class Storage:
    """A storage whose URLs have a new signature each time."""

    def __init__(self, *responses: Response | Callable[[RecordedRequest], Response]) -> None:
        self.server = ScriptedServer(*responses)
        self.urls: list[str] = []

    def get_url(self) -> str:
        self.urls.append(f"{self.server.url}/file.zip?X-Amz-Signature={SIGNATURE}{len(self.urls)}")
        return self.urls[-1]

    def fetch(self, path: Path, *, plain_http_allowed: bool = True) -> int:
        with self.server:
            return download(self.get_url, path, timeout=10, plain_http_allowed=plain_http_allowed, log=LOG)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.zip"


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_url_is_replaced_by_a_fresh_one(case: str, path: Path) -> None:
    storage = Storage(REFUSALS[case][0], Response(200, CONTENT))
    assert storage.fetch(path) == len(CONTENT)
    assert path.read_bytes() == CONTENT
    assert len(storage.urls) == 2
    assert [request.path[-1] for request in storage.server.requests] == ["0", "1"]


@pytest.mark.parametrize("case", REFUSALS)
def test_second_refusal_is_an_error_with_its_reason(case: str, path: Path) -> None:
    response, reason = REFUSALS[case]
    storage = Storage(response)
    with pytest.raises(DownloadRefusedError) as raised:
        storage.fetch(path)
    assert raised.value.reason is reason
    assert str(response.status) in str(raised.value)
    assert len(storage.urls) == 2
    assert SIGNATURE not in str(raised.value)


def test_forbidden_download_names_host_and_policies(path: Path) -> None:
    with pytest.raises(DownloadRefusedError) as raised:
        Storage(REFUSALS["denied"][0]).fetch(path)
    assert "127.0.0.1 denies the request: a firewall, a proxy, or an endpoint or bucket policy" in str(raised.value)


@pytest.mark.usefixtures("short_backoff")
@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_transient_status_is_retried(status: int, path: Path) -> None:
    storage = Storage(error(status, "RequestTimeout"), error(status, "RequestTimeout"), Response(200, CONTENT))
    storage.fetch(path)
    assert path.read_bytes() == CONTENT
    assert len(storage.urls) == 1


@pytest.mark.parametrize("status", [301, 400, 405, 418])
def test_other_status_fails_at_once(status: int, path: Path) -> None:
    storage = Storage(error(status, "InvalidArgument", "Only one auth mechanism allowed"))
    with pytest.raises(DownloadError, match=f"{status} InvalidArgument: Only one auth mechanism allowed") as raised:
        storage.fetch(path)
    assert not isinstance(raised.value, DownloadRefusedError)
    assert len(storage.server.requests) == 1


def test_error_with_an_undecodable_body_is_read(path: Path) -> None:
    response = Response(403, b"not gzip", {"Content-Encoding": "gzip"})
    with pytest.raises(DownloadRefusedError, match="403"):
        Storage(response).fetch(path)


class TestRedirects:
    @pytest.mark.usefixtures("short_backoff")
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirect_to_another_host_is_followed(
        self, status: int, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        cuts = iter([10, None])

        def serve_part(request: RecordedRequest) -> Response:
            start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            headers = {"ETag": '"1"', "Content-Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"}
            return Response(206 if start else 200, CONTENT[start:], headers, truncate_at=next(cuts))

        with ScriptedServer(serve_part) as other:
            # Another host by its name, which is the same machine.
            location = (
                f"{other.url.replace('127.0.0.1', 'localhost')}/redirected.zip?X-Amz-Signature={SIGNATURE}-second"
            )
            Storage(Response(status, headers={"Location": location})).fetch(path)
            assert [request.headers.get("range") for request in other.requests] == [None, "bytes=10-"]
            assert all("authorization" not in request.headers for request in other.requests)
        assert path.read_bytes() == CONTENT
        assert "/redirected.zip" in caplog.text, "urllib3 logs the request, or this test would prove nothing"
        assert SIGNATURE not in caplog.text + repr([vars(record) for record in caplog.records])

    @pytest.mark.parametrize("location", ["http://127.0.0.1:1/x?a=1", "ftp://h/x", "http://[::/x", "//:x/"])
    def test_redirect_to_another_scheme_is_not_followed(
        self, location: str, path: Path, monkeypatch: pytest.MonkeyPatch, tls: Any, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "tls.pem"))
        with ScriptedServer(Response(307, headers={"Location": f"{location}{SIGNATURE}"}), tls=tls) as server:
            with pytest.raises(DownloadError, match="the storage redirects, and the file URL") as raised:
                download(lambda: f"{server.url}/f", path, timeout=10, plain_http_allowed=False, log=LOG)
            assert len(server.requests) == 1
        assert SIGNATURE not in str(raised.value)

    @pytest.mark.usefixtures("short_backoff")
    def test_redirect_in_circles_ends(self, path: Path) -> None:
        with pytest.raises(DownloadError, match=f"interrupted {MAX_INTERRUPTIONS} times in a row.*too many redirects"):
            Storage(Response(307, headers={"Location": "/file.zip"})).fetch(path)

    @pytest.mark.usefixtures("short_backoff")
    def test_refusal_after_a_redirect_does_not_show_the_second_url(self, path: Path) -> None:
        with ScriptedServer(error(403, "AccessDenied", f"{SIGNATURE}-second is wrong")) as other:
            location = f"{other.url}/f?X-Amz-Signature={SIGNATURE}-second"
            with pytest.raises(DownloadRefusedError) as raised:
                Storage(Response(307, headers={"Location": location})).fetch(path)
        assert SIGNATURE not in str(raised.value)


class TestContentEncoding:
    @pytest.mark.usefixtures("short_backoff")
    @pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
    def test_gzipped_body_is_decoded(self, encoding: str, path: Path) -> None:
        """Resumed in the middle, as the range counts the bytes that are sent."""
        body = gzip.compress(CONTENT)
        headers = {"Content-Encoding": encoding, "ETag": '"1"'}
        part = {**headers, "Content-Range": f"bytes 20-{len(body) - 1}/{len(body)}"}
        storage = Storage(Response(200, body, headers, truncate_at=20), Response(206, body[20:], part))
        assert storage.fetch(path) == len(CONTENT)
        assert path.read_bytes() == CONTENT
        assert list(path.parent.iterdir()) == [path]

    @pytest.mark.parametrize("encoding", ["gzip", "aws-chunked", "deflate", "identity", "utf-8"])
    def test_plain_body_is_taken_as_it_is(self, encoding: str, path: Path) -> None:
        """Some programs upload files with a header that is not about the file."""
        Storage(Response(200, CONTENT, {"Content-Encoding": encoding})).fetch(path)
        assert path.read_bytes() == CONTENT

    @pytest.mark.usefixtures("short_backoff")
    def test_part_in_another_encoding_starts_over(self, path: Path) -> None:
        body = gzip.compress(CONTENT)
        storage = Storage(
            Response(200, body, {"Content-Encoding": "gzip", "ETag": '"1"'}, truncate_at=20),
            Response(
                206, CONTENT[20:], {"ETag": '"1"', "Content-Range": f"bytes 20-{len(CONTENT) - 1}/{len(CONTENT)}"}
            ),
            Response(200, CONTENT, {"ETag": '"1"'}),
        )
        storage.fetch(path)
        assert path.read_bytes() == CONTENT

    def test_damaged_gzip_is_an_error(self, path: Path) -> None:
        body = gzip.compress(CONTENT)[:-9]
        with pytest.raises(DownloadError, match="not sound gzip"):
            Storage(Response(200, body, {"Content-Encoding": "gzip"})).fetch(path)


OTHER_ETAG = {"ETag": f'"{hashlib.md5(b"something else").hexdigest()}"'}


class TestETag:
    def test_etag_that_is_not_the_md5_is_a_warning(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        Storage(Response(200, CONTENT, OTHER_ETAG)).fetch(path)
        assert path.read_bytes() == CONTENT
        (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert f"The {len(CONTENT)} bytes that were downloaded do not have the MD5" in record.getMessage()

    @pytest.mark.parametrize(
        "headers",
        [
            {"ETag": f'"{hashlib.md5(CONTENT).hexdigest()}"'},
            {**OTHER_ETAG, "x-amz-server-side-encryption": "aws:kms"},
            {**OTHER_ETAG, "x-amz-server-side-encryption-customer-algorithm": "AES256"},
            {"ETag": f'"{hashlib.md5(b"part").hexdigest()}-2"'},
            {},
        ],
    )
    def test_other_etags_are_no_warning(
        self, headers: dict[str, str], path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        Storage(Response(200, CONTENT, headers)).fetch(path)
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

    @pytest.mark.parametrize("output_format", ["zip", "csv", "csv.gz", "parquet"])
    def test_flipped_bit_is_still_found(
        self, output_format: str, archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def respond_with(content: bytes) -> Callable[[RecordedRequest], Response]:
            return lambda request: Response(200, content, OTHER_ETAG)

        flipped = archive[:200] + bytes([archive[200] ^ 4]) + archive[201:]
        with serve_export(respond_with(flipped), monkeypatch), pytest.raises(ArchiveError):
            transfer("e-1", f"file://{tmp_path}/x.{output_format}")
        assert list(tmp_path.iterdir()) == []
        with serve_export(respond_with(archive), monkeypatch):
            transfer("e-1", f"file://{tmp_path}/x.{output_format}")
        assert [file.name for file in tmp_path.iterdir()] == [f"x.{output_format}"]


class TestSignedUrlStaysSecret:
    def test_it_is_not_registered_with_airflows_masking(self, sandbox: Sandbox, tmp_path: Path) -> None:
        """At DEBUG, ``dag.test()`` logs every value that it is asked to mask."""
        export_id = create_export()
        transfer(export_id, f"file://{tmp_path}/x.zip")
        file_url = ChartMogulHook().get_activities_export(export_id).file_url
        assert file_url is not None
        assert "X-Amz-Signature=" in file_url
        assert redact(file_url) == file_url
        signature = file_url.rpartition("X-Amz-Signature=")[2]
        assert redact(signature) == signature

    def test_sentry_records_neither_span_nor_breadcrumb(self) -> None:
        """In a process of its own, since Sentry stays in a process that it has instrumented."""
        sent = run_python(SENTRY, SIGNATURE=SIGNATURE)
        assert "before the download" in sent
        assert "seen-by-sentry" in sent, "requests are recorded, or this test would prove nothing"
        assert SIGNATURE not in sent

    def test_opentelemetry_is_suppressed_during_requests(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A stand-in for opentelemetry-instrumentation, which fits no pinned version of its API here."""
        state: list[bool] = []

        @contextmanager
        def suppress_instrumentation() -> Iterator[None]:
            state.append(True)
            yield
            state.pop()

        utils = types.ModuleType("opentelemetry.instrumentation.utils")
        utils.suppress_instrumentation = suppress_instrumentation  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, utils.__name__, utils)
        seen: list[list[bool]] = []

        def respond(request: RecordedRequest) -> Response:
            seen.append(list(state))
            return Response(200, CONTENT) if len(seen) > 1 else error(403, "AccessDenied")

        Storage(respond).fetch(path)
        assert seen == [[True], [True]]
        assert state == []


SENTRY = """
import logging, os, tempfile
from pathlib import Path
import requests, sentry_sdk
from airflow_provider_chartmogul.storage.download import download
from tests.integration.servers import Response, ScriptedServer

events = []

class Transport(sentry_sdk.transport.Transport):
    def capture_envelope(self, envelope):
        events.append(envelope.serialize().decode())

sentry_sdk.init(dsn="http://key@127.0.0.1:1/1", traces_sample_rate=1.0, transport=Transport)
with ScriptedServer(Response(200, b"content")) as server, tempfile.TemporaryDirectory() as folder:
    url = f"{server.url}/file.zip?X-Amz-Signature={os.environ['SIGNATURE']}"
    with sentry_sdk.start_transaction(name="task"):
        sentry_sdk.add_breadcrumb(message="before the download")
        download(
            lambda: url, Path(folder, "x"), timeout=10, plain_http_allowed=True, log=logging.getLogger("test")
        )
        requests.get(f"{server.url}/seen-by-sentry")
        sentry_sdk.capture_message("after the download")
sentry_sdk.get_client().close()
print(*events)
"""


def test_gzipped_archive_arrives_through_the_operator(
    archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = Response(200, gzip.compress(archive), {"Content-Encoding": "gzip"})
    with serve_export(lambda request: response, monkeypatch):
        ran = transfer("e-1", f"file://{tmp_path}/x.zip")
    assert (tmp_path / "x.zip").read_bytes() == archive
    assert ran.xcoms["object"]["sha256"] == hashlib.sha256(archive).hexdigest()
    assert zipfile.ZipFile(io.BytesIO((tmp_path / "x.zip").read_bytes())).testzip() is None
