# SPDX-License-Identifier: Apache-2.0
"""The operator that makes an activities export."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator

from airflow_provider_chartmogul import api
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook, failing_for_good
from airflow_provider_chartmogul.intervals import (
    DATA_INTERVAL,
    Interval,
    IntervalError,
    resolve_interval,
    written_as_none,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg


class CreateActivitiesExportOperator(BaseOperator):
    """
    Make a ChartMogul activities export, and return its ID.

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
        the key is its start (templated)
    :param chartmogul_conn_id: the Airflow connection (templated)
    :raises AirflowFailException: when a retry cannot help: no window, an unknown type, a wrong key, a refusal
    :raises ChartMogulError: when ChartMogul could not be asked
    """

    template_fields: Sequence[str] = (
        "interval_start",
        "interval_end",
        "activity_type",
        "lookback",
        "partition_length",
        "chartmogul_conn_id",
    )
    ui_color = "#e8f0fb"

    def __init__(
        self,
        *,
        interval_start: str | date | datetime | XComArg | Any = DATA_INTERVAL,
        interval_end: str | date | datetime | XComArg | Any = DATA_INTERVAL,
        activity_type: str | XComArg | None = None,
        lookback: timedelta | str | XComArg | None = None,
        partition_length: timedelta | str | XComArg | None = None,
        chartmogul_conn_id: str = ChartMogulHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.interval_start = interval_start
        self.interval_end = interval_end
        self.activity_type = activity_type
        self.lookback = lookback
        self.partition_length = partition_length
        self.chartmogul_conn_id = chartmogul_conn_id
        self._none_at_init = frozenset(
            name for name in ("interval_start", "interval_end", "activity_type") if getattr(self, name) is None
        )

    def execute(self, context: Context) -> str:
        interval, activity_type = self._wanted(context)
        self.log.info("Creating an export of %s activities from %s", activity_type or "all types of", interval)
        with failing_for_good(), ChartMogulHook(self.chartmogul_conn_id) as hook:
            export = hook.create_activities_export(
                start_date=interval.start, end_date=interval.end, activity_type=activity_type
            )
        self.log.info("Activities export %s is made, its status is %s", export.id, export.status_word)
        return export.id

    def _wanted(self, context: Context) -> tuple[Interval, str | None]:
        """Check everything there is to check before a request is sent."""
        written = written_as_none(
            self,
            self._none_at_init,
            ("interval_start", "interval_end", "activity_type"),
            none_by_default=("activity_type",),
        )
        try:
            interval = resolve_interval(
                context,
                start=self.interval_start,
                end=self.interval_end,
                open_ends=written,
                lookback=self.lookback,
                partition_length=self.partition_length,
            )
            # A template or XCom that came out as None is not 'all types' either.
            unwritten_none = self.activity_type is None and "activity_type" not in written
            activity_type = api.validate_activity_type("None" if unwritten_none else self.activity_type)
        except (IntervalError, ValueError) as error:
            raise AirflowFailException(str(error)) from error
        return interval, activity_type
