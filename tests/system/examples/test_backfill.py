# SPDX-License-Identifier: Apache-2.0
"""
``airflow backfill create`` over 31 days of the daily examples that load, again, and again after corrections.

In the short form it is ten days.

After each the tables are compared with the sandbox's rows for the range. The range is what the runs have
loaded, from the start of the first window, a lookback before the first day, up to and without the end of the last day:
in all of it the table stands for ChartMogul, also where a window begins and where the last one ends. Runs go four at a
time, their windows overlap, and DuckDB has one writer.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_chartmogul.sandbox import Sandbox
from dev.real_airflow import FINISHED_RUN_STATES
from tests.system.examples.conftest import MARKS, PATIENCE, World
from tests.system.examples.test_examples import wait_for
from tests.system.forms import FORM
from tests.tables import difference, within

pytestmark = MARKS

DAYS = {"long": 31, "short": 10}[FORM]
FIRST = datetime(2026, 1, 10, tzinfo=UTC)
LAST = FIRST + timedelta(days=DAYS - 1)
START, END = FIRST - timedelta(days=7), LAST + timedelta(days=1)
TABLES = {
    "example_duckdb": lambda world: world.duckdb_rows("activities"),
    "example_postgres": lambda world: world.postgres_rows("public.activities"),
}


def backfilled(world: World, dag_id: str) -> list[dict[str, Any]]:
    return [run for run in world.airflow.runs(dag_id) if run["run_type"] == "backfill"]


def correct_the_books(sandbox: Sandbox) -> int:
    """Change history within the range and around it; return how many of the range's rows have changed.

    Of every day something is removed, edited, moved to another day and backdated; and what happens at the very ends of
    the range, and just outside of them, is added.
    """
    before = sandbox.expected_rows(START, END)
    by_day: dict[str, list[dict[str, str]]] = {}
    for row in sandbox.expected_rows(START - timedelta(days=3), END + timedelta(days=3)):
        by_day.setdefault(row["date"][:10], []).append(row)
    draw = random.Random(31)
    days = sorted(by_day)
    removed, added = [], []
    for day, rows in by_day.items():
        gone, edited, moved, like = (draw.choice(rows) for _ in range(4))
        removed += [gone["uuid"], edited["uuid"], moved["uuid"]]
        if edited["uuid"] != gone["uuid"]:
            added.append({**edited, "description": f"edited, 'as they say' on {day}", "activity_mrr": "1"})
        if moved["uuid"] not in (gone["uuid"], edited["uuid"]):
            added.append({**moved, "date": f"{draw.choice(days)}T12:34:56+00:00"})
        added.append({**like, "uuid": f"backdated-{day}", "date": f"{day}T00:00:00+00:00"})
    for name, moment in {
        "just-before": START - timedelta(seconds=1),
        "at-the-start": START,
        "just-inside": END - timedelta(seconds=1),
        "at-the-end": END,
    }.items():
        added.append({**before[0], "uuid": name, "date": moment.isoformat()})
    sandbox.amend(removed=removed, added=added)
    return len(difference(before, sandbox.expected_rows(START, END)))


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Print, whether or not pytest shows what tests print."""

    def line(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", end="")

    return line


def last_is_over(world: World, dag_id: str) -> bool:
    all_of_them = world.airflow.request("GET", f"/api/v2/backfills?dag_id={dag_id}")["backfills"]
    return all(one["completed_at"] for one in all_of_them)


def backfill(world: World, dag_ids: list[str], *arguments: str) -> None:
    """Run ``airflow backfill create`` over the range for each, and wait until all of its runs have ended well."""
    for dag_id in dag_ids:
        # Airflow takes a DAG's next backfill when it has seen, which it looks for now and then, that the last is over.
        wait_for(f"the end of the last backfill of {dag_id}", lambda dag_id=dag_id: last_is_over(world, dag_id))
        world.airflow.cli(
            *("backfill", "create", "--dag-id", dag_id, "--from-date", f"{FIRST:%Y-%m-%d}"),
            *("--to-date", f"{LAST:%Y-%m-%d}", "--max-active-runs", "4", *arguments),
        )
    deadline = time.monotonic() + 2 * PATIENCE
    while True:
        # And of the run that the scheduler has made: while it loads, nobody else can read the DuckDB file.
        if {run["state"] for dag_id in dag_ids for run in world.airflow.runs(dag_id)} <= FINISHED_RUN_STATES:
            break
        assert time.monotonic() < deadline, "the backfill has not ended"
        time.sleep(1)
    states = Counter(run["state"] for dag_id in dag_ids for run in backfilled(world, dag_id))
    assert states == {"success": DAYS * len(dag_ids)}


def test_a_range_again_and_after_corrections(world: World, say: Any) -> None:
    sandbox, dag_ids = world.chartmogul, list(TABLES)
    world.unpause(*dag_ids)

    def check(what: str, began: float, exports: int, *changes: str) -> None:
        seconds = time.monotonic() - began
        expected_rows = sandbox.expected_rows(START, END)
        assert expected_rows[0]["date"] < f"{START + timedelta(days=1):%Y-%m-%d}"
        differences = {}
        for dag_id, read in TABLES.items():
            rows = within(read(world), START, END)
            differences[dag_id] = difference(rows, expected_rows)
            name = dag_id.removeprefix("example_")
            say(
                f"{what}: {name} {len(rows)} rows, expected {len(expected_rows)}, difference {len(differences[dag_id])}"
            )
        say(f"{what}: {len(sandbox.exports) - exports} exports, {seconds:.0f} s{''.join(changes)}")
        assert differences == {dag_id: [] for dag_id in dag_ids}
        # Not the exports that were there: each window has been asked for once more.
        assert len(sandbox.exports) - exports >= DAYS * len(dag_ids)

    began, exports = time.monotonic(), len(sandbox.exports)
    backfill(world, dag_ids)
    days = {run["data_interval_start"][:10] for run in backfilled(world, dag_ids[0])}
    assert days == {f"{FIRST + timedelta(days=number):%Y-%m-%d}" for number in range(DAYS)}
    check("backfill", began, exports)

    began, exports = time.monotonic(), len(sandbox.exports)
    backfill(world, dag_ids, "--reprocess-behavior", "completed")
    check("reprocessed", began, exports)

    changed = correct_the_books(sandbox)
    assert changed > 2 * DAYS
    began, exports = time.monotonic(), len(sandbox.exports)
    backfill(world, dag_ids, "--reprocess-behavior", "completed")
    check("reprocessed after corrections", began, exports, f", {changed} expected rows had changed")
    uuids = {row["uuid"] for row in sandbox.expected_rows(START, END)}
    assert {"at-the-start", "just-inside"} <= uuids
    assert not {"just-before", "at-the-end"} & uuids
