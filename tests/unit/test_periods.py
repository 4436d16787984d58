# SPDX-License-Identifier: Apache-2.0
"""Windows of metrics as whole periods: days, weeks, months, quarters and years, where clocks change and elsewhere."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_chartmogul.exceptions import IntervalError
from airflow_provider_chartmogul.intervals import split_interval
from airflow_provider_chartmogul.intervals.interval import Interval, resolve_interval
from airflow_provider_chartmogul.intervals.periods import PERIODS, whole_periods

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"]

#: The first day of a period that contains both changes of the clocks, and of a later one.
RANGES = {
    "day": ("2024-01-01", "2025-01-01"),
    "week": ("2024-01-01", "2024-12-30"),
    "month": ("2024-01-01", "2025-01-01"),
    "quarter": ("2024-01-01", "2025-01-01"),
    "year": ("2024-01-01", "2026-01-01"),
}


def days_of(window: dict[str, str], period: str, zone: str) -> tuple[date, date]:
    start, end = (datetime.fromisoformat(window[f"interval_{side}"]) for side in ("start", "end"))
    return whole_periods(Interval(start, end), period, ZoneInfo(zone))


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("period", PERIODS)
def test_adjacent_windows_have_each_day_once(period: str, zone: str) -> None:
    start, end = RANGES[period]
    windows = [days_of(window, period, zone) for window in split_interval(start, end, period, timezone=zone)]
    assert windows[0][0] == date.fromisoformat(start)
    assert windows[-1][1] == date.fromisoformat(end) - timedelta(days=1)
    assert all(later[0] - earlier[1] == timedelta(days=1) for earlier, later in pairwise(windows))


@pytest.mark.parametrize(
    ("period", "day", "shown"),
    [
        ("week", "2024-01-02", "Tuesday, 2024-01-02"),
        ("week", "2024-01-07", "Sunday, 2024-01-07, and the account's weeks start on monday"),
        ("month", "2024-01-02", "Tuesday, 2024-01-02"),
        ("quarter", "2024-02-01", "Thursday, 2024-02-01"),
        ("year", "2024-04-01", "Monday, 2024-04-01"),
    ],
)
@pytest.mark.parametrize("side", ["interval_start", "interval_end"])
def test_end_within_a_period_is_named(period: str, day: str, shown: str, side: str) -> None:
    other = datetime(2018 if side == "interval_end" else 2029, 1, 1, tzinfo=UTC)
    end = datetime.fromisoformat(day).replace(tzinfo=UTC)
    interval = Interval(other, end) if side == "interval_end" else Interval(end, other)
    # 2018-01-01 and 2029-01-01 are Mondays, and begin a period of each kind.
    with pytest.raises(IntervalError, match=f"interval='{period}' needs whole {period}s, but {side} is {shown}"):
        whole_periods(interval, period, UTC)


@pytest.mark.parametrize("side", ["interval_start", "interval_end"])
@pytest.mark.parametrize("moment", ["2024-03-31T00:00Z", "2024-03-31T22:30Z", "2024-10-27T23:30Z"])
def test_end_within_a_day_is_named(moment: str, side: str) -> None:
    zone = ZoneInfo("Europe/Berlin")
    end = datetime.fromisoformat(moment)
    other = datetime(2023 if side == "interval_end" else 2025, 6, 1, tzinfo=zone).astimezone(UTC)
    interval = Interval(other, end) if side == "interval_end" else Interval(end, other)
    local = end.astimezone(zone).isoformat().replace("+", r"\+")
    with pytest.raises(IntervalError, match=f"{side} is {local}, which is not the start of a day in Europe/Berlin"):
        whole_periods(interval, "day", zone)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("lookback", [timedelta(days=7), "P7D", "P1W", timedelta(days=90)])
def test_lookback_is_whole_days_where_clocks_change(lookback: object, zone: str) -> None:
    """Days of 23 and 25 hours count as days, so that every run of a year has whole days."""
    length = lookback.days if isinstance(lookback, timedelta) else 7
    for window in split_interval("2024-01-01", "2025-01-01", "day", timezone=zone):
        day = days_of(window, "day", zone)[0]
        interval = resolve_interval(
            {},
            start=window["interval_start"],
            end=window["interval_end"],
            lookback=lookback,
            lookback_timezone=ZoneInfo(zone),
        )
        assert whole_periods(interval, "day", ZoneInfo(zone)) == (day - timedelta(days=length), day)


def test_lookback_of_months_begins_with_a_month() -> None:
    zone = ZoneInfo("Europe/Berlin")
    for window in split_interval("2024-01-01", "2025-01-01", "month", timezone=zone):
        first, last = days_of(window, "month", "Europe/Berlin")
        interval = resolve_interval(
            {},
            start=window["interval_start"],
            end=window["interval_end"],
            lookback="P2M",
            lookback_timezone=zone,
        )
        begin = date(first.year - (first.month <= 2), (first.month - 3) % 12 + 1, 1)
        assert whole_periods(interval, "month", zone) == (begin, last)
