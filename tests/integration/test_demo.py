# SPDX-License-Identifier: Apache-2.0
"""The DAG of ``make demo``, ``example_account_duckdb``, and the report of its warehouse."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest

from airflow_provider_chartmogul.sandbox import Sandbox
from dev.demo.report import Warehouse, print_report
from dev.demo.screen import Screen, count
from tests.integration.test_dags import at, copy_example, run_states

END = datetime(2026, 3, 3, tzinfo=UTC)


def report(warehouse: Warehouse) -> str:
    out = io.StringIO()
    print_report(Screen(out), warehouse)
    return out.getvalue()


def test_whole_account_is_loaded_and_reported(
    airflow_db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "account.duckdb"
    monkeypatch.setenv("AIRFLOW_VAR_CHARTMOGUL_DESTINATION", f"file://{tmp_path}/objects")
    monkeypatch.setenv("AIRFLOW_VAR_CHARTMOGUL_ACCOUNT_DUCKDB", str(database))
    dag = copy_example("example_account_duckdb.py").dag
    with Sandbox(customers=40, export_seconds=0, requests_per_second=None, as_of=END) as sandbox:
        connection = f"{sandbox.connection_uri}?requests_per_second=10000"
        monkeypatch.setenv("AIRFLOW_CONN_CHARTMOGUL_DEFAULT", connection)
        state, states = run_states(dag.test(**at(dag, END)))
        activities = sandbox.expected_rows(None, END)
        subscriptions = sandbox.rows("subscriptions")
        plans = sandbox.rows("plans")
    assert (state, states) == ("success", {task_id: ["success"] for task_id in dag.task_ids})

    movements: Counter[tuple[str, str]] = Counter()
    for row in activities:
        movements[row["date"][:7], row["type"]] += int(row["activity_mrr_movement"])
    by_plan: Counter[str] = Counter()
    for subscription in subscriptions:
        by_plan[subscription["plan"]] += subscription["mrr"]
    with Warehouse(database) as warehouse:
        rows = {name: number for name, number, _ in warehouse.tables()}
        assert rows["chartmogul_activities"] == len(activities)
        assert rows["chartmogul_subscriptions"] == len(subscriptions)
        assert rows["chartmogul_plans"] == len(plans)
        assert {"chartmogul_customers", "chartmogul_invoices", "chartmogul_invoice_line_items"} < rows.keys()

        months = warehouse.movements()
        assert [f"{month:%Y-%m}" for month, *_ in months][-3:] == ["2026-01", "2026-02", "2026-03"]
        types = ("new_biz", "expansion", "contraction", "churn", "reactivation")
        for month, by_type, net, mrr, metric in months:
            assert by_type == [movements[f"{month:%Y-%m}", name] for name in types]
            assert net == sum(by_type)
            assert mrr == metric
        assert {plan: mrr for plan, _, _, mrr in warehouse.plans()} == +by_plan

        sums = warehouse.sums()
        assert (sums.day, sums.metric) == (date(2026, 3, 2), sum(movements.values()))
        assert sums.differing == []
        assert report(warehouse).count("  equal\n") == 3


@pytest.fixture
def database(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A warehouse with four movements, which add up."""
    with duckdb.connect(str(tmp_path / "small.duckdb")) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("""
            CREATE TABLE chartmogul_activities (
              date TIMESTAMPTZ, type TEXT, activity_mrr_movement DECIMAL(18, 2), currency TEXT
            );
            INSERT INTO chartmogul_activities VALUES
              ('2025-12-31 23:59:59+00', 'new_biz', 500000, 'EUR'),
              ('2026-01-01 00:00:00+00', 'expansion', 20000, 'EUR'),
              ('2026-01-31 12:00:00+00', 'churn', -70000, 'EUR'),
              ('2026-03-01 08:00:00+00', 'new_biz', 1050, 'EUR');
            CREATE TABLE chartmogul_metrics (date DATE, mrr BIGINT);
            INSERT INTO chartmogul_metrics VALUES
              ('2026-01-01', 520000), ('2026-01-31', 450000), ('2026-02-28', 450000), ('2026-03-02', 451050);
            CREATE TABLE chartmogul_subscriptions (customer_uuid TEXT, plan TEXT, mrr BIGINT);
            INSERT INTO chartmogul_subscriptions VALUES
              ('a', 'Gold', 300000), ('a', 'Gold', 100000), ('b', 'Tin', 51050), ('c', 'Tin', 0);
            CREATE TABLE chartmogul_customers (mrr BIGINT);
            INSERT INTO chartmogul_customers VALUES (400000), (51050), (0);
        """)
        yield connection


def lines_of(database: duckdb.DuckDBPyConnection, tmp_path: Path) -> list[str]:
    database.close()
    with Warehouse(tmp_path / "small.duckdb") as warehouse:
        return [" ".join(line.split()) for line in report(warehouse).splitlines()]


def test_movements_by_month(database: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """Months begin at midnight in UTC. A month without movements is in the table, one without a metric is not."""
    lines = lines_of(database, tmp_path)
    header = lines.index("MRR movements by month and type, in EUR") + 2
    assert lines[header + 2 : header + 5] == [
        "2026-01 0 200 0 -700 0 -500 4,500 = 4,500",
        "2026-02 0 0 0 0 0 0 4,500 = 4,500",
        "2026-03 10 0 0 0 0 10 4,510 = 4,510",
    ]


def test_mrr_by_plan(database: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    lines = lines_of(database, tmp_path)
    header = lines.index("MRR by plan, in EUR") + 2
    assert lines[header + 2 : header + 4] == ["Gold 1 2 4,000 89%", "Tin 1 1 510 11%"]
    assert lines[header + 5] == "all plans 3 4,510"


def test_sums_that_agree(database: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    lines = lines_of(database, tmp_path)
    header = lines.index("Does it add up? MRR at the end of 2026-03-02") + 2
    assert lines[header : header + 4] == [
        "ChartMogul's own metric 4,510.50 EUR",
        "sum of 4 movements 4,510.50 EUR equal",
        "sum of 4 subscriptions 4,510.50 EUR equal",
        "sum of 3 customers 4,510.50 EUR equal",
    ]


def test_missing_movement_is_a_difference(database: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    database.execute("DELETE FROM chartmogul_activities WHERE type = 'churn'")
    lines = lines_of(database, tmp_path)
    assert "sum of 3 movements 5,210.50 EUR differs by 700.00 EUR" in lines
    assert "2026-01 0 200 0 0 0 200 5,200 ≠ 4,500" in lines
    with Warehouse(tmp_path / "small.duckdb") as warehouse:
        assert warehouse.sums().differing == ["movement"]


def test_several_currencies_are_not_named(database: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    database.execute("UPDATE chartmogul_activities SET currency = 'USD' WHERE type = 'churn'")
    lines = lines_of(database, tmp_path)
    assert "MRR by plan" in lines
    assert "sum of 4 movements 4,510.50 equal" in lines


def test_empty_account(database: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    for table in ("activities", "subscriptions", "customers"):
        database.execute(f"DELETE FROM chartmogul_{table}")
    database.execute("UPDATE chartmogul_metrics SET mrr = 0")
    lines = lines_of(database, tmp_path)
    assert "sum of 0 movements 0.00 equal" in lines
    assert "all plans 0 0" in lines


def test_count_has_a_plural() -> None:
    assert [count(number, "row") for number in (0, 1, 1000)] == ["0 rows", "1 row", "1,000 rows"]
