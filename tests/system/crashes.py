# SPDX-License-Identifier: Apache-2.0
"""Helpers of the crash tests: a sandbox with callbacks, worker processes that can be killed, waiting with a timeout."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import psutil

from airflow_provider_chartmogul.sandbox import Sandbox
from airflow_provider_chartmogul.sandbox.exports import Export, ExportParameters

#: Time limit for one step in seconds.
STEP_SECONDS = 300.0

T = TypeVar("T")


class ObservedSandbox(Sandbox):
    """A sandbox that calls back after it has created an export and before it responds to the POST."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        #: Callbacks by the start of the export's window.
        self.on_export_from: dict[datetime, Callable[[], None]] = {}
        #: Callback for every export with a start, which it receives. The response is sent after the callbacks return.
        self.on_export: Callable[[datetime], None] | None = None

    def create_export(self, parameters: ExportParameters) -> Export:
        export = super().create_export(parameters)
        if parameters.start is not None:
            if (callback := self.on_export_from.get(parameters.start)) is not None:
                callback()
            if (callback_with_start := self.on_export) is not None:
                callback_with_start(parameters.start)
        return export

    def export_ids_from(self, start: datetime) -> list[str]:
        """Return the IDs of the exports whose window starts on a day, oldest first."""
        day = f"{start:%Y-%m-%d}"
        return [export.id for export in self.exports if export.params.get("start_date", "")[:10] == day]

    def count_requests(self, method: str) -> int:
        return sum(request.method == method for request in self.requests)


@dataclass(frozen=True)
class Worker:
    """
    The two processes of one try of a task.

    :param task: ID of the process that runs the task
    :param supervisor: ID of its parent process, which reports to Airflow
    """

    task: int
    supervisor: int

    @classmethod
    def of_task(cls, pid: int) -> Worker:
        return cls(pid, psutil.Process(pid).ppid())

    def kill(self, *, with_supervisor: bool) -> None:
        for pid in (self.supervisor, self.task) if with_supervisor else (self.task,):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill_process_tree(pid: int) -> None:
    """Kill a process and all its descendants."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def wait_for(
    description: str, condition: Callable[[], T | None], every: float = 0.02, timeout: float = STEP_SECONDS
) -> T:
    """
    Poll a condition until its result is true, and return the result.

    :param description: what is awaited, for the message after a timeout
    :param every: seconds between polls
    :param timeout: time limit in seconds
    """
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < deadline, f"timed out after {timeout:.0f} s: {description}"
        time.sleep(every)
    return result
