# SPDX-License-Identifier: Apache-2.0
"""
Tests the windows and asset events of partitioned runs, created by the scheduler and ``airflow backfill create``.

And the partition keys that ``emit_partitions`` gives to the events of a run that has none itself.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from tests.system.examples.conftest import MARKS, World
from tests.system.examples.test_examples import local_path, read_rows, wait_for
from tests.tables import difference

pytestmark = MARKS

BERLIN = ZoneInfo("Europe/Berlin")
DAG_ID = "partitions"


def asset_event(world: World, run_id: str) -> dict[str, Any]:
    """Return the only asset event of a run."""
    path = f"/api/v2/assets/events?source_dag_id={DAG_ID}&limit=100"
    (event,) = (
        event for event in world.airflow.request("GET", path)["asset_events"] if event["source_run_id"] == run_id
    )
    return dict(event)


def check(world: World, run: dict[str, Any], day: datetime) -> None:
    """Check that the run has exported a day in Berlin's time zone, and that its event has the partition's key."""
    start, end = (
        datetime.combine(date, time(), BERLIN).astimezone(UTC) for date in (day.date(), day.date() + timedelta(days=1))
    )
    event = asset_event(world, run["dag_run_id"])
    metadata = event["extra"]
    assert run["data_interval_start"] is None
    assert event["partition_key"] == run["partition_key"] == f"{day:%Y-%m-%d}T00:00:00"
    assert (metadata["interval_start"], metadata["interval_end"]) == (start.isoformat(), end.isoformat())
    assert difference(read_rows(local_path(metadata["uri"])), world.chartmogul.expected_rows(start, end)) == []


def test_scheduled_partition_exports_its_day(world: World) -> None:
    run = world.scheduled_run(DAG_ID)
    check(world, run, datetime.fromisoformat(run["partition_key"]))


def test_backfilled_partitions_follow_the_change_to_summer_time(world: World) -> None:
    world.unpause(DAG_ID)
    # These days have 24, 23 and 24 hours.
    days = [datetime(2026, 3, day) for day in (28, 29, 30)]
    world.airflow.cli(
        *("backfill", "create", "--dag-id", DAG_ID),
        *("--from-date", f"{days[0]:%Y-%m-%d}", "--to-date", f"{days[-1]:%Y-%m-%d}"),
    )
    runs = wait_for(
        "three runs",
        lambda: {run["partition_key"][:10]: run for run in world.airflow.runs(DAG_ID) if run["run_type"] == "backfill"},
    )
    assert sorted(runs) == [f"{day:%Y-%m-%d}" for day in days]
    for day in days:
        check(world, world.wait_for_success(DAG_ID, runs[f"{day:%Y-%m-%d}"]["dag_run_id"]), day)


def test_emitted_partition_starts_the_partitioned_dag(world: World) -> None:
    """And the events without a key start the other DAG."""
    world.unpause("emitted_days", "emitted_objects")
    run = world.scheduled_run("emitted_partitions")
    assert run["partition_key"] is None
    day = datetime.fromisoformat(run["data_interval_start"]).astimezone(BERLIN)
    events = {event["source_task_id"]: event for event in world.asset_events("emitted_partitions", run["dag_run_id"])}
    assert {task_id: event["partition_key"] for task_id, event in events.items()} == {
        "with_key": f"{day:%Y-%m-%d}T00:00:00",
        "without_key": None,
    }
    assert datetime.fromisoformat(events["with_key"]["extra"]["interval_start"]) == day

    (of_day,), (of_object,) = (
        wait_for(f"a run of {dag_id}", lambda dag_id=dag_id: world.airflow.runs(dag_id))
        for dag_id in ("emitted_days", "emitted_objects")
    )
    assert of_day["partition_key"] == f"{day:%Y-%m-%d}"
    assert of_object["partition_key"] is None
    world.wait_for_success("emitted_days", of_day["dag_run_id"])
    world.wait_for_success("emitted_objects", of_object["dag_run_id"])
