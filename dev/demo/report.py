# SPDX-License-Identifier: Apache-2.0
"""
The report of the demo: the account's MRR from the warehouse, compared with ChartMogul's own metric.

Amounts are in hundredths of the account's currency in the warehouse, as in the API.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from dev.demo.screen import Screen, count

#: Months in the table of movements: one year and the present month.
_MONTHS = 13

_TYPES = {
    "new_biz": "new",
    "expansion": "expansion",
    "contraction": "contraction",
    "churn": "churn",
    "reactivation": "reactivation",
}

#: The MRR of a month's end is the sum of all movements up to then.
_MOVEMENTS = """
WITH movements AS (
  SELECT CAST(date_trunc('month', date) AS DATE) AS month, type, sum(activity_mrr_movement) AS movement
  FROM chartmogul_activities
  GROUP BY 1, 2
),
metric AS (
  SELECT CAST(date_trunc('month', date) AS DATE) AS month, max_by(mrr, date) AS mrr
  FROM chartmogul_metrics
  GROUP BY 1
)
SELECT
  metric.month,
  sum(movement) FILTER (movements.month = metric.month AND type = 'new_biz') AS new_biz,
  sum(movement) FILTER (movements.month = metric.month AND type = 'expansion') AS expansion,
  sum(movement) FILTER (movements.month = metric.month AND type = 'contraction') AS contraction,
  sum(movement) FILTER (movements.month = metric.month AND type = 'churn') AS churn,
  sum(movement) FILTER (movements.month = metric.month AND type = 'reactivation') AS reactivation,
  sum(movement) FILTER (movements.month = metric.month) AS net,
  sum(movement) AS mrr,
  metric.mrr AS metric
FROM metric
LEFT JOIN movements ON movements.month <= metric.month
GROUP BY metric.month, metric.mrr
ORDER BY metric.month
"""

_PLANS = """
SELECT plan, count(DISTINCT customer_uuid) AS customers, count(*) AS subscriptions, sum(mrr) AS mrr
FROM chartmogul_subscriptions
WHERE mrr <> 0
GROUP BY plan
ORDER BY mrr DESC, plan
"""

_METRIC = "SELECT date, mrr FROM chartmogul_metrics ORDER BY date DESC LIMIT 1"

_SUMS = {
    "movement": "SELECT count(*), sum(activity_mrr_movement) FROM chartmogul_activities",
    "subscription": "SELECT count(*), sum(mrr) FROM chartmogul_subscriptions",
    "customer": "SELECT count(*), sum(mrr) FROM chartmogul_customers",
}

_CURRENCIES = "SELECT DISTINCT currency FROM chartmogul_activities WHERE currency IS NOT NULL"


@dataclass(frozen=True)
class Sums:
    """
    The MRR at the end of a day, in hundredths of the account's currency.

    :param day: the last day of the metrics
    :param metric: ChartMogul's own metric
    :param by_source: the number of rows and the sum of their MRR, by kind of row
    """

    day: date
    metric: Decimal
    by_source: dict[str, tuple[int, Decimal]]

    @property
    def differing(self) -> list[str]:
        """The kinds of rows whose sum is not the metric."""
        return [source for source, (_, mrr) in self.by_source.items() if mrr != self.metric]


class Warehouse:
    """
    Runs the queries of the report.

    :param path: a DuckDB file that ``example_account_duckdb`` has loaded
    """

    def __init__(self, path: Path) -> None:
        import duckdb

        self._connection = duckdb.connect(str(path), read_only=True)
        # Months begin at midnight in UTC.
        self._connection.execute("SET TimeZone = 'UTC'")

    def __enter__(self) -> Warehouse:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()

    def tables(self) -> list[tuple[str, int, int]]:
        """Return the names of the tables, with their numbers of rows and columns."""
        tables = self._query("SELECT table_name, column_count FROM duckdb_tables() ORDER BY table_name")
        return [
            (name, self._query(f"SELECT count(*) FROM {name}")[0][0], columns)
            for name, columns in tables
            if name.startswith("chartmogul_")
        ]

    def movements(self) -> list[tuple[date, list[Decimal], Decimal, Decimal, Decimal]]:
        """Return by month: the movements by type, their sum, all movements up to then, and ChartMogul's metric."""
        return [
            (month, [value or Decimal(0) for value in by_type], net or Decimal(0), mrr or Decimal(0), Decimal(metric))
            for month, *by_type, net, mrr, metric in self._query(_MOVEMENTS)
        ]

    def plans(self) -> list[tuple[str, int, int, int]]:
        """Return plans that have MRR: name, customers, subscriptions, MRR."""
        return self._query(_PLANS)

    def sums(self) -> Sums:
        """Return ChartMogul's metric, and the sums to compare with it."""
        [(day, metric)] = self._query(_METRIC)
        sums = {source: self._query(query)[0] for source, query in _SUMS.items()}
        return Sums(day, Decimal(metric), {source: (rows, Decimal(mrr or 0)) for source, (rows, mrr) in sums.items()})

    def currency(self) -> str:
        """Return the currency of all activities; empty if they have several."""
        currencies = self._query(_CURRENCIES)
        return str(currencies[0][0]) if len(currencies) == 1 else ""

    def _query(self, sql: str) -> list[Any]:
        return list(self._connection.execute(sql).fetchall())


def print_report(screen: Screen, warehouse: Warehouse) -> Sums:
    """Print the report, and return the sums at its end."""
    currency = warehouse.currency()
    _print_tables(screen, warehouse)
    _print_movements(screen, warehouse, currency)
    _print_plans(screen, warehouse, currency)
    return _print_sums(screen, warehouse, currency)


def _print_tables(screen: Screen, warehouse: Warehouse) -> None:
    screen.table(
        [
            ("table", "rows", "columns"),
            *((name, f"{rows:,}", str(columns)) for name, rows, columns in warehouse.tables()),
        ]
    )


def _print_movements(screen: Screen, warehouse: Warehouse, currency: str) -> None:
    screen.title(_with_currency("MRR movements by month and type", currency))
    rows: list[Sequence[str]] = [("month", *_TYPES.values(), "net", "MRR", "ChartMogul's MRR")]
    for month, by_type, net, mrr, metric in warehouse.movements()[-_MONTHS:]:
        amounts = (f"{value / 100:,.0f}" for value in (*by_type, net, mrr))
        rows.append((f"{month:%Y-%m}", *amounts, f"{'=' if mrr == metric else '≠'} {metric / 100:,.0f}"))
    screen.table(rows)
    screen.line()
    screen.line(
        screen.dim("  MRR is the sum of all movements up to then. ChartMogul's is its own metric on the last day.")
    )


def _print_plans(screen: Screen, warehouse: Warehouse, currency: str) -> None:
    screen.title(_with_currency("MRR by plan", currency))
    plans = warehouse.plans()
    total = sum(mrr for *_, mrr in plans)
    rows: list[Sequence[str]] = [("plan", "customers", "subscriptions", "MRR", "share")]
    for plan, customers, subscriptions, mrr in plans:
        rows.append((plan, f"{customers:,}", f"{subscriptions:,}", f"{mrr / 100:,.0f}", f"{mrr / total:.0%}"))
    subscriptions = sum(number for _, _, number, _ in plans)
    rows.append(("all plans", "", f"{subscriptions:,}", f"{total / 100:,.0f}", ""))
    screen.table(rows, has_total=True)


def _print_sums(screen: Screen, warehouse: Warehouse, currency: str) -> Sums:
    sums = warehouse.sums()
    screen.title(f"Does it add up? MRR at the end of {sums.day}")
    rows = [("ChartMogul's own metric", _amount(sums.metric, currency), "")]
    for source, (number, mrr) in sums.by_source.items():
        verdict = "equal" if mrr == sums.metric else f"differs by {_amount(mrr - sums.metric, currency)}"
        rows.append((f"sum of {count(number, source)}", _amount(mrr, currency), verdict))
    name_width, amount_width = (max(len(row[index]) for row in rows) for index in (0, 1))
    for name, amount, verdict in rows:
        styled = screen.state("success" if verdict == "equal" else "failed", verdict)
        screen.line(f"  {name:<{name_width}}  {amount:>{amount_width}}  {styled}")
    return sums


def _with_currency(title: str, currency: str) -> str:
    return f"{title}, in {currency}" if currency else title


def _amount(hundredths: Decimal, currency: str) -> str:
    return f"{hundredths / 100:,.2f} {currency}".rstrip()
