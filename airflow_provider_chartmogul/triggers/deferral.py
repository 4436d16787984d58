# SPDX-License-Identifier: Apache-2.0
"""Defer a task until an export is finished."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_chartmogul.exceptions import ExportTimeoutError
from airflow_provider_chartmogul.sources.polling import PollSettings, earlier_limit
from airflow_provider_chartmogul.triggers.activities_export import ActivitiesExportTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

#: The trigger enforces the deadline. Airflow's own limit of the deferral comes this much later, in case no triggerer
#: runs.
_BACKSTOP = timedelta(minutes=5)

#: ``next_kwargs["error"]`` of a task that Airflow resumes because that limit has passed: on Airflow 3, on Airflow 2.
_TRIGGER_TIMEOUTS = ("Trigger timeout", "Trigger/execution timeout")


def defer_until_finished(
    task: BaseOperator,
    export_id: str,
    settings: PollSettings,
    *,
    chartmogul_conn_id: str,
    kwargs: dict[str, Any] | None = None,
) -> NoReturn:
    """
    Defer the task until an export is finished; the task resumes in its ``execute_complete``.

    :param settings: how to poll, with a deadline
    :param kwargs: arguments of ``execute_complete``, besides the event
    :raises TaskDeferred: always
    """
    task.defer(
        trigger=ActivitiesExportTrigger(
            chartmogul_conn_id=chartmogul_conn_id,
            export_id=export_id,
            poll_interval=settings.interval,
            deadline=settings.deadline,
            max_failure_seconds=settings.max_failure_seconds,
            deadline_name=settings.deadline_name,
            started=settings.started,
        ),
        method_name="execute_complete",
        kwargs=kwargs,
        timeout=timedelta(seconds=max(0.0, settings.remaining())) + _BACKSTOP,
    )


def raise_if_deferral_timed_out(task: BaseOperator, next_kwargs: dict[str, Any] | None, timeout: float) -> None:
    """
    Raise if a task resumes without an event, because Airflow's limit of the deferral has passed.

    :param next_kwargs: what Airflow stored for the resumption; any other error in it is left to the caller
    :param timeout: the limit of the wait, in seconds
    :raises ExportTimeoutError: if ``timeout`` was the earlier limit
    :raises AirflowTaskTimeout: if the task's ``execution_timeout`` was the earlier limit
    """
    if (next_kwargs or {}).get("error") not in _TRIGGER_TIMEOUTS:
        return
    message = "the export did not finish in time, and no triggerer reported it: check that a triggerer is running"
    if earlier_limit(task, timeout) == "execution_timeout":
        raise AirflowTaskTimeout(message)
    raise ExportTimeoutError(message)
