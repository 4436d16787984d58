# SPDX-License-Identifier: Apache-2.0
"""The part of a task's logger that this package uses."""

from __future__ import annotations

from typing import Any, Protocol


class TaskLog(Protocol):
    """A task's logger, whose class differs between versions of Airflow."""

    def info(self, message: str, /, *args: Any) -> Any: ...

    def warning(self, message: str, /, *args: Any) -> Any: ...
