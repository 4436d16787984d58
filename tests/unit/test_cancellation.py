# SPDX-License-Identifier: Apache-2.0
"""
A task is cancelled at every moment at which that can happen: ``on_kill`` returns, and raises nothing.

The uploads are coroutines in an event loop of another thread, as those of file systems are, and the signals are real.
``tests/integration/test_cancelled_transfer.py`` cancels uploads to a store.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_chartmogul.exceptions import TaskCancelledError, UploadStillRunningError
from airflow_provider_chartmogul.runtime import cancellation as cancellation_module
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator


class Loop(asyncio.SelectorEventLoop):
    """An event loop in a thread of its own; ``before_call`` is called once before a callback is scheduled."""

    def __init__(self) -> None:
        super().__init__()
        self.before_call: Callable[[], None] | None = None
        self.thread = threading.Thread(target=self.run_forever, daemon=True)
        self.thread.start()

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:
        before_call, self.before_call = self.before_call, None
        if before_call is not None:
            before_call()
        return super().call_soon_threadsafe(*args, **kwargs)


class Upload:
    """An upload that runs until it is cancelled, and records it."""

    def __init__(self) -> None:
        self.started, self.may_finish = threading.Event(), threading.Event()
        self.cancelled = 0
        self.cleaned_up = False

    async def run(self) -> None:
        self.started.set()
        try:
            # An event of threads, which tests set.
            while not self.may_finish.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled += 1
            await asyncio.sleep(0.05)
            self.cleaned_up = True
            raise


@pytest.fixture
def loop() -> Iterator[Loop]:
    running = Loop()
    yield running
    running.call_soon_threadsafe(running.stop)
    running.thread.join(60)
    running.close()


@pytest.fixture
def on_term() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Set the handler of SIGTERM until the end of the test."""
    before = signal.getsignal(signal.SIGTERM)
    yield lambda what: signal.signal(signal.SIGTERM, lambda *_: what()) and None
    signal.signal(signal.SIGTERM, before)


def term_when(event: threading.Event, times: int = 1) -> threading.Thread:
    def send() -> None:
        assert event.wait(60)
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("times", [1, 3])
def test_upload_has_ended_when_on_kill_returns(
    loop: Loop, on_term: Callable[[Callable[[], None]], None], times: int
) -> None:
    cancellation, upload, seen = Cancellation(), Upload(), []

    def kill() -> None:
        cancellation.cancel()
        seen.append(upload.cleaned_up)

    on_term(kill)
    sender = term_when(upload.started, times)
    with pytest.raises(TaskCancelledError, match="during the upload; nothing was published"):
        cancellation.run(loop, upload.run())
    sender.join(60)
    assert set(seen) == {True}
    assert upload.cancelled == 1, "a second signal does not interrupt the cleanup"


def test_handler_that_raises_as_in_airflow_2(loop: Loop, on_term: Callable[[Callable[[], None]], None]) -> None:
    cancellation, upload = Cancellation(), Upload()

    class Terminated(BaseException):
        pass

    def kill() -> None:
        cancellation.cancel()
        raise Terminated

    on_term(kill)
    sender = term_when(upload.started)
    with pytest.raises(Terminated):
        cancellation.run(loop, upload.run())
    sender.join(60)
    assert upload.cleaned_up


def test_signal_just_before_the_upload_starts(loop: Loop) -> None:
    """The handler runs in the thread that would start the upload, so it must not wait for that."""
    cancellation, upload = Cancellation(), Upload()
    loop.before_call = cancellation.cancel
    with pytest.raises(TaskCancelledError, match="before the upload began"):
        cancellation.run(loop, upload.run())
    assert not upload.started.is_set()


def test_handler_that_raises_just_before_the_upload_starts(loop: Loop) -> None:
    cancellation, upload = Cancellation(), Upload()

    def kill() -> None:
        cancellation.cancel()
        raise KeyboardInterrupt

    loop.before_call = kill
    coroutine = upload.run()
    with pytest.raises(KeyboardInterrupt):
        cancellation.run(loop, coroutine)
    coroutine.close()
    assert not upload.started.is_set()


def test_cancel_from_another_thread(loop: Loop) -> None:
    cancellation, upload = Cancellation(), Upload()
    thread = threading.Thread(target=lambda: upload.started.wait(60) and cancellation.cancel())
    thread.start()
    with pytest.raises(TaskCancelledError):
        cancellation.run(loop, upload.run())
    thread.join(60)
    assert upload.cleaned_up


def test_no_upload_starts_after_cancel(loop: Loop) -> None:
    cancellation, upload = Cancellation(), Upload()
    cancellation.cancel()
    cancellation.cancel()
    with pytest.raises(TaskCancelledError, match="nothing was published"):
        cancellation.check()
    with pytest.raises(TaskCancelledError, match="before the upload began"):
        cancellation.run(loop, upload.run())
    assert not upload.started.is_set()


def test_cancel_after_the_upload_has_no_effect(loop: Loop) -> None:
    cancellation, upload = Cancellation(), Upload()
    upload.may_finish.set()
    cancellation.run(loop, upload.run())
    cancellation.cancel()
    assert upload.cancelled == 0


def test_upload_that_does_not_end_is_reported_by_the_task(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, on_term: Callable[[Callable[[], None]], None]
) -> None:
    monkeypatch.setattr(cancellation_module, "_STOP_SECONDS", 0.2)
    cancellation, started, may_finish, returned = Cancellation(), threading.Event(), threading.Event(), []

    async def stubborn() -> None:
        started.set()
        while not may_finish.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    on_term(lambda: returned.append(cancellation.cancel()))
    sender = term_when(started)
    with pytest.raises(UploadStillRunningError, match="its object may still appear"):
        cancellation.run(loop, stubborn())
    sender.join(60)
    may_finish.set()
    assert returned == [None]


def test_timeout_of_an_upload_that_does_not_end_is_reported(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation_module, "_STOP_SECONDS", 0.2)
    cancellation, may_finish = Cancellation(), threading.Event()
    main = threading.main_thread().ident

    async def stubborn() -> None:
        assert main is not None
        signal.pthread_kill(main, signal.SIGUSR1)
        while not may_finish.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    def too_late(*_: Any) -> None:
        # Not a TimeoutError: it is an OSError, which asyncio ignores while it wakes its loop.
        raise AirflowTaskTimeout("the task's time is up")

    before = signal.signal(signal.SIGUSR1, too_late)
    try:
        with pytest.raises(UploadStillRunningError):
            cancellation.run(loop, stubborn())
    finally:
        signal.signal(signal.SIGUSR1, before)
        may_finish.set()


def test_fork_of_a_listener_stops_nothing(loop: Loop) -> None:
    """The child has the task's handlers, but neither its upload nor the thread that runs it."""
    cancellation, upload, ended = Cancellation(), Upload(), []

    def fork() -> None:
        assert upload.started.wait(60)
        child = os.fork()
        if child == 0:
            cancellation.cancel()
            os._exit(7)
        ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        upload.may_finish.set()

    thread = threading.Thread(target=fork)
    thread.start()
    cancellation.run(loop, upload.run())
    thread.join(60)
    assert ended == [7]
    assert (upload.cancelled, cancellation.is_cancelled) == (0, False)


def test_closed_event_loop() -> None:
    """As when Python exits."""
    closed = Loop()
    closed.call_soon_threadsafe(closed.stop)
    closed.thread.join(60)
    closed.close()
    cancellation, upload = Cancellation(), Upload()
    coroutine = upload.run()
    with pytest.raises(RuntimeError, match="closed"):
        cancellation.run(closed, coroutine)
    coroutine.close()
    cancellation.cancel()


@pytest.mark.parametrize(
    "operator",
    [
        ActivitiesExportToObjectStorageOperator(task_id="m", export_id="e", destination="s3://b/x.zip"),
        ActivitiesToObjectStorageOperator(task_id="m", destination="s3://b/x.zip"),
    ],
    ids=lambda operator: type(operator).__name__,
)
def test_on_kill_before_execute_cancels_the_task(operator: Any) -> None:
    operator.on_kill()
    operator.on_kill()
    with pytest.raises(TaskCancelledError):
        operator._cancellation.check()
