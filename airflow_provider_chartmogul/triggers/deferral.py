# SPDX-License-Identifier: Apache-2.0
"""
A task's wait in the triggerer: how it is begun, its deadline, and what the event that ends it says.

The sensor and the operator that does all in one task both wait this way; what a timeout or a failed export means for
the task is theirs to say.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_chartmogul.exceptions import ChartMogulError
from airflow_provider_chartmogul.triggers.activities_export import ActivitiesExportTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

#: Airflow's own time limit of a deferral is only a backstop, for a triggerer that is down when the deadline comes.
_BACKSTOP = timedelta(minutes=5)

#: How a task is resumed whose deferral ran into that limit (``next_kwargs["error"]``): in Airflow 3, and in 2.
_TRIGGER_TIMEOUTS = ("Trigger timeout", "Trigger/execution timeout")


@dataclass(frozen=True)
class Outcome:
    """
    How a wait ended.

    ``late`` names the limit of the task that has passed, ``timeout`` or ``execution_timeout``; None: none has.
    ``message`` is what went wrong, None: nothing; ``permanent`` and ``unusable`` are as in ``errors``, and ``what``
    is the message without what to do.
    """

    late: str | None = None
    message: str | None = None
    what: str | None = None
    permanent: bool = False
    unusable: bool = False


def defer_wait(
    task: BaseOperator,
    context: Context,
    *,
    export_id: str,
    chartmogul_conn_id: str,
    poll_interval: float,
    timeout: float,
    max_failure_seconds: float,
    kwargs: dict[str, Any] | None = None,
) -> None:
    """
    Defer a task until an export is done; it goes on with its ``execute_complete``.

    The deadline is fixed here: the earlier of ``timeout`` and of what is left of the task's ``execution_timeout``,
    which Airflow 3 does not honour while a task is deferred.

    :param timeout: seconds from now
    :param kwargs: for ``execute_complete``, beside the event
    :raises TaskDeferred: always
    """
    now = time.time()
    deadline, name = now + timeout, "timeout"
    if task.execution_timeout is not None:
        started = context["ti"].start_date
        limit = (started.timestamp() if started else now) + task.execution_timeout.total_seconds()
        if limit < deadline:
            deadline, name = limit, "execution_timeout"
    task.defer(
        trigger=ActivitiesExportTrigger(
            chartmogul_conn_id=chartmogul_conn_id,
            export_id=export_id,
            poll_interval=poll_interval,
            deadline=deadline,
            max_failure_seconds=max_failure_seconds,
            deadline_name=name,
            started=now,
        ),
        method_name="execute_complete",
        kwargs=kwargs,
        timeout=timedelta(seconds=max(0.0, deadline - now)) + _BACKSTOP,
    )


def read_event(event: Any, export_id: str) -> Outcome:
    """
    Read the event that ended a wait.

    :raises ChartMogulError: when it is not the event of this wait
    """
    if not isinstance(event, dict) or event.get("export_id") != export_id:
        raise ChartMogulError(f"the wait for export {export_id} ended with an event that is not its own: {event!r}")
    status = event.get("status")
    if status == "done":
        return Outcome()
    if status == "timeout":
        name = str(event.get("deadline_name"))
        text = late_text(export_id, name, event.get("last_status"))
        return Outcome(late=name, message=text, what=text)
    message = str(event.get("message"))
    return Outcome(
        message=message,
        what=str(event.get("what") or message),
        permanent=bool(event.get("permanent")),
        unusable=bool(event.get("unusable")),
    )


def late_text(export_id: str, limit: str, status: str | None) -> str:
    """Say that an export was not done within one of the task's limits."""
    return f"export {export_id} was not done within the task's {limit}; its last status was '{status or 'not known'}'"


def is_backstop(next_kwargs: dict[str, Any] | None) -> bool:
    """Whether a task is resumed because Airflow's own limit of the deferral has passed, without an event."""
    return (next_kwargs or {}).get("error") in _TRIGGER_TIMEOUTS


def earlier_limit(task: BaseOperator, timeout: float) -> str:
    """
    Name the limit that has passed where no event says so.

    :param timeout: the wait's own, in seconds
    """
    limit = task.execution_timeout
    return "execution_timeout" if limit is not None and limit.total_seconds() < timeout else "timeout"


def backstop_text() -> str:
    """Say that the wait ended without an event."""
    return "the export was not seen to be done in time, and no triggerer said so either: check that one is running"
