# SPDX-License-Identifier: Apache-2.0
"""
Ending a task in the middle: a task timeout, or ``on_kill``.

File systems upload in an event loop of their own, in another thread. An exception in the task's thread (a timeout)
does not reach it, so that an upload could go on and show its object after the task has failed and its next try has
begun. Here the upload is cancelled, and waited for until it is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Coroutine
from concurrent.futures import Future, InvalidStateError
from typing import Any

from airflow_provider_chartmogul.errors import ChartMogulError

#: So long is a cancelled upload waited for; it has to close its connections, and to abort what it began.
_GONE_SECONDS = 60.0


class TaskKilledError(ChartMogulError):
    """Airflow has told the task to end."""


class UploadNotGoneError(TaskKilledError):
    """An upload was cancelled, and does not end: its object may yet appear."""


class Cancellation:
    """
    Whether a task was told to end, and the upload that it has under way.

    ``cancel`` may be called from a signal handler, which interrupts the task's own thread wherever it is: nothing
    here holds a lock that such a call would wait for.
    """

    def __init__(self) -> None:
        self.is_cancelled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._gone: Future[Any] | None = None
        self._process = 0

    def cancel(self) -> None:
        """
        End the upload that is under way, return when it is gone; what comes after this is not begun.

        It may be called at any time, from any thread, and again, and raises nothing: an exception out of a signal
        handler would come up wherever the task's thread is, in Airflow's own code too. Where the upload is not gone
        in time, it is ``run`` that says so. In a process that was forked from the task's, as listeners do, it ends
        nothing: the upload is not there.
        """
        self.is_cancelled = True
        self._cancel_upload()

    def check(self) -> None:
        """
        Stop here where the task was told to end.

        :raises TaskKilledError: when it was
        """
        if self.is_cancelled:
            raise TaskKilledError("the task was told to end, and nothing was published")

    def run(self, loop: asyncio.AbstractEventLoop, upload: Coroutine[Any, Any, Any]) -> None:
        """
        Run an upload in a file system's event loop, and wait for it.

        Whatever is raised in this thread meanwhile ends the upload first.

        :param loop: the event loop, which runs in another thread
        :param upload: does the upload; on being cancelled it leaves nothing behind
        :raises TaskKilledError: when it was cancelled
        """
        gone: Future[Any] = Future()

        def start() -> None:
            if self.is_cancelled or gone.done():
                upload.close()
                _fail(gone, "the task was told to end before the upload began")
                return
            self._task = loop.create_task(upload)
            self._task.add_done_callback(lambda task: _pass_on(task, gone))

        try:
            self._loop, self._gone, self._process = loop, gone, os.getpid()
            loop.call_soon_threadsafe(start)
            gone.result()
        except BaseException:
            # The upload's own error, or one of this thread: a timeout, a signal.
            self._cancel_upload()
            # Where it is not gone in time, that is more than what ended the task.
            if gone.done() and isinstance(error := gone.exception(), UploadNotGoneError):
                raise error from None
            raise
        finally:
            self._loop = self._task = self._gone = None

    def _cancel_upload(self) -> None:
        """Cancel the upload, where there is one; on return ``_gone`` is done."""
        loop, gone = self._loop, self._gone
        if loop is None or gone is None or gone.done() or self._process != os.getpid():
            return

        def cancel() -> None:
            if self._task is None:
                # A signal that came when the upload was about to be begun; its beginning is after this.
                _fail(gone, "the task was told to end before the upload began")
            elif not self._task.cancelling():
                # Once: a second time would cut short what the upload does to leave nothing behind.
                self._task.cancel()

        try:
            loop.call_soon_threadsafe(cancel)
            gone.exception(_GONE_SECONDS)
        except RuntimeError:
            _fail(gone, "the file system's event loop was closed, and the upload with it")
        except TimeoutError:
            _fail(
                gone,
                f"the upload was cancelled, and is still not gone after {_GONE_SECONDS:.0f} s: its object may appear",
                UploadNotGoneError,
            )


def _fail(gone: Future[Any], message: str, kind: type[TaskKilledError] = TaskKilledError) -> None:
    """End the wait for an upload, where nothing else has."""
    with contextlib.suppress(InvalidStateError):
        gone.set_exception(kind(message))


def _pass_on(task: asyncio.Task[Any], gone: Future[Any]) -> None:
    if task.cancelled():
        _fail(gone, "the upload was cancelled; nothing of it is at the destination")
        return
    error = task.exception()
    # An upload that was given up as not gone has nobody who waits for it.
    with contextlib.suppress(InvalidStateError):
        if error is not None:
            gone.set_exception(error)
        else:
            gone.set_result(None)
