# SPDX-License-Identifier: Apache-2.0
"""The operator that makes an activities export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook, fail_without_retry
from airflow_provider_chartmogul.operators.base import ExportRequestOperator
from airflow_provider_chartmogul.sources.resumption import create_or_resume

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class CreateActivitiesExportOperator(ExportRequestOperator):
    """
    Make a ChartMogul activities export, and return its ID.

    A retry after a crash goes on with the export that the try before it has made, where Airflow keeps a state for
    tasks (3.3 and later); on older versions it makes a new one. Clearing the task makes a new one on all.

    The window is the run's data interval where nothing else is said; ``None``, written in the DAG, leaves an
    end open. Times without a time zone are UTC, and what goes to ChartMogul is UTC. Whether ChartMogul counts
    the end of a window in is documented nowhere.

    :param interval_start: start of the window: a template, ISO 8601 text, ``date`` or ``datetime``; None: from
        the beginning (templated)
    :param interval_end: end of the window, in the same forms; None: until now (templated)
    :param activity_type: ``new_biz``, ``reactivation``, ``expansion``, ``contraction`` or ``churn``; None: all of
        them (templated)
    :param lookback: moves the start of the window earlier, since activities change after the fact; a
        ``timedelta`` or ISO 8601 text such as ``P7D`` (templated)
    :param partition_length: length of the window of a run that has a partition key instead of a data interval;
        the key is its start. Keys such as ``2024``, ``2024-Q1``, ``2024-03``, ``2024-W11`` and
        ``2024-03-01/2024-04-01`` need none (templated)
    :param partition_timezone: name of the time zone of partition keys that name none; None: the timetable's on
        Airflow 3.3, UTC where it has none and on 3.2 (templated)
    :param chartmogul_conn_id: the Airflow connection (templated)
    :raises AirflowFailException: when a retry cannot help: no window, an unknown type, a wrong key, a refusal
    :raises ChartMogulError: when ChartMogul could not be asked
    """

    def execute(self, context: Context) -> str:
        interval, activity_type = self._wanted(context)
        with fail_without_retry(), ChartMogulHook(self.chartmogul_conn_id) as hook:
            return create_or_resume(context, hook, interval, activity_type, self.log).id
