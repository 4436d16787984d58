# SPDX-License-Identifier: Apache-2.0
"""The operator that creates an activities export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook, fail_without_retry
from airflow_provider_chartmogul.operators.base import ExportRequestOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class CreateActivitiesExportOperator(ExportRequestOperator):
    """
    Create a ChartMogul activities export, and return its ID.

    A retry after a crash resumes the export of the earlier try on Airflow 3.3 and later, which keeps state between
    tries; on older versions it creates a new one. Clearing the task always creates a new one.

    Without ``interval_start`` and ``interval_end`` the window is the run's data interval. ``None``, written in the DAG,
    leaves an end open. Times without a time zone are UTC, and so is what is sent to ChartMogul. ChartMogul does not
    document whether the end of the window is inclusive.

    :param interval_start: start of the window: a template, ISO 8601 text, ``date`` or ``datetime``; ``None`` begins
        with the first activity (templated)
    :param interval_end: end of the window, in the same forms; ``None`` ends when the export is created (templated)
    :param activity_type: ``new_biz``, ``reactivation``, ``expansion``, ``contraction`` or ``churn``; ``None``, or
        ``all`` from a template, exports all types (templated)
    :param lookback: how much earlier the window starts, since activities change after the fact: a ``timedelta`` or ISO
        8601 text such as ``P7D`` (templated)
    :param partition_length: length of the window of a run that has a partition key and no data interval; the key is its
        start. Keys such as ``2024``, ``2024-Q1``, ``2024-03``, ``2024-W11`` and ``2024-03-01/2024-04-01`` need none
        (templated)
    :param partition_timezone: name of the time zone of partition keys that name none. ``None`` is the timetable's on
        Airflow 3.3, and UTC on 3.2 and where the timetable has none (templated)
    :param chartmogul_conn_id: the Airflow connection (templated)
    :raises AirflowFailException: if no retry can help: no window, an unknown type, a wrong key, a refused request
    :raises ChartMogulError: if the request fails
    """

    def execute(self, context: Context) -> str:
        from airflow_provider_chartmogul.sources.resumption import create_or_resume_export

        request = self._export_request(context)
        with fail_without_retry(), ChartMogulHook(self.chartmogul_conn_id) as hook:
            return create_or_resume_export(context, hook, request, self.log).id
