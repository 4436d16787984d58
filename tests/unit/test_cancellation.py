# SPDX-License-Identifier: Apache-2.0
"""
A task that is told to end, at every moment at which that can happen: ``on_kill`` returns, and raises nothing.

The uploads are coroutines in an event loop of another thread, as file systems have one; signals are real. Uploads to a
store that are ended so are in ``tests/integration/test_cancelled_transfer.py``.
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
from airflow_provider_chartmogul.runtime import cancellation as room
from airflow_provider_chartmogul.runtime.cancellation import Cancellation
from airflow_provider_chartmogul.transfers.activities_export_to_object_storage import (
    ActivitiesExportToObjectStorageOperator,
)
from airflow_provider_chartmogul.transfers.activities_to_object_storage import ActivitiesToObjectStorageOperator


class Loop(asyncio.SelectorEventLoop):
    """An event loop in a thread of its own; ``at_hand_over`` is called when the task's thread is about to reach it."""

    def __init__(self) -> None:
        super().__init__()
        self.at_hand_over: Callable[[], None] | None = None
        self.thread = threading.Thread(target=self.run_forever, daemon=True)
        self.thread.start()

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:
        told, self.at_hand_over = self.at_hand_over, None
        if told is not None:
            told()
        return super().call_soon_threadsafe(*args, **kwargs)


class Upload:
    """Goes on until it is cancelled, and writes down what becomes of it."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.cancelled = 0
        self.cleaned_up = False

    async def run(self) -> None:
        self.begun.set()
        try:
            # An event of threads, that tests can set.
            while not self.may_end.is_set():  # noqa: ASYNC110
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
    """Set what SIGTERM does, until the test is over."""
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
def test_by_a_signal_in_the_middle_it_is_gone_when_on_kill_returns(
    loop: Loop, on_term: Callable[[Callable[[], None]], None], times: int
) -> None:
    told, upload, seen = Cancellation(), Upload(), []

    def kill() -> None:
        told.cancel()
        seen.append(upload.cleaned_up)

    on_term(kill)
    sender = term_when(upload.begun, times)
    with pytest.raises(TaskCancelledError, match="during the upload; nothing was published"):
        told.run(loop, upload.run())
    sender.join(60)
    assert set(seen) == {True}
    assert upload.cancelled == 1, "a second signal cuts nothing short"


def test_by_a_handler_that_raises_as_airflow_2_s_does(
    loop: Loop, on_term: Callable[[Callable[[], None]], None]
) -> None:
    told, upload = Cancellation(), Upload()

    class Terminated(BaseException):
        pass

    def kill() -> None:
        told.cancel()
        raise Terminated

    on_term(kill)
    sender = term_when(upload.begun)
    with pytest.raises(Terminated):
        told.run(loop, upload.run())
    sender.join(60)
    assert upload.cleaned_up


def test_a_signal_just_before_the_upload_is_begun(loop: Loop) -> None:
    """The handler runs in the very thread that would begin it, and must not wait for that."""
    told, upload = Cancellation(), Upload()
    loop.at_hand_over = told.cancel
    with pytest.raises(TaskCancelledError, match="before the upload began"):
        told.run(loop, upload.run())
    assert not upload.begun.is_set()


def test_a_handler_that_raises_just_before_the_upload_is_begun(loop: Loop) -> None:
    told, upload = Cancellation(), Upload()

    def kill() -> None:
        told.cancel()
        raise KeyboardInterrupt

    loop.at_hand_over = kill
    coroutine = upload.run()
    with pytest.raises(KeyboardInterrupt):
        told.run(loop, coroutine)
    coroutine.close()
    assert not upload.begun.is_set()


def test_by_another_thread(loop: Loop) -> None:
    told, upload = Cancellation(), Upload()
    thread = threading.Thread(target=lambda: upload.begun.wait(60) and told.cancel())
    thread.start()
    with pytest.raises(TaskCancelledError):
        told.run(loop, upload.run())
    thread.join(60)
    assert upload.cleaned_up


def test_before_there_is_an_upload_none_is_begun(loop: Loop) -> None:
    told, upload = Cancellation(), Upload()
    told.cancel()
    told.cancel()
    with pytest.raises(TaskCancelledError, match="nothing was published"):
        told.check()
    with pytest.raises(TaskCancelledError, match="before the upload began"):
        told.run(loop, upload.run())
    assert not upload.begun.is_set()


def test_after_the_upload_it_is_harmless(loop: Loop) -> None:
    told, upload = Cancellation(), Upload()
    upload.may_end.set()
    told.run(loop, upload.run())
    told.cancel()
    assert upload.cancelled == 0


def test_an_upload_that_will_not_end_is_told_by_the_task_and_not_by_on_kill(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, on_term: Callable[[Callable[[], None]], None]
) -> None:
    monkeypatch.setattr(room, "_STOP_SECONDS", 0.2)
    told, begun, may_end, returned = Cancellation(), threading.Event(), threading.Event(), []

    async def stubborn() -> None:
        begun.set()
        while not may_end.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    on_term(lambda: returned.append(told.cancel()))
    sender = term_when(begun)
    with pytest.raises(UploadStillRunningError, match="its object may still appear"):
        told.run(loop, stubborn())
    sender.join(60)
    may_end.set()
    assert returned == [None]


def test_a_timeout_of_an_upload_that_will_not_end_says_so(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_STOP_SECONDS", 0.2)
    told, may_end = Cancellation(), threading.Event()
    main = threading.main_thread().ident

    async def stubborn() -> None:
        assert main is not None
        signal.pthread_kill(main, signal.SIGUSR1)
        while not may_end.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    def too_late(*_: Any) -> None:
        # No TimeoutError, which is an OSError, and such are swallowed by asyncio where it wakes its loop.
        raise AirflowTaskTimeout("the task's time is up")

    before = signal.signal(signal.SIGUSR1, too_late)
    try:
        with pytest.raises(UploadStillRunningError):
            told.run(loop, stubborn())
    finally:
        signal.signal(signal.SIGUSR1, before)
        may_end.set()


def test_in_a_fork_as_listeners_make_it_ends_nothing(loop: Loop) -> None:
    """The child has the task's handlers, and neither its upload nor the thread that it goes on in."""
    told, upload, ended = Cancellation(), Upload(), []

    def fork() -> None:
        assert upload.begun.wait(60)
        child = os.fork()
        if child == 0:
            told.cancel()
            os._exit(7)
        ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        upload.may_end.set()

    thread = threading.Thread(target=fork)
    thread.start()
    told.run(loop, upload.run())
    thread.join(60)
    assert ended == [7]
    assert (upload.cancelled, told.is_cancelled) == (0, False)


def test_a_file_system_whose_loop_is_closed() -> None:
    """As when Python goes down."""
    closed = Loop()
    closed.call_soon_threadsafe(closed.stop)
    closed.thread.join(60)
    closed.close()
    told, upload = Cancellation(), Upload()
    coroutine = upload.run()
    with pytest.raises(RuntimeError, match="closed"):
        told.run(closed, coroutine)
    coroutine.close()
    told.cancel()


@pytest.mark.parametrize(
    "operator",
    [
        ActivitiesExportToObjectStorageOperator(task_id="m", export_id="e", destination="s3://b/x.zip"),
        ActivitiesToObjectStorageOperator(task_id="m", destination="s3://b/x.zip"),
    ],
    ids=lambda operator: type(operator).__name__,
)
def test_on_kill_of_a_task_that_has_not_begun_ends_it_when_it_does(operator: Any) -> None:
    operator.on_kill()
    operator.on_kill()
    with pytest.raises(TaskCancelledError):
        operator._cancellation.check()
