# SPDX-License-Identifier: Apache-2.0
"""Base classes of the operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any, ClassVar, Final

import jinja2
from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator, MappedOperator, XComArg

from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from airflow_provider_chartmogul.intervals.durations import parse_duration
from airflow_provider_chartmogul.intervals.interval import DATA_INTERVAL, Interval, resolve_interval
from airflow_provider_chartmogul.intervals.times import parse_time, parse_timezone
from airflow_provider_chartmogul.operators.literals import is_declared, is_literal

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_chartmogul.api.exports import ExportRequest

_Parsers = Mapping[str, Callable[[Any, str], object]]

#: The parameters of a window, and what parses them. None of them may come out of a template or an XCom as None or as
#: empty text: that would be all of history, no lookback, or days of another time zone.
_WINDOW_PARAMETERS: Final[_Parsers] = {
    "interval_start": parse_time,
    "interval_end": parse_time,
    "lookback": parse_duration,
    "partition_length": parse_duration,
    "partition_timezone": parse_timezone,
}


def _parse_activity_type(value: object, _name: str) -> str | None:
    from airflow_provider_chartmogul.api.exports import validate_activity_type

    return validate_activity_type(value)


#: The same for an export. Without a type, it would export all types.
_REQUEST_PARAMETERS: Final[_Parsers] = {**_WINDOW_PARAMETERS, "activity_type": _parse_activity_type}

_MAP_INDEX_TEMPLATE: Final = "{{ task.map_index_name() }}"


class ParsedOperator(BaseOperator):
    """An operator that checks its literal parameters when the DAG is parsed."""

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Begin a mapped task; parameters that are literals are checked at once."""
        cls._check_literals(kwargs)
        return super().partial(**kwargs)

    def _check_at_parse(self) -> None:
        """
        Check the parameters that are known when the DAG is parsed; subclasses call it at the end of their ``__init__``.

        :raises ValueError: if one is invalid
        """
        if is_declared(self):
            self._check_literals(vars(self))

    @classmethod
    def _check_literals(cls, given: Mapping[str, Any]) -> None:
        """
        Check the parameters that are literals; subclasses add theirs.

        :param given: parameters by name; those that a mapped task gets later are missing
        :raises ValueError: if one is invalid
        """


class ChartMogulOperator(ParsedOperator):
    """
    An operator that sends requests to ChartMogul.

    :param chartmogul_conn_id: the Airflow connection (templated)
    """

    ui_color = "#e8f0fb"

    def __init__(self, *, chartmogul_conn_id: str = ChartMogulHook.default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.chartmogul_conn_id = chartmogul_conn_id


class WindowOperator(ChartMogulOperator):
    """
    An operator that covers a window of time: the parameters that say which.

    The operators' own docstrings describe the parameters.
    """

    template_fields: Sequence[str] = (*_WINDOW_PARAMETERS, "chartmogul_conn_id")

    #: The parameters to check, and what parses them.
    _parsers: ClassVar[_Parsers] = _WINDOW_PARAMETERS

    def __init__(
        self,
        *,
        interval_start: str | date | datetime | XComArg | Any = DATA_INTERVAL,
        interval_end: str | date | datetime | XComArg | Any = DATA_INTERVAL,
        lookback: timedelta | str | XComArg | None = None,
        partition_length: timedelta | str | XComArg | None = None,
        partition_timezone: str | XComArg | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.interval_start = interval_start
        self.interval_end = interval_end
        self.lookback = lookback
        self.partition_length = partition_length
        self.partition_timezone = partition_timezone

    def _check_at_parse(self) -> None:
        self._none_at_init = frozenset(name for name in self._parsers if getattr(self, name) is None)
        super()._check_at_parse()
        if self.map_index_template is None and next(self.iter_mapped_task_groups(), None) is not None:
            self.map_index_template = _MAP_INDEX_TEMPLATE

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Begin a mapped task, whose tasks are named by what they do unless ``map_index_template`` is given."""
        partial = super().partial(**kwargs)
        if partial.kwargs.get("map_index_template") is None:
            partial.kwargs["map_index_template"] = _MAP_INDEX_TEMPLATE
        return partial

    @classmethod
    def _check_literals(cls, given: Mapping[str, Any]) -> None:
        super()._check_literals(given)
        for name, parse in cls._parsers.items():
            if is_literal(value := given.get(name)):
                parse(value, name)
        start, end, lookback = (given.get(name) for name in ("interval_start", "interval_end", "lookback"))
        # A mapped task may get its lookback later.
        is_lookback_known = "lookback" in given and (lookback is None or is_literal(lookback))
        if is_literal(start) and is_literal(end) and is_lookback_known:
            resolve_interval({}, start=start, end=end, lookback=lookback)

    @jinja2.pass_context
    def map_index_name(self, context: Context) -> str:
        """Return what the task does, as the name of a mapped task on Airflow's page."""
        try:
            name = self._map_index_name(context)
        except Exception:  # execute() reports it; an error in a name would hide that one, or fail a task that succeeded
            return "no window"
        is_default = self.chartmogul_conn_id == ChartMogulHook.default_conn_name
        return name if is_default else f"{name}, {self.chartmogul_conn_id}"

    def _map_index_name(self, context: Context) -> str:
        return str(self._resolve_interval(context))

    def _resolve_interval(self, context: Context) -> Interval:
        """
        Return the window that the task's parameters and its run say.

        :raises AirflowFailException: if they make no sense, or came out of a template or an XCom empty
        """
        try:
            for name in self._parsers:
                self._reject_empty(name)
            return resolve_interval(
                context,
                start=self.interval_start,
                end=self.interval_end,
                lookback=self.lookback,
                lookback_timezone=self._lookback_timezone(),
                partition_length=self.partition_length,
                partition_timezone=self.partition_timezone,
            )
        except ValueError as error:
            raise AirflowFailException(str(error)) from None  # the log would show the same text twice

    def _lookback_timezone(self) -> tzinfo | None:
        """Return the time zone whose calendar days the lookback consists of; with ``None``, a day is 24 hours."""
        return None

    def _reject_empty(self, name: str) -> None:
        value = getattr(self, name)
        is_empty_text = isinstance(value, str) and value.strip().lower() in ("", "none", "null")
        if is_empty_text or (value is None and not self._is_none_in_dag(name)):
            all_types = " or return 'all'" if name == "activity_type" else ""
            remedy = f"write {name}=None in the DAG{all_types}"
            raise ValueError(f"{name} came out of its template or XCom as {value!r}. If that is meant, {remedy}")

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


class ExportRequestOperator(WindowOperator):
    """
    An operator that creates an export: the parameters that say which window and type.

    The operators' own docstrings describe the parameters.
    """

    template_fields: Sequence[str] = (*_REQUEST_PARAMETERS, "chartmogul_conn_id")
    _parsers = _REQUEST_PARAMETERS

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
        super().__init__(
            interval_start=interval_start,
            interval_end=interval_end,
            lookback=lookback,
            partition_length=partition_length,
            partition_timezone=partition_timezone,
            chartmogul_conn_id=chartmogul_conn_id,
            **kwargs,
        )
        self.activity_type = activity_type
        self._check_at_parse()

    def _map_index_name(self, context: Context) -> str:
        request = self._export_request(context)
        return f"{Interval(request.start, request.end)}, {request.activity_type or 'all types'}"

    def _export_request(self, context: Context) -> ExportRequest:
        """
        Return what the task's parameters and its run ask for, checked before any request is sent.

        :raises AirflowFailException: if they make no sense, or came out of a template or an XCom empty
        """
        from airflow_provider_chartmogul.api.exports import ExportRequest, validate_activity_type

        interval = self._resolve_interval(context)
        try:
            activity_type = validate_activity_type(self.activity_type)
        except ValueError as error:
            raise AirflowFailException(str(error)) from None
        return ExportRequest(interval.start, interval.end, activity_type)
