# SPDX-License-Identifier: Apache-2.0
"""
Tests the examples for BigQuery and Redshift: their SQL, and the tables they load against expected rows.

``examples.py`` describes the stand-ins for the warehouses, and what they do not cover.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlglot
from sqlglot import exp

from airflow_provider_chartmogul.sandbox import Sandbox
from tests.tables import difference, within
from tests.warehouses.examples import NAMES, Run, Warehouse, load_example

DAY = datetime(2024, 1, 15, tzinfo=UTC)
NEXT = DAY + timedelta(days=1)
# Includes the lookback of seven days.
WINDOW = datetime(2024, 1, 8, tzinfo=UTC), NEXT


def statements(task: Any) -> list[exp.Expression]:
    """Parse a task's SQL in its warehouse's dialect."""
    text = task.configuration["query"]["query"] if hasattr(task, "configuration") else task.sql
    parsed = sqlglot.parse(text, dialect=task.dag_id.removeprefix("example_"))
    return [statement for statement in parsed if statement is not None]


@pytest.mark.parametrize("name", NAMES)
def test_dag_has_its_tasks_in_order(name: str) -> None:
    dag = load_example(name)
    assert dag.dag_id == f"example_{name}"
    assert "**Not tested against" in dag.doc_md
    order = [task.task_id for task in dag.topological_sort()]
    middle = ["create", "stage"] if name == "redshift" else ["stage"]
    assert order == ["export", *middle, "check", "load", "drop"]
    assert dag.get_task("drop").is_teardown
    assert all(dag.get_task(task_id).is_setup for task_id in middle)
    # Clearing the load also clears its setup, since the staging table has been dropped.
    cleared = dag.partial_subset(["load"], include_downstream=True, include_upstream=False)
    assert {*middle, "load", "drop"} <= set(cleared.task_ids) <= {*middle, "check", "load", "drop"}
    assert dag.get_task("load").max_active_tis_per_dag == 1


def test_sql_parses_and_its_windows_are_half_open(warehouse: Warehouse, sandbox: Sandbox) -> None:
    run = warehouse.run(DAY)
    start, end = (moment.isoformat() for moment in WINDOW)
    assert (run.object["interval_start"], run.object["interval_end"]) == (start, end)
    check, load = (statements(run.task(task_id)) for task_id in ("check", "load"))
    # sqlglot returns statements that it cannot parse as commands.
    unparsed = [statement.sql() for statement in (*check, *load) if isinstance(statement, exp.Command)]
    assert unparsed == (["LOCK TABLE public.activities"] if warehouse.name == "redshift" else [])

    types = [type(statement).__name__ for statement in load]
    assert types[-4:] == ["Transaction" if warehouse.name != "redshift" else "Command", "Delete", "Insert", "Commit"]
    assert types.count("Transaction") == 1
    for statement_type in (exp.Delete, exp.Insert):
        (statement,) = [statement for statement in load if isinstance(statement, statement_type)]
        bounds = [
            (type(comparison).__name__, literal.this)
            for comparison in statement.find_all(exp.GTE, exp.LT)
            for literal in comparison.find_all(exp.Literal)
        ]
        assert set(bounds) == {("GTE", start), ("LT", end)}
    (insert,) = [statement for statement in load if isinstance(statement, exp.Insert)]
    columns = [column.name for column in insert.this.expressions]
    assert columns == ["_loaded_at", *run.object["columns"]]


def test_params_name_table_and_columns(warehouse: Warehouse, sandbox: Sandbox) -> None:
    run = warehouse.run(DAY, table="movements", date_column="billed on", uuid_column=None)
    sql = " ".join(statement.sql(dialect=warehouse.name) for statement in statements(run.task("load")))
    assert re.search(r"\bmovements\b", sql)
    assert "activities" not in sql.replace(run.object["export_id"], "")
    assert re.search(r"billed on.{1,4}>=", sql, re.IGNORECASE)
    assert " OR " not in sql, "rows are matched by UUID"


def change_history(sandbox: Sandbox) -> None:
    """Remove, edit and add activities, and move some into the window and out of it."""
    inside = sandbox.expected_rows(*WINDOW)
    before = sandbox.expected_rows(WINDOW[0] - timedelta(days=3), WINDOW[0])
    sandbox.amend(
        removed=[row["uuid"] for row in (*inside[:4], before[0])],
        added=[
            {**inside[0], "description": "edited, 'as they say' \"so\" \\ 100 %,\ntwo lines"},
            {**inside[1], "date": "2024-01-16T10:00:00+00:00"},
            {**before[0], "date": "2024-01-11T10:00:00+00:00"},
            {**inside[5], "uuid": "first", "date": WINDOW[0].isoformat(), "customer_name": "O'Neil"},
            {**inside[5], "uuid": "last", "date": "2024-01-15T23:59:59+00:00"},
            {**inside[5], "uuid": "end", "date": WINDOW[1].isoformat()},
        ],
    )


def test_repeated_loads_match_the_expected_rows(warehouse: Warehouse, sandbox: Sandbox) -> None:
    expected_rows = sandbox.expected_rows(*WINDOW)
    assert expected_rows
    for _ in range(2):
        warehouse.load(DAY)
        assert difference(warehouse.rows(expected_rows[0]), expected_rows) == []
    # Load the week before, too, so that the table has rows outside the window.
    warehouse.load(DAY - timedelta(days=7))
    change_history(sandbox)
    warehouse.load(DAY)
    amended = sandbox.expected_rows(*WINDOW)
    assert amended != expected_rows
    loaded = warehouse.rows(expected_rows[0])
    assert difference(within(loaded, *WINDOW), amended) == []
    assert len({row["uuid"] for row in loaded}) == len(loaded), "a moved row was duplicated"
    assert {"first", "last"} <= {row["uuid"] for row in loaded}
    assert "end" not in {row["uuid"] for row in loaded}
    assert warehouse.tables() == ["activities"], "a staging table was not dropped"


def test_tasks_can_be_retried(warehouse: Warehouse, sandbox: Sandbox) -> None:
    expected_rows = sandbox.expected_rows(*WINDOW)
    run = warehouse.run(DAY)
    for task_id in (*warehouse.tasks, "drop"):
        warehouse.execute(run, task_id)
        warehouse.execute(run, task_id)
    assert difference(warehouse.rows(expected_rows[0]), expected_rows) == []
    assert warehouse.tables() == ["activities"]


def test_overlapping_runs_use_separate_staging_tables(warehouse: Warehouse, sandbox: Sandbox) -> None:
    days = [DAY, DAY + timedelta(days=3)]
    expected_rows = sandbox.expected_rows(WINDOW[0], WINDOW[1] + timedelta(days=3))
    runs = [warehouse.run(day) for day in days]
    for task_id in (*warehouse.tasks, "drop"):
        for run in runs:
            warehouse.execute(run, task_id)
    assert difference(warehouse.rows(expected_rows[0]), expected_rows) == []


def test_load_without_uuids_replaces_the_window(warehouse: Warehouse, sandbox: Sandbox) -> None:
    expected_rows = sandbox.expected_rows(*WINDOW)
    warehouse.load(DAY, uuid_column=None)
    sandbox.amend(removed=[row["uuid"] for row in expected_rows[:3]])
    warehouse.load(DAY, uuid_column=None)
    assert difference(warehouse.rows(expected_rows[0]), sandbox.expected_rows(*WINDOW)) == []


def test_loaded_at_is_updated_by_each_load(warehouse: Warehouse, sandbox: Sandbox) -> None:
    warehouse.load(DAY)
    ((first, last),) = warehouse.query(f"SELECT min(_loaded_at), max(_loaded_at) FROM {warehouse.table}")
    warehouse.load(DAY)
    ((first_after, _),) = warehouse.query(f"SELECT min(_loaded_at), max(_loaded_at) FROM {warehouse.table}")
    assert first <= last < first_after


def execute_until(task_id: str, run: Run, warehouse: Warehouse) -> str:
    """Execute the tasks before a task, and return the staging table's name."""
    for previous in warehouse.tasks[: warehouse.tasks.index(task_id)]:
        warehouse.execute(run, previous)
    (staging,) = [name for name in warehouse.tables() if name != "activities"]
    return f"{warehouse.table}{staging.removeprefix('activities')}"


def test_rows_outside_the_window_are_not_loaded(warehouse: Warehouse, sandbox: Sandbox) -> None:
    """An export may contain activities at the end of its window."""
    expected_rows = sandbox.expected_rows(*WINDOW)
    run = warehouse.run(DAY)
    staging = execute_until("load", run, warehouse)
    for row, moment in zip(expected_rows, ("2024-01-16T00:00:00Z", "2024-01-07T23:59:59Z", "2024-01-08"), strict=False):
        warehouse.change(f"UPDATE {staging} SET date = '{moment}' WHERE uuid = '{row['uuid']}'")
    warehouse.execute(run, "load")
    expected = [{**expected_rows[2], "date": "2024-01-08T00:00:00+00:00"}, *expected_rows[3:]]
    assert difference(warehouse.rows(expected_rows[0]), expected) == []


def test_failed_load_is_rolled_back(warehouse: Warehouse, sandbox: Sandbox) -> None:
    """The load fails after it has deleted the old rows and before it inserts the new ones."""
    expected_rows = sandbox.expected_rows(*WINDOW)
    warehouse.load(DAY)
    change_history(sandbox)
    # Without UUIDs, the DELETE does not read the staging table.
    run = warehouse.run(DAY, uuid_column=None)
    warehouse.change(f"DROP TABLE {execute_until('load', run, warehouse)}")
    with pytest.raises(Exception, match=r"(?i)activities_.*(does not|not) exist"):
        warehouse.execute(run, "load")
    assert difference(warehouse.rows(expected_rows[0]), expected_rows) == []
    # Clearing the load clears its setup, which creates the staging table again.
    execute_until("load", run, warehouse)
    warehouse.execute(run, "load")
    assert difference(warehouse.rows(expected_rows[0]), sandbox.expected_rows(*WINDOW)) == []


def test_new_column_of_the_export_is_added_to_the_table(warehouse: Warehouse, sandbox: Sandbox) -> None:
    """The table lacks a column of the export and has one that the export lacks."""
    expected_rows = sandbox.expected_rows(*WINDOW)
    warehouse.load(DAY)
    warehouse.change(f"ALTER TABLE {warehouse.table} RENAME COLUMN description TO old_description")
    if warehouse.name == "redshift":
        with pytest.raises(Exception, match="description"):
            warehouse.load(DAY)
        # The example's documentation describes this.
        warehouse.change(f"ALTER TABLE {warehouse.table} ADD COLUMN description VARCHAR(65535)")
    warehouse.load(DAY)
    assert difference(warehouse.rows(expected_rows[0]), expected_rows) == []
    assert warehouse.query(f"SELECT DISTINCT old_description FROM {warehouse.table}") == [(None,)]


@pytest.mark.parametrize(
    ("column", "value"), [("date", "NULL"), ("uuid", "'duplicate'")], ids=["missing date", "duplicate uuid"]
)
def test_check_rejects_rows_that_would_be_lost(column: str, value: str, warehouse: Warehouse, sandbox: Sandbox) -> None:
    warehouse.load(DAY)
    run = warehouse.run(DAY)
    staging = execute_until("check", run, warehouse)
    warehouse.change(f"UPDATE {staging} SET {column} = {value}")
    with pytest.raises(Exception, match=r"(?i)test failed|check fails"):
        warehouse.execute(run, "check")
