# SPDX-License-Identifier: Apache-2.0
"""
The window that a task exports: parsed from what users write, or taken from the run; and ranges split into windows.

Airflow runs in ``tests/integration/test_windows_of_runs.py``; here the context of a run is a dictionary.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from airflow_provider_chartmogul.exceptions import IntervalError
from airflow_provider_chartmogul.intervals import split_interval
from airflow_provider_chartmogul.intervals.durations import parse_duration, parse_seconds
from airflow_provider_chartmogul.intervals.interval import DATA_INTERVAL, Interval, resolve_interval
from airflow_provider_chartmogul.intervals.times import parse_time

JAN_1 = datetime(2024, 1, 1, tzinfo=UTC)
JAN_2 = datetime(2024, 1, 2, tzinfo=UTC)
DAILY = {"data_interval_start": pendulum.instance(JAN_1), "data_interval_end": pendulum.instance(JAN_2)}
NO_WIDTH = {"data_interval_start": JAN_2, "data_interval_end": JAN_2}
NO_INTERVAL: dict[str, Any] = {"data_interval_start": None, "data_interval_end": None}


def resolve(context: dict[str, Any], **parameters: Any) -> Interval:
    return resolve_interval(context, **{"start": DATA_INTERVAL, "end": DATA_INTERVAL, **parameters})


def error_message(context: dict[str, Any], **parameters: Any) -> str:
    with pytest.raises(IntervalError) as raised:
        resolve(context, **parameters)
    return str(raised.value)


# Times


@pytest.mark.parametrize(
    "value",
    [
        "2024-01-31",
        "20240131",
        " 2024-01-31\n",
        "2024-01-31T00:00",
        "2024-01-31T00:00:00",
        "20240131T000000",
        "2024-01-31T00:00:00Z",
        "2024-01-31T00:00:00.000+00:00",
        "2024-01-31 00:00:00+00:00",
        "2024-01-31T01:00:00+01:00",
        "2024-01-30T19:00:00-05:00",
        date(2024, 1, 31),
        datetime(2024, 1, 31),
        datetime(2024, 1, 31, tzinfo=UTC),
        datetime(2024, 1, 31, 1, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2024, 1, 31, 5, 45, tzinfo=timezone(timedelta(hours=5, minutes=45))),
        pendulum.datetime(2024, 1, 31),
        pendulum.datetime(2024, 1, 30, 19, tz="America/New_York"),
        pendulum.naive(2024, 1, 31),
        pendulum.date(2024, 1, 31),
    ],
)
def test_time_is_parsed_to_utc(value: object) -> None:
    result = parse_time(value, "interval_start")
    assert result == datetime(2024, 1, 31, tzinfo=UTC)
    assert result.utcoffset() == timedelta(0)
    assert result.isoformat() == "2024-01-31T00:00:00+00:00"


@pytest.mark.parametrize("text", [str(pendulum.datetime(2024, 1, 31)), pendulum.datetime(2024, 1, 31).isoformat()])
def test_rendered_data_interval_is_parsed(text: str) -> None:
    assert parse_time(text, "interval_start") == datetime(2024, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        " ",
        "None",
        "null",
        0,
        1704067200,
        1.5,
        True,
        b"2024-01-31",
        ["2024-01-31"],
        time(1, 2),
        timedelta(days=1),
        "now",
        "today",
        "yesterday",
        "1704067200",
        "10:00",
        "P7D",
        "2024-01-31/P7D",
        "2024-01-31/2024-02-29",
        "2024-02-30",
        "2024-13-01",
        "31.01.2024",
        "01/31/2024",
        "{{ ds }}",
        "2024-01-31T25:00:00",
        "x" * 1000,
    ],
)
def test_invalid_time_raises_and_names_parameter(value: object) -> None:
    with pytest.raises(IntervalError, match=r"^interval_start cannot be ") as raised:
        parse_time(value, "interval_start")
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("value", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-05:00"])
def test_time_outside_calendar_in_utc_raises(value: str) -> None:
    with pytest.raises(IntervalError, match=r"^interval_start"):
        parse_time(value, "interval_start")


@given(st.text(max_size=30) | st.text("0123456789-:TZ+./WP ", max_size=30))
def test_any_text_is_parsed_to_utc_or_raises(text: str) -> None:
    try:
        result = parse_time(text, "interval_start")
    except IntervalError:
        return
    assert result.utcoffset() == timedelta(0)


zones = st.none() | st.timezones()
# Since 1980: older offsets have seconds, which ISO 8601 text cannot hold.
times = st.datetimes(datetime(1980, 1, 1), datetime(2200, 1, 1), timezones=zones)


@given(times)
def test_time_and_its_iso_text_are_parsed_alike(value: datetime) -> None:
    result = parse_time(value, "interval_start")
    assert result == (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC))
    assert parse_time(result.isoformat(), "interval_start") == result
    assert parse_time(str(result), "interval_start") == result


# Durations


@pytest.mark.parametrize(
    "value", [timedelta(days=7), pendulum.duration(days=7), "P7D", "P1W", "PT168H", " P7D ", "P6DT24H"]
)
def test_duration_is_parsed(value: object) -> None:
    assert parse_duration(value, "lookback") == timedelta(days=7)


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        7,
        "",
        "None",
        "7",
        "7D",
        "7 days",
        "7 days, 0:00:00",
        "P",
        "PT0S",
        "P0D",
        "-P7D",
        "P-7D",
        "2024-01-31",
        timedelta(0),
        timedelta(days=-1),
        pendulum.duration(days=-1),
        "P7D" * 100,
    ],
)
def test_invalid_duration_raises_and_names_parameter(value: object) -> None:
    with pytest.raises(IntervalError, match=r"^lookback cannot be .*such as P7D$") as raised:
        parse_duration(value, "lookback")
    assert len(str(raised.value)) < 300


@given(st.text("P0123456789YMWDTHS.,-", max_size=12).map("P".__add__))
def test_any_duration_text_is_above_zero_or_raises(text: str) -> None:
    try:
        result = parse_duration(text, "lookback")
    except IntervalError:
        return
    assert result > timedelta(0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(0, 0.0), (30, 30.0), (0.5, 0.5), (timedelta(minutes=2), 120.0), (pendulum.duration(hours=1), 3600.0)],
)
def test_seconds_are_parsed(value: Any, seconds: float) -> None:
    result = parse_seconds(value, "timeout")
    assert (result, type(result)) == (seconds, float)


@pytest.mark.parametrize(
    "value",
    [None, float("inf"), float("nan"), -1, 1e15, 10**400, True, "60", timedelta(days=-1), timedelta.max, [60]],
)
def test_invalid_seconds_raise_and_name_parameter(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^timeout cannot be .* from 0 to 100 years$") as raised:
        parse_seconds(value, "timeout")
    assert len(str(raised.value)) < 200


# Windows of runs


@pytest.mark.parametrize(
    ("parameters", "start", "end"),
    [
        ({}, JAN_1, JAN_2),
        ({"start": DATA_INTERVAL.value, "end": DATA_INTERVAL.value}, JAN_1, JAN_2),
        ({"lookback": timedelta(days=7)}, datetime(2023, 12, 25, tzinfo=UTC), JAN_2),
        ({"lookback": "P7D"}, datetime(2023, 12, 25, tzinfo=UTC), JAN_2),
        ({"start": "2023-01-01"}, datetime(2023, 1, 1, tzinfo=UTC), JAN_2),
        ({"end": "2025-01-01"}, JAN_1, datetime(2025, 1, 1, tzinfo=UTC)),
        ({"start": "2023-01-08", "lookback": timedelta(days=7)}, datetime(2023, 1, 1, tzinfo=UTC), JAN_2),
        ({"start": None}, None, JAN_2),
        ({"end": None}, JAN_1, None),
        ({"start": None, "end": None}, None, None),
        ({"start": None, "end": None, "lookback": "P7D"}, None, None),
    ],
)
def test_window_of_daily_run(parameters: dict[str, Any], start: datetime | None, end: datetime | None) -> None:
    assert resolve(DAILY, **parameters) == Interval(start, end)


@pytest.mark.parametrize("context", [{}, NO_INTERVAL, NO_WIDTH, DAILY])
def test_explicit_window_needs_no_run(context: dict[str, Any]) -> None:
    assert resolve(context, start="2023-01-01", end="2023-02-01") == Interval(
        datetime(2023, 1, 1, tzinfo=UTC), datetime(2023, 2, 1, tzinfo=UTC)
    )
    assert resolve(context, start=None, end=None) == Interval(None, None)


@pytest.mark.parametrize(
    "context",
    [
        {},
        NO_INTERVAL,
        {"data_interval_start": JAN_1},
        {"data_interval_start": None, "data_interval_end": JAN_1},
        {**NO_INTERVAL, "partition_key": "2024-01-01"},
    ],
)
@pytest.mark.parametrize(
    "parameters", [{}, {"start": "2023-01-01"}, {"end": "2025-01-01"}, {"lookback": timedelta(days=1)}]
)
def test_run_without_data_interval_raises(context: dict[str, Any], parameters: dict[str, Any]) -> None:
    message = error_message(context, **parameters)
    assert "this run has no data interval" in message
    assert "both interval_start and interval_end" in message


@pytest.mark.parametrize(
    ("context", "start"),
    [
        ({}, "Trigger the run with a logical date (airflow dags trigger --logical-date "),
        ({"dag_run": SimpleNamespace(run_type="manual")}, "Trigger the run with a logical date"),
        ({"dag_run": SimpleNamespace(run_type="asset_triggered")}, "A run that an asset triggers needs its window"),
        ({"partition_key": "2024-01-01"}, "Give the task a partition_length if the partition key, '2024-01-01', is"),
    ],
)
def test_error_without_data_interval_begins_with_what_helps(context: dict[str, Any], start: str) -> None:
    message = error_message(context, lookback="P1D")
    assert message.startswith(start)
    for advice_for_other_error in ("lookback", "Timetable"):
        assert advice_for_other_error not in message


def test_error_without_width_begins_with_what_helps() -> None:
    message = error_message(NO_WIDTH)
    assert message.startswith(
        "Give the task a lookback such as timedelta(days=1), or schedule the DAG with CronDataIntervalTimetable("
    )
    assert "this run's data interval has no width, it starts and ends at 2024-01-02T00:00:00+00:00" in message
    assert "logical" not in message


def test_lookback_gives_zero_width_run_a_width() -> None:
    assert resolve(NO_WIDTH, lookback=timedelta(days=1)) == Interval(JAN_1, JAN_2)


def test_empty_explicit_window_is_not_blamed_on_run() -> None:
    message = error_message(DAILY, start="2024-01-05", end="2024-01-05T01:00:00+01:00")
    assert message.startswith("Check interval_start and interval_end: the window is empty")
    assert "data interval" not in message


@pytest.mark.parametrize(
    "parameters", [{"start": "2024-01-03"}, {"end": "2023-12-31"}, {"start": "2024-02-01", "end": "2024-01-01"}]
)
def test_reversed_window_raises(parameters: dict[str, Any]) -> None:
    message = error_message(DAILY, **parameters)
    assert message.startswith("Check interval_start and interval_end: the window is reversed, it starts at ")


@pytest.mark.parametrize("value", ["None", "", "null"])
def test_empty_text_is_not_an_open_end(value: str) -> None:
    assert error_message(DAILY, start=value).startswith("interval_start cannot be ")
    assert error_message(DAILY, end=value).startswith("interval_end cannot be ")


@pytest.mark.parametrize(
    ("data_interval", "parameters"),
    [
        (("2024-01-01T00:00:00.678901", "2024-01-02T00:00:00.678901"), {}),  # triggered by hand
        (("2024-01-01T00:00:00.999999", "2024-01-02T00:00:00.000001"), {}),
        (
            ("2024-01-01T00:00:00", "2024-01-02T00:00:00"),
            {"start": "2024-01-01T00:00:00.5", "end": "2024-01-02T00:00:00.9Z"},
        ),
        (("2024-01-01T12:00:00.5", "2024-01-02T00:00:00.5"), {"lookback": timedelta(hours=12, milliseconds=200)}),
        (("1969-01-01T00:00:00.5", "1969-01-02"), {"start": "2024-01-01T00:00:00.5", "end": "2024-01-02T00:00:00.5"}),
    ],
)
def test_window_is_rounded_down_to_whole_seconds(data_interval: tuple[str, str], parameters: dict[str, Any]) -> None:
    names = ("data_interval_start", "data_interval_end")
    context = dict(
        zip(names, (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in data_interval), strict=True)
    )
    assert resolve(context, **parameters) == Interval(JAN_1, JAN_2)


@given(st.lists(times, min_size=3, max_size=3))
def test_windows_that_touch_still_touch_in_whole_seconds(moments: list[datetime]) -> None:
    start, border, end = sorted(parse_time(moment, "x") for moment in moments)
    assume(border - start >= timedelta(seconds=1) and end - border >= timedelta(seconds=1))
    assert resolve({}, start=start, end=border).end == resolve({}, start=border, end=end).start


def test_window_within_one_second_raises() -> None:
    assert "the window is empty" in error_message({}, start="2024-01-01T00:00:00.1", end="2024-01-01T00:00:00.9")


@pytest.mark.parametrize("lookback", ["None", "", "7 days", timedelta(0), timedelta(days=-1), 7])
def test_invalid_lookback_raises(lookback: object) -> None:
    assert error_message(DAILY, lookback=lookback).startswith("lookback cannot be ")


@pytest.mark.parametrize("lookback", [timedelta(days=999_999), "P9999Y"])
def test_lookback_outside_calendar_raises(lookback: object) -> None:
    assert "lookback" in error_message(DAILY, lookback=lookback)


@pytest.mark.parametrize(
    "start", ["2024-03-31", datetime(2024, 3, 31), pendulum.datetime(2024, 3, 31), date(2024, 3, 31)]
)
def test_lookback_does_not_depend_on_type_of_start(start: object) -> None:
    lookback = pendulum.duration(months=1)
    assert resolve({}, start=start, end="2025-01-01", lookback=lookback) == resolve(
        {}, start=datetime(2024, 3, 31, tzinfo=UTC), end="2025-01-01", lookback=lookback
    )


@pytest.mark.parametrize(
    ("length", "end"),
    [(timedelta(days=1), JAN_2), ("P1D", JAN_2), ("PT1H", datetime(2024, 1, 1, 1, tzinfo=UTC))],
)
@pytest.mark.parametrize("key", ["2024-01-01", "2024-01-01T00", "2024-01-01T00:00:00", "2024-01-01T01:00:00+0100"])
def test_partition_key_starts_window(key: str, length: object, end: datetime) -> None:
    context = {**NO_INTERVAL, "partition_key": key}
    assert resolve(context, partition_length=length) == Interval(JAN_1, end)


def test_data_interval_takes_precedence_over_partition_key() -> None:
    assert resolve({**DAILY, "partition_key": "2020-01-01"}, partition_length="P1D") == Interval(JAN_1, JAN_2)


@pytest.mark.parametrize(
    ("key", "length", "name"),
    [("berlin", "P1D", "the run's partition key"), ("2024-01-01", "1 day", "partition_length")],
)
def test_invalid_partition_raises(key: str, length: str, name: str) -> None:
    message = error_message({**NO_INTERVAL, "partition_key": key}, partition_length=length)
    assert message.startswith(f"{name} cannot be ")


# In the default formats of Airflow's StartOf…Mapper, and in ISO 8601.
PERIOD_KEYS = [
    ("2024", "2024-01-01", "2025-01-01"),
    ("2024-Q1", "2024-01-01", "2024-04-01"),
    ("2024Q4", "2024-10-01", "2025-01-01"),
    ("2024-03", "2024-03-01", "2024-04-01"),
    ("2024-W11", "2024-03-11", "2024-03-18"),
    ("2020W53", "2020-12-28", "2021-01-04"),
    ("2024-03-11 (W11)", "2024-03-11", "2024-03-18"),
    ("2024-03-01/2024-03-20", "2024-03-01", "2024-03-20"),
]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize(("key", "start", "end"), PERIOD_KEYS)
def test_period_key_becomes_that_period(key: str, start: str, end: str, zone: str) -> None:
    expected = Interval(*(datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)) for day in (start, end)))
    assert resolve({**NO_INTERVAL, "partition_key": key}, partition_timezone=zone) == expected


def test_partition_length_overrides_period_but_not_range() -> None:
    for key, end in (("2024-01", JAN_2), ("2024-01-01/2024-03-01", datetime(2024, 3, 1, tzinfo=UTC))):
        assert resolve({**NO_INTERVAL, "partition_key": key}, partition_length="P1D") == Interval(JAN_1, end)


@pytest.mark.parametrize(
    "context",
    [
        {"dag_run": SimpleNamespace(partition_key="2024-01-01")},  # Airflow 3.2
        {**NO_INTERVAL, "dag_run": SimpleNamespace(partition_key="2024-01-01", partition_date=JAN_1)},
        {"partition_key": "2024-01-01T00:00:00", "partition_date": JAN_1},
        {**NO_WIDTH, "partition_key": "2024-01-01T00:00:00", "partition_date": JAN_1},  # triggered with a logical date
        {"partition_key": "eu|2024-01-01", "partition_date": JAN_1},  # of a ProductMapper
    ],
)
def test_partition_is_found_on_every_airflow(context: dict[str, Any]) -> None:
    assert resolve(context, partition_length=timedelta(days=1)) == Interval(JAN_1, JAN_2)


def berlin_partition(key: str, partition_date: datetime | None, **values: Any) -> dict[str, Any]:
    dag = SimpleNamespace(timetable=SimpleNamespace(timezone=pendulum.timezone("Europe/Berlin")))
    return {**NO_INTERVAL, "partition_key": key, "partition_date": partition_date, "dag": dag, **values}


@pytest.mark.parametrize("length", [timedelta(days=1), "P1D", "PT24H"])
def test_partition_days_are_in_timezone_of_timetable(length: object) -> None:
    # Airflow 3.3 writes the key in the timetable's time zone, 3.2 in UTC. The clocks change in this night.
    start, end = datetime(2024, 3, 30, 23, tzinfo=UTC), datetime(2024, 3, 31, 22, tzinfo=UTC)
    for context in (
        berlin_partition("2024-03-31T00:00:00", start),
        berlin_partition("2024-03-31", start + timedelta(hours=6)),  # the run starts at six, its key is the day
        berlin_partition("2024-03-30T23:00:00", None),
    ):
        assert resolve(context, partition_length=length) == Interval(start, end)


def test_partition_months_are_in_timezone_of_timetable() -> None:
    start, end = datetime(2024, 2, 29, 23, tzinfo=UTC), datetime(2024, 3, 31, 22, tzinfo=UTC)
    assert resolve(berlin_partition("2024-03", start)) == Interval(start, end)


def test_key_of_unknown_timezone_raises() -> None:
    context = {**NO_INTERVAL, "partition_key": "2024-03", "partition_date": datetime(2024, 2, 29, 23, tzinfo=UTC)}
    assert "'partition_timezone'" in error_message(context)
    assert resolve(context, partition_timezone="Europe/Berlin").end == datetime(2024, 3, 31, 22, tzinfo=UTC)


def test_lookback_applies_where_key_is_not_a_time() -> None:
    context = {**NO_WIDTH, "partition_key": "eu"}
    assert resolve(context, lookback="P1D") == Interval(JAN_1, JAN_2)


@pytest.mark.parametrize(
    "key", ["2024-01-01", "2024-01-01T00", "2024-01-01T00:00:00", "eu", "2024-13", "2021-W53", "a/b"]
)
def test_key_without_length_raises(key: str) -> None:
    message = error_message({**NO_INTERVAL, "partition_key": key})
    assert message.startswith(f"Give the task a partition_length if the partition key, {key!r}, is the window's start")
    assert "this run has no data interval" in message


@pytest.mark.parametrize(
    ("key", "options", "name"),
    [
        ("2024-13", {"partition_length": "P1D"}, "the run's partition key"),
        ("2024-03-01/2024-02-01", {}, "Check interval_start and interval_end: the window is reversed"),
        ("2024-03", {"partition_timezone": "Mars"}, "partition_timezone"),
        ("2024-03", {"partition_timezone": ""}, "partition_timezone"),
        ("9999", {}, "the window after 9999-01-01T00:00:00+00:00 ends outside the calendar"),
    ],
)
def test_invalid_partition_parameter_raises(key: str, options: dict[str, Any], name: str) -> None:
    assert error_message({**NO_INTERVAL, "partition_key": key}, **options).startswith(name)


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(JAN_1, JAN_2), "2024-01-01 to 2024-01-02"),
        (Interval(JAN_1.replace(hour=5), JAN_2), "2024-01-01T05:00:00Z to 2024-01-02"),
        (Interval(None, JAN_2), "the beginning to 2024-01-02"),
        (Interval(JAN_1, None), "2024-01-01 to now"),
        (Interval(None, None), "the beginning to now"),
    ],
)
def test_interval_as_text(interval: Interval, text: str) -> None:
    assert str(interval) == text


lengths = st.timedeltas(timedelta(microseconds=1), timedelta(days=3650))


@given(times, times, st.none() | lengths)
def test_any_window_has_its_width_or_raises(start: datetime, end: datetime, lookback: timedelta | None) -> None:
    start_utc, end_utc = (parse_time(value, "x") for value in (start, end))
    expected = (start_utc - (lookback or timedelta(0))).replace(microsecond=0)
    end_utc = end_utc.replace(microsecond=0)
    try:
        by_run = resolve({"data_interval_start": start, "data_interval_end": end}, lookback=lookback)
    except IntervalError:
        assert expected >= end_utc
        with pytest.raises(IntervalError):
            resolve({}, start=start, end=end, lookback=lookback)
        return
    assert by_run == Interval(expected, end_utc)
    assert expected < end_utc
    assert resolve({}, start=start, end=end, lookback=lookback) == by_run
    assert resolve({}, start=start.isoformat(), end=str(end), lookback=lookback) == by_run


# Ranges split into windows


def split(*args: Any, **options: Any) -> list[tuple[str, str]]:
    return [(window["interval_start"][:16], window["interval_end"][:16]) for window in split_interval(*args, **options)]


def borders(*args: Any, **options: Any) -> list[str]:
    windows = split(*args, **options)
    assert all(one[1] == other[0] for one, other in pairwise(windows))
    return [windows[0][0], *(end for _, end in windows)]


def test_windows_fit_expand_kwargs() -> None:
    assert split_interval("2024-01-01", "2024-01-03", "day") == [
        {"interval_start": "2024-01-01T00:00:00+00:00", "interval_end": "2024-01-02T00:00:00+00:00"},
        {"interval_start": "2024-01-02T00:00:00+00:00", "interval_end": "2024-01-03T00:00:00+00:00"},
    ]


@pytest.mark.parametrize(
    ("start", "end", "every", "days"),
    [
        ("2024-01-15", "2024-03-10", "month", ["01-15", "02-01", "03-01", "03-10"]),
        ("2024-01-01", "2024-03-01", "month", ["01-01", "02-01", "03-01"]),
        ("2024-02-15", "2024-08-01", "quarter", ["02-15", "04-01", "07-01", "08-01"]),
        ("2024-01-03", "2024-01-16", "week", ["01-03", "01-08", "01-15", "01-16"]),
        ("2024-01-03", "2024-12-16", "year", ["01-03", "12-16"]),
        ("2024-01-03", "2024-01-16", "P7D", ["01-03", "01-10", "01-16"]),
        ("2024-01-03", "2024-01-16", timedelta(weeks=1), ["01-03", "01-10", "01-16"]),
        ("2024-01-31", "2024-06-30", "P1M", ["01-31", "02-29", "03-31", "04-30", "05-31", "06-30"]),
        ("2024-01-31", "2024-05-01", pendulum.duration(months=1), ["01-31", "02-29", "03-31", "04-30", "05-01"]),
        (date(2024, 1, 1), datetime(2024, 1, 3), "P1W", ["01-01", "01-03"]),
        ("2024-01-01", "2024-01-03", timedelta(days=999_999), ["01-01", "01-03"]),
    ],
)
def test_borders_of_windows(start: object, end: object, every: Any, days: list[str]) -> None:
    assert borders(start, end, every) == [f"2024-{day}T00:00" for day in days]


def test_days_follow_timezone_where_clocks_change() -> None:
    spring = ["2024-03-29T23:00", "2024-03-30T23:00", "2024-03-31T22:00", "2024-04-01T22:00"]
    autumn = ["2024-10-25T22:00", "2024-10-26T22:00", "2024-10-27T23:00", "2024-10-28T23:00"]
    for every in ("day", "P1D", timedelta(days=1), timedelta(hours=24), pendulum.duration(days=1)):
        assert borders("2024-03-30", "2024-04-02", every, timezone="Europe/Berlin") == spring
        assert borders("2024-10-26", "2024-10-29", every, timezone=ZoneInfo("Europe/Berlin")) == autumn
        zone = ZoneInfo("Europe/Berlin")
        assert borders(datetime(2024, 3, 30, tzinfo=zone), datetime(2024, 4, 2, tzinfo=zone), every) == spring
        assert borders(pendulum.datetime(2024, 3, 30, tz="Europe/Berlin"), "2024-04-02", every) == spring
        assert borders("2024-03-30T00:00:00+01:00", "2024-04-02T00:00:00+02:00", every, timezone=zone) == spring


def test_hours_are_elapsed_time_where_clocks_change() -> None:
    for every in ("PT12H", timedelta(hours=12), pendulum.duration(hours=12)):
        assert borders("2024-03-31", "2024-04-01", every, timezone="Europe/Berlin") == [
            "2024-03-30T23:00",
            "2024-03-31T11:00",
            "2024-03-31T22:00",
        ]
    assert borders("2024-03-30", "2024-04-02", "P1DT12H", timezone="Europe/Berlin") == [
        "2024-03-29T23:00",
        "2024-03-31T11:00",
        "2024-04-01T22:00",
    ]


@pytest.mark.parametrize(
    ("zone", "day", "expected"),
    [
        # Samoa left out December 30th. Clocks go forward at midnight in São Paulo, and back to midnight in Havana.
        ("Pacific/Apia", "2011-12-29", ["2011-12-29T10:00", "2011-12-30T10:00", "2011-12-31T10:00"]),
        ("America/Sao_Paulo", "2018-11-03", ["2018-11-03T03:00", "2018-11-04T03:00", "2018-11-05T02:00"]),
        ("America/Havana", "2024-11-02", ["2024-11-02T04:00", "2024-11-03T04:00", "2024-11-04T05:00"]),
    ],
)
def test_days_without_or_with_two_midnights(zone: str, day: str, expected: list[str]) -> None:
    start = datetime.fromisoformat(day)
    days = 3 if zone == "Pacific/Apia" else 2
    for every in ("day", "P1D"):
        assert borders(start, start + timedelta(days=days), every, timezone=zone) == expected
        assert borders(f"{day}T00:00", f"{start + timedelta(days=days)}", every, timezone=zone) == expected


def test_first_of_two_midnights_is_used() -> None:
    for start in ("2024-11-03", "2024-11-03T00:00", datetime(2024, 11, 3), date(2024, 11, 3)):
        result = borders(start, "2024-11-04", "day", timezone="America/Havana")
        assert result == ["2024-11-03T04:00", "2024-11-04T05:00"]


def test_windows_repeat_for_each_activity_type() -> None:
    windows = split_interval("2024-01-01", "2024-01-03", "day", activity_types=("churn", "new_biz"))
    assert [(window["interval_start"][8:10], window["activity_type"]) for window in windows] == [
        ("01", "churn"),
        ("01", "new_biz"),
        ("02", "churn"),
        ("02", "new_biz"),
    ]


def test_more_windows_than_airflow_maps_raise() -> None:
    assert len(split_interval(JAN_1, JAN_1 + timedelta(hours=1024), "PT1H")) == 1024
    assert len(split_interval(JAN_1, JAN_1 + timedelta(hours=1025), "PT1H", max_windows=None)) == 1025
    for options in ({}, {"max_windows": 2049, "activity_types": ["churn", "new_biz"]}):
        with pytest.raises(IntervalError, match=r"max_map_length"):
            split_interval(JAN_1, JAN_1 + timedelta(hours=1025), "PT1H", **options)


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        (("2024-01-01", "2024-01-01", "day"), {}, "the range to split is empty"),
        (("2024-01-01", "2024-01-01T01:00+01:00", "day"), {}, "the range to split is empty"),
        (("2024-01-02", "2024-01-01", "day"), {}, "the range to split is reversed"),
        ((None, "2024-01-01", "day"), {}, "start cannot be"),
        (("2024-01-02", "", "day"), {}, "end cannot be"),
        (("now", "2024-01-01", "day"), {}, "start cannot be"),
        (("0001-01-01", "2024-01-01", "year"), {"timezone": "Asia/Kolkata"}, "start, 0001-01-01"),
        (("2024-01-01", "2024-01-02", "weekly"), {}, "every cannot be 'weekly'"),
        (("2024-01-01", "2024-01-02", 7), {}, "every cannot be"),
        (("2024-01-01", "2024-01-02", timedelta(0)), {}, "every cannot be"),
        (("2024-01-01", "2024-01-02", "-P1D"), {}, "every cannot be"),
        (("2024-01-01", "2024-01-02", pendulum.duration(months=1, days=-29)), {}, "every cannot be"),
        (("2024-01-01", "2024-01-02", "day"), {"timezone": "Mars"}, "timezone cannot be 'Mars'"),
        (("2024-01-01", "2024-01-02", "day"), {"timezone": 1}, "timezone cannot be"),
        (("2024-01-01", "2024-01-02", "day"), {"activity_types": []}, "activity_types cannot be"),
        (("2024-01-01", "2024-01-02", "day"), {"activity_types": "churn"}, "activity_types cannot be"),
        (("2024-01-01", "2024-01-02", "day"), {"activity_types": [None]}, "activity_types cannot be"),
        (("2024-01-01", "2024-01-02", "day"), {"activity_types": ["churn", "churn"]}, "activity_types cannot be"),
        (("2024-01-01", "2024-01-02", "day"), {"activity_types": ["new"]}, "activity_type cannot be 'new'"),
    ],
)
def test_invalid_range_raises(args: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(IntervalError) as raised:
        split_interval(*args, **options)
    assert str(raised.value).startswith(message)


ODD_ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour
    "Asia/Kolkata",
    "America/Sao_Paulo",  # at midnight, until 2019
    "Africa/Casablanca",  # four times a year
    "Pacific/Apia",  # a day left out in 2011
    "America/Havana",
    "Asia/Beirut",
]
instants = st.datetimes(datetime(2008, 1, 1), datetime(2032, 1, 1), timezones=st.just(UTC))
up_to_a_thousand_days = st.timedeltas(timedelta(seconds=1), timedelta(days=1000))
steady = settings(deadline=None, derandomize=True, max_examples=150)


def checked_borders(start: datetime, end: datetime, every: Any, zone: str) -> list[datetime]:
    """Split a range, check that the windows touch, have a width and cover it exactly, and return their borders."""
    windows = [
        tuple(datetime.fromisoformat(window[name]) for name in ("interval_start", "interval_end"))
        for window in split_interval(start, end, every, timezone=zone, max_windows=None)
    ]
    assert (windows[0][0], windows[-1][1]) == (start, end)
    assert all(one[1] == other[0] for one, other in pairwise(windows))
    assert all(one < other for one, other in windows)
    assert all(moment.utcoffset() == timedelta(0) for window in windows for moment in window)
    return [start, *(window[1] for window in windows)]


PERIOD = {
    "day": lambda day: day,
    "week": lambda day: day.isocalendar()[:2],
    "month": lambda day: (day.year, day.month),
    "quarter": lambda day: (day.year, (day.month - 1) // 3),
    "year": lambda day: day.year,
}


@steady
@given(instants, up_to_a_thousand_days, st.sampled_from(sorted(PERIOD)), st.sampled_from(ODD_ZONES))
def test_calendar_windows_start_and_end_with_their_period(
    start: datetime, length: timedelta, every: str, zone: str
) -> None:
    result = checked_borders(start, start + length, every, zone)

    def period(moment: datetime) -> Any:
        return PERIOD[every](moment.astimezone(ZoneInfo(zone)).date())

    for begin, end in pairwise(result):
        assert period(begin) == period(end - timedelta(microseconds=1))
    for border in result[1:-1]:
        assert period(border - timedelta(microseconds=1)) != period(border)


@steady
@given(
    instants,
    up_to_a_thousand_days,
    st.integers(0, 14),
    st.integers(0, 40),
    st.sampled_from([timedelta(0), timedelta(hours=5), timedelta(minutes=1501)]),
    st.sampled_from(ODD_ZONES),
)
def test_windows_of_a_duration(
    start: datetime, length: timedelta, months: int, days: int, rest: timedelta, zone: str
) -> None:
    assume(months or days or rest)
    every = pendulum.duration(months=months, days=days, seconds=rest.total_seconds())
    result = checked_borders(start, start + length, every, zone)
    local_start = start.astimezone(ZoneInfo(zone))
    for number, border in enumerate(result[1:-1], 1):
        if rest and not months:
            assert border == start + number * (timedelta(days=days) + rest)
        elif not rest and zone != "Pacific/Apia":
            wall = pendulum.instance(local_start.replace(tzinfo=None)).add(months=number * months, days=number * days)
            # A time of day that the clocks skip becomes that much later.
            late = border.astimezone(ZoneInfo(zone)).replace(tzinfo=None) - wall.naive()
            assert timedelta(0) <= late <= timedelta(hours=1)


@steady
@given(instants, up_to_a_thousand_days, st.sampled_from(ODD_ZONES), st.integers(1, 40), st.booleans())
def test_timedelta_of_days_equals_duration_of_days(
    start: datetime, length: timedelta, zone: str, days: int, as_text: bool
) -> None:
    every = f"P{days}D" if as_text else pendulum.duration(days=days)
    assert checked_borders(start, start + length, timedelta(days=days), zone) == checked_borders(
        start, start + length, every, zone
    )
