# SPDX-License-Identifier: Apache-2.0
"""A transfer that Airflow stops in the middle publishes nothing, neither at once nor later."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import threading
import zipfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_chartmogul.exceptions import TaskCancelledError
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from tests.integration.fake_s3 import FakeS3
from tests.integration.servers import RecordedRequest, Response
from tests.integration.transfers import serve_export, transfer


@pytest.fixture(scope="module")
def large_archive() -> bytes:
    """An archive that is uploaded in several parts."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as opened:
        opened.writestr("activities.csv", b"a\n" + os.urandom(1 << 20) * 20)
    return buffer.getvalue()


def test_execution_timeout_aborts_the_upload(
    large_archive: bytes, fake_s3: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timeout comes when the first part has arrived, by the signal that Airflow's timer sends."""
    signals = iter([signal.SIGALRM])

    def time_out() -> Response:
        for number in signals:
            os.kill(os.getpid(), number)
        return Response(stall=True)

    fake_s3.on_part = time_out
    with serve_export(lambda request: Response(200, large_archive), monkeypatch), pytest.raises(AirflowTaskTimeout):
        transfer("e-1", fake_s3.destination, execution_timeout=timedelta(hours=1))
    assert fake_s3.open_uploads == set(), "the multipart upload was not aborted"
    assert fake_s3.completed_uploads == []


def test_on_kill_in_a_signal_handler_aborts_the_upload(
    large_archive: bytes, fake_s3: FakeS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Airflow calls ``on_kill`` in its handler of SIGTERM."""
    operators: list[ActivitiesExportToObjectStorageOperator] = []
    open_uploads_after: list[set[str]] = []

    def on_term(*_: Any) -> None:
        operators[0].on_kill()
        open_uploads_after.append(set(fake_s3.open_uploads))

    def terminate() -> Response:
        os.kill(os.getpid(), signal.SIGTERM)
        return Response(stall=True)

    fake_s3.on_part = terminate
    original = signal.signal(signal.SIGTERM, on_term)
    try:
        with serve_export(lambda request: Response(200, large_archive), monkeypatch), pytest.raises(TaskCancelledError):
            transfer("e-1", fake_s3.destination, on_start=operators.append, download_dir=str(tmp_path))
    finally:
        signal.signal(signal.SIGTERM, original)
    assert open_uploads_after[0] == set(), "on_kill returned before the upload had ended"
    assert fake_s3.completed_uploads == []
    assert list(tmp_path.iterdir()) == []


def test_on_kill_during_the_download_starts_no_upload(
    large_archive: bytes, fake_s3: FakeS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    operators: list[ActivitiesExportToObjectStorageOperator] = []

    def kill(request: RecordedRequest) -> Response:
        operators[0].on_kill()
        return Response(200, large_archive)

    with serve_export(kill, monkeypatch), pytest.raises(TaskCancelledError):
        transfer("e-1", fake_s3.destination, on_start=operators.append, download_dir=str(tmp_path))
    assert fake_s3.server.requests == []
    assert list(tmp_path.iterdir()) == []


def test_cancelled_copy_to_a_local_folder_leaves_the_old_file(
    large_archive: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "x.zip").write_bytes(b"before")
    check = Cancellation.check
    cancelled: list[bool] = []

    def cancel_before_the_rename(self: Cancellation) -> None:
        if any(path.name.startswith(".") for path in tmp_path.iterdir()):
            self.is_cancelled = True
            cancelled.append(True)
        check(self)

    monkeypatch.setattr(Cancellation, "check", cancel_before_the_rename)
    with serve_export(lambda request: Response(200, large_archive), monkeypatch), pytest.raises(TaskCancelledError):
        transfer("e-1", f"file://{tmp_path}/x.zip")
    assert cancelled
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]
    assert (tmp_path / "x.zip").read_bytes() == b"before"


def test_on_kill_of_an_idle_task_does_nothing() -> None:
    operator = ActivitiesExportToObjectStorageOperator(task_id="t", export_id="e", destination="s3://b/x.zip")
    operator.on_kill()
    operator.on_kill()


@contextlib.contextmanager
def running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in another thread, as file systems do."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


async def other_tasks() -> list[asyncio.Task[Any]]:
    """Return the tasks of the loop, except the one that runs this."""
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


@pytest.mark.parametrize("started", [False, True], ids=["before the upload starts", "right after it has started"])
def test_timeout_between_start_and_wait_cancels_the_upload(started: bool) -> None:
    """The signal's exception is raised between two lines of code, where nothing waits for the upload yet."""
    with running_loop() as loop:
        events: list[str] = []

        async def upload() -> None:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                events.append("cancelled")
                raise

        class InterruptedLoop:
            def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
                is_first = not events
                if is_first:
                    events.append("interrupted")
                if not is_first or started:
                    loop.call_soon_threadsafe(callback)
                if is_first:
                    raise AirflowTaskTimeout("the timeout")

            def create_task(self, coroutine: Any) -> asyncio.Task[None]:
                return loop.create_task(coroutine)

        coroutine = upload()
        interrupted: Any = InterruptedLoop()
        with pytest.raises(AirflowTaskTimeout):
            Cancellation().run(interrupted, coroutine)
        coroutine.close()
        assert asyncio.run_coroutine_threadsafe(other_tasks(), loop).result(10) == []
