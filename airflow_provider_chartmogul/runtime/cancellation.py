# SPDX-License-Identifier: Apache-2.0
"""
Stop a transfer in the middle when Airflow ends its task.

Airflow ends a task by an exception in the task's thread (a timeout) or by a signal whose handler calls ``on_kill``. A
file system uploads in an event loop of another thread, which notices neither: its object could still appear after the
task has failed and its next try has begun. So the upload is cancelled, and waited for until it has ended. The handler
runs in the middle of the task's own code, so it may wait for nothing that the interrupted code holds: nothing here
takes a lock.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine
from typing import Any

from airflow_provider_chartmogul.exceptions import TaskCancelledError, UploadStillRunningError

#: Time for a cancelled upload to close its connections and to abort what it has begun.
_STOP_SECONDS = 60.0

_CHECK_SECONDS = 0.02

#: The longest sleep without a look at whether the task has been cancelled.
_SLEEP_SECONDS = 0.2


class Cancellation:
    """
    Whether a task has been cancelled, and the upload that it is running.

    :ivar is_cancelled: whether ``cancel`` has been called
    """

    def __init__(self) -> None:
        self.is_cancelled = False
        self._upload: _Upload | None = None

    def cancel(self) -> None:
        """
        Cancel the task: no upload starts from now on, and a running one has ended when this returns.

        May be called at any time, more than once, from any thread or signal handler. It raises nothing, since an
        exception would surface wherever the task's thread is, in Airflow's own code too. If the upload does not end
        in time, ``run`` raises the error. A forked process, such as a listener's, has the task's signal handlers but
        not its upload, and stops nothing.
        """
        self.is_cancelled = True
        if self._upload is not None:
            self._upload.cancel()

    def check(self) -> None:
        """
        Stop here if the task has been cancelled.

        :raises TaskCancelledError: if it has
        """
        if self.is_cancelled:
            raise TaskCancelledError("the task was cancelled; nothing was published")

    def sleep(self, seconds: float) -> None:
        """
        Sleep, and stop soon after the task has been cancelled.

        :raises TaskCancelledError: if it has
        """
        wake_at = time.monotonic() + seconds
        self.check()
        while (left := wake_at - time.monotonic()) > 0:
            time.sleep(min(left, _SLEEP_SECONDS))
            self.check()

    def run(self, loop: asyncio.AbstractEventLoop, upload: Coroutine[Any, Any, Any]) -> None:
        """
        Run an upload in a file system's event loop and wait for it.

        An exception in this thread, such as a timeout, cancels the upload before it is raised.

        :param loop: the event loop, running in another thread
        :param upload: the upload, which leaves nothing behind when it is cancelled
        :raises TaskCancelledError: if the task is cancelled
        :raises UploadStillRunningError: if the upload does not end within a minute of being cancelled
        """
        running = self._upload = _Upload(loop)
        try:
            running.start(upload, self)
            running.completion.wait()
        except BaseException:
            running.cancel()
            # An upload that may still publish its object is more important than what ended the task.
            if not isinstance(running.completion.error, UploadStillRunningError):
                raise
        finally:
            self._upload = None
        if running.completion.error is not None:
            raise running.completion.error


class _Upload:
    """A coroutine in the event loop of another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.completion = _Completion()
        self._loop = loop
        self._process = os.getpid()
        self._task: asyncio.Task[Any] | None = None

    def start(self, upload: Coroutine[Any, Any, Any], cancellation: Cancellation) -> None:
        def start() -> None:
            if cancellation.is_cancelled or self.completion.is_set:
                upload.close()
                self.completion.set_result(TaskCancelledError("the task was cancelled before the upload began"))
                return
            self._task = self._loop.create_task(upload)
            self._task.add_done_callback(self._set_result)

        self._loop.call_soon_threadsafe(start)

    def _set_result(self, task: asyncio.Task[Any]) -> None:
        cancelled = TaskCancelledError("the task was cancelled during the upload; nothing was published")
        self.completion.set_result(cancelled if task.cancelled() else task.exception())

    def cancel(self) -> None:
        """Cancel the upload, and wait for a limited time until it has ended."""
        if self.completion.is_set or self._process != os.getpid():
            return

        def cancel() -> None:
            if self._task is None:
                # A signal interrupted start(), which will find the result.
                self.completion.set_result(TaskCancelledError("the task was cancelled before the upload began"))
            elif not self._task.cancelling():
                # A second cancel would interrupt the upload while it cleans up.
                self._task.cancel()

        try:
            self._loop.call_soon_threadsafe(cancel)
        except RuntimeError:
            self.completion.set_result(TaskCancelledError("the file system's event loop was closed during the upload"))
        if not self.completion.wait(_STOP_SECONDS):
            self.completion.set_result(
                UploadStillRunningError(
                    f"the upload was cancelled but has not ended after {_STOP_SECONDS:.0f} s: its object may still "
                    "appear"
                )
            )


class _Completion:
    """
    How an upload ended: set in one thread, awaited in another and in a signal handler that interrupts it.

    Polled instead of locked. A handler would wait forever for a lock that its thread is about to take, and Python
    calls no handler while a thread waits for a lock.

    :ivar error: the error that ended the upload; ``None`` while it runs, and if it succeeded
    """

    def __init__(self) -> None:
        self.is_set = False
        self.error: BaseException | None = None

    def set_result(self, error: BaseException | None) -> None:
        """Set the result; later calls change nothing."""
        if not self.is_set:
            self.error = error
            self.is_set = True

    def wait(self, seconds: float = float("inf")) -> bool:
        """Wait for the result; return whether it came in time."""
        deadline = time.monotonic() + seconds
        while not self.is_set and time.monotonic() < deadline:
            time.sleep(_CHECK_SECONDS)
        return self.is_set
