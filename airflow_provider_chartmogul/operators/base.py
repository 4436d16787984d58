# SPDX-License-Identifier: Apache-2.0
"""What the operators of this package have in common."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator

from airflow_provider_chartmogul.api.exports import validate_activity_type
from airflow_provider_chartmogul.exceptions import IntervalError
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.intervals.run_window import DATA_INTERVAL, Interval, resolve_interval, written_as_none
from airflow_provider_chartmogul.intervals.times import parse_duration

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg


#: Where None, written in the DAG, has a meaning, so that a template that came out as None must not be taken for it.
_NONE_MEANS_SOMETHING = ("interval_start", "interval_end", "activity_type", "lookback")


class ChartMogulOperator(BaseOperator):
    """
    An operator that speaks to ChartMogul.

    :param chartmogul_conn_id: the Airflow connection (templated)
    """

    ui_color = "#e8f0fb"

    def __init__(self, *, chartmogul_conn_id: str = ChartMogulHook.default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.chartmogul_conn_id = chartmogul_conn_id


class ExportRequestOperator(ChartMogulOperator):
    """
    Asks for an export: of which window, of which activities.

    What the parameters mean stands in the operators' own docstrings.
    """

    template_fields: Sequence[str] = (
        "interval_start",
        "interval_end",
        "activity_type",
        "lookback",
        "partition_length",
        "partition_timezone",
        "chartmogul_conn_id",
    )

    def __init__(
        self,
        *,
        interval_start: str | date | datetime | XComArg | Any = DATA_INTERVAL,
        interval_end: str | date | datetime | XComArg | Any = DATA_INTERVAL,
        activity_type: str | XComArg | None = None,
        lookback: timedelta | str | XComArg | None = None,
        partition_length: timedelta | str | XComArg | None = None,
        partition_timezone: str | XComArg | None = None,
        chartmogul_conn_id: str = ChartMogulHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(chartmogul_conn_id=chartmogul_conn_id, **kwargs)
        self.interval_start = interval_start
        self.interval_end = interval_end
        self.activity_type = activity_type
        self.lookback = lookback
        self.partition_length = partition_length
        self.partition_timezone = partition_timezone
        self._none_at_init = frozenset(name for name in _NONE_MEANS_SOMETHING if getattr(self, name) is None)

    def _wanted(self, context: Context) -> tuple[Interval, str | None]:
        """Check everything there is to check before a request is sent."""
        written = written_as_none(
            self, self._none_at_init, _NONE_MEANS_SOMETHING, none_by_default=("activity_type", "lookback")
        )
        try:
            if self.lookback is None and "lookback" not in written:
                parse_duration("None", "lookback")
            interval = resolve_interval(
                context,
                start=self.interval_start,
                end=self.interval_end,
                open_ends=written,
                lookback=self.lookback,
                partition_length=self.partition_length,
                partition_timezone=self.partition_timezone,
            )
            # A template or XCom that came out as None is not 'all types' either.
            unwritten_none = self.activity_type is None and "activity_type" not in written
            activity_type = validate_activity_type("None" if unwritten_none else self.activity_type)
        except (IntervalError, ValueError) as error:
            raise AirflowFailException(str(error)) from error
        return interval, activity_type
