# SPDX-License-Identifier: Apache-2.0
"""The body of `/metrics/all` and of the single metrics, from the movements up to the books' moment."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta, tzinfo
from typing import NamedTuple

from airflow_provider_chartmogul.sandbox.company.activities import ACTIVITY_TYPES
from airflow_provider_chartmogul.sandbox.company.billing import DATA_SOURCES, PLANS, plan_uuid
from airflow_provider_chartmogul.sandbox.company.books import Books, country_of
from airflow_provider_chartmogul.sandbox.error_responses import bad_request
from airflow_provider_chartmogul.sandbox.resources.definition import Query, Row

INTERVALS = ("day", "week", "month", "quarter", "year")

METRICS = ("mrr", "arr", "customer-churn-rate", "mrr-churn-rate", "ltv", "customers", "asp", "arpa")
"""The metrics in the order of `/metrics/all`."""

METRICS_BY_PATH = {
    "all": "all",
    **{name: name for name in METRICS if name != "customers"},
    "customer-count": "customers",
}
"""The metrics by the last part of their path."""

_MOVEMENT_KEYS = {
    "mrr-new-business": "new_biz",
    "mrr-expansion": "expansion",
    "mrr-contraction": "contraction",
    "mrr-churn": "churn",
    "mrr-reactivation": "reactivation",
}


class Totals(NamedTuple):
    """Sums over all movements before a moment.

    * `mrr`: in cents
    * `customers`: those with an MRR above zero
    * `movements`: by activity type, in cents
    * `new_customers`, `churned_customers`: numbers of activities
    """

    mrr: int
    customers: int
    movements: tuple[int, ...]
    new_customers: int
    churned_customers: int


class MetricSeries:
    """The totals over time of some of the company's movements.

    :param includes: returns whether a movement counts, given its customer's index and its own in the ledger.
    """

    def __init__(self, books: Books, includes: Callable[[int, int], bool]) -> None:
        ledger = books.ledger
        owners = array("I", bytes(4 * len(ledger.at)))
        for customer in ledger.customers:
            for index in range(customer.start, customer.end):
                owners[index] = customer.number
        self._times = array("q")
        self._columns = [array("q") for _ in range(4 + len(ACTIVITY_TYPES))]
        mrr_of: dict[int, int] = {}
        mrr = customers = new = churned = 0
        movements = [0] * len(ACTIVITY_TYPES)
        for index in ledger.order:
            if ledger.at[index] >= books.as_of:
                break
            owner = owners[index]
            if not includes(owner, index):
                continue
            movement, kind = ledger.movement[index], ledger.type[index]
            before = mrr_of.get(owner, 0)
            mrr_of[owner] = before + movement
            mrr += movement
            customers += (before + movement > 0) - (before > 0)
            movements[kind] += movement
            new += ACTIVITY_TYPES[kind] == "new_biz"
            churned += before > 0 >= before + movement
            self._times.append(ledger.at[index])
            for column, value in zip(self._columns, (mrr, customers, new, churned, *movements), strict=True):
                column.append(value)

    def before(self, seconds: int) -> Totals:
        """Return the totals of the movements before a moment, in seconds since 1970."""
        last = bisect_left(self._times, seconds) - 1
        if last < 0:
            return Totals(0, 0, (0,) * len(ACTIVITY_TYPES), 0, 0)
        mrr, customers, new, churned, *movements = (column[last] for column in self._columns)
        return Totals(mrr, customers, tuple(movements), new, churned)


class Window(NamedTuple):
    """What a request asks for; `end` is the last day."""

    start: date
    end: date
    interval: str

    @classmethod
    def parse(cls, query: Query) -> Window:
        """Read the window of a request.

        :raises ApiErrorResponse: 400 for a missing or malformed parameter.
        """
        interval = query.get("interval", "month")
        if interval not in INTERVALS:
            raise bad_request('Parameter "interval" is malformed', "interval")
        start, end = (_read_date(query, name) for name in ("start-date", "end-date"))
        if end < start:
            raise bad_request('Parameter "end-date" must not be before "start-date"', "end-date")
        return cls(start, end, interval)

    def periods(self) -> Iterator[tuple[date, date]]:
        """Yield the first and the last day of each period. The last one ends with the window."""
        start = first_day(self.start, self.interval)
        while start <= self.end:
            following = next_period(start, self.interval)
            yield start, min(following - timedelta(days=1), self.end)
            start = following


def first_day(day: date, interval: str) -> date:
    """Return the first day of a day's period. A week starts on Sunday, as the account's settings say."""
    if interval == "day":
        return day
    if interval == "week":
        return day - timedelta(days=day.isoweekday() % 7)
    months = {"month": 1, "quarter": 3, "year": 12}[interval]
    return date(day.year, (day.month - 1) // months * months + 1, 1)


def next_period(start: date, interval: str) -> date:
    """Return the first day of the period after the one that starts on this day."""
    if interval in ("day", "week"):
        return start + timedelta(days=1 if interval == "day" else 7)
    month = start.month - 1 + {"month": 1, "quarter": 3, "year": 12}[interval]
    return date(start.year + month // 12, month % 12 + 1, 1)


def metrics_body(books: Books, metric: str, query: Query, *, time_zone: tzinfo) -> Row:
    """Return the body of `/metrics/all` or of a single metric.

    :param metric: a value of `METRICS_BY_PATH`.
    :param time_zone: the time zone of the days.
    :raises ApiErrorResponse: 400 for a missing or malformed parameter.
    """
    window = Window.parse(query)
    series = _series(books, query)

    def totals_before(day: date) -> Totals:
        return series.before(int(datetime.combine(day, time(), time_zone).timestamp()))

    entries: list[Row] = []
    values: list[Row] = []
    for start, end in window.periods():
        before, after = totals_before(start), totals_before(end + timedelta(days=1))
        values.append(_values(before, after))
        changes = {name: _change(values[-2][name], values[-1][name]) if len(values) > 1 else 0.0 for name in METRICS}
        entry: Row = {"date": end.isoformat()}
        if metric == "all":
            for name in METRICS:
                entry |= {name: values[-1][name], f"{name}-percentage-change": changes[name]}
        else:
            entry |= {metric: values[-1][metric], "percentage-change": changes[metric]}
            if metric == "mrr":
                entry |= _movements(before, after)
        entries.append(entry)
    return {"entries": entries, "summary": _summary(metric, values)}


def _summary(metric: str, values: list[Row]) -> Row:
    current, previous = values[-1], values[-2] if len(values) > 1 else values[-1]
    if metric != "all":
        change = _change(previous[metric], current[metric])
        return {"current": current[metric], "previous": previous[metric], "percentage-change": change}
    summary: Row = {}
    for name in METRICS:
        summary |= {
            f"current-{name}": current[name],
            f"previous-{name}": previous[name],
            f"{name}-percentage-change": _change(previous[name], current[name]),
        }
    return summary


def _values(before: Totals, after: Totals) -> Row:
    """Return the metrics of a period, given the totals before it and those at its end."""
    arpa = after.mrr // after.customers if after.customers else 0
    new_customers = after.new_customers - before.new_customers
    churned_customers = after.churned_customers - before.churned_customers
    churn_rate = round(100 * churned_customers / before.customers, 2) if before.customers else 0.0
    movements = _movements(before, after)
    lost = movements["mrr-churn"] + movements["mrr-contraction"]
    regained = movements["mrr-expansion"] + movements["mrr-reactivation"]
    return {
        "mrr": after.mrr,
        "arr": 12 * after.mrr,
        "customer-churn-rate": churn_rate,
        "mrr-churn-rate": round(-100 * (lost + regained) / before.mrr, 2) if before.mrr else 0.0,
        "ltv": _without_fraction(round(100 * arpa / churn_rate, 1)) if churn_rate else 0,
        "customers": after.customers,
        "asp": movements["mrr-new-business"] // new_customers if new_customers else 0,
        "arpa": arpa,
    }


def _without_fraction(value: float) -> float:
    """Return an integer where the fraction is zero: recorded responses have integers and floats side by side."""
    return int(value) if value.is_integer() else value


def _movements(before: Totals, after: Totals) -> dict[str, int]:
    changes = {
        name: new - old for name, old, new in zip(ACTIVITY_TYPES, before.movements, after.movements, strict=True)
    }
    return {key: changes[activity_type] for key, activity_type in _MOVEMENT_KEYS.items()}


def _change(previous: float, current: float) -> float:
    return round(100 * (current - previous) / abs(previous), 2) if previous else 0.0


def _series(books: Books, query: Query) -> MetricSeries:
    """Return the totals of the customers and plans that `geo` and `plans` select. `filters` is ignored."""
    countries = query["geo"].split(",") if query.get("geo") else None
    plans = query["plans"].split(",") if query.get("plans") else None
    key = ("metrics", query.get("geo"), query.get("plans"))
    if key not in books.cache:
        country = [country_of(books.company, customer.number) for customer in books.ledger.customers]
        selected = [plans is None or _is_named(books, index, plans) for index in range(len(PLANS))]
        books.cache[key] = MetricSeries(
            books,
            lambda customer, index: (
                (countries is None or country[customer] in countries) and selected[books.ledger.plan[index]]
            ),
        )
    series: MetricSeries = books.cache[key]
    return series


def _is_named(books: Books, plan: int, names: list[str]) -> bool:
    """Return whether a plan is among names, external IDs or UUIDs of plans."""
    uuids = {plan_uuid(books.company, source, plan) for source in range(len(DATA_SOURCES))}
    return bool({PLANS[plan].name, PLANS[plan].external_id, *uuids} & set(names))


def _read_date(query: Query, name: str) -> date:
    if name not in query:
        raise bad_request(f'Parameter "{name}" is missing', name)
    try:
        return date.fromisoformat(query[name][:10])
    except ValueError:
        raise bad_request(f'Parameter "{name}" is malformed', name) from None
