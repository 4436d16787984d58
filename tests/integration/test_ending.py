# SPDX-License-Identifier: Apache-2.0
"""
A transfer that is ended in the middle, or tried again: nothing of it appears afterwards, and nothing is refused
that is its own.

The S3 here is a server that says what a test wants, since one that stalls, or answers into the void, is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout

from airflow_provider_chartmogul.exceptions import TaskCancelledError
from airflow_provider_chartmogul.runtime import cancellation
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from tests.integration.servers import RecordedRequest, Response, ScriptedServer
from tests.integration.transfers import create_export, serve_export, transfer

LARGE = os.urandom(1 << 20) * 20


def large_archive() -> bytes:
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as opened:
        opened.writestr("activities.csv", b"a\n" + LARGE)
    return buffer.getvalue()


class S3:
    """As much of S3 as one object needs; ``on_part`` and ``on_put`` may answer instead."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.content: bytes | None = None
        self.open_uploads: set[str] = set()
        self.condition = "<Condition>If-None-Match</Condition>"
        self.part_asked = threading.Event()
        self.on_part: Callable[[], Response] = lambda: Response(headers={"ETag": '"part"'})
        self.on_put: Callable[[], Response] = lambda: Response(headers={"ETag": '"whole"'})
        self.server = ScriptedServer(self._answer)
        # A name of its own: Airflow keeps the file system of a connection for as long as the process lives.
        conn_id = f"s3_{self.server.url.rpartition(':')[2]}"
        self.destination = f"s3://{conn_id}@bucket/x.zip"
        monkeypatch.setenv(
            f"AIRFLOW_CONN_{conn_id.upper()}",
            json.dumps({"conn_type": "aws", "extra": {"endpoint_url": self.server.url, "region_name": "us-east-1"}}),
        )

    def _answer(self, request: RecordedRequest) -> Response:
        query = request.path.partition("?")[2]
        if request.method == "POST" and "uploadId=" not in query:
            upload = f"upload-{len(self.open_uploads)}"
            self.open_uploads.add(upload)
            return self._xml(f"<Bucket>bucket</Bucket><Key>x.zip</Key><UploadId>{upload}</UploadId>")
        if request.method == "DELETE":
            self.open_uploads.discard(query.partition("uploadId=")[2].partition("&")[0])
            return Response(204)
        if request.method == "PUT" and "partNumber=" in query:
            self.part_asked.set()
            return self.on_part()
        if request.method == "PUT":
            if "if-none-match" in request.headers and self.content is not None:
                return Response(412, f"<Error><Code>PreconditionFailed</Code>{self.condition}</Error>".encode())
            self.content = unchunked(request)
            return self.on_put()
        if self.content is None:
            return Response(404, b"" if request.method == "HEAD" else b"<Error><Code>NoSuchKey</Code></Error>")
        return self._get(request, self.content)

    def _get(self, request: RecordedRequest, content: bytes) -> Response:
        if "list-type" in request.path:
            return self._xml(f"<Contents><Key>x.zip</Key><Size>{len(content)}</Size></Contents>")
        headers = {"ETag": '"whole"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
        if request.method == "HEAD":
            return Response(200, headers={**headers, "Content-Length": str(len(content))})
        first, last = (int(part) for part in re.findall(r"\d+", request.headers.get("range", f"0-{len(content) - 1}")))
        headers["Content-Range"] = f"bytes {first}-{min(last, len(content) - 1)}/{len(content)}"
        return Response(206, content[first : last + 1], headers)

    @staticmethod
    def _xml(content: str) -> Response:
        return Response(body=f"<Result>{content}</Result>".encode(), headers={"Content-Type": "application/xml"})


def unchunked(request: RecordedRequest) -> bytes:
    """The body of an upload; the client may frame it in chunks that have checksums (``aws-chunked``)."""
    if "aws-chunked" not in request.headers.get("content-encoding", ""):
        return request.body
    content, rest = b"", request.body
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        if not length:
            return content
        content, rest = content + rest[:length], rest[length + 2 :]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    store = S3(monkeypatch)
    with store.server:
        yield store


@contextlib.contextmanager
def running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own, as file systems have one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


async def others() -> list[asyncio.Task[Any]]:
    """The tasks of a loop, but for the one that asks."""
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


class TestAnUploadIsCancelled:
    def test_by_the_task_timeout(self, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
        archive = large_archive()
        s3.on_part = lambda: Response(stall=True)
        with serve_export(lambda request: Response(200, archive), monkeypatch), pytest.raises(AirflowTaskTimeout):
            transfer("e-1", s3.destination, execution_timeout=timedelta(seconds=4))
        assert s3.part_asked.is_set()
        assert s3.open_uploads == set(), "the multipart upload was aborted"
        assert [
            request for request in s3.server.requests if request.method == "POST" and "uploadId=" in request.path
        ] == []

    def test_by_on_kill_in_a_signal_handler_as_airflow_calls_it(
        self, s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        archive = large_archive()
        running: list[ActivitiesExportToObjectStorageOperator] = []
        seen: list[set[str]] = []

        def on_term(*_: Any) -> None:
            running[0].on_kill()
            seen.append(set(s3.open_uploads))

        def terminate() -> Response:
            os.kill(os.getpid(), signal.SIGTERM)
            return Response(stall=True)

        s3.on_part = terminate
        before = signal.signal(signal.SIGTERM, on_term)
        try:
            with serve_export(lambda request: Response(200, archive), monkeypatch), pytest.raises(TaskCancelledError):
                transfer("e-1", s3.destination, on_start=running.append, download_dir=str(tmp_path))
        finally:
            signal.signal(signal.SIGTERM, before)
        assert seen[0] == set(), "it is gone when on_kill returns"
        assert [
            request for request in s3.server.requests if request.method == "POST" and "uploadId=" in request.path
        ] == []
        assert list(tmp_path.iterdir()) == []

    def test_in_the_middle_of_the_download_nothing_is_begun(
        self, s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        archive = large_archive()
        running: list[ActivitiesExportToObjectStorageOperator] = []

        def kill_it(request: RecordedRequest) -> Response:
            running[0].on_kill()
            return Response(200, archive)

        with serve_export(kill_it, monkeypatch), pytest.raises(TaskCancelledError):
            transfer("e-1", s3.destination, on_start=running.append, download_dir=str(tmp_path))
        assert s3.server.requests == []
        assert list(tmp_path.iterdir()) == []

    def test_locally_nothing_appears(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        archive = large_archive()
        (tmp_path / "x.zip").write_bytes(b"before")
        copy = cancellation.Cancellation.check
        calls: list[int] = []

        def kill_at_the_last_moment(self: Cancellation) -> None:
            calls.append(1)
            if (tmp_path / "x.zip").parent.exists() and any(p.name.startswith(".") for p in tmp_path.iterdir()):
                self.is_cancelled = True
            copy(self)

        monkeypatch.setattr(Cancellation, "check", kill_at_the_last_moment)
        with serve_export(lambda request: Response(200, archive), monkeypatch), pytest.raises(TaskCancelledError):
            transfer("e-1", f"file://{tmp_path}/x.zip")
        assert calls
        assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]
        assert (tmp_path / "x.zip").read_bytes() == b"before"

    @pytest.mark.parametrize("when", ["before it is begun", "when it has just been begun"])
    def test_by_a_timeout_that_falls_beside_the_wait_for_it(self, when: str) -> None:
        """The signal's exception comes between two lines; an upload that nobody waits for would go on."""
        with running_loop() as loop:
            happened: list[str] = []

            async def upload() -> None:
                try:
                    await asyncio.sleep(600)
                except asyncio.CancelledError:
                    happened.append("cancelled")
                    raise

            class Interrupted:
                def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
                    first = not happened
                    if first:
                        happened.append("interrupted")
                    if not first or when.startswith("when"):
                        loop.call_soon_threadsafe(callback)
                    if first:
                        raise AirflowTaskTimeout("over")

                def create_task(self, coroutine: Any) -> asyncio.Task[None]:
                    return loop.create_task(coroutine)

            coroutine = upload()
            interrupted: Any = Interrupted()
            with pytest.raises(AirflowTaskTimeout):
                Cancellation().run(interrupted, coroutine)
            coroutine.close()
            assert asyncio.run_coroutine_threadsafe(others(), loop).result(10) == []

    def test_on_kill_of_a_task_that_does_nothing_is_harmless(self) -> None:
        operator = ActivitiesExportToObjectStorageOperator(task_id="m", export_id="e", destination="s3://b/x.zip")
        operator.on_kill()
        operator.on_kill()


class TestFailAndARetry:
    def test_a_retry_that_finds_its_own_object_succeeds(self, sandbox: Sandbox, tmp_path: Path) -> None:
        export_id = create_export()
        told = {"destination": f"file://{tmp_path}/x.csv.gz", "if_exists": "fail"}
        first = transfer(export_id, **told)
        before = (tmp_path / "x.csv.gz").stat()

        again = transfer(export_id, try_number=2, **told)

        assert again.value == first.value
        assert again.xcoms == first.xcoms
        assert (tmp_path / "x.csv.gz").stat().st_mtime_ns == before.st_mtime_ns, "it was left alone"

    @pytest.mark.parametrize("change", [lambda b: b + b"x", lambda b: b[:-1] + bytes([b[-1] ^ 1])])
    def test_a_retry_that_finds_another_fails(
        self, change: Callable[[bytes], bytes], sandbox: Sandbox, tmp_path: Path
    ) -> None:
        export_id = create_export()
        told = {"destination": f"file://{tmp_path}/x.zip", "if_exists": "fail"}
        transfer(export_id, **told)
        there = change((tmp_path / "x.zip").read_bytes())
        (tmp_path / "x.zip").write_bytes(there)
        with pytest.raises(AirflowFailException, match="already exists"):
            transfer(export_id, try_number=2, **told)
        assert (tmp_path / "x.zip").read_bytes() == there

    def test_the_first_try_downloads_nothing(self, sandbox: Sandbox, tmp_path: Path) -> None:
        (tmp_path / "x.zip").write_bytes(b"there")
        with pytest.raises(AirflowFailException, match="nothing was written"):
            transfer(create_export(), f"file://{tmp_path}/x.zip", if_exists="fail")
        assert [seen for seen in sandbox.requests if seen.host == "download"] == []

    @pytest.mark.parametrize("condition", ["<Condition>If-None-Match</Condition>", ""], ids=["S3", "another store"])
    def test_an_answer_that_is_lost_is_no_failure(self, condition: str, sandbox: Sandbox, s3: S3) -> None:
        """S3 has the object, its client has no answer and sends it again: now there is one of that name."""
        s3.condition = condition
        answers = iter([Response(hang_up=True)])
        s3.on_put = lambda: next(answers, Response(headers={"ETag": '"whole"'}))
        ran = transfer(create_export(), s3.destination, if_exists="fail")
        assert s3.content is not None
        assert ran.xcoms["object"]["sha256"] == hashlib.sha256(s3.content).hexdigest()
        puts = [request for request in s3.server.requests if request.method == "PUT"]
        # How often the client sends it again is its own affair: with aiohttp 3.10 twice, once without a body, which is
        # refused; with today's once.
        assert len(puts) in (2, 3)
