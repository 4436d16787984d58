# SPDX-License-Identifier: Apache-2.0
"""
Moving an export: to a local folder and to S3, what is published and what never is.

One table of cases runs over both schemes. S3 is moto's server in this process, spoken to over a socket by the
official provider's file system.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from moto.server import ThreadedMotoServer

from airflow_provider_chartmogul import api, download
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from tests.integration.running import Ran, run_task
from tests.integration.servers import Answer, Asked, ScriptedServer, json_answer

START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC)


@dataclass
class Store:
    """A place to publish to: its address, and a way to see it that is not the package's own."""

    scheme: str
    base: str
    list: Callable[[], list[str]]
    read: Callable[[str], bytes]
    write: Callable[[str, bytes], None]


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "file":
        root = tmp_path / "lake"
        root.mkdir()
        return Store(
            "file",
            f"file://{root}",
            lambda: sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()),
            lambda name: (root / name).read_bytes(),
            lambda name, content: (root / name).write_bytes(content) and None,
        )
    endpoint = request.getfixturevalue("s3_endpoint")
    client = boto3.client("s3", endpoint_url=endpoint)
    bucket = f"lake-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:20]}"
    client.create_bucket(Bucket=bucket)
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps({"conn_type": "aws", "extra": {"endpoint_url": endpoint}}))
    return Store(
        "s3",
        f"s3://lake@{bucket}",
        lambda: sorted(found["Key"] for found in client.list_objects_v2(Bucket=bucket).get("Contents", [])),
        lambda name: client.get_object(Bucket=bucket, Key=name)["Body"].read(),
        lambda name, content: client.put_object(Bucket=bucket, Key=name, Body=content) and None,
    )


@pytest.fixture(autouse=True)
def _short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of retries, made to run faster."""
    monkeypatch.setattr(api, "_MAX_BACKOFF_SECONDS", 0.05)


def make_export(**asked: Any) -> str:
    return ChartMogulHook().create_activities_export(**{"start_date": START, "end_date": END, **asked}).id


def move(export_id: str, destination: str, **told: Any) -> Ran:
    return run_task(
        ActivitiesExportToObjectStorageOperator(task_id="move", export_id=export_id, destination=destination, **told)
    )


@pytest.fixture
def archive() -> bytes:
    """An archive that comes from elsewhere than the sandbox."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("activities.csv", "uuid,date\n" + "".join(f"{n},2024-01-01\n" for n in range(5000)))
    return buffer.getvalue()


def serve(content: Callable[[Asked], Answer], monkeypatch: pytest.MonkeyPatch, **export: Any) -> ScriptedServer:
    """An API with one finished export, whose download host says what the test wants."""

    def answer(asked: Asked) -> Answer:
        if not asked.path.startswith("/v1/"):
            return content(asked)
        url = f"{server.url}/file.zip?X-Amz-Signature=verysecretsignature"
        return json_answer({"id": "e-1", "status": "succeeded", "file_url": url, "params": {}, **export})

    server = ScriptedServer(answer)
    monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", server.connection_json(timeout=2, requests_per_second=100))
    return server


def rows_in(archive: bytes) -> list[dict[str, str]]:
    import csv

    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        (name,) = opened.namelist()
        return list(csv.DictReader(io.StringIO(opened.read(name).decode(), newline="")))


class TestPublishing:
    def test_the_archive_arrives_as_it_is(self, sandbox: Sandbox, store: Store) -> None:
        ran = move(make_export(), f"{store.base}/a/{{interval_start:%Y-%m-%d}}.zip")

        assert store.list() == ["a/2024-01-01.zip"], "and nothing else, no temporary names either"
        published = store.read("a/2024-01-01.zip")
        assert rows_in(published) == sandbox.truth(START, END)
        base = store.base.replace("lake@", "")
        assert ran.value == f"{base}/a/2024-01-01.zip"
        assert ran.xcoms["object"] == {
            "uri": ran.value,
            "bucket": "" if store.scheme == "file" else base.removeprefix("s3://"),
            "key": ran.value.removeprefix("file://" if store.scheme == "file" else f"{base}/"),
            "bytes": len(published),
            "sha256": hashlib.sha256(published).hexdigest(),
            "format": "zip",
            "rows": None,
            "columns": list(sandbox.truth(START, END)[0]),
            "interval_start": "2024-01-01T00:00:00+00:00",
            "interval_end": "2024-01-03T00:00:00+00:00",
            "activity_type": None,
            "export_id": sandbox.exports[0].id,
            "chartmogul_conn_id": "chartmogul_default",
        }

    def test_every_placeholder_is_filled_in(self, sandbox: Sandbox, store: Store) -> None:
        export_id = make_export(activity_type="churn")
        move(
            export_id,
            store.base
            + "/{chartmogul_conn_id}/{activity_type}/{interval_start:%Y%m%d}-{interval_end:%Y%m%d}/{export_id}.zip",
        )
        assert store.list() == [f"chartmogul_default/churn/20240101-20240103/{export_id}.zip"]

    def test_an_export_of_all_types_is_called_so(self, sandbox: Sandbox, store: Store) -> None:
        move(make_export(), store.base + "/{activity_type}.zip")
        assert store.list() == ["all.zip"]

    def test_output_format_says_it_where_the_suffix_does_not(self, sandbox: Sandbox, store: Store) -> None:
        assert move(make_export(), f"{store.base}/archive", output_format="zip").xcoms["object"]["format"] == "zip"
        assert store.list() == ["archive"]

    def test_overwrite(self, sandbox: Sandbox, store: Store) -> None:
        store.write("x.zip", b"before")
        move(make_export(), f"{store.base}/x.zip")
        assert rows_in(store.read("x.zip")) == sandbox.truth(START, END)

    def test_reuse_takes_what_is_there(self, sandbox: Sandbox, store: Store) -> None:
        store.write("x.zip", b"before")
        ran = move(make_export(), f"{store.base}/x.zip", if_exists="reuse")
        assert store.read("x.zip") == b"before"
        assert ran.xcoms["object"]["bytes"] == len(b"before")
        assert [seen for seen in sandbox.requests if seen.host == "download"] == []

    def test_skip(self, sandbox: Sandbox, store: Store) -> None:
        store.write("x.zip", b"before")
        with pytest.raises(AirflowSkipException, match="exists already"):
            move(make_export(), f"{store.base}/x.zip", if_exists="skip")
        assert [seen for seen in sandbox.requests if seen.host == "download"] == []

    def test_fail(self, sandbox: Sandbox, store: Store) -> None:
        store.write("x.zip", b"before")
        with pytest.raises(AirflowFailException, match=r"x\.zip exists already"):
            move(make_export(), f"{store.base}/x.zip", if_exists="fail")
        assert store.read("x.zip") == b"before"

    @pytest.mark.parametrize("if_exists", ["reuse", "skip", "fail"])
    def test_where_there_is_nothing_it_is_published(self, if_exists: str, sandbox: Sandbox, store: Store) -> None:
        move(make_export(), f"{store.base}/x.zip", if_exists=if_exists)
        assert store.list() == ["x.zip"]

    def test_a_folder_of_that_name_is_no_object(self, sandbox: Sandbox, store: Store, tmp_path: Path) -> None:
        if store.scheme == "file":
            (tmp_path / "lake" / "x.zip").mkdir()
            with pytest.raises(api.ChartMogulError, match="could not write"):
                move(make_export(), f"{store.base}/x.zip", if_exists="reuse")
        else:
            store.write("x.zip/inside", b"")
            move(make_export(), f"{store.base}/x.zip", if_exists="skip")
            assert store.list() == ["x.zip", "x.zip/inside"]

    def test_the_connection_as_a_parameter(self, sandbox: Sandbox, store: Store) -> None:
        destination = f"{store.base.replace('lake@', '')}/x.zip"
        move(make_export(), destination, object_storage_conn_id=None if store.scheme == "file" else "lake")
        assert store.list() == ["x.zip"]

    def test_the_download_dir_is_used_and_left_empty(self, sandbox: Sandbox, store: Store, tmp_path: Path) -> None:
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        move(make_export(), f"{store.base}/x.zip", download_dir=str(scratch))
        assert list(scratch.iterdir()) == []

    def test_what_another_put_there_in_between_is_not_overwritten_with_fail(
        self, archive: bytes, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two tasks that look at the same time both see nothing there; only one may win."""

        def be_overtaken(asked: Asked) -> Answer:
            store.write("x.zip", b"the other's")
            return Answer(200, archive)

        with serve(be_overtaken, monkeypatch), pytest.raises(AirflowFailException, match="exists already"):
            move("e-1", f"{store.base}/x.zip", if_exists="fail")
        assert store.read("x.zip") == b"the other's"
        assert store.list() == ["x.zip"]


class TestNothingIsPublished:
    """Whatever is wrong with what came: the old object stays, and nothing is left over."""

    @pytest.mark.parametrize(
        ("what", "damage", "says"),
        [
            ("no zip", lambda a: Answer(200, b"<html>Sorry</html>"), "no zip archive"),
            ("nothing", lambda a: Answer(200, b""), "empty"),
            ("cut short by the server itself", lambda a: Answer(200, a[: len(a) // 2]), "damaged or cut-short"),
            ("bad checksum", lambda a: Answer(200, a[:60] + bytes([a[60] ^ 1]) + a[61:]), "damaged or cut-short"),
            (
                "not what the ETag says",
                lambda a: Answer(200, a, {"ETag": f'"{hashlib.md5(b"another").hexdigest()}"'}),
                "checksum",
            ),
            ("fewer bytes than announced", lambda a: Answer(200, a, cut=len(a) // 2), "broke"),
            ("a break each time", lambda a: Answer(hang_up=True), "broke"),
            ("a server that fails", lambda a: Answer(503, b"<Error><Code>SlowDown</Code></Error>"), "SlowDown"),
            ("no such file", lambda a: Answer(404, b"<Error><Code>NoSuchKey</Code></Error>"), "NoSuchKey"),
            (
                "a redirect to another host",
                lambda a: Answer(307, headers={"Location": "http://127.0.0.1:9/"}),
                "redirect",
            ),
        ],
    )
    def test_when_it_is_damaged(
        self,
        what: str,
        damage: Callable[[bytes], Answer],
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
            serve(lambda asked: damage(archive), monkeypatch),
            pytest.raises(api.ChartMogulError) as raised,
        ):
            move("e-1", f"{store.base}/x.zip", download_dir=str(tmp_path / "scratch"))
        assert says in str(raised.value)
        assert store.list() == ["x.zip"]
        assert store.read("x.zip") == b"before"
        assert list((tmp_path / "scratch").iterdir()) == []
        assert "verysecretsignature" not in caplog.text + _whole_chain(raised.value)

    def test_a_break_is_gone_on_from(self, archive: bytes, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        etag = f'"{hashlib.md5(archive).hexdigest()}"'

        def serve_in_pieces(asked: Asked) -> Answer:
            spec = asked.headers.get("range")
            if spec is None:
                return Answer(200, archive, {"ETag": etag}, cut=1000)
            assert asked.headers["if-match"] == etag
            start = int(spec.removeprefix("bytes=").removesuffix("-"))
            headers = {"ETag": etag, "Content-Range": f"bytes {start}-{len(archive) - 1}/{len(archive)}"}
            return Answer(206, archive[start:], headers, cut=5000)

        with serve(serve_in_pieces, monkeypatch) as server:
            move("e-1", f"{store.base}/x.zip")
        assert store.read("x.zip") == archive
        assert len([asked for asked in server.asked if "range" in asked.headers]) >= 2
        assert {asked.method for asked in server.asked} == {"GET"}, "the URL is signed for GET"

    def test_bytes_that_came_before_a_stall_are_kept(
        self, archive: bytes, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        etag = f'"{hashlib.md5(archive).hexdigest()}"'

        def serve_a_little(asked: Asked) -> Answer:
            start = int(asked.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            headers = {"ETag": etag, "Content-Range": f"bytes {start}-{len(archive) - 1}/{len(archive)}"}
            return Answer(206 if start else 200, archive[start:], headers, cut=700)

        with serve(serve_a_little, monkeypatch) as server:
            move("e-1", f"{store.base}/x.zip")
        assert store.read("x.zip") == archive
        starts = [asked.headers["range"] for asked in server.asked if "range" in asked.headers]
        assert starts == [f"bytes={n}-" for n in range(700, len(archive), 700)]

    def test_a_file_that_is_started_over_again_and_again_ends(
        self, archive: bytes, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cuts = iter(range(10_000))
        with (
            serve(lambda asked: Answer(200, archive, cut=600 if next(cuts) % 2 else 300), monkeypatch) as server,
            pytest.raises(download.DownloadError, match="broke"),
        ):
            move("e-1", f"{store.base}/x.zip")
        assert len(server.asked) < 15
        assert store.list() == []

    def test_it_starts_over_where_the_server_knows_no_ranges_or_the_file_has_changed(
        self, archive: bytes, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers = iter(
            [
                Answer(200, archive, {"ETag": '"one"'}, cut=1000),
                Answer(412, b"<Error><Code>PreconditionFailed</Code></Error>"),
                Answer(200, archive, {"ETag": '"two"'}, cut=2000),
                Answer(200, archive, {"ETag": '"two"'}),
            ]
        )
        with serve(lambda asked: next(answers), monkeypatch):
            move("e-1", f"{store.base}/x.zip")
        assert store.read("x.zip") == archive

    @pytest.mark.parametrize(
        "file_url", ["http://127.0.0.1:9/f.zip?X-Amz-Signature=verysecret", "file:///etc/passwd", "ftp://h/f.zip"]
    )
    def test_a_file_url_that_is_not_https(self, file_url: str, store: Store, caplog: pytest.LogCaptureFixture) -> None:
        with pytest.raises(download.DownloadError, match="only https") as raised:
            download.check_file_url(file_url, plain_http_allowed=False)
        assert "verysecret" not in str(raised.value)

    def test_plain_http_goes_with_a_plain_http_host_only(self) -> None:
        download.check_file_url("http://127.0.0.1/f.zip", plain_http_allowed=True)
        download.check_file_url("https://bucket.s3.amazonaws.com/f.zip", plain_http_allowed=False)
        with pytest.raises(download.DownloadError, match="only https"):
            download.check_file_url("file:///etc/passwd", plain_http_allowed=True)

    @pytest.mark.parametrize(
        ("export", "ends", "says"),
        [
            ({"status": "failed"}, AirflowFailException, "clear the task that creates"),
            ({"status": "processing"}, api.ExportNotFinishedError, "ActivitiesExportSensor"),
            ({"status": "being_reviewed"}, api.ExportNotFinishedError, "being_reviewed"),
            ({"file_url": None}, api.ExportNotFinishedError, "gives no file"),
        ],
    )
    def test_an_export_that_is_not_done(
        self, export: dict[str, Any], ends: type[Exception], says: str, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serve(lambda asked: Answer(500), monkeypatch, **export), pytest.raises(ends, match=says):
            move("e-1", f"{store.base}/x.zip")
        assert store.list() == []

    def test_an_open_end_has_no_name(self, sandbox: Sandbox, store: Store) -> None:
        with pytest.raises(AirflowFailException, match="open at that end"):
            move(make_export(start_date=None), store.base + "/{interval_start:%Y}.zip")
        assert store.list() == []


class TestTheSignedUrl:
    def test_no_authorization_goes_with_it(self, sandbox: Sandbox, store: Store) -> None:
        move(make_export(), f"{store.base}/x.zip")
        (asked,) = [seen for seen in sandbox.requests if seen.host == "download"]
        assert "authorization" not in asked.headers
        assert asked.method == "GET"

    def test_neither_netrc(
        self, sandbox: Sandbox, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "netrc").write_text("default login somebody password else\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        move(make_export(), f"{store.base}/x.zip")
        assert all("authorization" not in seen.headers for seen in sandbox.requests if seen.host == "download")

    def test_it_is_in_no_log_at_any_level(
        self, sandbox: Sandbox, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        export_id = make_export()
        file_url = ChartMogulHook().get_activities_export(export_id).file_url
        assert file_url is not None
        caplog.clear()
        ran = move(export_id, f"{store.base}/x.zip")
        # urllib3 does log the request, or this test would prove nothing.
        assert any(r.name == "urllib3.connectionpool" and "/activities-" in r.getMessage() for r in caplog.records)
        written = caplog.text + json.dumps(ran.xcoms) + str(ran.value) + repr([vars(r) for r in caplog.records])
        for secret in (
            file_url,
            file_url.partition("?")[2],
            file_url.rpartition("X-Amz-Signature=")[2],
            "sandbox-api-key",
        ):
            assert secret not in written

    def test_a_malformed_header_does_not_show_it(
        self, archive: bytes, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """urllib3 warns of it from another logger, with the whole URL."""
        caplog.set_level(logging.DEBUG)
        with serve(
            lambda asked: Answer(200, archive, {"Content-Length": str(len(archive)), "Bad Header": "x"}), monkeypatch
        ):
            move("e-1", f"{store.base}/x.zip")
        assert "Failed to parse headers" in caplog.text
        assert "verysecretsignature" not in caplog.text + repr([vars(r) for r in caplog.records])

    def test_an_expired_one_is_made_fresh_once(self, sandbox: Sandbox, store: Store) -> None:
        sandbox.url_seconds = 0
        export_id = make_export()
        ChartMogulHook().get_activities_export(export_id)
        with pytest.raises(AirflowFailException, match=r"fresh one too.*clear the task that creates"):
            move(export_id, f"{store.base}/x.zip")
        looks = [seen for seen in sandbox.requests if seen.method == "GET" and seen.host == "api"]
        downloads = [seen for seen in sandbox.requests if seen.host == "download"]
        assert (len(looks), len(downloads)) == (1 + 2, 2)
        assert store.list() == []

    def test_a_fresh_one_is_used(self, sandbox: Sandbox, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        real = ChartMogulHook.get_activities_export
        answers: list[api.ActivitiesExport] = []

        def expired_the_first_time(hook: ChartMogulHook, export_id: str) -> api.ActivitiesExport:
            sandbox.url_seconds = 0 if not answers else 3600
            answers.append(real(hook, export_id))
            return answers[-1]

        export_id = make_export()
        monkeypatch.setattr(ChartMogulHook, "get_activities_export", expired_the_first_time)
        move(export_id, f"{store.base}/x.zip")
        assert rows_in(store.read("x.zip")) == sandbox.truth(START, END)


class TestClearErrorsBeforeARequest:
    @pytest.mark.parametrize(
        ("destination", "told", "says"),
        [
            ("file:///tmp/x.txt", {}, "suffix"),
            ("file:///tmp/x.zip", {"output_format": "tar"}, "output_format cannot be 'tar'"),
            ("file:///tmp/{interval}.zip", {}, "{interval_start}"),
            ("file:///tmp/{export_id.__class__}.zip", {}, "unknown placeholder"),
            ("file:///tmp/{.zip", {}, "brace"),
            ("", {}, "destination is empty"),
            ("file:///tmp/x.zip", {"if_exists": "append"}, "overwrite, reuse, skip, fail"),
            ("file:///tmp/x.zip", {"column_types": {"a": "int64"}}, "column_types"),
            ("file:///tmp/x.zip", {"export_id": ""}, "export_id is empty"),
        ],
    )
    def test_it(self, destination: str, told: dict[str, Any], says: str, sandbox: Sandbox) -> None:
        with pytest.raises(AirflowFailException) as raised:
            move(told.pop("export_id", "e-1"), destination, **told)
        assert says in str(raised.value)
        assert sandbox.requests == []

    @pytest.mark.parametrize(
        ("destination", "told", "says"),
        [
            ("relative/x.zip", {}, "not the full name"),
            ("file://folder/x.zip", {}, "not the full name"),
            ("s3://bucket", {"output_format": "zip"}, "not the full name"),
            ("s3://one@bucket/x.zip", {"object_storage_conn_id": "two"}, "give one of them"),
            ("nowhere://bucket/x.zip", {}, "no file system for nowhere://"),
            ("s3://typo@bucket/x.zip", {}, "there is no Airflow connection 'typo'"),
            ("s3://bucket/x.zip?versionId=7", {"output_format": "zip"}, "has a '\\?'"),
            ("file:///tmp/x.zip", {"download_dir": "/no/such/folder"}, "download_dir '/no/such/folder' is no folder"),
            ("gs://bucket/x.zip", {}, r"pip install 'airflow-provider-chartmogul\[google\]'"),
            ("abfs://container/x.zip", {}, r"pip install 'airflow-provider-chartmogul\[microsoft-azure\]'"),
        ],
    )
    def test_before_a_download(
        self, destination: str, told: dict[str, Any], says: str, sandbox: Sandbox, airflow_db: None
    ) -> None:
        with pytest.raises(AirflowFailException, match=says):
            move(make_export(), destination, **told)
        assert [seen for seen in sandbox.requests if seen.host == "download"] == []


class TestS3:
    """What only a store with buckets and uploads in parts has."""

    @pytest.fixture
    def store(self, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
        client = boto3.client("s3", endpoint_url=s3_endpoint)
        client.create_bucket(Bucket="only-s3")
        monkeypatch.setenv(
            "AIRFLOW_CONN_LAKE", json.dumps({"conn_type": "aws", "extra": {"endpoint_url": s3_endpoint}})
        )
        yield client
        for found in client.list_objects_v2(Bucket="only-s3").get("Contents", []):
            client.delete_object(Bucket="only-s3", Key=found["Key"])

    def test_a_missing_bucket_is_named(self, sandbox: Sandbox, store: Any) -> None:
        with pytest.raises(
            api.ChartMogulError, match=r"could not write s3://no-such/x\.zip \(connection lake\).*bucket"
        ):
            move(make_export(), "s3://lake@no-such/x.zip")

    def test_the_upload_options_reach_the_store(self, sandbox: Sandbox, store: Any) -> None:
        options = {"Metadata": {"team": "data"}, "Tagging": "kind=raw", "ContentType": "application/x-zip"}
        move(make_export(), "s3://lake@only-s3/x.zip", upload_options=options)
        head = store.head_object(Bucket="only-s3", Key="x.zip")
        assert head["Metadata"] == {"team": "data"}
        assert head["ContentType"] == "application/x-zip"
        assert store.get_object_tagging(Bucket="only-s3", Key="x.zip")["TagSet"] == [{"Key": "kind", "Value": "raw"}]

    def test_a_zip_is_called_one(self, sandbox: Sandbox, store: Any) -> None:
        move(make_export(), "s3://lake@only-s3/x.zip")
        assert store.head_object(Bucket="only-s3", Key="x.zip")["ContentType"] == "application/zip"

    def test_a_large_object_goes_up_in_parts(self, sandbox: Sandbox, store: Any, tmp_path: Path) -> None:
        from airflow_provider_chartmogul.object_storage import StoredObject

        file = tmp_path / "large.zip"
        content = bytes(range(256)) * (100 << 10)
        file.write_bytes(content)
        StoredObject.parse("s3://lake@only-s3/large.zip").publish(file)
        got = store.get_object(Bucket="only-s3", Key="large.zip")
        assert got["Body"].read() == content
        assert got["ETag"].rstrip('"').endswith("-4"), "25 MiB in parts of 8"
        assert store.list_multipart_uploads(Bucket="only-s3").get("Uploads", []) == []


def _whole_chain(error: BaseException | None) -> str:
    """Every exception that a traceback could show, hidden ones included."""
    texts = []
    while error is not None:
        texts.append(f"{error!r} {error}")
        error = error.__cause__ or error.__context__
    return "\n".join(texts)
