# SPDX-License-Identifier: Apache-2.0
"""
Ending a task in the middle: a task timeout, or ``on_kill``.

File systems upload in an event loop of their own, in another thread. An exception in the task's thread (a timeout)
does not reach it, so that an upload could go on and show its object after the task has failed and its next try has
begun. Here the upload is cancelled, and waited for until it is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any

from airflow_provider_chartmogul.errors import ChartMogulError

#: So long is a cancelled upload waited for; it has to close its connections, and to abort what it began.
_GONE_SECONDS = 60.0


class TaskKilledError(ChartMogulError):
    """Airflow has told the task to end."""


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

    def cancel(self) -> None:
        """End the upload that is under way, return when it is gone; what comes after this is not begun."""
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
            if self.is_cancelled:
                upload.close()
                gone.set_exception(TaskKilledError("the task was told to end before the upload began"))
                return
            self._task = loop.create_task(upload)
            self._task.add_done_callback(lambda task: _pass_on(task, gone))

        try:
            # In here too a timeout may fall, when the upload has just been begun.
            self._loop, self._gone = loop, gone
            loop.call_soon_threadsafe(start)
            gone.result()
        except BaseException:
            # The upload's own error, or one of this thread: a timeout, a signal.
            self._cancel_upload()
            raise
        finally:
            self._loop = self._task = self._gone = None

    def _cancel_upload(self) -> None:
        loop, gone = self._loop, self._gone
        if loop is None or gone is None or gone.done():
            return

        def cancel() -> None:
            if self._task is None:
                # What was to begin it came before this, or never came.
                if not gone.done():
                    gone.set_exception(TaskKilledError("the task was told to end before the upload began"))
            # Once: a second time would cut short what the upload does to leave nothing behind.
            elif not self._task.cancelling():
                self._task.cancel()

        loop.call_soon_threadsafe(cancel)
        try:
            gone.exception(_GONE_SECONDS)
        except TimeoutError:
            raise TaskKilledError(
                f"the upload was cancelled, and is still not gone after {_GONE_SECONDS:.0f} s: its object may appear"
            ) from None


def _pass_on(task: asyncio.Task[Any], gone: Future[Any]) -> None:
    if task.cancelled():
        gone.set_exception(TaskKilledError("the upload was cancelled; nothing of it is at the destination"))
    elif (error := task.exception()) is not None:
        gone.set_exception(error)
    else:
        gone.set_result(None)
