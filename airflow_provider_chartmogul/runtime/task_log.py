# SPDX-License-Identifier: Apache-2.0
"""What this package needs of a task's logger."""

from __future__ import annotations

from typing import Any, Protocol


class TaskLog(Protocol):
    """What is needed of a task's logger: Airflow's differ between its versions."""

    def info(self, message: str, /, *args: Any) -> Any: ...

    def warning(self, message: str, /, *args: Any) -> Any: ...
