# SPDX-License-Identifier: Apache-2.0
"""
Tests ``airflow backfill create`` over 31 days (ten in the short form) of the daily examples that load into tables.

The backfill runs once, again, and a third time after activities have changed. After each, the tables are compared with
the sandbox's expected rows for the loaded range: from the start of the first window, which is a lookback before the
first day, to the end of the last day. Four runs are active at once, their windows overlap, and DuckDB allows a single
writer. At the end, objects of the first and the third backfill are loaded into new tables in random order.
"""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_chartmogul.sandbox import Sandbox
from dev.real_airflow import FINISHED_RUN_STATES
from tests.system.examples.conftest import MARKS, RUN_SECONDS, World
from tests.system.examples.test_examples import wait_for
from tests.system.forms import FORM
from tests.tables import difference, within

pytestmark = MARKS

DAYS = {"long": 31, "short": 10}[FORM]
FIRST = datetime(2026, 1, 10, tzinfo=UTC)
LAST = FIRST + timedelta(days=DAYS - 1)
START, END = FIRST - timedelta(days=7), LAST + timedelta(days=1)
ROWS = {"example_duckdb": World.duckdb_rows, "example_postgres": World.postgres_rows}
TABLE = "chartmogul_activities"


def backfill_runs(world: World, dag_id: str) -> list[dict[str, Any]]:
    return [run for run in world.airflow.runs(dag_id) if run["run_type"] == "backfill"]


def backfill_objects(world: World, dag_id: str) -> list[dict[str, Any]]:
    """Return the metadata of the object of each run of a backfill."""
    return [world.airflow.xcom(dag_id, run["dag_run_id"], "export", "object") for run in backfill_runs(world, dag_id)]


def copied(metadata: dict[str, Any]) -> dict[str, Any]:
    """Copy an object, and return the copy's metadata."""
    path = Path(metadata["uri"].removeprefix("file://"))
    copy = path.with_name(f"outdated_{path.name}")
    shutil.copy(path, copy)
    return {**metadata, "uri": f"file://{copy}", "key": str(copy)}


def change_history(sandbox: Sandbox) -> int:
    """
    Change activities in and around the range, and return the number of differences in the range.

    On every day, an activity is removed, one is edited, one is moved to another day, and a backdated one is added.
    Activities are also added at both ends of the range and just outside of them.
    """
    before = sandbox.expected_rows(START, END)
    by_day: dict[str, list[dict[str, str]]] = {}
    for row in sandbox.expected_rows(START - timedelta(days=3), END + timedelta(days=3)):
        by_day.setdefault(row["date"][:10], []).append(row)
    random_source = random.Random(31)
    days = sorted(by_day)
    removed, added = [], []
    for day, rows in by_day.items():
        deleted, edited, moved, template = (random_source.choice(rows) for _ in range(4))
        removed += [deleted["uuid"], edited["uuid"], moved["uuid"]]
        if edited["uuid"] != deleted["uuid"]:
            added.append({**edited, "description": f"edited, 'as they say' on {day}", "activity_mrr": "1"})
        if moved["uuid"] not in (deleted["uuid"], edited["uuid"]):
            added.append({**moved, "date": f"{random_source.choice(days)}T12:34:56+00:00"})
        added.append({**template, "uuid": f"backdated-{day}", "date": f"{day}T00:00:00+00:00"})
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
def print_line(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Return a function that prints even if pytest captures output."""

    def print_uncaptured(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", end="")

    return print_uncaptured


def has_no_active_backfill(world: World, dag_id: str) -> bool:
    backfills = world.airflow.request("GET", f"/api/v2/backfills?dag_id={dag_id}")["backfills"]
    return all(backfill["completed_at"] for backfill in backfills)


def backfill(world: World, dag_ids: list[str], *arguments: str) -> None:
    """Run ``airflow backfill create`` over the range for each DAG, and wait until all runs have succeeded."""
    for dag_id in dag_ids:
        # Airflow refuses a DAG's next backfill until it has noticed that the last one is complete.
        wait_for(f"the last backfill of {dag_id}", lambda dag_id=dag_id: has_no_active_backfill(world, dag_id))
        world.airflow.cli(
            *("backfill", "create", "--dag-id", dag_id, "--from-date", f"{FIRST:%Y-%m-%d}"),
            *("--to-date", f"{LAST:%Y-%m-%d}", "--max-active-runs", "4", *arguments),
        )
    deadline = time.monotonic() + 2 * RUN_SECONDS
    while True:
        # The scheduled run must have finished too, since the DuckDB file cannot be read while it loads.
        if {run["state"] for dag_id in dag_ids for run in world.airflow.runs(dag_id)} <= FINISHED_RUN_STATES:
            break
        assert time.monotonic() < deadline, "the backfill has not finished"
        time.sleep(1)
    states = Counter(run["state"] for dag_id in dag_ids for run in backfill_runs(world, dag_id))
    assert states == {"success": DAYS * len(dag_ids)}


def test_repeated_backfills_match_the_expected_rows(world: World, print_line: Callable[[str], None]) -> None:
    sandbox, dag_ids = world.chartmogul, list(ROWS)
    world.unpause(*dag_ids)

    def compare(title: str, started: float, table: str, remark: str) -> None:
        seconds = time.monotonic() - started
        expected_rows = sandbox.expected_rows(START, END)
        assert expected_rows[0]["date"] < f"{START + timedelta(days=1):%Y-%m-%d}"
        differences = {}
        for dag_id, read in ROWS.items():
            rows = within(read(world, table), START, END)
            differences[dag_id] = difference(rows, expected_rows)
            name = dag_id.removeprefix("example_")
            counts = f"{len(rows)} rows, {len(expected_rows)} expected, {len(differences[dag_id])} different"
            print_line(f"{title}: {name} {counts}")
        print_line(f"{title}: {remark}, {seconds:.0f} s")
        assert differences == {dag_id: [] for dag_id in dag_ids}

    def check(title: str, started: float, exports_before: int, *changes: str) -> None:
        new_exports = len(sandbox.exports) - exports_before
        compare(title, started, TABLE, f"{new_exports} exports{''.join(changes)}")
        # Every window has been exported again.
        assert new_exports >= DAYS * len(dag_ids)

    started, exports = time.monotonic(), len(sandbox.exports)
    backfill(world, dag_ids)
    days = {run["data_interval_start"][:10] for run in backfill_runs(world, dag_ids[0])}
    assert days == {f"{FIRST + timedelta(days=number):%Y-%m-%d}" for number in range(DAYS)}
    check("backfill", started, exports)
    # The next backfill overwrites the objects.
    objects = {dag_id: [copied(metadata) for metadata in backfill_objects(world, dag_id)] for dag_id in dag_ids}

    started, exports = time.monotonic(), len(sandbox.exports)
    backfill(world, dag_ids, "--reprocess-behavior", "completed")
    check("reprocessed", started, exports)

    changed = change_history(sandbox)
    assert changed > 2 * DAYS
    started, exports = time.monotonic(), len(sandbox.exports)
    backfill(world, dag_ids, "--reprocess-behavior", "completed")
    check("reprocessed after changes", started, exports, f", {changed} expected rows had changed")
    uuids = {row["uuid"] for row in sandbox.expected_rows(START, END)}
    assert {"at-the-start", "just-inside"} <= uuids
    assert not {"just-before", "at-the-end"} & uuids

    random_source = random.Random(31)
    for dag_id in dag_ids:
        # Half of the outdated objects, among all of the current ones.
        objects[dag_id] = random_source.sample(objects[dag_id], DAYS // 2) + backfill_objects(world, dag_id)
        random_source.shuffle(objects[dag_id])
    world.unpause("late_loads")
    started = time.monotonic()
    run_id = world.airflow.trigger("late_loads", conf=objects)
    world.wait_for_success("late_loads", run_id)
    compare("random order", started, "activities_in_random_order", f"{sum(map(len, objects.values()))} loads")
    results = [
        result
        for task_id in ("load_duckdb", "load_postgres")
        for index in range(len(objects[dag_ids[0]]))
        for result in world.airflow.xcom("late_loads", run_id, task_id, map_index=index).values()
    ]
    assert any(result["superseded"] for result in results), "no object was loaded after a newer one"
