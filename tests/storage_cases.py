# SPDX-License-Identifier: Apache-2.0
"""
What is published, and what is not: test cases for every store.

``tests/integration/test_publishing.py`` runs them with a folder and S3, ``tests/storage/test_publishing.py`` with all
stores. The official providers' file systems reach the stores over sockets.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import random
import zipfile
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_chartmogul.exceptions import ChartMogulError, ObjectStorageError, SourceError
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.warehouse.source_objects import SourceObject, parse_source
from tests.integration.servers import RecordedRequest, Response
from tests.integration.transfers import END, START, create_export, csv_rows, serve_export, transfer
from tests.stores import Cloud, Folder, Store


@cache
def large_archive() -> bytes:
    """An archive of more than 20 MB whose content hardly compresses."""
    text = b64encode(random.Random(7).randbytes(21 << 20))
    buffer = io.BytesIO()
    rows = b"uuid\n" + b"\n".join(text[n : n + 90] for n in range(0, len(text), 90))
    with zipfile.ZipFile(buffer, "w") as opened:
        # Without the current time, since two threads may each create one at the same moment.
        opened.writestr(zipfile.ZipInfo("activities.csv"), rows, zipfile.ZIP_DEFLATED, compresslevel=1)
    assert len(buffer.getvalue()) > 20_000_000
    return buffer.getvalue()


class TestPublishing:
    def test_archive_is_published_unchanged(self, sandbox: Sandbox, store: Store) -> None:
        run = transfer(create_export(), f"{store.base}/a/{{interval_start:%Y-%m-%d}}.zip")

        assert store.list() == ["a/2024-01-01.zip"], "nothing else, no temporary names either"
        published = store.read("a/2024-01-01.zip")
        assert csv_rows(published) == sandbox.expected_rows(START, END)
        assert run.value == f"{store.plain}/a/2024-01-01.zip"
        metadata = dict(run.xcoms["object"])
        exported_at = datetime.fromisoformat(metadata.pop("exported_at"))
        assert abs(exported_at - sandbox.exports[0].created_at) < timedelta(seconds=1)
        assert metadata == {
            "uri": run.value,
            "bucket": "" if store.scheme == "file" else store.plain.removeprefix(f"{store.scheme}://"),
            "key": run.value.removeprefix("file://" if store.scheme == "file" else f"{store.plain}/"),
            "bytes": len(published),
            "sha256": hashlib.sha256(published).hexdigest(),
            "format": "zip",
            "rows": None,
            "columns": list(sandbox.expected_rows(START, END)[0]),
            "interval_start": "2024-01-01T00:00:00+00:00",
            "interval_end": "2024-01-03T00:00:00+00:00",
            "activity_type": None,
            "export_id": sandbox.exports[0].id,
            "chartmogul_conn_id": "chartmogul_default",
            "resource": "activities",
            "table": "activities",
            "query_params": None,
            "extracted_at": None,
            "modified_at": None,
            "start_date": None,
            "end_date": None,
            "column_types": None,
            "column_selection": None,
        }

    @pytest.mark.parametrize("trailing", [b"\n", bytes(100)])
    def test_trailing_bytes_are_published_too(
        self, trailing: bytes, archive: bytes, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every other tool opens such an archive."""
        with serve_export(lambda request: Response(200, archive + trailing), monkeypatch):
            transfer("e-1", f"{store.base}/x.zip")
            transfer("e-1", f"{store.base}/x.csv")
        assert store.read("x.zip") == archive + trailing
        assert store.read("x.csv").count(b"\n") == 5001

    def test_placeholders_are_filled_in(self, sandbox: Sandbox, store: Store) -> None:
        export_id = create_export(activity_type="churn")
        transfer(
            export_id,
            store.base
            + "/{chartmogul_conn_id}/{activity_type}/{interval_start:%Y%m%d}-{interval_end:%Y%m%d}/{export_id}.zip",
        )
        assert store.list() == [f"chartmogul_default/churn/20240101-20240103/{export_id}.zip"]

    def test_activity_type_of_all_types_is_all(self, sandbox: Sandbox, store: Store) -> None:
        transfer(create_export(), store.base + "/{activity_type}.zip")
        assert store.list() == ["all.zip"]

    def test_output_format_replaces_a_suffix(self, sandbox: Sandbox, store: Store) -> None:
        assert (
            transfer(create_export(), f"{store.base}/archive", output_format="zip").xcoms["object"]["format"] == "zip"
        )
        assert store.list() == ["archive"]

    def test_overwrite_replaces_the_object(self, sandbox: Sandbox, store: Store) -> None:
        store.write("x.zip", b"before")
        transfer(create_export(), f"{store.base}/x.zip")
        assert csv_rows(store.read("x.zip")) == sandbox.expected_rows(START, END)

    def test_reuse_keeps_the_object(self, sandbox: Sandbox, store: Store) -> None:
        store.write("x.zip", b"before")
        run = transfer(create_export(), f"{store.base}/x.zip", if_exists="reuse")
        assert store.read("x.zip") == b"before"
        assert run.xcoms["object"]["bytes"] == len(b"before")
        modified_at = datetime.fromisoformat(run.xcoms["object"]["modified_at"])
        assert abs(modified_at - datetime.now(UTC)) < timedelta(minutes=5)
        assert run.xcoms["object"]["exported_at"] is None, "the export that it holds is unknown"
        assert [seen for seen in sandbox.requests if seen.host == "download"] == []

    def test_skip_skips_the_task(self, sandbox: Sandbox, store: Store) -> None:
        store.write("x.zip", b"before")
        with pytest.raises(AirflowSkipException, match="already exists"):
            transfer(create_export(), f"{store.base}/x.zip", if_exists="skip")
        assert [seen for seen in sandbox.requests if seen.host == "download"] == []

    def test_fail_fails(self, sandbox: Sandbox, store: Store) -> None:
        store.write("x.zip", b"before")
        with pytest.raises(AirflowFailException, match=r"x\.zip already exists"):
            transfer(create_export(), f"{store.base}/x.zip", if_exists="fail")
        assert store.read("x.zip") == b"before"

    @pytest.mark.parametrize("if_exists", ["reuse", "skip", "fail"])
    def test_missing_object_is_published(self, if_exists: str, sandbox: Sandbox, store: Store) -> None:
        transfer(create_export(), f"{store.base}/x.zip", if_exists=if_exists)
        assert store.list() == ["x.zip"]

    def test_folder_of_that_name_is_not_an_object(self, sandbox: Sandbox, store: Store) -> None:
        if isinstance(store, Folder):
            (store.root / "x.zip").mkdir()
            with pytest.raises(ChartMogulError, match="could not write"):
                transfer(create_export(), f"{store.base}/x.zip", if_exists="reuse")
        else:
            store.write("x.zip/inside", b"")
            transfer(create_export(), f"{store.base}/x.zip", if_exists="skip")
            assert store.list() == ["x.zip", "x.zip/inside"]

    def test_connection_as_a_parameter(self, sandbox: Sandbox, store: Store) -> None:
        transfer(create_export(), f"{store.plain}/x.zip", object_storage_conn_id=store.conn_id)
        assert store.list() == ["x.zip"]

    def test_download_dir_is_left_empty(self, sandbox: Sandbox, store: Store, tmp_path: Path) -> None:
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        transfer(create_export(), f"{store.base}/x.zip", download_dir=str(temporary))
        assert list(temporary.iterdir()) == []

    def test_fail_keeps_an_object_written_during_the_download(
        self, archive: bytes, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two tasks that check at the same time both find nothing, and only one may publish."""

        def write_meanwhile(request: RecordedRequest) -> Response:
            store.write("x.zip", b"the other's")
            return Response(200, archive)

        with serve_export(write_meanwhile, monkeypatch), pytest.raises(AirflowFailException, match="already exists"):
            transfer("e-1", f"{store.base}/x.zip", if_exists="fail")
        assert store.read("x.zip") == b"the other's"
        assert store.list() == ["x.zip"]

    def test_large_archive_is_published(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        store.write("x.zip", b"before")
        with serve_export(lambda request: Response(200, large_archive()), monkeypatch):
            transfer("e-1", f"{store.base}/x.zip")
        assert store.list() == ["x.zip"]
        same = store.read("x.zip") == large_archive()
        assert same, "without the difference, which would have millions of lines"


@pytest.mark.usefixtures("short_backoff")
class TestMetadata:
    """What objects carry, so that they can be loaded when no XCom tells of them."""

    @pytest.mark.parametrize("suffix", [".zip", ".csv", ".csv.gz", ".parquet"])
    def test_export_carries_its_metadata(self, suffix: str, sandbox: Sandbox, store: Store) -> None:
        run = transfer(create_export(activity_type="churn"), f"{store.base}/a/x{suffix}")
        pushed = run.xcoms["object"]
        if store.scheme == "file" and suffix != ".parquet":
            with pytest.raises(SourceError, match="carries no metadata"):
                parse(f"{store.base}/a/x{suffix}")
            return
        (by_uri,), (by_prefix,), (by_xcom,) = map(parse, (f"{store.base}/a/x{suffix}", f"{store.base}/a/", pushed))
        assert by_uri == by_prefix
        assert by_uri.uri == pushed["uri"]
        carried = {key: value for key, value in pushed.items() if value is not None and key != "columns"}
        if store.scheme == "file":
            carried = {key: value for key, value in carried.items() if key not in ("bytes", "sha256", "rows")}
        assert by_uri.metadata == carried
        for name in ("as_of", "window", "activity_type", "export_id", "conn_id", "query_params", "format", "table"):
            assert getattr(by_uri, name) == getattr(by_xcom, name)

    def test_prefix_lists_the_objects_below_it(self, sandbox: Sandbox, store: Store) -> None:
        for name in ("b/2", "a/1", "ab/3"):
            transfer(create_export(), f"{store.base}/a/{name}.parquet")
        transfer(create_export(), f"{store.base}/another/4.parquet")
        assert {one.uri.removeprefix(store.plain) for one in parse(f"{store.base}/a/")} == {
            *("/a/b/2.parquet", "/a/a/1.parquet", "/a/ab/3.parquet")
        }
        assert [one.uri.removeprefix(store.plain) for one in parse(f"{store.base}/a/a/")] == ["/a/a/1.parquet"]
        assert len(parse(f"{store.base}/")) == 4
        assert parse(f"{store.base}/nothing/") == []

    def test_object_without_metadata_is_not_left_out_silently(
        self, sandbox: Sandbox, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        transfer(create_export(), f"{store.base}/a/x.parquet")
        store.write("a/_SUCCESS", b"")
        assert len(parse(f"{store.base}/a/")) == 1
        assert f"Left out 1 objects that no transfer has written, such as {store.plain}/a/_SUCCESS" in caplog.text
        store.write("a/foreign.csv", b"a,b\n1,2\n")
        with pytest.raises(SourceError, match=r"1 objects carry no metadata, such as .*foreign\.csv"):
            parse(f"{store.base}/a/")

    def test_copy_of_an_object_is_described_as_well(self, sandbox: Sandbox, store: Store) -> None:
        transfer(create_export(), f"{store.base}/a/x.parquet")
        store.write("a/y.parquet", store.read("a/x.parquet"))
        (copy,), (original,) = parse(f"{store.base}/a/y.parquet"), parse(f"{store.base}/a/x.parquet")
        assert copy.uri == f"{store.plain}/a/y.parquet"
        assert (copy.as_of, copy.window, copy.export_id) == (original.as_of, original.window, original.export_id)


def parse(source: object) -> list[SourceObject]:
    batches = parse_source(source, object_storage_conn_id=None, log=logging.getLogger("test"))
    return [one for batch in batches for one in batch.objects]


class TestNothingIsPublished:
    """Whatever is wrong with the download, the old object stays, and no temporary files are left."""

    @pytest.mark.usefixtures("short_backoff")
    @pytest.mark.parametrize(
        ("case", "damage", "message"),
        [
            ("not a zip", lambda a: Response(200, b"<html>Sorry</html>"), "not a sound zip archive"),
            ("empty", lambda a: Response(200, b""), "(0 bytes) is not a sound"),
            ("truncated by the server itself", lambda a: Response(200, a[: len(a) // 2]), "not a sound zip archive"),
            ("bad checksum", lambda a: Response(200, a[:60] + bytes([a[60] ^ 1]) + a[61:]), "not a sound zip archive"),
            ("fewer bytes than announced", lambda a: Response(200, a, truncate_at=len(a) // 2), "interrupted"),
            ("closed connection", lambda a: Response(hang_up=True), "interrupted"),
            ("failing server", lambda a: Response(503, b"<Error><Code>SlowDown</Code></Error>"), "SlowDown"),
            ("no such file", lambda a: Response(404, b"<Error><Code>NoSuchKey</Code></Error>"), "NoSuchKey"),
            ("denied", lambda a: Response(403, b"<Error><Code>AccessDenied</Code></Error>"), "AccessDenied"),
            (
                "redirect to a closed port",
                lambda a: Response(307, headers={"Location": "http://127.0.0.1:9/"}),
                "connection failed",
            ),
        ],
    )
    def test_failed_download_publishes_nothing(
        self,
        case: str,
        damage: Callable[[bytes], Response],
        message: str,
        archive: bytes,
        store: Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        store.write("x.zip", b"before")
        (tmp_path / "temporary").mkdir()
        with (
            serve_export(lambda request: damage(archive), monkeypatch),
            pytest.raises((ChartMogulError, AirflowFailException)) as raised,
        ):
            transfer("e-1", f"{store.base}/x.zip", download_dir=str(tmp_path / "temporary"))
        assert message in str(raised.value)
        assert store.list() == ["x.zip"]
        assert store.read("x.zip") == b"before"
        assert list((tmp_path / "temporary").iterdir()) == []
        assert "verysecretsignature" not in caplog.text + _whole_chain(raised.value)


class TestObjectStores:
    """What a local folder does not have."""

    def test_content_type_of_zip(self, sandbox: Sandbox, cloud: Cloud) -> None:
        transfer(create_export(), f"{cloud.base}/x.zip")
        assert cloud.describe("x.zip").content_type == "application/zip"

    def test_content_type_of_csv_gz(self, sandbox: Sandbox, cloud: Cloud) -> None:
        """A gzip file, not a CSV with an encoding, which clients would decompress."""
        transfer(create_export(), f"{cloud.base}/x.csv.gz")
        stored = cloud.describe("x.csv.gz")
        assert (stored.content_type, stored.content_encoding) == ("application/gzip", None)
        assert cloud.read("x.csv.gz")[:2] == b"\x1f\x8b"

    def test_large_archive_is_uploaded_in_parts(self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve_export(lambda request: Response(200, large_archive()), monkeypatch):
            transfer("e-1", f"{cloud.base}/x.csv.gz")
        parts = [request for request in cloud.proxy.requests if cloud.is_part(request)]
        assert len(parts) >= 3
        assert max(len(request.body) for request in parts) <= (8 << 20) + 1000
        assert cloud.describe("x.csv.gz").content_type == "application/gzip"
        assert cloud.open_uploads() == []

    @pytest.mark.parametrize("large", [False, True])
    def test_upload_options_reach_the_store(
        self, large: bool, archive: bytes, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serve_export(lambda request: Response(200, large_archive() if large else archive), monkeypatch):
            transfer("e-1", f"{cloud.base}/x.zip", upload_options=cloud.options)
        stored = cloud.describe("x.zip")
        assert json.loads(stored.metadata["chartmogul"])["export_id"] == "e-1"
        assert ({**stored.metadata, "chartmogul": ""}, stored.content_type) == (
            {"team": "data", "chartmogul": ""},
            "application/x-zip",
        )

    @pytest.mark.parametrize("large", [False, True])
    def test_overwrite_needs_write_permission_only(
        self, large: bool, archive: bytes, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serve_export(lambda request: Response(200, large_archive() if large else archive), monkeypatch):
            transfer("e-1", f"{cloud.base}/x.zip")
        assert {request.method for request in cloud.proxy.requests} <= {"PUT", "POST"}
        assert all("/x.zip" in request.path or "/upload/" in request.path for request in cloud.proxy.requests), (
            "for no other object"
        )

    @pytest.mark.parametrize("large", [False, True])
    def test_fail_keeps_an_object_written_during_the_upload(
        self, large: bool, archive: bytes, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def write_meanwhile(request: RecordedRequest) -> None:
            if request.method in ("PUT", "POST") and cloud.list() == []:
                cloud.write("x.zip", b"the other's")

        cloud.proxy.instead = write_meanwhile
        with (
            serve_export(lambda request: Response(200, large_archive() if large else archive), monkeypatch),
            pytest.raises(AirflowFailException, match=r"x\.zip already exists"),
        ):
            transfer("e-1", f"{cloud.base}/x.zip", if_exists="fail")
        assert cloud.read("x.zip") == b"the other's"
        assert cloud.list() == ["x.zip"]
        assert cloud.open_uploads() == []

    def test_file_system_is_opened_when_it_is_needed(
        self, archive: bytes, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its credentials may have expired since the destination was checked, such as Google's after an hour."""

        def change_connection(request: RecordedRequest) -> Response:
            monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(cloud.connection(proxy.url)))
            return Response(200, archive)

        with type(cloud.proxy)() as proxy, serve_export(change_connection, monkeypatch):
            proxy.upstream = cloud.proxy.upstream
            transfer("e-1", f"{cloud.base}/x.zip", if_exists="fail")
            assert {request.method for request in cloud.proxy.requests} <= {"GET", "HEAD"}
            assert {request.method for request in proxy.requests} & {"PUT", "POST"}
        assert cloud.list() == ["x.zip"]

    @pytest.mark.parametrize("large", [False, True])
    def test_missing_bucket_is_named(
        self, large: bool, archive: bytes, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        destination = f"{cloud.scheme}://lake@no-such-bucket/x.zip"
        with (
            serve_export(lambda request: Response(200, large_archive() if large else archive), monkeypatch),
            pytest.raises(ObjectStorageError) as raised,
        ):
            transfer("e-1", destination)
        message = str(raised.value)
        assert message.startswith(f"could not write {cloud.scheme}://no-such-bucket/x.zip (connection lake): ")
        assert cloud.no_bucket in message

    @pytest.mark.parametrize("large", [False, True])
    def test_missing_permission_is_reported_with_the_store_s_message(
        self, large: bool, archive: bytes, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cloud.proxy.instead = lambda request: cloud.forbidden
        with (
            serve_export(lambda request: Response(200, large_archive() if large else archive), monkeypatch),
            pytest.raises(ObjectStorageError) as raised,
        ):
            transfer("e-1", f"{cloud.base}/x.zip")
        message = str(raised.value)
        assert message.startswith(f"could not write {cloud.plain}/x.zip (connection lake): ")
        assert cloud.forbidden_words in message

    @pytest.mark.parametrize("if_exists", ["reuse", "skip", "fail"])
    def test_missing_read_permission_is_not_a_missing_object(
        self, if_exists: str, sandbox: Sandbox, cloud: Cloud
    ) -> None:
        """Otherwise the object would be overwritten."""
        cloud.write("x.zip", b"before")
        cloud.proxy.instead = lambda request: cloud.forbidden if request.method in ("HEAD", "GET") else None
        with pytest.raises(ObjectStorageError, match=rf"could not check {cloud.plain}/x\.zip"):
            transfer(create_export(), f"{cloud.base}/x.zip", if_exists=if_exists)
        assert cloud.read("x.zip") == b"before"

    def test_failed_upload_leaves_the_old_object_and_nothing_open(
        self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cloud.write("x.zip", b"before")
        parts: list[RecordedRequest] = []

        def refuse_the_second_part(request: RecordedRequest) -> Response | None:
            if cloud.is_part(request):
                parts.append(request)
            return cloud.forbidden if cloud.is_part(request) and len(parts) > 1 else None

        cloud.proxy.instead = refuse_the_second_part
        with (
            serve_export(lambda request: Response(200, large_archive()), monkeypatch),
            pytest.raises(ObjectStorageError, match=rf"could not write {cloud.plain}/x\.zip"),
        ):
            transfer("e-1", f"{cloud.base}/x.zip")
        assert len(parts) >= 2
        assert cloud.list() == ["x.zip"]
        assert cloud.read("x.zip") == b"before"
        assert cloud.open_uploads() == []


def _whole_chain(error: BaseException | None) -> str:
    """Return every exception that a traceback could show, including suppressed ones."""
    texts = []
    while error is not None:
        texts.append(f"{error!r} {error}")
        error = error.__cause__ or error.__context__
    return "\n".join(texts)
