# SPDX-License-Identifier: Apache-2.0
"""Runs for partitions, as the scheduler and ``airflow backfill create`` make them: their windows and their events."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from tests.system.examples.conftest import MARKS, World
from tests.system.examples.test_examples import file_of, rows_of, wait_for
from tests.tables import difference

pytestmark = MARKS

BERLIN = ZoneInfo("Europe/Berlin")
DAG = "partitions"


def event_of(world: World, run_id: str) -> dict[str, Any]:
    """The one asset event of a run."""
    path = f"/api/v2/assets/events?source_dag_id={DAG}&limit=100"
    (event,) = (
        event for event in world.airflow.request("GET", path)["asset_events"] if event["source_run_id"] == run_id
    )
    return dict(event)


def check(world: World, run: dict[str, Any], day: datetime) -> None:
    """The run has exported the day of Berlin, and its event says whose partition that is."""
    start, end = (
        datetime.combine(date, time(), BERLIN).astimezone(UTC) for date in (day.date(), day.date() + timedelta(days=1))
    )
    event = event_of(world, run["dag_run_id"])
    told = event["extra"]
    assert run["data_interval_start"] is None
    assert event["partition_key"] == run["partition_key"] == f"{day:%Y-%m-%d}T00:00:00"
    assert (told["interval_start"], told["interval_end"]) == (start.isoformat(), end.isoformat())
    assert difference(rows_of(file_of(told["uri"])), world.chartmogul.expected_rows(start, end)) == []


def test_the_partition_that_is_due(world: World) -> None:
    run = world.scheduled_run(DAG)
    check(world, run, datetime.fromisoformat(run["partition_key"]))


def test_a_backfill_of_partitions_over_the_change_of_clocks(world: World) -> None:
    world.unpause(DAG)
    # Days of 24, 23 and 24 hours.
    days = [datetime(2026, 3, day) for day in (28, 29, 30)]
    world.airflow.cli(
        *("backfill", "create", "--dag-id", DAG),
        *("--from-date", f"{days[0]:%Y-%m-%d}", "--to-date", f"{days[-1]:%Y-%m-%d}"),
    )
    runs = wait_for(
        "three runs",
        lambda: {run["partition_key"][:10]: run for run in world.airflow.runs(DAG) if run["run_type"] == "backfill"},
    )
    assert sorted(runs) == [f"{day:%Y-%m-%d}" for day in days]
    for day in days:
        check(world, world.success(DAG, runs[f"{day:%Y-%m-%d}"]["dag_run_id"]), day)
