# SPDX-License-Identifier: Apache-2.0
"""The window of an export: read from what people write, worked out from the run, never 'all of history' by accident."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chartmogul.intervals import (
    DATA_INTERVAL,
    WAYS_OUT,
    Interval,
    IntervalError,
    parse_duration,
    parse_time,
    resolve_interval,
)

JAN_1 = datetime(2024, 1, 1, tzinfo=UTC)
JAN_2 = datetime(2024, 1, 2, tzinfo=UTC)
BOTH_OPEN = frozenset({"interval_start", "interval_end"})
DAILY = {"data_interval_start": pendulum.instance(JAN_1), "data_interval_end": pendulum.instance(JAN_2)}
NO_WIDTH = {"data_interval_start": JAN_2, "data_interval_end": JAN_2}
NO_INTERVAL: dict[str, Any] = {"data_interval_start": None, "data_interval_end": None}


def resolve(context: dict[str, Any], **given_: Any) -> Interval:
    return resolve_interval(context, **{"start": DATA_INTERVAL, "end": DATA_INTERVAL, **given_})


def refusal(context: dict[str, Any], **given_: Any) -> str:
    with pytest.raises(IntervalError) as raised:
        resolve(context, **given_)
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
def test_times(value: object) -> None:
    found = parse_time(value, "interval_start")
    assert found == datetime(2024, 1, 31, tzinfo=UTC)
    assert found.utcoffset() == timedelta(0)
    assert found.isoformat() == "2024-01-31T00:00:00+00:00"


@pytest.mark.parametrize("text", [str(pendulum.datetime(2024, 1, 31)), pendulum.datetime(2024, 1, 31).isoformat()])
def test_what_templates_make_of_a_data_interval_is_read(text: str) -> None:
    assert parse_time(text, "interval_start") == datetime(2024, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize("value", ["", " ", "None", "none", "null", " NULL "])
def test_a_text_that_came_out_empty_is_not_all_of_history(value: str) -> None:
    with pytest.raises(IntervalError, match=r"^interval_end came out as .*write interval_end=None in the DAG"):
        parse_time(value, "interval_end")


@pytest.mark.parametrize(
    "value",
    [
        None,
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
def test_what_is_no_time_is_refused_by_its_name(value: object) -> None:
    with pytest.raises(IntervalError, match=r"^interval_start cannot be ") as raised:
        parse_time(value, "interval_start")
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("value", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-05:00"])
def test_a_time_outside_the_calendar_in_utc_is_refused(value: str) -> None:
    with pytest.raises(IntervalError, match=r"^interval_start"):
        parse_time(value, "interval_start")


@given(st.text(max_size=30) | st.text("0123456789-:TZ+./WP ", max_size=30))
def test_any_text_is_a_time_in_utc_or_refused(text: str) -> None:
    try:
        found = parse_time(text, "interval_start")
    except IntervalError:
        return
    assert found.utcoffset() == timedelta(0)


zones = st.none() | st.timezones()
# Since 1980, as older offsets have seconds, which ISO 8601 texts cannot hold.
times = st.datetimes(datetime(1980, 1, 1), datetime(2200, 1, 1), timezones=zones)


@given(times)
def test_a_time_and_its_iso_text_are_the_same(value: datetime) -> None:
    found = parse_time(value, "interval_start")
    assert found == (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC))
    assert parse_time(found.isoformat(), "interval_start") == found
    assert parse_time(str(found), "interval_start") == found


# Lengths of time


@pytest.mark.parametrize(
    "value", [timedelta(days=7), pendulum.duration(days=7), "P7D", "P1W", "PT168H", " P7D ", "P6DT24H"]
)
def test_durations(value: object) -> None:
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
def test_what_is_no_duration_is_refused_by_its_name(value: object) -> None:
    with pytest.raises(IntervalError, match=r"^lookback cannot be .*such as P7D$") as raised:
        parse_duration(value, "lookback")
    assert len(str(raised.value)) < 300


@given(st.text("P0123456789YMWDTHS.,-", max_size=12).map("P".__add__))
def test_any_duration_text_is_above_zero_or_refused(text: str) -> None:
    try:
        found = parse_duration(text, "lookback")
    except IntervalError:
        return
    assert found > timedelta(0)


# The window


@pytest.mark.parametrize(
    ("given_", "start", "end"),
    [
        ({}, JAN_1, JAN_2),
        ({"start": DATA_INTERVAL.value, "end": DATA_INTERVAL.value}, JAN_1, JAN_2),
        ({"lookback": timedelta(days=7)}, datetime(2023, 12, 25, tzinfo=UTC), JAN_2),
        ({"lookback": "P7D"}, datetime(2023, 12, 25, tzinfo=UTC), JAN_2),
        ({"start": "2023-01-01"}, datetime(2023, 1, 1, tzinfo=UTC), JAN_2),
        ({"end": "2025-01-01"}, JAN_1, datetime(2025, 1, 1, tzinfo=UTC)),
        ({"start": "2023-01-08", "lookback": timedelta(days=7)}, datetime(2023, 1, 1, tzinfo=UTC), JAN_2),
        ({"start": None, "open_ends": BOTH_OPEN}, None, JAN_2),
        ({"end": None, "open_ends": BOTH_OPEN}, JAN_1, None),
        ({"start": None, "end": None, "open_ends": BOTH_OPEN}, None, None),
        ({"start": None, "end": None, "open_ends": BOTH_OPEN, "lookback": "P7D"}, None, None),
    ],
)
def test_the_window_of_a_daily_run(given_: dict[str, Any], start: datetime | None, end: datetime | None) -> None:
    assert resolve(DAILY, **given_) == Interval(start, end)


@pytest.mark.parametrize("context", [{}, NO_INTERVAL, NO_WIDTH, DAILY])
def test_a_window_that_is_given_needs_nothing_of_the_run(context: dict[str, Any]) -> None:
    assert resolve(context, start="2023-01-01", end="2023-02-01") == Interval(
        datetime(2023, 1, 1, tzinfo=UTC), datetime(2023, 2, 1, tzinfo=UTC)
    )
    assert resolve(context, start=None, end=None, open_ends=BOTH_OPEN) == Interval(None, None)


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
    "given_", [{}, {"start": "2023-01-01"}, {"end": "2025-01-01"}, {"lookback": timedelta(days=1)}]
)
def test_a_run_without_an_interval_names_the_ways_out(context: dict[str, Any], given_: dict[str, Any]) -> None:
    text = refusal(context, **given_)
    assert text.startswith("this run has no data interval")
    assert text.endswith(WAYS_OUT)


def test_the_ways_out_are_named() -> None:
    for name in ("CronDataIntervalTimetable(", "CronTriggerTimetable(", "interval=", "'lookback'", "interval_end"):
        assert name in WAYS_OUT


def test_a_run_of_no_width_names_the_ways_out() -> None:
    text = refusal(NO_WIDTH)
    assert text.startswith("this run's data interval has no width: ")
    assert "2024-01-02T00:00:00+00:00" in text
    assert text.endswith(WAYS_OUT)


def test_lookback_gives_a_run_of_no_width_its_width() -> None:
    assert resolve(NO_WIDTH, lookback=timedelta(days=1)) == Interval(JAN_1, JAN_2)


def test_an_empty_window_that_was_given_is_not_put_down_to_the_run() -> None:
    text = refusal(DAILY, start="2024-01-05", end="2024-01-05T01:00:00+01:00")
    assert "would be empty" in text
    assert "data interval has no width" not in text


@pytest.mark.parametrize(
    "given_", [{"start": "2024-01-03"}, {"end": "2023-12-31"}, {"start": "2024-02-01", "end": "2024-01-01"}]
)
def test_a_reversed_window_is_refused(given_: dict[str, Any]) -> None:
    text = refusal(DAILY, **given_)
    assert text.startswith("the window to export is reversed: it starts at ")
    assert "Check interval_start and interval_end." in text


@pytest.mark.parametrize(
    ("given_", "name"),
    [
        ({"start": None}, "interval_start"),
        ({"end": None}, "interval_end"),
        ({"start": None, "open_ends": frozenset({"interval_end"})}, "interval_start"),
        ({"end": None, "open_ends": frozenset({"interval_start"})}, "interval_end"),
        ({"start": "None", "open_ends": BOTH_OPEN}, "interval_start"),
        ({"end": "", "open_ends": BOTH_OPEN}, "interval_end"),
    ],
)
def test_a_none_nobody_wrote_is_not_all_of_history(given_: dict[str, Any], name: str) -> None:
    assert refusal(DAILY, **given_).startswith(f"{name} came out as ")


@pytest.mark.parametrize("lookback", ["None", "", "7 days", timedelta(0), timedelta(days=-1), 7])
def test_an_odd_lookback_is_refused(lookback: object) -> None:
    assert refusal(DAILY, lookback=lookback).startswith("lookback cannot be ")


@pytest.mark.parametrize("lookback", [timedelta(days=999_999), "P9999Y"])
def test_a_lookback_past_the_calendar_is_refused(lookback: object) -> None:
    assert "lookback" in refusal(DAILY, lookback=lookback)


@pytest.mark.parametrize(
    "start", ["2024-03-31", datetime(2024, 3, 31), pendulum.datetime(2024, 3, 31), date(2024, 3, 31)]
)
def test_a_lookback_is_as_long_whatever_the_start_is_given_as(start: object) -> None:
    lookback = pendulum.duration(months=1)
    assert resolve({}, start=start, end="2025-01-01", lookback=lookback) == resolve(
        {}, start=datetime(2024, 3, 31, tzinfo=UTC), end="2025-01-01", lookback=lookback
    )


@pytest.mark.parametrize(
    ("length", "end"),
    [(timedelta(days=1), JAN_2), ("P1D", JAN_2), ("PT1H", datetime(2024, 1, 1, 1, tzinfo=UTC))],
)
def test_a_partition_key_is_the_start_of_its_window(length: object, end: datetime) -> None:
    context = {**NO_INTERVAL, "partition_key": "2024-01-01"}
    assert resolve(context, partition_length=length) == Interval(JAN_1, end)


def test_a_data_interval_goes_before_a_partition_key() -> None:
    assert resolve({**DAILY, "partition_key": "2020-01-01"}, partition_length="P1D") == Interval(JAN_1, JAN_2)


@pytest.mark.parametrize(
    ("key", "length", "name"),
    [("berlin", "P1D", "the run's partition key"), ("2024-01-01", "1 day", "partition_length")],
)
def test_an_odd_partition_is_refused(key: str, length: str, name: str) -> None:
    text = refusal({**NO_INTERVAL, "partition_key": key}, partition_length=length)
    assert text.startswith(f"{name} cannot be ")


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(JAN_1, JAN_2), "2024-01-01T00:00:00+00:00 to 2024-01-02T00:00:00+00:00"),
        (Interval(None, JAN_2), "the beginning to 2024-01-02T00:00:00+00:00"),
        (Interval(JAN_1, None), "2024-01-01T00:00:00+00:00 to now"),
        (Interval(None, None), "the beginning to now"),
    ],
)
def test_a_window_in_words(interval: Interval, text: str) -> None:
    assert str(interval) == text


lengths = st.timedeltas(timedelta(microseconds=1), timedelta(days=3650))


@given(times, times, st.none() | lengths)
def test_a_window_has_the_width_it_should_have_or_is_refused(
    start: datetime, end: datetime, lookback: timedelta | None
) -> None:
    start_utc, end_utc = (parse_time(value, "x") for value in (start, end))
    expected = start_utc - (lookback or timedelta(0))
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
