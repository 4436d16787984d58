# SPDX-License-Identifier: Apache-2.0
"""The window of an export: read from what people write, worked out from the run, never 'all of history' by accident."""

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
from airflow_provider_chartmogul.intervals.run_window import DATA_INTERVAL, WAYS_OUT, Interval, resolve_interval
from airflow_provider_chartmogul.intervals.times import parse_duration, parse_time

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
@pytest.mark.parametrize("key", ["2024-01-01", "2024-01-01T00", "2024-01-01T00:00:00", "2024-01-01T01:00:00+0100"])
def test_a_partition_key_is_the_start_of_its_window(key: str, length: object, end: datetime) -> None:
    context = {**NO_INTERVAL, "partition_key": key}
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


# Keys as Airflow writes them: the default formats of its StartOf…Mapper, and ISO 8601.
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
def test_a_key_that_names_a_period_is_that_period(key: str, start: str, end: str, zone: str) -> None:
    expected = Interval(*(datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)) for day in (start, end)))
    assert resolve({**NO_INTERVAL, "partition_key": key}, partition_timezone=zone) == expected


def test_a_length_that_is_given_goes_before_a_period_s_own_but_not_before_a_range() -> None:
    for key, end in (("2024-01", JAN_2), ("2024-01-01/2024-03-01", datetime(2024, 3, 1, tzinfo=UTC))):
        assert resolve({**NO_INTERVAL, "partition_key": key}, partition_length="P1D") == Interval(JAN_1, end)


@pytest.mark.parametrize(
    "context",
    [
        {"dag_run": SimpleNamespace(partition_key="2024-01-01")},  # where Airflow 3.2 has it
        {**NO_INTERVAL, "dag_run": SimpleNamespace(partition_key="2024-01-01", partition_date=JAN_1)},
        {"partition_key": "2024-01-01T00:00:00", "partition_date": JAN_1},
        {**NO_WIDTH, "partition_key": "2024-01-01T00:00:00", "partition_date": JAN_1},  # by hand, with a logical date
        {"partition_key": "eu|2024-01-01", "partition_date": JAN_1},  # of a ProductMapper
    ],
)
def test_where_runs_have_their_partition(context: dict[str, Any]) -> None:
    assert resolve(context, partition_length=timedelta(days=1)) == Interval(JAN_1, JAN_2)


def partition_of_berlin(key: str, partition_date: datetime | None, **more: Any) -> dict[str, Any]:
    dag = SimpleNamespace(timetable=SimpleNamespace(timezone=pendulum.timezone("Europe/Berlin")))
    return {**NO_INTERVAL, "partition_key": key, "partition_date": partition_date, "dag": dag, **more}


@pytest.mark.parametrize("length", [timedelta(days=1), "P1D", "PT24H"])
def test_a_partition_s_day_is_the_timetable_s(length: object) -> None:
    # Airflow 3.3 writes the key in the timetable's zone, 3.2 in UTC; the clocks change at night.
    start, end = datetime(2024, 3, 30, 23, tzinfo=UTC), datetime(2024, 3, 31, 22, tzinfo=UTC)
    for context in (
        partition_of_berlin("2024-03-31T00:00:00", start),
        partition_of_berlin("2024-03-31", start + timedelta(hours=6)),  # a run at six, its key is the day
        partition_of_berlin("2024-03-30T23:00:00", None),
    ):
        assert resolve(context, partition_length=length) == Interval(start, end)


def test_a_partition_s_month_is_the_timetable_s() -> None:
    start, end = datetime(2024, 2, 29, 23, tzinfo=UTC), datetime(2024, 3, 31, 22, tzinfo=UTC)
    assert resolve(partition_of_berlin("2024-03", start)) == Interval(start, end)


def test_a_key_in_a_zone_nobody_told_is_refused() -> None:
    context = {**NO_INTERVAL, "partition_key": "2024-03", "partition_date": datetime(2024, 2, 29, 23, tzinfo=UTC)}
    assert "'partition_timezone'" in refusal(context)
    assert resolve(context, partition_timezone="Europe/Berlin").end == datetime(2024, 3, 31, 22, tzinfo=UTC)


def test_a_key_that_is_no_time_leaves_a_run_of_no_width_to_its_lookback() -> None:
    context = {**NO_WIDTH, "partition_key": "eu"}
    assert resolve(context, lookback="P1D") == Interval(JAN_1, JAN_2)


@pytest.mark.parametrize(
    "key", ["2024-01-01", "2024-01-01T00", "2024-01-01T00:00:00", "eu", "2024-13", "2021-W53", "a/b"]
)
def test_a_key_that_says_no_length_is_not_guessed_at(key: str) -> None:
    text = refusal({**NO_INTERVAL, "partition_key": key})
    assert text.startswith("this run has no data interval")
    assert repr(key) in text
    assert "'partition_length'" in text


@pytest.mark.parametrize(
    ("key", "told", "name"),
    [
        ("2024-13", {"partition_length": "P1D"}, "the run's partition key"),
        ("2024-03-01/2024-02-01", {}, "the window to export is reversed"),
        ("2024-03", {"partition_timezone": "Mars"}, "partition_timezone"),
        ("2024-03", {"partition_timezone": ""}, "partition_timezone"),
        ("9999", {}, "the partition that begins at 9999-01-01T00:00:00+00:00 ends outside the calendar"),
    ],
)
def test_a_partition_that_makes_no_sense_is_refused(key: str, told: dict[str, Any], name: str) -> None:
    assert refusal({**NO_INTERVAL, "partition_key": key}, **told).startswith(name)


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


# A range in windows


def split(*args: Any, **told: Any) -> list[tuple[str, str]]:
    return [(window["interval_start"][:16], window["interval_end"][:16]) for window in split_interval(*args, **told)]


def borders(*args: Any, **told: Any) -> list[str]:
    windows = split(*args, **told)
    assert all(one[1] == other[0] for one, other in pairwise(windows))
    return [windows[0][0], *(end for _, end in windows)]


def test_windows_are_what_expand_kwargs_takes() -> None:
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
def test_where_windows_are_cut(start: object, end: object, every: Any, days: list[str]) -> None:
    assert borders(start, end, every) == [f"2024-{day}T00:00" for day in days]


def test_a_day_is_the_zone_s_where_clocks_change() -> None:
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
        # Samoa left December 30th out; in São Paulo the clocks went on at midnight, in Havana back to midnight.
        ("Pacific/Apia", "2011-12-29", ["2011-12-29T10:00", "2011-12-30T10:00", "2011-12-31T10:00"]),
        ("America/Sao_Paulo", "2018-11-03", ["2018-11-03T03:00", "2018-11-04T03:00", "2018-11-05T02:00"]),
        ("America/Havana", "2024-11-02", ["2024-11-02T04:00", "2024-11-03T04:00", "2024-11-04T05:00"]),
    ],
)
def test_days_with_an_odd_midnight(zone: str, day: str, expected: list[str]) -> None:
    start = datetime.fromisoformat(day)
    days = 3 if zone == "Pacific/Apia" else 2
    for every in ("day", "P1D"):
        assert borders(start, start + timedelta(days=days), every, timezone=zone) == expected
        assert borders(f"{day}T00:00", f"{start + timedelta(days=days)}", every, timezone=zone) == expected


def test_a_midnight_that_comes_twice_is_the_first_however_it_is_written() -> None:
    for start in ("2024-11-03", "2024-11-03T00:00", datetime(2024, 11, 3), date(2024, 11, 3)):
        found = borders(start, "2024-11-04", "day", timezone="America/Havana")
        assert found == ["2024-11-03T04:00", "2024-11-04T05:00"]


def test_windows_for_each_type() -> None:
    windows = split_interval("2024-01-01", "2024-01-03", "day", activity_types=("churn", "new_biz"))
    assert [(window["interval_start"][8:10], window["activity_type"]) for window in windows] == [
        ("01", "churn"),
        ("01", "new_biz"),
        ("02", "churn"),
        ("02", "new_biz"),
    ]


def test_more_windows_than_airflow_maps_are_refused() -> None:
    assert len(split_interval(JAN_1, JAN_1 + timedelta(hours=1024), "PT1H")) == 1024
    assert len(split_interval(JAN_1, JAN_1 + timedelta(hours=1025), "PT1H", max_windows=None)) == 1025
    for told in ({}, {"max_windows": 2049, "activity_types": ["churn", "new_biz"]}):
        with pytest.raises(IntervalError, match=r"max_map_length"):
            split_interval(JAN_1, JAN_1 + timedelta(hours=1025), "PT1H", **told)


@pytest.mark.parametrize(
    ("args", "told", "says"),
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
def test_a_range_that_makes_no_sense_is_refused(args: Any, told: dict[str, Any], says: str) -> None:
    with pytest.raises(IntervalError) as raised:
        split_interval(*args, **told)
    assert str(raised.value).startswith(says)


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
a_thousand_days = st.timedeltas(timedelta(seconds=1), timedelta(days=1000))
steady = settings(deadline=None, derandomize=True, max_examples=150)


def covered(start: datetime, end: datetime, every: Any, zone: str) -> list[datetime]:
    """Split a range, check that the windows touch, are not empty and cover it exactly, and give their borders."""
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
@given(instants, a_thousand_days, st.sampled_from(sorted(PERIOD)), st.sampled_from(ODD_ZONES))
def test_windows_of_the_calendar(start: datetime, length: timedelta, every: str, zone: str) -> None:
    found = covered(start, start + length, every, zone)

    def period(moment: datetime) -> Any:
        return PERIOD[every](moment.astimezone(ZoneInfo(zone)).date())

    for begin, end in pairwise(found):
        assert period(begin) == period(end - timedelta(microseconds=1))
    for border in found[1:-1]:
        assert period(border - timedelta(microseconds=1)) != period(border)


@steady
@given(
    instants,
    a_thousand_days,
    st.integers(0, 14),
    st.integers(0, 40),
    st.sampled_from([timedelta(0), timedelta(hours=5), timedelta(minutes=1501)]),
    st.sampled_from(ODD_ZONES),
)
def test_windows_of_a_length(
    start: datetime, length: timedelta, months: int, days: int, rest: timedelta, zone: str
) -> None:
    assume(months or days or rest)
    every = pendulum.duration(months=months, days=days, seconds=rest.total_seconds())
    found = covered(start, start + length, every, zone)
    local_start = start.astimezone(ZoneInfo(zone))
    for number, border in enumerate(found[1:-1], 1):
        if rest and not months:
            assert border == start + number * (timedelta(days=days) + rest)
        elif not rest and zone != "Pacific/Apia":
            wall = pendulum.instance(local_start.replace(tzinfo=None)).add(months=number * months, days=number * days)
            # A time of day that a change of the clocks leaves out comes that much later.
            late = border.astimezone(ZoneInfo(zone)).replace(tzinfo=None) - wall.naive()
            assert timedelta(0) <= late <= timedelta(hours=1)


@steady
@given(instants, a_thousand_days, st.sampled_from(ODD_ZONES), st.integers(1, 40), st.booleans())
def test_a_timedelta_of_days_is_as_a_duration_of_days(
    start: datetime, length: timedelta, zone: str, days: int, as_text: bool
) -> None:
    every = f"P{days}D" if as_text else pendulum.duration(days=days)
    assert covered(start, start + length, timedelta(days=days), zone) == covered(start, start + length, every, zone)
