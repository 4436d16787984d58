# SPDX-License-Identifier: Apache-2.0
"""What the operators of this package have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator, MappedOperator, XComArg

from airflow_provider_chartmogul.api.exports import validate_activity_type
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.intervals.interval import DATA_INTERVAL, Interval, resolve_interval

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


#: Parameters that must not come out of a template or an XCom as None or as empty text: that would be all of history,
#: all types, no lookback, or days of another time zone.
_REQUEST_PARAMETERS = (
    "interval_start",
    "interval_end",
    "activity_type",
    "lookback",
    "partition_length",
    "partition_timezone",
)


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

    template_fields: Sequence[str] = (*_REQUEST_PARAMETERS, "chartmogul_conn_id")

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
        self._none_at_init = frozenset(name for name in _REQUEST_PARAMETERS if getattr(self, name) is None)

    def _wanted(self, context: Context) -> tuple[Interval, str | None]:
        """
        Return the window and the type to export.

        :raises AirflowFailException: when they make no sense, or came out of a template or an XCom empty
        """
        try:
            for name in _REQUEST_PARAMETERS:
                self._reject_empty(name)
            interval = resolve_interval(
                context,
                start=self.interval_start,
                end=self.interval_end,
                lookback=self.lookback,
                partition_length=self.partition_length,
                partition_timezone=self.partition_timezone,
            )
            activity_type = validate_activity_type(self.activity_type)
        except ValueError as error:
            raise AirflowFailException(str(error)) from None  # the log would show the same text twice
        return interval, activity_type

    def _reject_empty(self, name: str) -> None:
        value = getattr(self, name)
        is_empty_text = isinstance(value, str) and value.strip().lower() in ("", "none", "null")
        if is_empty_text or (value is None and not self._is_none_in_dag(name)):
            raise ValueError(
                f"{name} came out of its template or XCom as {value!r}. If that is meant, write {name}=None in the DAG"
            )

    def _is_none_in_dag(self, name: str) -> bool:
        """Return whether a parameter is None because the DAG says so or leaves it out, rather than by an XCom."""
        if name not in self._none_at_init:
            return False
        declared = self.dag.task_dict.get(self.task_id) if self.has_dag() else None  # type: ignore[no-untyped-call]
        if not isinstance(declared, MappedOperator) or name in declared.partial_kwargs:
            return True
        mapped: Any = declared.expand_input.value
        if isinstance(mapped, Mapping):  # expand(name=…)
            mapped = mapped.get(name)
        elif name not in ("interval_start", "interval_end"):  # rows of expand_kwargs leave out what is None by default
            return True
        return not any(XComArg.iter_xcom_references(mapped))
