# SPDX-License-Identifier: Apache-2.0
"""What tests of crashes have in common: a sandbox that tells of each export, processes that are killed, patience."""

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

PATIENCE = 300.0
"""Seconds that any one step may take."""

T = TypeVar("T")


class ObservedSandbox(Sandbox):
    """A sandbox that calls back when an export is made, before the POST is answered."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        #: What is called for exports whose window begins then, and
        self.when_made: dict[datetime, Callable[[], None]] = {}
        #: for each that has a beginning, which it is told. Nothing is answered before they return.
        self.when_any_made: Callable[[datetime], None] | None = None

    def create_export(self, parameters: ExportParameters) -> Export:
        export = super().create_export(parameters)
        if parameters.start is not None:
            if (call := self.when_made.get(parameters.start)) is not None:
                call()
            if (call_any := self.when_any_made) is not None:
                call_any(parameters.start)
        return export

    def made_from(self, start: datetime) -> list[str]:
        """The IDs of the exports whose window begins so, oldest first."""
        return [made.id for made in self.exports if made.params.get("start_date", "")[:10] == f"{start:%Y-%m-%d}"]

    def count(self, method: str) -> int:
        return sum(seen.method == method for seen in self.requests)


@dataclass(frozen=True)
class Worker:
    """The two processes of one try of one task."""

    task: int
    supervisor: int

    @classmethod
    def of(cls, task: int) -> Worker:
        """
        :param task: the ID of the process that runs the task, which its supervisor has forked
        """
        return cls(task, psutil.Process(task).ppid())

    def kill(self, *, with_supervisor: bool) -> None:
        for pid in (self.supervisor, self.task) if with_supervisor else (self.task,):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill_family(pid: int) -> None:
    """End a process and all that it has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def wait_for(what: str, look: Callable[[], T | None], every: float = 0.02, patience: float = PATIENCE) -> T:
    """Look until there is something to be seen, and give it."""
    deadline = time.monotonic() + patience
    while not (seen := look()):
        assert time.monotonic() < deadline, f"{what}: not within {patience:.0f} s"
        time.sleep(every)
    return seen
