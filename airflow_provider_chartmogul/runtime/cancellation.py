# SPDX-License-Identifier: Apache-2.0
"""
Ending a task in the middle: a task timeout, or ``on_kill``.

File systems upload in an event loop of their own, in another thread. An exception in the task's thread (a timeout)
does not reach it, so that an upload could go on and show its object after the task has failed and its next try has
begun. Here the upload is cancelled, and waited for until it is gone.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine
from typing import Any

from airflow_provider_chartmogul.exceptions import TaskCancelledError, UploadStillRunningError

#: So long is a cancelled upload waited for; it has to close its connections, and to abort what it began.
_GONE_SECONDS = 60.0

#: Between two looks whether an upload is gone.
_LOOK_SECONDS = 0.02


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
        self._end: _End | None = None
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

        :raises TaskCancelledError: when it was
        """
        if self.is_cancelled:
            raise TaskCancelledError("the task was told to end, and nothing was published")

    def run(self, loop: asyncio.AbstractEventLoop, upload: Coroutine[Any, Any, Any]) -> None:
        """
        Run an upload in a file system's event loop, and wait for it.

        Whatever is raised in this thread meanwhile ends the upload first.

        :param loop: the event loop, which runs in another thread
        :param upload: does the upload; on being cancelled it leaves nothing behind
        :raises TaskCancelledError: when it was cancelled
        """
        end = _End()

        def start() -> None:
            if self.is_cancelled or end.is_said:
                upload.close()
                end.say(TaskCancelledError("the task was told to end before the upload began"))
                return
            self._task = loop.create_task(upload)
            self._task.add_done_callback(lambda task: _pass_on(task, end))

        try:
            self._loop, self._end, self._process = loop, end, os.getpid()
            loop.call_soon_threadsafe(start)
            end.wait()
        except BaseException:
            # Of this thread: a timeout, a signal.
            self._cancel_upload()
            # An upload that is not gone in time is more than what ended the task.
            if isinstance(end.error, UploadStillRunningError):
                raise end.error from None
            raise
        finally:
            self._loop = self._task = self._end = None
        if end.error is not None:
            raise end.error

    def _cancel_upload(self) -> None:
        """Cancel the upload, where there is one; on return it has ended, or is given up."""
        loop, end = self._loop, self._end
        if loop is None or end is None or end.is_said or self._process != os.getpid():
            return

        def cancel() -> None:
            if self._task is None:
                # A signal that came when the upload was about to be begun; its beginning is after this.
                end.say(TaskCancelledError("the task was told to end before the upload began"))
            elif not self._task.cancelling():
                # Once: a second time would cut short what the upload does to leave nothing behind.
                self._task.cancel()

        try:
            loop.call_soon_threadsafe(cancel)
        except RuntimeError:
            end.say(TaskCancelledError("the file system's event loop was closed, and the upload with it"))
        if not end.wait(_GONE_SECONDS):
            end.say(
                UploadStillRunningError(
                    f"the upload was cancelled, and is not gone after {_GONE_SECONDS:.0f} s: its object may appear"
                )
            )


class _End:
    """
    How an upload ended: said by one thread, waited for by another, and by a signal's handler in the midst of that.

    Without a lock, and by looking. A handler may interrupt its thread with the lock half taken, and would then wait
    for what needs it; and as Python calls handlers between two steps of its own, a signal that comes just as a thread
    begins to wait for a lock is seen only when it has it.
    """

    def __init__(self) -> None:
        self._said: list[BaseException | None] = []

    @property
    def is_said(self) -> bool:
        return bool(self._said)

    @property
    def error(self) -> BaseException | None:
        """What went wrong; None: nothing, or it has not ended."""
        return self._said[0] if self._said else None

    def say(self, error: BaseException | None) -> None:
        """Say how it ended; what was said first holds."""
        self._said.append(error)

    def wait(self, seconds: float = float("inf")) -> bool:
        """Wait until that is said; False: it was not, in time."""
        give_up = time.monotonic() + seconds
        while not self._said:
            if time.monotonic() >= give_up:
                return False
            time.sleep(_LOOK_SECONDS)
        return True


def _pass_on(task: asyncio.Task[Any], end: _End) -> None:
    if task.cancelled():
        end.say(TaskCancelledError("the upload was cancelled; nothing of it is at the destination"))
    else:
        end.say(task.exception())
