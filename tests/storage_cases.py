# SPDX-License-Identifier: Apache-2.0
"""
What is published and what never is: one table of cases, for every store.

``tests/integration/test_publishing.py`` runs it with a folder and S3, ``tests/storage/test_publishing.py`` with all.
The stores are spoken to over sockets, by the official providers' file systems.
"""

from __future__ import annotations

import hashlib
import io
import logging
import random
import zipfile
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_chartmogul.exceptions import ChartMogulError, ObjectStorageError
from airflow_provider_chartmogul.sandbox import Sandbox
from tests.integration.servers import RecordedRequest, Response
from tests.integration.transfers import END, START, create_export, csv_rows, serve_export, transfer
from tests.stores import Cloud, Folder, Store


@cache
def large_archive() -> bytes:
    """More than 20 MB that no compression makes smaller."""
    text = b64encode(random.Random(7).randbytes(21 << 20))
    buffer = io.BytesIO()
    rows = b"uuid\n" + b"\n".join(text[n : n + 90] for n in range(0, len(text), 90))
    with zipfile.ZipFile(buffer, "w") as opened:
        # Without the time of the day: of two threads that ask at the same moment, each makes one.
        opened.writestr(zipfile.ZipInfo("activities.csv"), rows, zipfile.ZIP_DEFLATED, compresslevel=1)
    assert len(buffer.getvalue()) > 20_000_000
    return buffer.getvalue()


class TestPublishing:
    def test_the_archive_arrives_as_it_is(self, sandbox: Sandbox, store: Store) -> None:
        ran = transfer(create_export(), f"{store.base}/a/{{interval_start:%Y-%m-%d}}.zip")

        assert store.list() == ["a/2024-01-01.zip"], "and nothing else, no temporary names either"
        published = store.read("a/2024-01-01.zip")
        assert csv_rows(published) == sandbox.expected_rows(START, END)
        assert ran.value == f"{store.plain}/a/2024-01-01.zip"
        facts = dict(ran.xcoms["object"])
        exported_at = datetime.fromisoformat(facts.pop("exported_at"))
        assert abs(exported_at - sandbox.exports[0].created_at) < timedelta(seconds=1)
        assert facts == {
            "uri": ran.value,
            "bucket": "" if store.scheme == "file" else store.plain.removeprefix(f"{store.scheme}://"),
            "key": ran.value.removeprefix("file://" if store.scheme == "file" else f"{store.plain}/"),
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
        }

    def test_every_placeholder_is_filled_in(self, sandbox: Sandbox, store: Store) -> None:
        export_id = create_export(activity_type="churn")
        transfer(
            export_id,
            store.base
            + "/{chartmogul_conn_id}/{activity_type}/{interval_start:%Y%m%d}-{interval_end:%Y%m%d}/{export_id}.zip",
        )
        assert store.list() == [f"chartmogul_default/churn/20240101-20240103/{export_id}.zip"]

    def test_an_export_of_all_types_is_called_so(self, sandbox: Sandbox, store: Store) -> None:
        transfer(create_export(), store.base + "/{activity_type}.zip")
        assert store.list() == ["all.zip"]

    def test_output_format_says_it_where_the_suffix_does_not(self, sandbox: Sandbox, store: Store) -> None:
        assert (
            transfer(create_export(), f"{store.base}/archive", output_format="zip").xcoms["object"]["format"] == "zip"
        )
        assert store.list() == ["archive"]

    def test_overwrite(self, sandbox: Sandbox, store: Store) -> None:
        store.write("x.zip", b"before")
        transfer(create_export(), f"{store.base}/x.zip")
        assert csv_rows(store.read("x.zip")) == sandbox.expected_rows(START, END)

    def test_reuse_takes_what_is_there(self, sandbox: Sandbox, store: Store) -> None:
        store.write("x.zip", b"before")
        ran = transfer(create_export(), f"{store.base}/x.zip", if_exists="reuse")
        assert store.read("x.zip") == b"before"
        assert ran.xcoms["object"]["bytes"] == len(b"before")
        assert ran.xcoms["object"]["exported_at"] is None, "it is of an export that nobody knows"
        assert [seen for seen in sandbox.requests if seen.host == "download"] == []

    def test_skip(self, sandbox: Sandbox, store: Store) -> None:
        store.write("x.zip", b"before")
        with pytest.raises(AirflowSkipException, match="already exists"):
            transfer(create_export(), f"{store.base}/x.zip", if_exists="skip")
        assert [seen for seen in sandbox.requests if seen.host == "download"] == []

    def test_fail(self, sandbox: Sandbox, store: Store) -> None:
        store.write("x.zip", b"before")
        with pytest.raises(AirflowFailException, match=r"x\.zip already exists"):
            transfer(create_export(), f"{store.base}/x.zip", if_exists="fail")
        assert store.read("x.zip") == b"before"

    @pytest.mark.parametrize("if_exists", ["reuse", "skip", "fail"])
    def test_where_there_is_nothing_it_is_published(self, if_exists: str, sandbox: Sandbox, store: Store) -> None:
        transfer(create_export(), f"{store.base}/x.zip", if_exists=if_exists)
        assert store.list() == ["x.zip"]

    def test_a_folder_of_that_name_is_no_object(self, sandbox: Sandbox, store: Store) -> None:
        if isinstance(store, Folder):
            (store.root / "x.zip").mkdir()
            with pytest.raises(ChartMogulError, match="could not write"):
                transfer(create_export(), f"{store.base}/x.zip", if_exists="reuse")
        else:
            store.write("x.zip/inside", b"")
            transfer(create_export(), f"{store.base}/x.zip", if_exists="skip")
            assert store.list() == ["x.zip", "x.zip/inside"]

    def test_the_connection_as_a_parameter(self, sandbox: Sandbox, store: Store) -> None:
        transfer(create_export(), f"{store.plain}/x.zip", object_storage_conn_id=store.conn_id)
        assert store.list() == ["x.zip"]

    def test_the_download_dir_is_used_and_left_empty(self, sandbox: Sandbox, store: Store, tmp_path: Path) -> None:
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        transfer(create_export(), f"{store.base}/x.zip", download_dir=str(scratch))
        assert list(scratch.iterdir()) == []

    def test_what_another_put_there_in_between_is_not_overwritten_with_fail(
        self, archive: bytes, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two tasks that look at the same time both see nothing there; only one may win."""

        def be_overtaken(request: RecordedRequest) -> Response:
            store.write("x.zip", b"the other's")
            return Response(200, archive)

        with serve_export(be_overtaken, monkeypatch), pytest.raises(AirflowFailException, match="already exists"):
            transfer("e-1", f"{store.base}/x.zip", if_exists="fail")
        assert store.read("x.zip") == b"the other's"
        assert store.list() == ["x.zip"]

    def test_a_large_one(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        store.write("x.zip", b"before")
        with serve_export(lambda request: Response(200, large_archive()), monkeypatch):
            transfer("e-1", f"{store.base}/x.zip")
        assert store.list() == ["x.zip"]
        same = store.read("x.zip") == large_archive()
        assert same, "their difference would fill millions of lines"


@pytest.mark.usefixtures("short_backoff")
class TestNothingIsPublished:
    """Whatever is wrong with what came: the old object stays, and nothing is left over."""

    @pytest.mark.parametrize(
        ("what", "damage", "says"),
        [
            ("no zip", lambda a: Response(200, b"<html>Sorry</html>"), "not a sound zip archive"),
            ("nothing", lambda a: Response(200, b""), "(0 bytes) is not a sound"),
            ("cut short by the server itself", lambda a: Response(200, a[: len(a) // 2]), "not a sound zip archive"),
            ("bad checksum", lambda a: Response(200, a[:60] + bytes([a[60] ^ 1]) + a[61:]), "not a sound zip archive"),
            ("fewer bytes than announced", lambda a: Response(200, a, truncate_at=len(a) // 2), "interrupted"),
            ("closed connection", lambda a: Response(hang_up=True), "interrupted"),
            ("a server that fails", lambda a: Response(503, b"<Error><Code>SlowDown</Code></Error>"), "SlowDown"),
            ("no such file", lambda a: Response(404, b"<Error><Code>NoSuchKey</Code></Error>"), "NoSuchKey"),
            ("denied", lambda a: Response(403, b"<Error><Code>AccessDenied</Code></Error>"), "AccessDenied"),
            (
                "redirect to a closed port",
                lambda a: Response(307, headers={"Location": "http://127.0.0.1:9/"}),
                "connection failed",
            ),
        ],
    )
    def test_when_it_is_damaged(
        self,
        what: str,
        damage: Callable[[bytes], Response],
        says: str,
        archive: bytes,
        store: Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        store.write("x.zip", b"before")
        (tmp_path / "scratch").mkdir()
        with (
            serve_export(lambda request: damage(archive), monkeypatch),
            pytest.raises((ChartMogulError, AirflowFailException)) as raised,
        ):
            transfer("e-1", f"{store.base}/x.zip", download_dir=str(tmp_path / "scratch"))
        assert says in str(raised.value)
        assert store.list() == ["x.zip"]
        assert store.read("x.zip") == b"before"
        assert list((tmp_path / "scratch").iterdir()) == []
        assert "verysecretsignature" not in caplog.text + _whole_chain(raised.value)


class TestObjectStores:
    """What a folder has nothing like."""

    def test_a_zip_is_called_one(self, sandbox: Sandbox, cloud: Cloud) -> None:
        transfer(create_export(), f"{cloud.base}/x.zip")
        assert cloud.kept("x.zip").content_type == "application/zip"

    def test_csv_gz_is_a_gzip_file_and_not_an_encoding_of_csv(self, sandbox: Sandbox, cloud: Cloud) -> None:
        """Or clients would unpack it, and what is called ``.csv.gz`` would not be one."""
        transfer(create_export(), f"{cloud.base}/x.csv.gz")
        kept = cloud.kept("x.csv.gz")
        assert (kept.content_type, kept.content_encoding) == ("application/gzip", None)
        assert cloud.read("x.csv.gz")[:2] == b"\x1f\x8b"

    def test_a_large_one_goes_up_in_parts(self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve_export(lambda request: Response(200, large_archive()), monkeypatch):
            transfer("e-1", f"{cloud.base}/x.csv.gz")
        parts = [request for request in cloud.proxy.requests if cloud.is_part(request)]
        assert len(parts) >= 3
        assert max(len(request.body) for request in parts) <= (8 << 20) + 1000
        assert cloud.kept("x.csv.gz").content_type == "application/gzip"
        assert cloud.open_uploads() == []

    @pytest.mark.parametrize("large", [False, True])
    def test_the_upload_options_reach_the_store(
        self, large: bool, archive: bytes, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serve_export(lambda request: Response(200, large_archive() if large else archive), monkeypatch):
            transfer("e-1", f"{cloud.base}/x.zip", upload_options=cloud.options)
        kept = cloud.kept("x.zip")
        assert (kept.metadata, kept.content_type) == ({"team": "data"}, "application/x-zip")

    @pytest.mark.parametrize("large", [False, True])
    def test_to_overwrite_takes_the_right_to_write_and_no_other(
        self, large: bool, archive: bytes, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serve_export(lambda request: Response(200, large_archive() if large else archive), monkeypatch):
            transfer("e-1", f"{cloud.base}/x.zip")
        assert {request.method for request in cloud.proxy.requests} <= {"PUT", "POST"}
        assert all("/x.zip" in request.path or "/upload/" in request.path for request in cloud.proxy.requests), (
            "no other object"
        )

    @pytest.mark.parametrize("large", [False, True])
    def test_what_another_put_there_during_the_upload_is_not_overwritten_with_fail(
        self, large: bool, archive: bytes, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def be_overtaken(request: RecordedRequest) -> None:
            if request.method in ("PUT", "POST") and cloud.list() == []:
                cloud.write("x.zip", b"the other's")

        cloud.proxy.instead = be_overtaken
        with (
            serve_export(lambda request: Response(200, large_archive() if large else archive), monkeypatch),
            pytest.raises(AirflowFailException, match=r"x\.zip already exists"),
        ):
            transfer("e-1", f"{cloud.base}/x.zip", if_exists="fail")
        assert cloud.read("x.zip") == b"the other's"
        assert cloud.list() == ["x.zip"]
        assert cloud.open_uploads() == []

    @pytest.mark.parametrize("large", [False, True])
    def test_a_missing_bucket_is_named(
        self, large: bool, archive: bytes, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        destination = f"{cloud.scheme}://lake@no-such-bucket/x.zip"
        with (
            serve_export(lambda request: Response(200, large_archive() if large else archive), monkeypatch),
            pytest.raises(ObjectStorageError) as raised,
        ):
            transfer("e-1", destination)
        said = str(raised.value)
        assert said.startswith(f"could not write {cloud.scheme}://no-such-bucket/x.zip (connection lake): ")
        assert cloud.no_bucket in said

    @pytest.mark.parametrize("large", [False, True])
    def test_missing_rights_are_told_in_the_store_s_words(
        self, large: bool, archive: bytes, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cloud.proxy.instead = lambda request: cloud.forbidden
        with (
            serve_export(lambda request: Response(200, large_archive() if large else archive), monkeypatch),
            pytest.raises(ObjectStorageError) as raised,
        ):
            transfer("e-1", f"{cloud.base}/x.zip")
        said = str(raised.value)
        assert said.startswith(f"could not write {cloud.plain}/x.zip (connection lake): ")
        assert cloud.forbidden_words in said

    @pytest.mark.parametrize("if_exists", ["reuse", "skip", "fail"])
    def test_one_that_may_not_look_is_told_so(self, if_exists: str, sandbox: Sandbox, cloud: Cloud) -> None:
        """Nothing there, and no right to see it, are not the same: the object would be overwritten."""
        cloud.write("x.zip", b"before")
        cloud.proxy.instead = lambda request: cloud.forbidden if request.method in ("HEAD", "GET") else None
        with pytest.raises(ObjectStorageError, match=rf"could not look at {cloud.plain}/x\.zip"):
            transfer(create_export(), f"{cloud.base}/x.zip", if_exists=if_exists)
        assert cloud.read("x.zip") == b"before"

    def test_an_upload_that_fails_in_the_middle_leaves_the_old_object_and_nothing_open(
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
    """Every exception that a traceback could show, hidden ones included."""
    texts = []
    while error is not None:
        texts.append(f"{error!r} {error}")
        error = error.__cause__ or error.__context__
    return "\n".join(texts)
