# SPDX-License-Identifier: Apache-2.0
"""
The examples for BigQuery, Redshift and Snowflake: what is rendered, whether its grammar is the warehouse's, and what
it leaves in a table, which is compared with the sandbox's rows.

Each test has a stand-in for the warehouse; what a stand-in is, and is not, stands in ``examples.py``.
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
# With the seven days of lookback.
WINDOW = datetime(2024, 1, 8, tzinfo=UTC), NEXT


def statements(task: Any) -> list[exp.Expression]:
    """A task's SQL, parsed in its warehouse's grammar."""
    text = task.configuration["query"]["query"] if hasattr(task, "configuration") else task.sql
    parsed = sqlglot.parse(text, dialect=task.dag_id.removeprefix("example_"))
    return [statement for statement in parsed if statement is not None]


@pytest.mark.parametrize("name", NAMES)
def test_import_and_order(name: str) -> None:
    dag = load_example(name)
    assert dag.dag_id == f"example_{name}"
    assert "**Not run against" in dag.doc_md
    order = [task.task_id for task in dag.topological_sort()]
    middle = ["create", "stage"] if name == "redshift" else ["stage"]
    assert order == ["export", *middle, "check", "load", "drop"]
    assert dag.get_task("drop").is_teardown
    assert all(dag.get_task(task_id).is_setup for task_id in middle)
    # What Airflow clears with the load: the staged table is gone by then.
    cleared = dag.partial_subset(["load"], include_downstream=True, include_upstream=False)
    assert {*middle, "load", "drop"} <= set(cleared.task_ids) <= {*middle, "check", "load", "drop"}
    assert dag.get_task("load").max_active_tis_per_dag == 1


def test_grammar_and_predicates(warehouse: Warehouse, sandbox: Sandbox) -> None:
    run = warehouse.run(DAY)
    start, end = (moment.isoformat() for moment in WINDOW)
    assert (run.object["interval_start"], run.object["interval_end"]) == (start, end)
    kinds = {"check": statements(run.task("check")), "load": statements(run.task("load"))}
    # What sqlglot does not know it keeps as a command, unread.
    unread = [
        statement.sql() for parsed in kinds.values() for statement in parsed if isinstance(statement, exp.Command)
    ]
    assert unread == (["LOCK TABLE public.activities"] if warehouse.name == "redshift" else [])

    words = [type(statement).__name__ for statement in kinds["load"]]
    assert words[-4:] == ["Transaction" if warehouse.name != "redshift" else "Command", "Delete", "Insert", "Commit"]
    assert words.count("Transaction") == 1
    for statement in (exp.Delete, exp.Insert):
        (found,) = [each for each in kinds["load"] if isinstance(each, statement)]
        moments = [
            (type(comparison).__name__, literal.this)
            for comparison in found.find_all(exp.GTE, exp.LT)
            for literal in comparison.find_all(exp.Literal)
        ]
        assert set(moments) == {("GTE", start), ("LT", end)}, "half-open"
    (inserted,) = [each for each in kinds["load"] if isinstance(each, exp.Insert)]
    into = [column.name.lower() for column in inserted.this.expressions]
    assert into == ["_loaded_at", *run.object["columns"]]


def test_names_are_the_params(warehouse: Warehouse, sandbox: Sandbox) -> None:
    run = warehouse.run(DAY, table="movements", date_column="billed on", uuid_column=None)
    sql = " ".join(statement.sql(dialect=warehouse.name) for statement in statements(run.task("load")))
    assert re.search(r"\bmovements\b", sql)
    assert "activities" not in sql.replace(run.object["export_id"], "")
    assert re.search(r"billed on.{1,4}>=", sql, re.IGNORECASE)
    assert " OR " not in sql, "no rows of the same UUID"


def correct_the_books(sandbox: Sandbox) -> None:
    """Change history: rows go, are edited, come, and move into the window and out of it."""
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


def test_loads_again_and_after_corrections(warehouse: Warehouse, sandbox: Sandbox) -> None:
    expected_rows = sandbox.expected_rows(*WINDOW)
    assert expected_rows
    for _ in range(2):
        warehouse.load(DAY)
        assert difference(warehouse.rows(expected_rows[0]), expected_rows) == []
    # The week before, so that there are rows outside of the window.
    warehouse.load(DAY - timedelta(days=7))
    correct_the_books(sandbox)
    warehouse.load(DAY)
    amended = sandbox.expected_rows(*WINDOW)
    assert amended != expected_rows
    loaded = warehouse.rows(expected_rows[0])
    assert difference(within(loaded, *WINDOW), amended) == []
    assert len({row["uuid"] for row in loaded}) == len(loaded), "what moved is not there twice"
    assert {"first", "last"} <= {row["uuid"] for row in loaded}
    assert "end" not in {row["uuid"] for row in loaded}
    assert warehouse.tables() == ["activities"], "nothing staged is left"


def test_a_retry_of_any_task_leaves_the_same_table(warehouse: Warehouse, sandbox: Sandbox) -> None:
    expected_rows = sandbox.expected_rows(*WINDOW)
    run = warehouse.run(DAY)
    for task_id in (*warehouse.tasks, "drop"):
        warehouse.execute(run, task_id)
        warehouse.execute(run, task_id)
    assert difference(warehouse.rows(expected_rows[0]), expected_rows) == []
    assert warehouse.tables() == ["activities"]


def test_overlapping_runs_stage_apart(warehouse: Warehouse, sandbox: Sandbox) -> None:
    days = [DAY, DAY + timedelta(days=3)]
    expected_rows = sandbox.expected_rows(WINDOW[0], WINDOW[1] + timedelta(days=3))
    runs = [warehouse.run(day) for day in days]
    for task_id in (*warehouse.tasks, "drop"):
        for run in runs:
            warehouse.execute(run, task_id)
    assert difference(warehouse.rows(expected_rows[0]), expected_rows) == []


def test_without_uuids(warehouse: Warehouse, sandbox: Sandbox) -> None:
    expected_rows = sandbox.expected_rows(*WINDOW)
    warehouse.load(DAY, uuid_column=None)
    sandbox.amend(removed=[row["uuid"] for row in expected_rows[:3]])
    warehouse.load(DAY, uuid_column=None)
    assert difference(warehouse.rows(expected_rows[0]), sandbox.expected_rows(*WINDOW)) == []


def test_loaded_at_is_when_the_row_came(warehouse: Warehouse, sandbox: Sandbox) -> None:
    warehouse.load(DAY)
    ((least, most),) = warehouse.query(f"SELECT min(_loaded_at), max(_loaded_at) FROM {warehouse.table}")
    warehouse.load(DAY)
    ((later, _),) = warehouse.query(f"SELECT min(_loaded_at), max(_loaded_at) FROM {warehouse.table}")
    assert least <= most < later, "every row of the window came anew"


def up_to(task_id: str, run: Run, warehouse: Warehouse) -> str:
    """Execute the tasks before one; give the staged table's name."""
    for before in warehouse.tasks[: warehouse.tasks.index(task_id)]:
        warehouse.execute(run, before)
    (staged,) = [name for name in warehouse.tables() if name != "activities"]
    return f"{warehouse.table}{staged.removeprefix('activities')}"


def test_rows_outside_the_window_are_not_taken(warehouse: Warehouse, sandbox: Sandbox) -> None:
    """An export may hold its window's end."""
    expected_rows = sandbox.expected_rows(*WINDOW)
    run = warehouse.run(DAY)
    staged = up_to("load", run, warehouse)
    for row, moment in zip(expected_rows, ("2024-01-16T00:00:00Z", "2024-01-07T23:59:59Z", "2024-01-08"), strict=False):
        warehouse.change(f"UPDATE {staged} SET date = '{moment}' WHERE uuid = '{row['uuid']}'")
    warehouse.execute(run, "load")
    expected = [{**expected_rows[2], "date": "2024-01-08T00:00:00+00:00"}, *expected_rows[3:]]
    assert difference(warehouse.rows(expected_rows[0]), expected) == []


# After an error within a transaction, fakesnow answers nothing but 500, which Snowflake's client repeats for minutes.
@pytest.mark.parametrize("warehouse", ["bigquery", "redshift"], indirect=True)
def test_a_load_that_fails_has_done_nothing(warehouse: Warehouse, sandbox: Sandbox) -> None:
    """The old rows are deleted, and then there are no new ones to insert."""
    expected_rows = sandbox.expected_rows(*WINDOW)
    warehouse.load(DAY)
    correct_the_books(sandbox)
    # Without UUIDs, so that the deletion does not look at what is staged.
    run = warehouse.run(DAY, uuid_column=None)
    warehouse.change(f"DROP TABLE {up_to('load', run, warehouse)}")
    with pytest.raises(Exception, match=r"(?i)activities_.*(does not|not) exist"):
        warehouse.execute(run, "load")
    assert difference(warehouse.rows(expected_rows[0]), expected_rows) == []
    # Clearing the load clears its setup, which stages again.
    up_to("load", run, warehouse)
    warehouse.execute(run, "load")
    assert difference(warehouse.rows(expected_rows[0]), sandbox.expected_rows(*WINDOW)) == []


def test_a_column_that_the_export_gains(warehouse: Warehouse, sandbox: Sandbox) -> None:
    """The table is made before there is one of the export's columns, and with one that the export has no more."""
    expected_rows = sandbox.expected_rows(*WINDOW)
    warehouse.load(DAY)
    warehouse.change(f"ALTER TABLE {warehouse.table} RENAME COLUMN description TO old_description")
    if warehouse.name == "redshift":
        with pytest.raises(Exception, match="description"):
            warehouse.load(DAY)
        # What the example's text tells the user to do.
        warehouse.change(f"ALTER TABLE {warehouse.table} ADD COLUMN description VARCHAR(65535)")
    warehouse.load(DAY)
    assert difference(warehouse.rows(expected_rows[0]), expected_rows) == []
    assert warehouse.query(f"SELECT DISTINCT old_description FROM {warehouse.table}") == [(None,)]


@pytest.mark.parametrize("broken", ["a date is missing", "a uuid is there twice"])
def test_the_check_stops_what_would_be_lost(broken: str, warehouse: Warehouse, sandbox: Sandbox) -> None:
    warehouse.load(DAY)
    run = warehouse.run(DAY)
    staged = up_to("check", run, warehouse)
    column, value = ("date", "NULL") if broken == "a date is missing" else ("uuid", "'twice'")
    warehouse.change(f"UPDATE {staged} SET {column} = {value}")
    with pytest.raises(Exception, match=r"(?i)test failed|check fails"):
        warehouse.execute(run, "check")
